"""Whether what an upload costs depends on its size: bodies of 10 MB to 4 GB, one at a time.

A body is a photo with padding behind it. It goes through the whole of the stack as deployconf sets
it up, and the stored file is deleted before the next one comes.

    python -m tests.benchmarks.size

The files are kept below TMPDIR; there, a disk that is slower than the server shows in the table.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import NamedTemporaryFile, TemporaryFile

from tests.client import add_dish, upload_head
from tests.photos import photo
from tests.servers import ADDRESS
from tests.stack import Stack
from tests.waiting import wait_for

from .load import body_end, body_start, connect, send_file
from .processes import family, peak, reset_peak, resident
from .rounds import measure_in_turns, print_table

MEGABYTE = 10**6
SIZES = [10 * MEGABYTE, 100 * MEGABYTE, 1000 * MEGABYTE, 4000 * MEGABYTE]
REFERENCE = 100 * MEGABYTE
ROUNDS = 5
WARM_UPS = 6  # enough for both workers to have some


@dataclass
class Run:
    """The seconds and the bytes of memory that one upload took."""

    sending: float  # the client's, from the first byte of the body to the last
    receiving: float  # the server's, as its log has it
    processing: float
    answered: float  # the client's, from the first byte to the answer
    granian: int  # by how much the memory of its processes grew, at most
    nginx: int


class Client:
    """Uploads to a stack, one after the other, and measures them."""

    def __init__(self, stack, log, source):
        self.stack = stack
        self.log = log
        self.source = source

    def run(self, size):
        servers = [family(server.process.pid) for server in (self.stack.uploads, self.stack.http)]
        before = [{pid: resident(pid) for pid in pids} for pids in servers]
        for pids in servers:
            for pid in pids:
                reset_peak(pid)

        sending, answered = self.upload(size)
        entry = json.loads(wait_for(self._next_line))
        growth = [sum(peak(pid) - memory[pid] for pid in memory) for memory in before]
        self._delete_stored(size)
        return Run(sending, entry["receiving"], entry["processing"], answered, *growth)

    def upload(self, size):
        """Return the seconds from the first byte of the body to its last, and to the answer."""
        start, end = body_start(b""), body_end()
        with connect(self.stack.http.address) as connection:
            connection.sendall(upload_head(ADDRESS, size, id=1))
            started = time.perf_counter()
            connection.sendall(start)
            send_file(connection, self.source, size - len(start) - len(end))
            connection.sendall(end)
            sending = time.perf_counter() - started
            status = connection.makefile("rb").readline()
            answered = time.perf_counter() - started
        assert status.split()[1] == b"200", status
        return sending, answered

    def _next_line(self):
        """Return the next line that the app logged of an upload, if there is one."""
        return next((line for line in self.log if line.startswith('{"event": "upload"')), None)

    def _delete_stored(self, size):
        [path] = (self.stack.data / "originals").iterdir()
        assert size - 1000 < path.stat().st_size < size
        path.unlink()


def write_source(file):
    """Write a photo, with a hole behind it: as long as the largest body."""
    file.write(photo(3000, 2000))
    file.truncate(max(SIZES))
    file.flush()


def measure(client):
    """Return the runs of each size, one for each round."""
    for _ in range(WARM_UPS):
        client.run(REFERENCE)
    return measure_in_turns(SIZES, client.run, ROUNDS)


def spread(values, digits=0):
    """Return the median, the lowest and the highest of some numbers."""
    return "{:,.{d}f} ({:,.{d}f} to {:,.{d}f})".format(
        median(values), min(values), max(values), d=digits
    )


HEAD = (
    f"body, {ROUNDS} rounds, median (lowest to highest)",
    "received, MB/s",
    "÷ 100 MB's",
    "sent, MB/s",
    "to the answer, MB/s",
    "processing, s",
    "Granian grew, MB",
    "nginx grew, MB",
)


def describe(runs):
    """Yield a row for each size."""
    reference = [REFERENCE / run.receiving for run in runs[REFERENCE]]
    for size in SIZES:
        mine = runs[size]
        received = [size / run.receiving for run in mine]
        ratios = [one / other for one, other in zip(received, reference, strict=True)]
        yield (
            f"{size // MEGABYTE:,} MB",
            spread([value / MEGABYTE for value in received]),
            spread(ratios, 2),
            spread([size / run.sending / MEGABYTE for run in mine]),
            spread([size / run.answered / MEGABYTE for run in mine]),
            spread([run.processing for run in mine], 2),
            spread([run.granian / MEGABYTE for run in mine], 1),
            spread([run.nginx / MEGABYTE for run in mine], 1),
        )


def main():
    settings = "tests.benchmarks.settings_size"
    with (
        TemporaryFile() as source,
        NamedTemporaryFile("a+") as log,
        Stack(log=log, DJANGO_SETTINGS_MODULE=settings) as stack,
        Path(log.name).open() as lines,
    ):
        write_source(source)
        add_dish(stack.http.address)
        print_table(HEAD, describe(measure(Client(stack, lines, source))))


if __name__ == "__main__":
    main()
