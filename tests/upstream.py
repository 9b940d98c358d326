"""A repository that a site is installed and upgraded from, with releases that fail in many ways."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from .servers import ROOT

PACKAGE = "gourmious_packages"
MIGRATION = """
from django.db import migrations

def run(apps, schema_editor):
    {step}

class Migration(migrations.Migration):
    dependencies = [("uploads", {last!r})]
    operations = [migrations.RunPython(run)]
"""
FAIL = 'raise ValueError("This migration fails.")'
PRINT = 'print("This migration prints.")'
WAIT = """from pathlib import Path
    from time import sleep
    Path("{path}").touch()
    while Path("{path}").exists():
        sleep(0.05)"""


def hash_of(content):
    return hashlib.sha256(content).digest()


def make_wheel(folder):
    """Make the only package of a release: it leads to all packages of the tests' own Python."""
    packages = "\n".join(path for path in sys.path if path.endswith("-packages"))
    information = f"{PACKAGE}-1.dist-info"
    files = {
        f"{PACKAGE}.pth": packages,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{record_hash(text)},{len(text)}\n" for name, text in files.items())
    wheel = folder / f"{PACKAGE}-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


def record_hash(text):
    digest = base64.urlsafe_b64encode(hash_of(text.encode())).decode().rstrip("=")
    return f"sha256={digest}"


class Upstream:
    """A repository whose first commit is this working tree; pip finds its packages offline."""

    def __init__(self, folder):
        self.path, self.wheels = Path(folder, "upstream"), Path(folder, "wheels")
        self.wheels.mkdir()
        wheel = make_wheel(self.wheels)
        self.path.mkdir()
        self._copy_tree()
        self.git("init", "--quiet", "--initial-branch=main")
        digest = hash_of(wheel.read_bytes()).hex()
        self.first = self.write("requirements.lock", f"{PACKAGE}==1 --hash=sha256:{digest}\n")

    def _copy_tree(self):
        listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in self.git(*listed, folder=ROOT).split("\0"):
            if name and (ROOT / name).is_file():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.path / name)

    @property
    def environment(self):
        """The variables with which pip installs the packages without a network."""
        return {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_NO_INDEX": "1",
        }

    def git(self, *arguments, folder=None):
        identity = ("-c", "user.name=Tests", "-c", "user.email=tests@gourmious.example")
        command = ["git", "-C", str(folder or self.path), *identity, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def revision(self):
        return self.git("rev-parse", "HEAD").strip()

    def write(self, path, text):
        """Commit a file with this text, and return the commit's id."""
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--no-verify", f"--message=Change {path}")
        return self.revision()

    def replace(self, path, old, new):
        """Commit a file with another text in one place, and return the commit's id."""
        text = (self.path / path).read_text()
        assert text.count(old) == 1, f"{path} has {text.count(old)} times {old}"
        return self.write(path, text.replace(old, new))

    def restore(self):
        """Commit the tree of the first release again."""
        self.git("read-tree", "-u", "--reset", self.first)
        self.git("commit", "--quiet", "--allow-empty", "--message=Restore the first release")

    def change_title(self, title):
        text = (self.path / "templates/base.html").read_text()
        start, _, rest = text.partition("{% endblock title %}")
        _, end, rest = rest.partition("</title>")
        return self.write("templates/base.html", f"{start}{{% endblock title %}}{title}{end}{rest}")

    def break_views(self):
        """Let the list of dishes raise an exception."""
        old = "def dish_list(request):\n"
        return self.replace("uploads/views.py", old, f"{old}    raise RuntimeError\n")

    def break_wsgi(self):
        """Let the import of the app raise an exception."""
        return self.write("gourmious/wsgi.py", "raise RuntimeError\n")

    def break_start(self):
        """Let each worker fail at its start."""
        old = "    sys.setswitchinterval("
        return self.replace("gourmious/serve/__init__.py", old, f"    raise RuntimeError\n{old}")

    def break_migration(self):
        return self._add_migration(FAIL)

    def print_in_migration(self):
        return self._add_migration(PRINT, "9998_printing")

    def slow_migration(self):
        """Add a migration that makes a file and waits until it is gone; return the path."""
        path = self.path.with_name("migrating")
        self._add_migration(WAIT.format(path=path))
        return path

    def _add_migration(self, step, name="9999_last"):
        [*_, last] = sorted((self.path / "uploads/migrations").glob("[0-9]*.py"))
        text = MIGRATION.format(last=last.stem, step=step)
        return self.write(f"uploads/migrations/{name}.py", text)

    def add_static_file(self):
        """Let all pages link to a new style sheet."""
        name = "uploads/new.css"
        (self.path / "static" / name).write_text("/* A new style sheet */\n")
        link = f"""<link rel="stylesheet" href="{{% static '{name}' %}}">\n"""
        return self.replace("templates/base.html", "</head>", f"{link}</head>")

    def lose_wheel(self):
        """Require a package that does not exist."""
        return self.replace("requirements.lock", f"{PACKAGE}==1 ", f"{PACKAGE}==2 ")
