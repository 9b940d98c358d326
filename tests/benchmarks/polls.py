"""The cost of a poll: nginx answers it straight from memcached, or hands it on to Django.

Django's own view is asked through the same nginx, which hands on a query with a % in it, and at
the socket of the pages. The record is that of an upload that is under way. Then a single client
polls nginx while eight others upload photos.

    python -m tests.benchmarks.polls
"""

from http.client import HTTPConnection
from statistics import median, quantiles

from tests.servers import ADDRESS, Granian
from tests.waiting import wait_for

from . import load
from .dishes import body_end, upload_head
from .receive import OURS, make_photo
from .rounds import compare, measure_in_turns
from .sides import Bench

ROUNDS = 9
SECONDS = 1  # that a measurement takes
SECONDS_OF_UPLOADS = 9  # fewer than a thousand polls, after which nginx closes a connection
PIECE = 100_000  # bytes, more than the parser's chunk
PATH = "/get_upload_progress?X-Progress-ID=dish-1"
ENCODED_PATH = PATH.replace("dish", "%64ish")
ASKED = ("nginx, from memcached", "Django, through nginx", "Django, at its socket")


class HeldUpload:
    """An upload that goes on when it is told to, for its record to stay."""

    def __init__(self, address, photo):
        body = photo.body.read_bytes() + body_end()
        self.pieces = iter(body[start : start + PIECE] for start in range(0, len(body), PIECE))
        self.client = load.connect(address)
        self.client.sendall(upload_head(ADDRESS, len(body), **{"X-Progress-ID": "dish-1"}))

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


def measure_polls(nginx, pages, upload):
    """Return how many polls in a second are answered by each, a figure for each round."""
    asked = [(nginx.address, PATH), (nginx.address, ENCODED_PATH), (pages.address, PATH)]
    asked = dict(zip(ASKED, asked, strict=True))

    def measure(name):
        upload.send()  # Without news its record would be gone after two minutes.
        return load.result(load.start(load.polls, *asked[name], SECONDS))

    return measure_in_turns(ASKED, measure, ROUNDS)


def measure_latencies(side, nginx, photo):
    """Return how long polls take while photos are uploaded, in seconds, and the photos' rate."""
    uploads = load.start(load.uploads, nginx.address, photo.body, SECONDS_OF_UPLOADS + 1)
    poller = load.start(load.latencies, nginx.address, PATH, SECONDS_OF_UPLOADS)
    durations = load.result(poller)
    count, rate = load.result(uploads)
    side.check_originals(photo, count)
    return durations, rate


def print_polls(rates):
    print(
        f"| {load.CLIENTS} clients that poll, {ROUNDS} rounds | polls/s, median "
        "| first ÷ this, median | quartiles | at least |"
    )
    print("|---|---:|---:|---:|---:|")
    for name, others in rates.items():
        low, middle, high = compare(rates[ASKED[0]], others)
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
        photo = bench.add_photo(make_photo())
        [side] = bench.start_sides([OURS])
        pages = bench.enter_context(Granian("pages", **side.environment))
        with side.nginx() as nginx, HeldUpload(nginx.address, photo) as upload:
            wait_for(lambda: is_followed(nginx.address))
            print_polls(measure_polls(nginx, pages, upload))
            print()
            upload.send()
            print_latencies(*measure_latencies(side, nginx, photo))


if __name__ == "__main__":
    main()
