"""The cost of a crowd of slow uploads: thousands are in flight together, and each is polled for.

The whole of the stack is running as deployconf sets it up; in the last columns it is two hosts
behind HAProxy, on PostgreSQL and S3 (SeaweedFS). Each upload sends its photo in a minute or two,
from one of many client addresses, and each address polls for its uploads in turn. The front page
and a dish's are asked for all the while: before the crowd comes, while its bytes arrive, and while
its photos are processed.

    pip install -r tests/benchmarks/requirements.txt
    python -m tests.benchmarks.crowd

That takes three quarters of an hour. Name the columns to measure only some, by their uploads, and
by the seconds within which these begin: `python -m tests.benchmarks.crowd 3000 10000/60`.
"""

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import uvloop

from tests.client import add_dish, upload_head
from tests.photos import photo
from tests.servers import ADDRESS

from .load import OWN_LENGTH, body_end, body_start
from .processes import family, shared_fairly
from .rounds import print_table
from .sites import is_whole, one_host, two_hosts

STEPS = 60  # in which an upload sends its photo
PAUSE = 20  # seconds without a crowd
UPLOADS_PER_ADDRESS = 10
UPLOADS_NICE = 3  # half of the usual weight, as CPUWeight=50 in the unit of the uploads
POLL_INTERVAL = 0.5  # seconds between two polls of an address, for one upload or another
PAGE_INTERVAL = 0.5
MEMORY_INTERVAL = 5
TICK = 0.01  # seconds between two looks for pieces that are due
CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
# The phases: before the crowd comes, until the first photo is whole, and until all are answered.
REST, ARRIVING, PROCESSING = "at rest", "while photos arrive", "while photos are processed"


@dataclass
class Size:
    """How many uploads there are, and the size of their photo in pixels and in bytes."""

    count: int
    length: int
    pixels: tuple
    duration: int = 60  # seconds that an upload takes
    spread: int = 20  # seconds within which all begin
    start: Callable = one_host

    @property
    def names(self):
        return {f"{self.count}", f"{self.count}/{self.spread}"}

    @property
    def title(self):
        photos = f"{self.count:,} of {self.length / 1e6:g} MB"
        hosts = self.start.__name__.replace("_", " ")
        return f"{hosts}: {photos} in {self.duration} s, begun within {self.spread} s"


SIZES = [
    Size(1000, 3_000_000, (2080, 1560)),
    Size(3000, 1_000_000, (1200, 900)),
    Size(10_000, 400_000, (720, 540), duration=120, spread=100),
    Size(10_000, 400_000, (720, 540), duration=120, spread=60),
    # The photos are quick to render, and end with zeros. Two cores, which all servers share, can
    # store about 15 in a second.
    Size(1000, 1_000_000, (480, 360), spread=60, start=two_hosts),
    Size(10_000, 1_000_000, (480, 360), spread=900, start=two_hosts),
]


