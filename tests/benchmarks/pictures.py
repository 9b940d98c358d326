"""The cost of a picture: CPU and time for both renditions, one picture after the other.

The CPU time is that of this process and of all its children.

    python -m tests.benchmarks.pictures
"""

import os
import time
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.test import override_settings  # noqa: E402

from tests.photos import encoded  # noqa: E402
from uploads.renderer import render, renderers  # noqa: E402

from .lifelike import lifelike_photo  # noqa: E402
from .processes import cpu_since, cpu_times, family  # noqa: E402
from .rounds import measure_in_turns, print_table  # noqa: E402

ROUNDS = 9
# By the name of a photo, how many times a measurement renders it. All together are fewer than the
# pictures after which a renderer is replaced.
COUNTS = {"JPEG, 12 megapixels": 8, "HEIC, 12 megapixels": 2, "JPEG, 480 pixels": 20}


class Cost(NamedTuple):
    """Seconds for a picture."""

    cpu: float
    wall: float


def make_photos():
    """Return the bytes of each photo."""
    photo = lifelike_photo(4032, 3024)
    # The encoder's other presets take minutes.
    heic = encoded(photo, "HEIF", quality=50, enc_params={"preset": "ultrafast"})
    jpegs = [encoded(image, quality=90) for image in (photo, photo.resize((480, 360)))]
    return dict(zip(COUNTS, (jpegs[0], heic, jpegs[1]), strict=True))


def write_photos(folder):
    """Return the path of each photo, once it is written."""
    paths = {name: Path(folder, str(number)) for number, name in enumerate(COUNTS)}
    for name, content in make_photos().items():
        paths[name].write_bytes(content)
    return paths


def measure(paths, name):
    before = cpu_times(family(os.getpid()))
    started = time.perf_counter()
    for _ in range(COUNTS[name]):
        with render(paths[name]):
            pass
    wall = time.perf_counter() - started
    cpu = cpu_since(before, family(os.getpid()))
    return Cost(cpu / COUNTS[name], wall / COUNTS[name])


def measure_all():
    """Return the costs of each photo, one for each round."""
    with TemporaryDirectory() as folder, override_settings(FILE_UPLOAD_TEMP_DIR=folder):
        paths = write_photos(folder)
        with patch.dict(os.environ, settings.MALLOC):  # as in production
            renderers.start()
        for name in paths:
            measure(paths, name)  # warms up
        return measure_in_turns(paths, partial(measure, paths), ROUNDS)


def describe(costs):
    """Yield a row for each photo."""
    for name, values in costs.items():
        cpu, wall = (1000 * median(each) for each in zip(*values, strict=True))
        yield name, f"{cpu:.1f}", f"{wall:.1f}"


def main():
    head = (f"both renditions, {ROUNDS} rounds, median", "CPU, ms", "time, ms")
    print_table(head, describe(measure_all()))


if __name__ == "__main__":
    main()
