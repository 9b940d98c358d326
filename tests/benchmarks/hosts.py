"""Measure the whole job of an upload on one machine and on several servers.

Eight clients send lifelike photos, of 12 megapixels and of 3200 pixels, to one host with SQLite and
local files, to one host with PostgreSQL and S3 (SeaweedFS), and through HAProxy to two such hosts.
All servers run on this machine and share its cores with the clients: the ratios tell what the
further servers cost, not what further machines bring. After each measurement, every counted photo
must be stored whole, with its renditions and its row.

    pip install -r tests/benchmarks/requirements.txt
    python -m tests.benchmarks.hosts
"""

import os
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from PIL import Image

from tests.client import add_dish

from . import load
from .job import RENDITIONS, make_photos
from .load import OWN_LENGTH, body_start
from .processes import cpu_since, cpu_times, family
from .rounds import RATIOS, describe_ratios, measure_in_turns, print_table
from .sides import Photo
from .sites import is_whole, one_host, two_hosts

ROUNDS = 9
SECONDS = 4  # that a measurement takes
PARTS = ("app", "nginx", "HAProxy", "PostgreSQL", "SeaweedFS")


class Result(NamedTuple):
    rate: float  # photos in a second
    cpu: dict  # seconds that each part used for a photo


class Subject:
    """A site, or a part of one, that is measured."""

    def __init__(self, name, site):
        self.name = name
        self.site = site
        app = [server for host in site.hosts for server in (host.pages, host.uploads)]
        nginx = [host.http for host in site.hosts]
        servers = {name: [server] for name, server in site.services.items()}
        self.servers = {"app": app, "nginx": nginx, **servers}

    def measure(self, photo):
        self._restart_nginx()
        before = {row["id"] for row in self.site.kept.read_rows()}
        times = cpu_times(self._list_processes())
        client = load.start(load.uploads, self.site.server.address, photo.body, SECONDS)
        count, rate = load.result(client)
        cpu = {part: cpu_since(times, self._list_processes(part)) / count for part in self.servers}
        self._check(before, count, photo)
        return Result(rate, cpu)

    def _restart_nginx(self):
        """Let nginx deal out its connections to the processes of the app again."""
        for host in self.site.hosts:
            host.http.stop()
            host.http.start()

    def _list_processes(self, *parts):
        servers = [server for part in parts or self.servers for server in self.servers[part]]
        return [pid for server in servers for pid in family(server.process.pid)]

    def _check(self, before, count, photo):
        """Assert that there are so many new photos, that each is whole, and no other files."""
        rows = self.site.kept.read_rows()
        new = [row for row in rows if row["id"] not in before]
        assert len(new) == count, f"{len(new)} of {count} photos have a row."
        for row in new:
            assert is_whole(self.site.kept, row, len(photo.content) + OWN_LENGTH)
            assert photo.content in self.site.kept.read_file("originals", row["original"])
            for name, size in zip(("display", "thumbnail"), RENDITIONS, strict=True):
                check_rendition(self.site.kept.read_file("media", row[name]), size)
        assert len(list(self.site.kept.list_files())) == 3 * len(rows)


def check_rendition(content, size):
    with Image.open(BytesIO(content), formats=["JPEG"]) as image:
        image.load()
        assert image.size == size


def write_photos(folder):
    """Return the photos by their names, with their bodies in files."""
    photos = {}
    for number, (name, content) in enumerate(make_photos().items()):
        body = Path(folder, str(number))
        body.write_bytes(body_start(content))
        photos[name] = Photo(content, str(body))
    return photos


def start_subjects(stack):
    """Start all sites, and return the subjects. The first of two hosts is measured alone, too."""
    alone, together = stack.enter_context(one_host()), stack.enter_context(two_hosts())
    for site in (alone, together):
        add_dish(site.server.address)
    first = together.hosts[0]
    services = {name: together.services[name] for name in ("PostgreSQL", "SeaweedFS")}
    one = together._replace(server=first.http, hosts=[first], services=services)
    return [
        Subject("one host, SQLite and local files", alone),
        Subject("one host, PostgreSQL and S3", one),
        Subject("two hosts behind HAProxy, PostgreSQL and S3", together),
    ]


def measure_all():
    """Yield each photo with its name, and the results of each subject, one for each round."""
    with ExitStack() as stack:
        photos = write_photos(stack.enter_context(TemporaryDirectory(prefix="gourmious-")))
        subjects = start_subjects(stack)
        for name, photo in photos.items():
            for subject in subjects:
                subject.measure(photo)  # warms up
            measure = partial(Subject.measure, photo=photo)
            yield name, photo, measure_in_turns(subjects, measure, ROUNDS)


def describe(results):
    """Yield a row for each subject."""
    ours = next(iter(results.values()))
    for subject, others in results.items():
        rates = [result.rate for result in others]
        ratios = describe_ratios([result.rate for result in ours], rates)
        cpu = [describe_cpu(others, part) for part in PARTS]
        yield subject.name, f"{median(rates):.1f}", *ratios, *cpu


def describe_cpu(results, part):
    if part not in results[0].cpu:
        return ""
    return f"{1000 * median(result.cpu[part] for result in results):.1f}"


def main():
    print(f"The load before: {os.getloadavg()[0]:.2f}.\n")
    for name, photo, results in measure_all():
        size = f"{len(photo.content) / 1e6:.1f} MB"
        title = f"{name}, {size}, {load.CLIENTS} clients, {ROUNDS} rounds"
        head = ("photos/s, median", *RATIOS, *(f"CPU for a photo, ms: {part}" for part in PARTS))
        print_table((title, *head), describe(results))
        print(flush=True)


if __name__ == "__main__":
    main()
