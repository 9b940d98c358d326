"""The servers that are compared, each with its folders and behind the same nginx site.

All servers have two processes. Eight clients send photos, one after the other on a persistent
connection.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.servers import (
    ADDRESS,
    ROOT,
    Granian,
    Memcached,
    Nginx,
    ServerWithWorkers,
    free_port,
    manage,
)
from tests.stack import print_nginx

from . import load
from .load import OWN_LENGTH, body_end, body_start

FORM_LENGTH = len(body_start(b"") + body_end()) - OWN_LENGTH
BUSBOY = "busboy@~1.6.0"


class Missing(Exception):
    """A program or package that a variant needs is not installed."""


class Photo(NamedTuple):
    """The bytes that all uploads of a photo share, and a file with a body up to their end."""

    content: bytes
    body: Path


class Bench(ExitStack):
    """A folder and a memcached, while the block runs."""

    def __enter__(self):
        super().__enter__()
        self.folder = Path(self.enter_context(TemporaryDirectory(prefix="gourmious-")))
        self.memcached = self.enter_context(Memcached())
        return self

    def add_photo(self, content):
        body = self.folder / secrets.token_hex(4)
        body.write_bytes(body_start(content))
        return Photo(content, body)

    def start_sides(self, variants):
        """Start the server of each variant that is installed, and return the sides."""
        sides = []
        for variant in variants:
            try:
                sides.append(variant.start_side(self))
            except Missing as error:
                print(f"Without {variant.name}: {error} is not installed.\n")
        return sides


class Variant(NamedTuple):
    name: str
    start: Callable  # takes the side, and returns its server
    modules: tuple = ()  # that it needs
    target: float | None = None  # how many times as fast the first should be
    stores_body: bool = False  # the form and all

    def start_side(self, bench):
        for name in self.modules:
            if not find_spec(name):
                raise Missing(name)
        return Side(bench, self)


class Side:
    """The server of a variant with its folders, and nginx before it as deployconf sets it up."""

    def __init__(self, bench, variant):
        self.variant = variant
        self.folder = bench.folder / secrets.token_hex(4)
        self.originals, self.media = self.folder / "originals", self.folder / "media"
        for folder in (self.originals, self.media):
            folder.mkdir(parents=True)
        self.environment = {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
            "GOURMIOUS_SECRET_KEY": secrets.token_urlsafe(48),
            "GOURMIOUS_ALLOWED_HOSTS": ADDRESS,
            "GOURMIOUS_MEMCACHED": bench.memcached.address,
            "GOURMIOUS_DATA_DIR": str(self.folder),
            "GOURMIOUS_RUN_DIR": str(self.folder / "run"),
            "GOURMIOUS_WORKERS": "2",
            "GOURMIOUS_MAX_MB_PER_DAY": "999999",
            "GOURMIOUS_UPLOADS_PER_MINUTE": "999999",
            # For the peers.
            "MEMCACHED": bench.memcached.address,
            "STORE": str(self.originals),
            "MEDIA": str(self.media),
        }
        self.server = bench.enter_context(variant.start(self))
        self.port = free_port()
        self.main, self.site = self._print_nginx()

    def _print_nginx(self):
        """Return nginx's files. The site sends uploads to the server, be it ours or a peer."""
        main, site = print_nginx(self.port, self.environment)
        ours = f'"unix:{self.folder}/run/uploads/socket"'
        assert ours in site
        return main, site.replace(ours, self.server.address)

    @contextmanager
    def nginx(self):
        """Start another nginx, which deals its connections out to the processes of the server."""
        with (
            TemporaryDirectory(prefix="gourmious-") as folder,
            Nginx(folder, self.port, self.main, self.site) as nginx,
        ):
            yield nginx

    def upload(self, photo, seconds):
        """Upload a photo again and again; return how many were stored, and how many in a second."""
        with self.nginx() as nginx:
            count, rate = load.result(load.start(load.uploads, nginx.address, photo.body, seconds))
        self.check_originals(photo, count)
        return count, rate

    def check_originals(self, photo, count):
        """Assert that this many photos are stored, each of them whole."""
        files = list(self.originals.iterdir())
        length = len(photo.content) + OWN_LENGTH + FORM_LENGTH * self.variant.stores_body
        assert len(files) == count, f"{len(files)} of {count} photos are stored."
        assert {file.stat().st_size for file in files} == {length}
        assert photo.content in secrets.choice(files).read_bytes()

    def empty(self):
        """Truncate the stored files, and keep them.

        Deleting them would slow down the next variant: for some seconds ext4 does not use their
        inodes again, and skips each of them whenever a file is made.
        """
        for folder in (self.originals, self.media):
            for file in folder.iterdir():
                os.truncate(file, 0)
            folder.rename(self.folder / secrets.token_hex(4))
            folder.mkdir()


def granian(side, settings="tests.benchmarks.settings"):
    """Return the app's own server of uploads, with an empty database."""
    environment = {**side.environment, "DJANGO_SETTINGS_MODULE": settings}
    manage("migrate", "--skip-checks", **environment)
    return Granian("uploads", **environment)


def command(side, line, **environment):
    """Return the server that a command starts."""
    port = free_port()
    peers = ROOT / "tests" / "benchmarks" / "peers"
    names = {"python": sys.executable, "host": ADDRESS, "port": port, "peers": peers}
    words = [word.format(**names) for word in line.split()]
    environment = {**os.environ, **side.environment, **environment}
    return ServerWithWorkers(port, words, cwd=ROOT, env=environment)


def gunicorn(side, module):
    return command(
        side,
        "{python} -m gunicorn --worker-class gthread --workers 2 --threads 8 --keep-alive 30 "
        f"--log-level warning --bind {{host}}:{{port}} tests.benchmarks.peers.{module}",
    )


def uvicorn(side):
    return command(
        side,
        "{python} -m uvicorn --workers 2 --timeout-keep-alive 30 --log-level warning "
        "--host {host} --port {port} tests.benchmarks.peers.starlette_app:application",
    )


def node(side, script, *packages):
    """Install packages of npm, and return the server of a script."""
    if not shutil.which("npm"):
        raise Missing("npm")
    npm = ["npm", "install", "--silent", "--no-audit", "--prefix", side.folder, *packages]
    if subprocess.run(npm, check=False).returncode:
        raise Missing(" or ".join(packages))
    modules = str(side.folder / "node_modules")
    return command(side, f"node {{peers}}/{script} {{host}} {{port}}", NODE_PATH=modules)


def bare(side):
    return command(side, "{python} -m tests.benchmarks.peers.bare {host} {port}")
