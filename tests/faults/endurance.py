"""Put a mixed load on the whole stack for a long time, and look for anything that grows.

    MINUTES=30 SEED=1 python manage.py test tests.faults.endurance

A line a minute tells what the servers hold. At the end all that the clients were answered is
compared with what is there.
"""

import os
import random
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock

from tests.client import add_dish, get, poll
from tests.photos import photo
from tests.waiting import wait_for

from .rig import SEED, FaultTestCase, Upload

MINUTES = int(os.environ.get("MINUTES", "1"))
CLIENTS = 6
RATE = 20  # requests in a second, about

COLUMNS = (
    "minute", "requests", "Granian MB", "descriptors", "threads", "nginx MB", "descriptors",
    "memcached items", "incoming", "pictures",
)  # fmt: skip
# How often each thing is done, out of all.
ACTIONS = {
    "upload": 20,
    "large_upload": 2,
    "slow_upload": 2,
    "refused_upload": 4,
    "hung_up_upload": 6,
    "reset_upload": 6,
    "known_upload": 2,
    "poll": 30,
    "page": 20,
    "picture": 8,
}


class Clients:
    """Threads that do one thing after the other until they are told to stop."""

    def __init__(self, stack, ledger):
        self.ledger = ledger
        self.http = stack.http.address
        self.dishes = [add_dish(self.http, f"Dish {number}") for number in range(10)]
        self.small, self.large = photo(160, 120), photo(3000, 2000)
        self.counts, self.lock, self.stopped = Counter(), Lock(), Event()

    def run(self, number):
        choice = random.Random(f"{SEED} {number}")
        names, weights = list(ACTIONS), list(ACTIONS.values())
        while not self.stopped.wait(choice.random() * 2 * CLIENTS / RATE):
            [name] = choice.choices(names, weights)
            with suppress(OSError):  # A server was just stopped, or started again.
                getattr(self, name)(choice)
            with self.lock:
                self.counts[name] += 1

    def upload_of(self, content, choice):
        progress_id = f"{choice.getrandbits(64):x}"
        dish = choice.choice(self.dishes)
        return Upload(self.ledger, dish, content, progress_id)

    def new(self, content, choice):
        return self.upload_of(content + choice.randbytes(16), choice)

    def upload(self, choice):
        with self.new(self.small, choice) as upload:
            upload.answer()

    def large_upload(self, choice):
        with self.new(self.large, choice) as upload:
            upload.answer()

    def slow_upload(self, choice):
        with self.new(self.small, choice) as upload:
            for until in range(0, len(upload.data), len(upload.data) // 50):
                upload.send(until)
                self.stopped.wait(0.1)
            upload.answer()

    def refused_upload(self, choice):
        with self.upload_of(b"A text. " * 20_000, choice) as upload:
            upload.answer()

    def hung_up_upload(self, choice):
        with self.new(self.small, choice) as upload:
            upload.send(choice.randrange(len(upload.data)))

    def reset_upload(self, choice):
        with self.new(self.large, choice) as upload:
            upload.send(choice.randrange(len(upload.data)))
            upload.hang_up(reset=True)

    def known_upload(self, choice):
        with Upload(
            self.ledger, self.dishes[0], self.small, f"{choice.getrandbits(64):x}"
        ) as upload:
            upload.answer()

    def poll(self, choice):
        poll(self.http, f"{choice.getrandbits(64):x}")

    def page(self, choice):
        path = choice.choice(["/", "/healthz", choice.choice(self.dishes).get_absolute_url()])
        get(self.http, path)

    def picture(self, choice):
        page = get(self.http, choice.choice(self.dishes).get_absolute_url()).text
        for path in re.findall(r'href="(/media/[^"]+)"', page)[:1]:
            Path("/dev/null").write_bytes(download(self.http, path))


def download(address, path):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(2**16), b""))


def memory(pids):
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) for text in statuses) / 1024


def descriptors(pids):
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def threads(pids):
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)


def figures(stack, ledger):
    """Return what the servers hold at this moment, in the order of the columns."""
    granian, nginx = stack.granian.workers(), stack.http.workers()
    items = re.search(r"STAT curr_items (\d+)", stack.memcached.ask("stats"))[1]
    return (
        f"{memory(granian):.0f}", descriptors(granian), threads(granian),
        f"{memory(nginx):.0f}", descriptors(nginx), items,
        len(list((stack.data / "incoming").iterdir())), len(ledger.read_rows()),
    )  # fmt: skip


def disturb(stack, minute):
    """Every fifth minute something happens to memcached, and to a server's configuration."""
    if minute % 5 == 2:
        stack.memcached.stop()
        stack.memcached.start()
    if minute % 5 == 4:
        with stack.memcached.hung():
            time.sleep(2)
        stack.http.reload()


class EnduranceTests(FaultTestCase):
    def test_nothing_grows(self):
        print(f"\nSEED={SEED}\n| {' | '.join(COLUMNS)} |\n|{'---:|' * len(COLUMNS)}", flush=True)
        load = Clients(self.stack, self.ledger)
        with ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(load.run, number) for number in range(CLIENTS)]
            try:
                self.watch_minutes(load)
            finally:
                load.stopped.set()
        for job in jobs:
            job.result()

        wait_for(lambda: threads(self.stack.granian.workers()) < 40, 120)
        self.tell("at rest", load)
        print(f"{dict(load.counts)}; {self.outcomes()}")
        self.audit("endurance", MINUTES, killed=True)

    def watch_minutes(self, load):
        self.tell(0, load)
        for minute in range(1, MINUTES + 1):
            time.sleep(60)
            self.tell(minute, load)
            disturb(self.stack, minute)

    def tell(self, minute, load):
        row = (minute, load.counts.total(), *figures(self.stack, self.ledger))
        print(f"| {' | '.join(str(figure) for figure in row)} |", flush=True)

    def outcomes(self):
        """Return how many uploads had which answer."""
        return dict(Counter(entry.answer and entry.answer.status for entry in self.ledger.entries))
