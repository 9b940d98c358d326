"""The machine as one site sees it: its paths, its user, and the programs that commands run."""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

SERVICES = ("pages", "uploads")
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # that interrupt a command
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
        self.locks = ()  # descriptors
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
        """Wait until no other command changes the site, and keep others out.

        Programs share the lock of the command that starts them: if it is killed, they go on.
        """
        if not self.home.is_dir():
            raise Failure(f"{self.site} is not installed here: {self.home} is missing.")
        with (self.home / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell("Waiting until another command has ended.")
                fcntl.flock(file, fcntl.LOCK_EX)
            self.locks = (file.fileno(),)
            yield

    @property
    def is_machine(self):
        """Whether this is the machine itself, not a folder that stands for it in a test."""
        return self.root == Path("/")

    def get_data(self, variables):
        return Path(variables.get("GOURMIOUS_DATA_DIR") or self.data)

    def get_run(self, variables):
        return variables.get("GOURMIOUS_RUN_DIR") or f"/run/{self.site}"

    def run(self, *command, **options):
        """Run a program as root, and return what it prints; raise Failure if it fails."""
        # PYTHONPATH is meant for this process alone. cron's PATH lacks the folder of nginx.
        environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        environment["PATH"] = f"{os.environ.get('PATH', PATH)}:{PATH}"
        return run(command, env=environment, pass_fds=self.locks, **options)

    def run_as_site(self, *command, variables, **options):
        """Run a program as the site's user, and return what it prints."""
        return run(command, **self.as_site(variables), **options)

    def as_site(self, variables):
        """Return the options of a process that runs as the site's user, with these variables."""
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **variables}
        options = {"env": environment, "umask": SITE_UMASK, "pass_fds": self.locks}
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
        """Return the units of pages and uploads that run, start or end, with their states."""
        options = ("--plain", "--no-legend", "--state=active,activating,deactivating")
        lines = self.systemctl("list-units", *options, *self.instance_patterns)
        rows = [line.split() for line in lines.splitlines()]
        return {row[0]: row[2] for row in rows}


def tell(text):
    """Print a line. A terminal that is gone, or a pipe that is closed, stops no command."""
    with suppress(OSError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode())


def run(command, script=None, **options):
    """Run a program, and return what it prints. It may read a script from its standard input."""
    command = [str(word) for word in command]
    options = {"stdout": subprocess.PIPE, "text": True, **options}
    if script is not None:
        options["stdin"] = subprocess.PIPE
    with ExitStack() as programs:
        try:
            with signals_held_back():
                process = programs.enter_context(subprocess.Popen(command, **options))  # noqa: S603
                programs.callback(process.kill)
        except OSError as error:
            raise Failure(f"{command[0]} cannot be run: {error.strerror}.") from error
        output, _ = process.communicate(script)
    if process.returncode:
        raise Failure(f"This command failed: {shlex.join(command)}")
    return output


@contextmanager
def signals_held_back():
    """Let signals wait until the block ends.

    If a handler raises an exception meanwhile, Popen (Python 3.11) forgets the program that it has
    started, and the program goes on while the command is undone.
    """
    came = []
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    own = [number for number, handler in handlers.items() if callable(handler)]
    for number in own:
        signal.signal(number, lambda *args: came.append(args))
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, handlers[number])
    for number, frame in came:
        handlers[number](number, frame)


def read_variables(path):
    """Return the variables of an environment file; raise Failure for any other line."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is not a text in UTF-8.") from error
    variables = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and line.strip()[0] not in "#;":
            name, value = read_variable(line, f"{path}, line {number}")
            variables[name] = value
    return variables


def read_variable(line, place):
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise Failure(f"{place}: a quotation mark is missing, or what follows a \\.") from error
    name, separator, value = words[0].partition("=")
    if len(words) > 1 or not separator or not (name.isidentifier() and name.isascii()):
        raise Failure(f"{place}: write NAME=value, with quotation marks around blanks.")
    if not value.isprintable():
        raise Failure(f"{place}: a value must not hold control characters.")
    return name, value


def has_all_data(variables):
    """Return whether the rows and the photos are on this machine, where `backup` finds them."""
    return not any(map(variables.get, ("GOURMIOUS_DATABASE_URL", "GOURMIOUS_S3_ENDPOINT")))


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
