"""How fast photos are received: here, in the tutorial, in other frameworks, and at the most.

Eight clients send photos of 4 MB, each one after the other on a connection that is kept, through
the same site of nginx; every photo is stored on the disk. All servers have two processes. They take
turns, and what is compared was measured in the same round.

    pip install -r tests/benchmarks/requirements.txt
    python -m tests.benchmarks.receive

Who is not installed does not take part; Node's busboy needs npm.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.photos import photo
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

from . import load

SIZE = 4_000_000  # bytes of a photo
ROUNDS = 9
SECONDS = 2  # that a measurement takes
BUSBOY = "busboy@~1.6.0"


class Missing(Exception):
    """What a variant needs is not installed."""


class Bench(ExitStack):
    """A folder, a memcached and a body to send, while the block runs."""

    def __enter__(self):
        super().__enter__()
        self.folder = Path(self.enter_context(TemporaryDirectory(prefix="gourmious-")))
        self.memcached = self.enter_context(Memcached())
        self.photo = (photo() + os.urandom(SIZE))[:SIZE]
        self.body = self.folder / "body"
        self.body.write_bytes(load.multipart(self.photo))
        return self

    def upload(self, nginx, seconds=SECONDS):
        """Start the clients that upload."""
        return load.start(load.uploads, nginx.address, self.body, seconds)


class Side:
    """The server of a variant with its folder, and nginx before it as deployconf sets it up."""

    def __init__(self, bench, variant):
        self.folder = bench.folder / secrets.token_hex(4)
        self.store = self.folder / "originals"
        self.store.mkdir(parents=True)
        self.stored = bench.body.read_bytes() if variant.stores_body else bench.photo
        self.environment = {
            "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
            "GOURMIOUS_SECRET_KEY": secrets.token_urlsafe(48),
            "GOURMIOUS_ALLOWED_HOSTS": ADDRESS,
            "GOURMIOUS_MEMCACHED": bench.memcached.address,
            "GOURMIOUS_DATA_DIR": str(self.folder),
            "GOURMIOUS_WORKERS": "2",
            # For the peers.
            "MEMCACHED": bench.memcached.address,
            "STORE": str(self.store),
        }
        self.server = bench.enter_context(variant.start(self))
        self.port = free_port()
        environment = {**self.environment, "GOURMIOUS_LISTEN": self.server.address}
        listen = f"--listen={ADDRESS}:{self.port}"
        self.site = manage("deployconf", "nginx", listen, **environment)

    @contextmanager
    def nginx(self):
        """Start nginx anew, which deals its connections out anew to the processes of the server."""
        with (
            TemporaryDirectory(prefix="gourmious-") as folder,
            Nginx(folder, self.port, self.site) as nginx,
        ):
            yield nginx

    def check_and_empty(self, count):
        """Empty what is stored, which must be so many photos, each of them whole."""
        files = list(self.store.iterdir())
        assert len(files) == count, f"{len(files)} of {count} photos are stored."
        assert {file.stat().st_size for file in files} == {len(self.stored)}
        assert secrets.choice(files).read_bytes() == self.stored
        for file in files:
            os.truncate(file, 0)
        # Deleted, they would cost the next who makes files: for some seconds ext4 does not use
        # their inodes again, and passes over each of them, every time.
        self.store.rename(self.folder / secrets.token_hex(4))
        self.store.mkdir()


def granian(side, settings="tests.benchmarks.settings"):
    return Granian(**{**side.environment, "DJANGO_SETTINGS_MODULE": settings})


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


def node(side):
    """Install busboy, and start its server."""
    if not shutil.which("npm"):
        raise Missing("npm")
    npm = ["npm", "install", "--silent", "--no-audit", "--prefix", side.folder, BUSBOY]
    if subprocess.run(npm, check=False).returncode:
        raise Missing(BUSBOY)
    modules = str(side.folder / "node_modules")
    return command(side, "node {peers}/busboy_server.js {host} {port}", NODE_PATH=modules)


def bare(side):
    return command(side, "{python} -m tests.benchmarks.peers.bare {host} {port}")


class Variant(NamedTuple):
    name: str
    start: Callable
    modules: tuple = ()  # that it needs
    target: float | None = None  # how many times as fast the first is to be
    stores_body: bool = False  # the form and all

    def side(self, bench):
        for name in self.modules:
            if not find_spec(name):
                raise Missing(name)
        return Side(bench, self)


UNCOUNTED = partial(granian, settings="tests.benchmarks.settings_uncounted")
TUTORIAL = partial(gunicorn, module="tutorial")
PLAIN_DJANGO = partial(gunicorn, module="plain_django")
FLASK = partial(gunicorn, module="flask_app")

OURS = Variant("Gourmious", granian)
VARIANTS = [
    OURS,
    Variant("the same, not counted", UNCOUNTED, target=0.97),
    Variant("the tutorial's, on gunicorn", TUTORIAL, ("gunicorn",), 4),
    Variant("plain Django, on gunicorn", PLAIN_DJANGO, ("gunicorn",), 1.2),
    Variant("Starlette, on uvicorn", uvicorn, ("starlette", "python_multipart", "uvicorn"), 1.2),
    Variant("Flask, on gunicorn", FLASK, ("flask", "gunicorn"), 1.2),
    Variant("busboy, on Node", node, target=1.2),
    Variant("a bare loop in Python", bare, target=0.5, stores_body=True),
]


def start_sides(bench):
    """Start the server of each variant that can be had."""
    sides = {}
    for variant in VARIANTS:
        try:
            sides[variant] = variant.side(bench)
        except Missing as error:
            print(f"Without {variant.name}: {error} is not installed.\n")
    return sides


def measure(bench, side):
    """Return how many photos in a second are stored."""
    with side.nginx() as nginx:
        count, rate = load.result(bench.upload(nginx))
    side.check_and_empty(count)
    return rate


def measure_all(bench):
    """Return the rates of each variant, a round each."""
    rates = defaultdict(list)
    sides = list(start_sides(bench).items())
    for _, side in sides:
        measure(bench, side)  # warms up
    for _ in range(ROUNDS):
        for variant, side in sides:
            rates[variant].append(measure(bench, side))
        sides.reverse()  # so that none is always measured after the same other
    return rates


def print_table(rates):
    print(
        f"| {SIZE / 1e6:.0f} MB photos, {load.CLIENTS} clients, {ROUNDS} rounds | photos/s, median "
        "| MB/s | first ÷ this, median | quartiles | at least |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for variant, others in rates.items():
        ratios = [mine / other for mine, other in zip(rates[OURS], others, strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        print(
            f"| {variant.name} | {median(others):.1f} | {median(others) * SIZE / 1e6:.0f} "
            f"| {middle:.2f} | {low:.2f} to {high:.2f} | {variant.target or ''} |"
        )


def main():
    with Bench() as bench:
        print_table(measure_all(bench))


if __name__ == "__main__":
    main()
