"""Put a mixed load on the whole stack for a long time, and look for anything that grows.

    MINUTES=30 SEED=1 python manage.py test tests.faults.endurance

Once a minute it prints what the servers hold. At the end, when they are idle, they must hold no
more than in the first minute. All answers are compared with the stored rows and files.
"""

import os
import random
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

from tests.client import Answer, add_dish, get
from tests.contract import RECORD_LIFETIME
from tests.photos import photo
from tests.waiting import wait_for

from .rig import SEED, FaultTestCase, Upload

MINUTES = int(os.environ.get("MINUTES", "1"))
CLIENTS = 6
RATE = 20  # requests per second, approximately

# The weights of the actions.
ACTIONS = {
    "upload": 20,
    "large_upload": 2,
    "slow_upload": 2,
    "refused_upload": 4,
    "interrupted_upload": 6,
    "reset_upload": 6,
    "repeated_upload": 2,
    "poll": 30,
    "page": 20,
    "picture": 8,
}


class Clients:
    """Run the clients' actions until `stopped` is set. Each client has its own thread."""

    def __init__(self, stack, ledger):
        self.ledger = ledger
        self.http = stack.http.address
        self.dishes = [add_dish(self.http, f"Dish {number}") for number in range(10)]
        self.small, self.large = photo(160, 120), photo(3000, 2000)
        self.counts, self.lock, self.stopped = Counter(), Lock(), Event()
        self.disturbances, self.surprises = 0, []

    def run(self, number):
        rng = random.Random(f"{SEED} {number}")
        names, weights = list(ACTIONS), list(ACTIONS.values())
        while not self.stopped.wait(rng.random() * 2 * CLIENTS / RATE):
            [name] = rng.choices(names, weights)
            getattr(self, name)(rng)
            with self.lock:
                self.counts[name] += 1

    @contextmanager
    def allow_errors(self):
        """Allow other answers during the block, and until the site is healthy after it."""
        self.disturbances += 1
        yield
        wait_for(lambda: get(self.http, "/healthz").status == 200)
        self.disturbances += 1

    def expect(self, status, ask, *arguments):
        """Send a request, and note an unexpected answer. A disturbance excuses server errors."""
        before = self.disturbances
        try:
            answer = ask(*arguments)
        except OSError as error:
            answer = Answer(0, {}, str(error))
        calm = before % 2 == 0 and before == self.disturbances
        if answer is None or (answer.status != status and (calm or 0 < answer.status < 500)):
            self.surprises.append((ask, arguments, answer))

    def make_upload(self, content, rng):
        progress_id = f"{rng.getrandbits(64):x}"
        dish = rng.choice(self.dishes)
        return Upload(self.ledger, self.http, dish, content, progress_id)

    def make_new_upload(self, content, rng):
        return self.make_upload(content + rng.randbytes(16), rng)

    def upload(self, rng):
        with self.make_new_upload(self.small, rng) as upload:
            self.expect(200, upload.answer)

    def large_upload(self, rng):
        with self.make_new_upload(self.large, rng) as upload:
            self.expect(200, upload.answer)

    def slow_upload(self, rng):
        with self.make_new_upload(self.small, rng) as upload:
            for until in range(0, len(upload.data), len(upload.data) // 50):
                upload.send(until)
                self.stopped.wait(0.1)
            self.expect(200, upload.answer)

    def refused_upload(self, rng):
        with self.make_upload(b"A text. " * 20_000, rng) as upload:
            self.expect(415, upload.answer)

    def interrupted_upload(self, rng):
        with self.make_new_upload(self.small, rng) as upload:
            upload.send(rng.randrange(len(upload.data)))

    def reset_upload(self, rng):
        with self.make_new_upload(self.large, rng) as upload:
            upload.send(rng.randrange(len(upload.data)))
            upload.hang_up(reset=True)

    def repeated_upload(self, rng):
        with self.make_upload(self.small, rng) as upload:
            self.expect(200, upload.answer)

    def poll(self, rng):
        query = f"?X-Progress-ID={rng.getrandbits(64):x}"
        self.expect(200, get, self.http, f"/get_upload_progress{query}")

    def page(self, rng):
        path = rng.choice(["/", "/healthz", rng.choice(self.dishes).get_absolute_url()])
        self.expect(200, get, self.http, path)

    def picture(self, rng):
        self.expect(200, self.fetch_picture, rng.choice(self.dishes).get_absolute_url())

    def fetch_picture(self, page):
        """Fetch a page and the first picture on it, if there is one."""
        answer = get(self.http, page)
        for path in re.findall(r'href="(/media/[^"]+)"', answer.text)[:1]:
            return download(self.http, path)
        return answer


def download(address, path):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 30) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        data = b"".join(iter(lambda: client.recv(2**16), b""))
    return Answer(int(data.split()[1]) if data else 0, {}, "")


