"""The machine as one site sees it: its paths, its user, and the programs that commands run."""

import fcntl
import os
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

SERVICES = ("pages", "uploads")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The site's user can read what the command writes. Only root can change it.
UMASK = 0o022
# Files of the app are read by nginx, which is in the site's group.
SITE_UMASK = 0o027


class Failure(Exception):
    """A failure, in sentences for an operator."""


class Host:
    """A machine, or a folder that stands for one, and the site on it."""

    def __init__(self, site, root=Path("/")):
        self.site, self.root = site, root
        self.settings = root / f"etc/{site}.env"
        self.data = root / f"var/lib/{site}"
        self.command = root / f"usr/local/sbin/{site}"
        self.home = root / f"srv/{site}"
        self.repository = self.home / "repository"
        self.releases = self.home / "releases"
        self.deployments = self.home / "deployments"
        self.current = self.home / "current"
        self.unfinished = self.home / ".unfinished"  # while a command changes what runs

    @contextmanager
    def lock(self):
        """Wait until no other command changes the site, and keep others out."""
        if not self.home.is_dir():
            raise Failure(f"{self.site} is not installed here: {self.home} is missing.")
        with (self.home / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def is_machine(self):
        """Whether this is the machine itself, not a folder that stands for it in a test."""
        return self.root == Path("/")

    def get_data(self, variables):
        return Path(variables.get("GOURMIOUS_DATA_DIR") or self.data)

    def run(self, *command, **options):
        """Run a program as root, and return what it prints; raise Failure if it fails."""
        # PYTHONPATH is meant for this process alone.
        environment = {**os.environ}
        environment.pop("PYTHONPATH", None)
        return run(command, env=environment, **options)

    def run_as_site(self, *command, variables, **options):
        """Run a program as the site's user, and return what it prints."""
        return run(command, **self.as_site(variables), **options)

    def as_site(self, variables):
        """Return the options of a process that runs as the site's user, with these variables."""
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **variables}
        options = {"env": environment, "umask": SITE_UMASK}
        if self.is_machine:
            options |= {"user": self.site, "group": self.site, "extra_groups": []}
        return options

    def give_to_site(self, path, *, user=True):
        """Make the site's user the owner of a path, or let its group alone have it."""
        if self.is_machine:
            shutil.chown(path, self.site if user else "root", self.site)

    def systemctl(self, *arguments):
        return self.run("systemctl", *arguments)

    @property
    def instance_patterns(self):
        """The patterns of the units of pages and uploads, of all deployments."""
        return [f"{self.site}-{service}@*.service" for service in SERVICES]

    def list_instances(self):
        """Return the units of pages and uploads that run, start or end."""
        options = ("--plain", "--no-legend", "--state=active,activating,deactivating")
        lines = self.systemctl("list-units", *options, *self.instance_patterns)
        return [line.split()[0] for line in lines.splitlines()]


def run(command, **options):
    command = [str(word) for word in command]
    options = {"stdout": subprocess.PIPE, **options}
    try:
        return subprocess.run(command, check=True, text=True, **options).stdout  # noqa: S603
    except OSError as error:
        raise Failure(f"{command[0]} cannot be run: {error.strerror}.") from error
    except subprocess.CalledProcessError as error:
        raise Failure(f"This command failed: {shlex.join(command)}") from error


def read_variables(path):
    """Return the variables of an environment file; raise Failure for any other line."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.") from error
    variables = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and line.strip()[0] not in "#;":
            name, value = read_variable(line, f"{path}, line {number}")
            variables[name] = value
    return variables


def read_variable(line, place):
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise Failure(f"{place}: a quotation mark is missing.") from error
    name, separator, value = words[0].partition("=")
    if len(words) > 1 or not separator or not name.isidentifier():
        raise Failure(f"{place}: write NAME=value, with quotation marks around blanks.")
    return name, value


def format_variables(variables):
    """Return the text of an environment file. Shells and systemd read it alike."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def replace(path, text, mode=0o644):
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def link(path, target):
    """Let a symbolic link lead to a target, in one step."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