@dataclass
class Upload:
    number: int
    begins: float = 0  # when
    seen: set = field(default_factory=set)  # values of a poll
    answer: str = ""
    answered: bool = False
    waited: float = 0  # seconds from the last byte to the answer
    sent: asyncio.Future | None = None  # is done when all pieces are sent; None before the head
    pieces_sent: int = 0
    last_piece: float = 0  # when it was sent, or the head

    @property
    def source(self):
        """The client's address, 127.1.0.1 and so on."""
        high, low = divmod(self.number // UPLOADS_PER_ADDRESS, 250)
        return f"127.1.{high}.{low + 1}"

    @property
    def progress_id(self):
        return f"crowd-{self.number}"

    def begin(self, connection):
        """Note the connection on which the head was sent."""
        self.connection = connection
        self.sent = asyncio.get_running_loop().create_future()
        self.last_piece = time.perf_counter()

    def send(self, pieces):
        """Send the next piece; return whether there is another, and no answer yet."""
        if not self.connection.answer.done():
            self.connection.send(pieces[self.pieces_sent])
            self.pieces_sent += 1
            self.last_piece = time.perf_counter()
            if self.pieces_sent < len(pieces):
                return True
        self.sent.set_result(None)
        return False


class Connection(asyncio.Protocol):
    """A connection of HTTP/1.1 from an address of the client's choice, kept open.

    It costs a fraction of asyncio's streams: the servers need the cores.
    """

    def __init__(self, port, source=ADDRESS):
        self.port = port
        self.source = source
        self.transport = self.answer = None
        self.received = b""

    async def connect(self):
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_connection(
            lambda: self, ADDRESS, self.port, local_addr=(self.source, 0)
        )

    def close(self):
        if self.transport:
            self.transport.close()

    def ask(self, request):
        """Send a request, or its beginning, and return the future of its answer."""
        self.answer = asyncio.get_running_loop().create_future()
        self.send(request)
        return self.answer

    def send(self, piece):
        self.transport.write(piece)

    async def get(self, path):
        """Return the status, the body, and the seconds until these had come."""
        started = time.perf_counter()
        if not self.transport or self.transport.is_closing():  # nginx closes some in time.
            await self.connect()
        status, body = await self.ask(f"GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\n\r\n".encode())
        return status, body, time.perf_counter() - started

    def data_received(self, data):
        if self.answer.done():  # The rest of an upload that was refused early is a bad request.
            return
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if end and len(body) == int(CONTENT_LENGTH.search(head)[1]):
            self.received = b""
            self.answer.set_result((int(head.split()[1]), body))

    def connection_lost(self, exc):
        self.received = b""
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or EOFError())


class Memory(NamedTuple):
    """The memory of servers at a moment, in bytes, and how many uploads are in flight."""

    granian: int
    proxies: int
    uploads: int

    @property
    def sum(self):
        return self.granian + self.proxies

    def __str__(self):
        return f"{self.granian / 1e6:.0f}, {self.proxies / 1e6:.1f}"


