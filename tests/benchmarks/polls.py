"""What a poll costs: nginx answers it straight from memcached, or hands it on to Django.

Django's own view is asked through the same nginx, which hands on a query with a % in it, and at
Granian itself. The record is that of an upload that is under way. Then a single client polls
nginx while eight others upload photos.

    python -m tests.benchmarks.polls
"""

from collections import defaultdict
from http.client import HTTPConnection
from statistics import median, quantiles

from tests.waiting import wait_for

from . import load
from .receive import OURS, Bench

ROUNDS = 9
SECONDS = 1  # that a measurement takes
SECONDS_OF_UPLOADS = 9  # fewer than a thousand polls, after which nginx closes a connection
PIECE = 2**17  # bytes, more than the parser's chunk
PATH = "/get_upload_progress?X-Progress-ID=dish-1"
ENCODED_PATH = PATH.replace("dish", "%64ish")
ASKED = ("nginx, from memcached", "Django, through nginx", "Django, at Granian")


class HeldUpload:
    """An upload that goes on when it is told to, for its record to stay."""

    def __init__(self, address, body):
        self.pieces = iter(body[start : start + PIECE] for start in range(0, len(body), PIECE))
        self.client = load.connect(address)
        self.client.sendall(load.upload_head(address, "dish-1", len(body)))

    def __enter__(self):
        self.send()
        return self

    def __exit__(self, *exc_info):
        self.client.close()

    def send(self):
        self.client.sendall(next(self.pieces))


def is_followed(address):
    connection = HTTPConnection(address)
    connection.request("GET", PATH)
    return b"uploaded" in connection.getresponse().read()


def measure_polls(nginx, granian, upload):
    """Return how many polls in a second are answered by each, a round each."""
    rates = defaultdict(list)
    asked = [(nginx.address, PATH), (nginx.address, ENCODED_PATH), (granian.address, PATH)]
    variants = list(zip(ASKED, asked, strict=True))
    for _ in range(ROUNDS):
        upload.send()
        for name, (address, path) in variants:
            rates[name].append(load.result(load.start(load.polls, address, path, SECONDS)))
        variants.reverse()  # so that none is always measured after the same other
    return rates


def measure_latencies(bench, side, nginx):
    """Return how long polls take while photos are uploaded, in seconds."""
    uploads = bench.upload(nginx, SECONDS_OF_UPLOADS + 1)
    poller = load.start(load.latencies, nginx.address, PATH, SECONDS_OF_UPLOADS)
    durations = load.result(poller)
    count, rate = load.result(uploads)
    side.check_and_empty(count)
    return durations, rate


def print_polls(rates):
    print(
        f"| {load.CLIENTS} clients that poll, {ROUNDS} rounds | polls/s, median "
        "| first ÷ this, median | quartiles | at least |"
    )
    print("|---|---:|---:|---:|---:|")
    for name, others in rates.items():
        ratios = [mine / other for mine, other in zip(rates[ASKED[0]], others, strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        target = "" if name == ASKED[0] else 5
        print(
            f"| {name} | {median(others):,.0f} | {middle:.1f} | {low:.1f} to {high:.1f} "
            f"| {target} |"
        )


def print_latencies(durations, rate):
    percentiles = quantiles((duration * 1000 for duration in durations), n=100)
    print(f"| {len(durations)} polls | median | 99th percentile |")
    print("|---|---:|---:|")
    print(f"| beside {rate:.0f} photos/s | {percentiles[49]:.1f} ms | {percentiles[98]:.1f} ms |")


def main():
    with Bench() as bench:
        side = OURS.side(bench)
        with side.nginx() as nginx, HeldUpload(nginx.address, bench.body.read_bytes()) as upload:
            wait_for(lambda: is_followed(nginx.address))
            print_polls(measure_polls(nginx, side.server, upload))
            print()
            upload.send()
            print_latencies(*measure_latencies(bench, side, nginx))


if __name__ == "__main__":
    main()
