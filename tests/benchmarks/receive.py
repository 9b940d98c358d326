"""Measure how fast photos are received: here, by the tutorial, and by other frameworks.

Eight clients send photos of 4 MB through the same nginx site, one after the other on a persistent
connection. Every photo is stored on the disk. All servers have two processes. They take turns, and
only measurements of the same round are compared.

    pip install -r tests/benchmarks/requirements.txt
    python -m tests.benchmarks.receive

A server that is not installed is left out. Node's busboy needs npm.
"""

import os
from functools import partial
from statistics import median

from tests import photos

from . import load
from .rounds import RATIOS, describe_ratios, measure_in_turns, print_table
from .sides import BUSBOY, Bench, Variant, bare, granian, gunicorn, node, uvicorn

SIZE = 4_000_000  # bytes of a photo
ROUNDS = 9
SECONDS = 2  # for one measurement

UNCOUNTED = partial(granian, settings="tests.benchmarks.settings_uncounted")
TUTORIAL = partial(gunicorn, module="tutorial")
PLAIN_DJANGO = partial(gunicorn, module="plain_django")
FLASK = partial(gunicorn, module="flask_app")


def busboy(side):
    return node(side, "busboy_server.js", BUSBOY)


OURS = Variant("Gourmious", granian)
VARIANTS = [
    OURS,
    Variant("the same, not counted", UNCOUNTED, target=0.97),
    Variant("the tutorial's, on gunicorn", TUTORIAL, ("gunicorn",), 4),
    Variant("plain Django, on gunicorn", PLAIN_DJANGO, ("gunicorn",), 1.2),
    Variant("Starlette, on uvicorn", uvicorn, ("starlette", "python_multipart", "uvicorn"), 1.2),
    Variant("Flask, on gunicorn", FLASK, ("flask", "gunicorn"), 1.2),
    Variant("busboy, on Node", busboy, target=0.97),
    Variant("a bare loop in Python", bare, target=0.5, stores_body=True),
]


def make_photo(size=SIZE):
    """Return the bytes of a picture that is filled up to so many bytes."""
    return (photos.photo() + os.urandom(size))[:size]


def measure_all(bench):
    """Return the rates of each side, one for each round."""
    photo = bench.add_photo(make_photo())
    sides = bench.start_sides(VARIANTS)

    def measure(side):
        _, rate = side.upload(photo, SECONDS)
        side.empty()
        return rate

    for side in sides:
        measure(side)  # warms up
    return measure_in_turns(sides, measure, ROUNDS)


def describe(rates):
    """Yield a row for each side."""
    ours = next(iter(rates.values()))
    for side, others in rates.items():
        rate = median(others)
        columns = f"{rate:.1f}", f"{rate * SIZE / 1e6:.0f}", *describe_ratios(ours, others)
        yield side.variant.name, *columns, side.variant.target or ""


def main():
    with Bench() as bench:
        title = f"{SIZE / 1e6:.0f} MB photos, {load.CLIENTS} clients, {ROUNDS} rounds"
        head = ("photos/s, median", "MB/s", *RATIOS, "at least")
        print_table((title, *head), describe(measure_all(bench)))


if __name__ == "__main__":
    main()
