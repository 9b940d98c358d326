"""A machine below a folder, on which the host's command installs a site. All programs are real, but
tests.supervisor stands for systemd.
"""

import os
import secrets
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from gourmious.deploy.host import Host, format_variables, read_variables

from .client import Upload, add_dish, get
from .processes import forks
from .servers import ADDRESS, Program, free_port
from .stack import make_certificate
from .supervisor import Supervisor
from .upstream import Upstream


class Machine(ExitStack):
    """A new machine, while the block runs. All times of its units are multiplied by `scale`."""

    def __init__(self, site="gourmious", scale=0.2):
        super().__init__()
        self.site, self.scale = site, scale

    def __enter__(self):
        super().__enter__()
        with ExitStack() as stack:
            # A short name: paths of sockets have a limit.
            self.root = Path(stack.enter_context(TemporaryDirectory(prefix="m-")))
            for path in ("etc/nginx/sites-enabled", "etc/systemd/system"):
                (self.root / path).mkdir(parents=True)
            self.host = Host(self.site, self.root)
            folder = stack.enter_context(TemporaryDirectory(prefix="gourmious-"))
            self.upstream = Upstream(folder)
            self.supervisor = stack.enter_context(Supervisor(self.root, self.scale))
            self.push(stack.pop_all())
        return self

    def install(self, *options):
        """Install the site from the upstream repository, and return what the command prints."""
        done = self.try_to_install(*options)
        assert done.returncode == 0, done.stderr
        self._fit_command()
        return done.stdout

    def try_to_install(self, *options):
        """Run the installation, and return the completed process."""
        if not self.host.settings.exists():
            self.host.settings.write_text(format_variables(self._choose_settings()))
        root = ("--root", str(self.root))
        command = (sys.executable, "-BP", "-m", "gourmious.deploy", *root, "install")
        variables = {"PYTHONPATH": str(self.upstream.path), **self.upstream.environment}
        options = ("--site", self.site, *options)
        return self.supervisor.run(*command, ADDRESS, *options, **variables)

    def _fit_command(self):
        """Let the installed command run with the Python of the tests, on this machine's files."""
        text = self.host.command.read_text()
        for old, new in (
            ("/usr/bin/python3", shlex.quote(sys.executable)),
            ('"$@"', f'--root {self.root} "$@"'),
        ):
            assert text.count(old) == 1, text
            text = text.replace(old, new)
        self.host.command.write_text(text)

    def _choose_settings(self):
        return {
            "GOURMIOUS_SITE": self.site,
            "GOURMIOUS_SECRET_KEY": secrets.token_urlsafe(48),
            "GOURMIOUS_ALLOWED_HOSTS": ADDRESS,
            "GOURMIOUS_MEMCACHED": self.supervisor.memcached.address,
            "GOURMIOUS_DATA_DIR": str(self.host.data),
            "GOURMIOUS_RUN_DIR": f"/run/{self.site}",
            "GOURMIOUS_METRICS_PORT": str(free_port()),
            "GOURMIOUS_WORKERS": "1",
            # All clients of a test come from one address.
            "GOURMIOUS_UPLOADS_PER_MINUTE": "999999",
            "GOURMIOUS_POSTS_PER_MINUTE": "999999",
            **make_certificate(self.root / "etc"),
        }

    def run(self, *arguments, **variables):
        """Run the installed command, and return the completed process."""
        variables = {**self.upstream.environment, **variables}
        return self.supervisor.run(str(self.host.command), *arguments, **variables)

    def begin(self, *arguments):
        """Return the installed command as a program that runs while a block runs."""
        environment = {**self.supervisor.environment, **self.upstream.environment}
        options = {"env": environment, "stdout": subprocess.PIPE, "text": True}
        return Program([str(self.host.command), *arguments], **options)

    def edit_settings(self, **variables):
        """Set variables in the file that the operator edits."""
        settings = read_variables(self.host.settings) | variables
        self.host.settings.write_text(format_variables(settings))

    @property
    def site_file(self):
        return self.root / "etc/nginx/sites-enabled" / self.site

    def read_site(self):
        return self.site_file.read_text()

    def instances(self):
        """Return the units of pages and uploads that run, with their process ids."""
        units = self.supervisor.find_units(self.host.instance_patterns)
        ended = ("failed", "inactive")
        return {(unit.name, unit.main_pid) for unit in units if unit.active not in ended}

    def describe(self):
        """Return everything that a command may change: folders, files, and what runs."""
        home, current = self.host.home, self.host.current
        installed = [path for path in (self.root / "etc").rglob("*") if path.is_file()]
        return {
            "current": current.readlink() if current.is_symlink() else None,
            "folders": sorted(home.glob("releases/*")) + sorted(home.glob("deployments/*")),
            "files": {path: path.read_text() for path in installed if path != self.host.settings},
            "enabled": {*self.supervisor.enabled},
            "instances": self.instances(),
        }

    def kill_workers(self):
        for _, pid in self.instances():
            for worker in forks(pid):
                with suppress(ProcessLookupError):
                    os.kill(int(worker), signal.SIGKILL)

    def add_dish(self):
        run = self.host.get_run(read_variables(self.host.settings))
        address = f"unix:{self.root}{run}/pages/socket"
        return add_dish(address, name=secrets.token_hex(4))  # no two dishes have the same name

    def upload(self, dish, content):
        return Upload(self.supervisor.https, dish, content, secure=True)

    def get(self, path, **options):
        return get(self.supervisor.https, path, secure=True, **options)