def list_workers(stack):
    """Return the process ids of Granian's workers, of both services, and of their renderers."""
    return [*stack.pages.workers(), *stack.uploads.workers(), *stack.uploads.renderers()]


def measure_memory(pids):
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) for text in statuses) / 1024


def count_descriptors(pids):
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def count_threads(pids):
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)


class Figures(NamedTuple):
    """The resources that the servers hold."""

    granian_mb: float
    granian_descriptors: int
    granian_threads: int
    nginx_mb: float
    nginx_descriptors: int
    memcached_items: int
    incoming: int
    pictures: int

    @classmethod
    def measure(cls, stack, ledger):
        granian, nginx = list_workers(stack), stack.http.workers()
        return cls(
            granian_mb=round(measure_memory(granian)),
            granian_descriptors=count_descriptors(granian),
            granian_threads=count_threads(granian),
            nginx_mb=round(measure_memory(nginx)),
            nginx_descriptors=count_descriptors(nginx),
            memcached_items=len(list_records(stack.memcached)),
            incoming=len(list((stack.data / "incoming").iterdir())),
            pictures=len(ledger.site.read_rows()),
        )


def list_records(memcached):
    """Return the keys of all progress records that have not expired."""
    kinds = re.findall(r"items:(\d+):number ", memcached.ask("stats items"))
    dump = "".join(memcached.ask(f"stats cachedump {kind} 0") for kind in kinds)
    items = re.findall(r"ITEM (\S+) \[\d+ b; (\d+) s\]", dump)
    return [key for key, end in items if int(end) > time.time() and "health" not in key]


def disturb(stack):
    """Restart memcached, let it hang for a while, and reload nginx."""
    stack.memcached.stop()
    stack.memcached.start()
    with stack.memcached.hung():
        time.sleep(2)
    stack.http.reload()


class EnduranceTests(FaultTestCase):
    def test_nothing_grows(self):
        columns = ("minute", "requests", *Figures._fields)
        print(f"\nSEED={SEED}\n| {' | '.join(columns)} |\n|{'---:|' * len(columns)}", flush=True)
        load = Clients(self.stack, self.ledger)
        with ThreadPoolExecutor(CLIENTS) as pool:
            jobs = [pool.submit(load.run, number) for number in range(CLIENTS)]
            try:
                first, *_ = [self.watch(minute, load) for minute in range(1, MINUTES + 1)]
            finally:
                load.stopped.set()
        for job in jobs:
            job.result()

        wait_for(lambda: count_threads(list_workers(self.stack)) < 40, 120)
        wait_for(lambda: not list_records(self.stack.memcached), RECORD_LIFETIME + 10)
        self.assert_no_growth(first, self.report("idle", load))
        self.assertEqual(load.surprises, [])
        print(f"{dict(load.counts)}; {self.count_statuses()}")
        self.audit("endurance", MINUTES, killed=True)

    def watch(self, minute, load):
        """Return what the servers hold after a minute. Disturb them in every fifth minute."""
        time.sleep(30)
        if minute % 5 == 1:
            with load.allow_errors():
                disturb(self.stack)
        time.sleep(30)
        return self.report(minute, load)

    def report(self, minute, load):
        """Print what the servers hold, and return it."""
        figures = Figures.measure(self.stack, self.ledger)
        row = (minute, load.counts.total(), *figures)
        print(f"| {' | '.join(str(figure) for figure in row)} |", flush=True)
        return figures

    def assert_no_growth(self, first, last):
        for name, before, now in zip(Figures._fields, first, last, strict=True):
            if name.endswith("mb"):
                self.assertLess(now, 1.3 * before + 30, name)
            if name.endswith("descriptors"):
                self.assertLess(now, before + 20, name)
        self.assertEqual(last.incoming, 0)

    def count_statuses(self):
        """Return the number of uploads for each status."""
        return dict(Counter(entry.answer and entry.answer.status for entry in self.ledger.entries))
