"""Measure the whole job of an upload: here, in Node with sharp, and in plain Django.

Eight clients send lifelike photos through the same nginx site: of 12 megapixels, as a camera takes
them, and of 3200 pixels, as a browser reduces them. This app keeps them with all its checks and its
database. The others only store the photo and make the same two renditions. After each measurement,
every counted photo must be stored whole, with its renditions.

    pip install -r tests/benchmarks/requirements.txt
    python -m tests.benchmarks.job

A server that is not installed is left out. Node's busboy and sharp need npm.
"""

import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from statistics import median
from typing import NamedTuple

from PIL import Image

from tests.photos import encoded
from tests.servers import manage

from . import load
from .lifelike import lifelike_photo
from .processes import cpu_since, cpu_times, family
from .rounds import RATIOS, describe_ratios, measure_in_turns, print_table
from .sides import BUSBOY, Bench, Variant, granian, gunicorn, node

ROUNDS = 9
SECONDS = 4  # that a measurement takes
SHARP = "sharp@~0.34"
CAMERA, BROWSER = "12 megapixels", "3200 pixels"
RENDITIONS = [(1600, 1200), (480, 360)]  # pixels
ADD_DISH = "from uploads.models import Dish; Dish.objects.create(name='Aïoli', restaurant='Fonfon')"


class Result(NamedTuple):
    rate: float  # photos in a second
    cpu: float  # seconds that the server's processes used for a photo, without nginx


def app(side):
    """Return the server of the real app, with a database that has one dish."""
    server = granian(side, settings="gourmious.settings")
    manage("shell", "--command", ADD_DISH, **side.environment)
    return server


def sharp(side):
    return node(side, "sharp_server.js", BUSBOY, SHARP)


OURS = Variant("Gourmious", app)
NODE = Variant("busboy and sharp, on Node", sharp)
DJANGO = Variant(
    "plain Django and Pillow, on gunicorn", partial(gunicorn, module="django_pillow"), ("gunicorn",)
)
# How many times as fast the first should be.
TARGETS = {CAMERA: {NODE: 1.4, DJANGO: 2.0}, BROWSER: {NODE: 1.7, DJANGO: 2.4}}


def make_photos():
    """Return the bytes of the photos: JPEGs of 3.1 and 1.1 MB."""
    photo = lifelike_photo(4032, 3024)
    small = photo.resize((3200, 2400), Image.Resampling.HAMMING)
    return {CAMERA: encoded(photo, quality=90), BROWSER: encoded(small, quality=80)}


def measure(photo, side):
    pids = family(side.server.process.pid)
    before = cpu_times(pids)
    count, rate = side.upload(photo, SECONDS)
    cpu = cpu_since(before, family(side.server.process.pid)) / count
    check_renditions(side, count)
    if side.variant is OURS:
        check_and_delete_rows(side, count)
    side.empty()
    return Result(rate, cpu)


def check_renditions(side, count):
    """Assert that so many photos have both renditions, and that each of these can be decoded."""
    sizes = Counter()
    for path in side.media.iterdir():
        with Image.open(path, formats=["JPEG"]) as image:
            image.load()
            sizes[image.size] += 1
    assert sizes == dict.fromkeys(RENDITIONS, count), f"{sizes} of {count} photos."


def check_and_delete_rows(side, count):
    """Assert that each photo has a row, which names its files."""
    with closing(sqlite3.connect(side.folder / "db.sqlite3")) as database, database:
        rows = database.execute("SELECT original, display, thumbnail FROM uploads_picture")
        named = {name for row in rows for name in row}
        database.execute("DELETE FROM uploads_picture")
    stored = {path.name for folder in (side.originals, side.media) for path in folder.iterdir()}
    assert named == stored
    assert len(named) == 3 * count


def measure_all(bench):
    """Return the results of each photo and side, one for each round."""
    photos = {name: bench.add_photo(content) for name, content in make_photos().items()}
    sides = bench.start_sides([OURS, NODE, DJANGO])
    results = {}
    for name, photo in photos.items():
        for side in sides:
            measure(photo, side)  # warms up
        results[name] = measure_in_turns(sides, partial(measure, photo), ROUNDS)
    return photos, results


def describe(name, results):
    """Yield a row for each side."""
    ours = next(iter(results.values()))
    for side, others in results.items():
        rate, cpu = (median(values) for values in zip(*others, strict=True))
        ratios = describe_ratios(*([one.rate for one in each] for each in (ours, others)))
        target = TARGETS[name].get(side.variant, "")
        yield side.variant.name, f"{rate:.1f}", f"{1000 * cpu:.0f}", *ratios, target


def main():
    with Bench() as bench:
        photos, results = measure_all(bench)
        for name, photo in photos.items():
            size = f"{len(photo.content) / 1e6:.1f} MB"
            title = f"{name}, {size}, {load.CLIENTS} clients, {ROUNDS} rounds"
            head = ("photos/s, median", "CPU for a photo, ms", *RATIOS, "at least")
            print_table((title, *head), describe(name, results[name]))
            print()


if __name__ == "__main__":
    main()