class Crowd:
    """A crowd at work on a site, and all that was measured of it."""

    def __init__(self, site, size):
        self.site = site
        self.port = site.server.port
        self.size = size
        self.phase = REST
        self.uploads = []
        self.polls = defaultdict(list)  # seconds, by phase
        self.pages = defaultdict(list)  # seconds, by phase
        self.errors = Counter()
        self.memory = defaultdict(list)  # by phase
        self.pieces = self._pieces()
        self.sending = deque()  # uploads, in the order in which their next pieces are due

    def _pieces(self):
        """Return the body that all share, up to each one's own end, in equal pieces."""
        content = photo(*self.size.pixels)
        assert len(content) <= self.size.length - OWN_LENGTH
        body = body_start(content.ljust(self.size.length - OWN_LENGTH, b"\0"))
        places = [len(body) * step // STEPS for step in range(STEPS + 1)]
        return [body[first:last] for first, last in pairwise(places)]

    async def run(self):
        watchers = [self._watch_page("/"), self._watch_page("/dishes/1/"), self._watch_memory()]
        tasks = [asyncio.create_task(watcher) for watcher in watchers]
        await self._come(UPLOADS_PER_ADDRESS, duration=2)  # warms up
        self.uploads = []
        self.polls.clear()
        self.pages.clear()
        self.memory.clear()
        await asyncio.sleep(PAUSE)
        cpu = time.process_time()
        started = time.perf_counter()
        await self._come(self.size.count, duration=self.size.duration)
        self.cpu = (time.process_time() - cpu) / (time.perf_counter() - started)
        for task in tasks:
            task.cancel()

    async def _come(self, count, duration):
        """Let so many uploads begin, and wait until the last is answered."""
        self.phase = ARRIVING
        self.uploads = [Upload(number) for number in range(count)]
        begins = time.perf_counter()
        sender = asyncio.create_task(self._send_pieces(duration / STEPS))
        async with asyncio.TaskGroup() as group:
            for upload in self.uploads:
                upload.begins = begins + self.size.spread * upload.number / self.size.count
                group.create_task(self._upload(upload))
            for first in range(0, count, UPLOADS_PER_ADDRESS):
                group.create_task(self._poll(self.uploads[first : first + UPLOADS_PER_ADDRESS]))
        sender.cancel()
        self.phase = REST

    async def _upload(self, upload):
        await wait_until(upload.begins)
        end = body_end()
        try:
            with closing(Connection(self.port, upload.source)) as connection:
                await connection.connect()
                length = sum(map(len, self.pieces)) + len(end)
                answer = connection.ask(self._head(upload, length))
                upload.begin(connection)
                self.sending.append(upload)
                await upload.sent
                if not answer.done():  # It may have been refused, or its connection have ended.
                    self.phase = PROCESSING
                    connection.send(end)
                sent = time.perf_counter()
                status, text = await answer
            upload.waited = time.perf_counter() - sent
            upload.answer = f"{status} {get_outcome(text)}"
        except (OSError, EOFError) as error:
            upload.answer = type(error).__name__
        upload.answered = True

    def _head(self, upload, length):
        query = {"id": 1, "size": self.size.length}
        return upload_head(ADDRESS, length, upload.progress_id, **query)

    async def _send_pieces(self, interval):
        """Send each upload's next piece when it is due: one task for all, which is cheap."""
        while True:
            now = time.perf_counter()
            while self.sending and self.sending[0].last_piece + interval <= now:
                upload = self.sending.popleft()
                if upload.send(self.pieces):
                    self.sending.append(upload)
            await asyncio.sleep(TICK)

    async def _poll(self, uploads):
        """Poll for the uploads of one address in turn, until they are answered."""
        await wait_until(uploads[0].begins)
        with closing(Connection(self.port, uploads[0].source)) as connection:
            while waiting := [upload for upload in uploads if not upload.answered]:
                for upload in waiting:
                    await asyncio.sleep(POLL_INTERVAL)
                    await self._poll_once(connection, upload)

    async def _poll_once(self, connection, upload):
        path = f"/get_upload_progress?X-Progress-ID={upload.progress_id}"
        body = await self._get(connection, path, "poll", self.polls[self.phase])
        if body not in {b"", b"null"}:
            upload.seen.add(json.loads(body)["uploaded"])

    async def _watch_page(self, path):
        with closing(Connection(self.port)) as connection:
            while True:
                await self._get(connection, path, "page", self.pages[self.phase])
                await asyncio.sleep(PAGE_INTERVAL)

    async def _get(self, connection, path, name, durations):
        """Return the body of an answer, or nothing where that is an error, which is counted."""
        try:
            status, body, seconds = await connection.get(path)
        except (OSError, EOFError) as error:
            self.errors[f"{name} {type(error).__name__}"] += 1
            return b""
        durations.append(seconds)
        if status != 200:
            self.errors[f"{name} {status}"] += 1
            return b""
        return body

    async def _watch_memory(self):
        granian = [server for host in self.site.hosts for server in (host.pages, host.uploads)]
        parts = granian, self.site.proxies
        while True:
            sums = [await asyncio.to_thread(sum_memory, servers) for servers in parts]
            self.memory[self.phase].append(Memory(*sums, self._count_in_flight()))
            await asyncio.sleep(MEMORY_INTERVAL)

    def _count_in_flight(self):
        return sum(upload.sent is not None and not upload.answered for upload in self.uploads)


def sum_memory(servers):
    """Return the memory of servers, their workers, and the workers' renderers, in bytes."""
    return shared_fairly([pid for server in servers for pid in family(server.process.pid)])


async def wait_until(moment):
    await asyncio.sleep(max(0, moment - time.perf_counter()))


def get_outcome(text):
    """Return the code of the first refusal in an answer, or else its status."""
    found = re.search(rb' code="(\w+)"', text) or re.search(rb"<status>(\w+)", text)
    return found[1].decode() if found else "?"


def count_stored(kept, length):
    """Return how many rows, rows whose files are whole, and files of the crowd there are."""
    rows, files = kept.read_rows(), list(kept.list_files())
    whole = sum(is_whole(kept, row, length) for row in rows)
    warmed_up = UPLOADS_PER_ADDRESS
    return len(rows) - warmed_up, whole - warmed_up, len(files) - 3 * warmed_up


def times(seconds):
    """Return the median, the 99th percentile and the maximum, in milliseconds."""
    last = quantiles(seconds, n=100, method="inclusive")[-1]
    return " / ".join(f"{1000 * value:,.0f}" for value in (median(seconds), last, max(seconds)))


def describe(crowd, load):
    """Yield pairs of a name and a text."""
    uploads = crowd.uploads
    seen = [len(upload.seen) for upload in uploads]
    waited = [upload.waited for upload in uploads]
    stored = count_stored(crowd.site.kept, crowd.size.length)
    errors = crowd.errors + Counter(upload.answer for upload in uploads)
    del errors["200 ok"]

    yield "stored: rows, those with whole files, files", "{:,}, {:,}, {:,}".format(*stored)
    yield "errors", ", ".join(f"{count} of {name}" for name, count in errors.items()) or "none"
    yield "uploads of each host; tried again by HAProxy", describe_balance(crowd.site)
    yield "uploads that saw their progress", f"{sum(map(bool, seen)):,}"
    yield "values seen by each: fewest, median", f"{min(seen)}, {median(seen):.0f}"
    for phase in (ARRIVING, PROCESSING):
        yield f"polls {phase}, ms: median / p99 / max", times(crowd.polls[phase])
    yield "last byte to answer, s: median, max", f"{median(waited):.1f}, {max(waited):.1f}"
    for phase in (REST, ARRIVING, PROCESSING):
        yield f"pages {phase}, ms: median / p99 / max", times(crowd.pages[phase])
    yield from describe_memory(crowd)
    yield "the client's share of a core; load before", f"{crowd.cpu:.2f}; {load:.2f}"


def describe_balance(site):
    if "HAProxy" not in site.services:
        return ""
    hosts = site.services["HAProxy"].read_stats("uploads")
    counts = ", ".join(f"{int(host['stot']):,}" for host in hosts)
    return f"{counts}; {sum(int(host['wretr']) for host in hosts)}"


def describe_memory(crowd):
    before = Memory(*(median(values) for values in zip(*crowd.memory[REST], strict=True)))
    yield "memory at rest, MB: Granian, proxies", before
    for phase in (ARRIVING, PROCESSING):
        high = max(crowd.memory[phase], key=lambda memory: memory.uploads)
        each = (high.sum - before.sum) / high.uploads / 1e6
        text = f"{high}; {each:.2f} for each of {high.uploads:,} uploads"
        yield f"memory {phase}, MB: Granian, proxies", text


def measure(size):
    """Yield the results before the servers are stopped, as that may fail after a crowd."""
    load = os.getloadavg()[0]
    with size.start(GOURMIOUS_MAX_UPLOADS=str(size.count)) as site:
        for host in site.hosts:
            Path(f"/proc/{host.uploads.process.pid}/autogroup").write_text(str(UPLOADS_NICE))
        add_dish(site.server.address)
        crowd = Crowd(site, size)
        uvloop.run(crowd.run())
        yield size.title, dict(describe(crowd, load))


def main():
    names = sorted({name for size in SIZES for name in size.names})
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.crowd")
    parser.add_argument("column", nargs="*", choices=["all", *names], default="all")
    chosen = parser.parse_args().column
    sizes = [size for size in SIZES if "all" in chosen or size.names.intersection(chosen)]

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()  # The client's pauses would be counted as the servers'.
    columns = {}
    try:
        for size in sizes:
            columns.update(measure(size))
    finally:
        # Each column took minutes. All have the same names.
        names = next(iter(columns.values()), ())
        rows = ([name, *(column[name] for column in columns.values())] for name in names)
        print_table(("uploads", *columns), rows)


if __name__ == "__main__":
    main()
