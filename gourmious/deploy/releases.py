"""Releases: each is a folder with the files of one commit, and a virtual environment of its own.

A release never changes once it is built.
"""

import shutil
import sys
import time

from .host import Failure, tell

COMMIT_LENGTH = 10


def find_commit(host, revision):
    """Fetch new commits, and return that of a revision; raise Failure if there is none."""
    git = ("git", "--git-dir", host.repository)
    host.run(*git, "fetch", "--quiet", "--prune", "origin")
    try:
        verify = ("rev-parse", "--quiet", "--verify", "--end-of-options")
        return host.run(*git, *verify, f"{revision}^{{commit}}").strip()
    except Failure as error:
        raise Failure(f"The repository has no revision {revision}.") from error


def build(host, commit):
    """Build a release, and return its folder; if that fails, remove it."""
    date = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    release = host.releases / f"{date}-{commit[:COMMIT_LENGTH]}"
    tell(f"Building {release}.")
    release.mkdir(parents=True)
    try:
        unpack(host, commit, release)
        make_environment(host, release)
    except BaseException:
        shutil.rmtree(release)
        raise
    return release


def unpack(host, commit, release):
    archive = release / ".tar"
    host.run("git", "--git-dir", host.repository, "archive", f"--output={archive}", commit)
    host.run("tar", "--extract", "--file", archive, cwd=release)
    archive.unlink()


def make_environment(host, release):
    """Make a virtual environment with exactly the packages of requirements.lock."""
    host.run(sys.executable, "-m", "venv", "--without-pip", release / ".venv")
    python = get_python(release)
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--no-input"]
    lock = ["--require-hashes", "--only-binary=:all:", "--requirement", "requirements.lock"]
    host.run(*pip, "install", *lock, cwd=release)
    # The site's user cannot write what Python compiles.
    host.run(python, "-m", "compileall", "-q", "gourmious", "uploads", cwd=release)


def is_built_from(release, commit):
    """Return whether a release is that of a commit, and its virtual environment is whole."""
    is_same = release.resolve().name.endswith(commit[:COMMIT_LENGTH])
    return is_same and is_for_this_python(release)


def get_python(release):
    return release / ".venv/bin/python"


def validate_environment(release):
    """Raise Failure if the virtual environment is broken, as it is after an upgrade of Python."""
    if not is_for_this_python(release):
        raise Failure(
            f"The packages of {release.resolve().name} are for another Python than that of this "
            "machine. Upgrade, and they are installed again."
        )


def is_for_this_python(release):
    version = "python{}.{}".format(*sys.version_info)
    return (release / ".venv/lib" / version / "site-packages").is_dir()
