"""The cost of a poll: nginx answers it straight from memcached, or hands it on to Django.

Django's own view is asked through the same nginx, which hands on a query with a % in it, and at
the socket of the pages. The record is that of an upload that is under way. Then a single client
polls nginx while eight others upload photos.

    python -m tests.benchmarks.polls
"""

from statistics import median, quantiles

from tests.client import Dish, Upload, poll
from tests.servers import Granian
from tests.waiting import wait_for

from . import load
from .receive import OURS, make_photo
from .rounds import RATIOS, describe_ratios, measure_in_turns, print_table
from .sides import Bench

ROUNDS = 9
SECONDS = 1  # that a measurement takes
SECONDS_OF_UPLOADS = 9  # fewer than a thousand polls, after which nginx closes a connection
PIECE = 100_000  # bytes, more than the parser's chunk
TARGET = 5  # times as many polls as the others
PROGRESS_ID = "dish-1"
PATH = f"/get_upload_progress?X-Progress-ID={PROGRESS_ID}"
ENCODED_PATH = PATH.replace("dish", "%64ish")
ASKED = ("nginx, from memcached", "Django, through nginx", "Django, at its socket")


def measure_polls(nginx, pages, upload):
    """Return how many polls in a second are answered by each, a figure for each round."""
    asked = [(nginx.address, PATH), (nginx.address, ENCODED_PATH), (pages.address, PATH)]
    asked = dict(zip(ASKED, asked, strict=True))

    def measure(name):
        upload.send_more(PIECE)  # Without news its record would be gone after two minutes.
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


def describe_polls(rates):
    """Yield a row for each that was asked."""
    for name, others in rates.items():
        ratios = describe_ratios(rates[ASKED[0]], others, digits=1)
        yield name, f"{median(others):,.0f}", *ratios, "" if name == ASKED[0] else TARGET


def print_polls(rates):
    title = f"{load.CLIENTS} clients that poll, {ROUNDS} rounds"
    print_table((title, "polls/s, median", *RATIOS, "at least"), describe_polls(rates))


def print_latencies(durations, rate):
    percentiles = quantiles((duration * 1000 for duration in durations), n=100)
    row = f"beside {rate:.0f} photos/s", f"{percentiles[49]:.1f} ms", f"{percentiles[98]:.1f} ms"
    print_table((f"{len(durations)} polls", "median", "99th percentile"), [row])


def main():
    with Bench() as bench:
        photo = bench.add_photo(make_photo())
        [side] = bench.start_sides([OURS])
        pages = bench.enter_context(Granian("pages", **side.environment))
        with (
            side.nginx() as nginx,
            Upload(nginx.address, Dish("/dishes/1/"), photo.content, PROGRESS_ID) as upload,
        ):
            upload.send(PIECE)
            wait_for(lambda: poll(nginx.address, PROGRESS_ID))
            print_polls(measure_polls(nginx, pages, upload))
            print()
            upload.send_more(PIECE)
            print_latencies(*measure_latencies(side, nginx, photo))


if __name__ == "__main__":
    main()
