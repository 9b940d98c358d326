"""The locked packages are those that a site may use, and those that they need."""

from importlib import metadata

from django.test import SimpleTestCase
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .servers import ROOT

FILES = ("requirements.txt", "gourmious/deploy/requirements.txt")
PYTHONS = ("3.11", "3.12", "3.13")  # Debian 12 has the first, and Debian 13 the last.


def read_lines(name):
    """Return the requirements in a file as text, without comments and options of pip."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "--"))]


def get_name(requirement):
    return canonicalize_name(requirement.name)


def applies(requirement, python, extra=""):
    """Return whether a requirement holds on Linux with this version of Python, for an extra."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
    return not requirement.marker or requirement.marker.evaluate(environment)


def find_needed(requirements, python):
    """Return the names of these packages, and of all that they need, as their metadata says."""
    names, pending = set(), list(requirements)
    while pending:
        requirement = pending.pop()
        name = get_name(requirement)
        if name not in names:
            names.add(name)
            needed = map(Requirement, metadata.requires(name) or ())
            pending += [one for one in needed if is_needed(one, python, requirement.extras)]
    return names


def is_needed(requirement, python, extras):
    return any(applies(requirement, python, extra) for extra in ("", *extras))


class LockTests(SimpleTestCase):
    def setUp(self):
        self.requirements = [Requirement(line) for name in FILES for line in read_lines(name)]
        self.hashes = {}
        for line in read_lines("requirements.lock"):
            pin, *hashes = line.split(" --hash=")
            self.hashes[Requirement(pin)] = [text.strip() for text in hashes]

    def test_each_requirement_is_locked_at_a_version_that_satisfies_it(self):
        versions = {}
        for pin in self.hashes:
            [version] = pin.specifier
            self.assertEqual(version.operator, "==")
            versions[get_name(pin)] = version.version

        for requirement in self.requirements:
            self.assertIn(versions[get_name(requirement)], requirement.specifier, requirement)

    def test_exactly_the_needed_packages_are_locked_for_each_version_of_python(self):
        for python in PYTHONS:
            locked = {get_name(pin) for pin in self.hashes if applies(pin, python)}
            self.assertEqual(locked, find_needed(self.requirements, python), python)

    def test_each_version_is_locked_with_the_hashes_of_its_files(self):
        for pin, hashes in self.hashes.items():
            self.assertTrue(hashes, pin)
            for text in hashes:
                self.assertRegex(text, r"^sha256:[0-9a-f]{64}$")

    def test_only_built_packages_are_installed_and_the_lock_names_no_index(self):
        text = (ROOT / "requirements.lock").read_text()

        options = [line for line in text.splitlines() if line.startswith("-")]
        self.assertEqual(options, ["--only-binary :all:"])
        self.assertNotIn("://", text)
