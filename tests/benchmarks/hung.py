"""The cost of a hung memcached to fast uploads: their rate while it is stopped, or runs.

Eight clients send photos, as in receive.py. A photo of 4 MB is stored before the first record of
its progress is due; larger ones have records, which cannot be written then.

    python -m tests.benchmarks.hung
"""

import re
from contextlib import nullcontext
from statistics import median

from . import load
from .receive import OURS, make_photo
from .rounds import describe_ratios, measure_in_turns, print_table
from .sides import Bench

SIZES = [4_000_000, 100_000_000]  # bytes of a photo
ROUNDS = 9
SECONDS = 2  # that a measurement takes
TARGET = 0.97


def measure(bench, side, size):
    """Return the rates with memcached stopped and running, and how many records were written."""
    photo = bench.add_photo(make_photo(size))

    def measure_rate(is_hung):
        with bench.memcached.hung() if is_hung else nullcontext():
            _, rate = side.upload(photo, SECONDS)
        side.empty()
        return rate

    measure_rate(False)  # warms up
    before = count_writes(bench.memcached)
    rates = measure_in_turns([True, False], measure_rate, ROUNDS)
    return rates[True], rates[False], count_writes(bench.memcached) - before


def count_writes(memcached):
    return int(re.search(r"STAT cmd_set (\d+)", memcached.ask("stats"))[1])


def describe(results):
    """Yield a row for each size."""
    for size, (hung, running, writes) in results.items():
        rates = f"{median(running):.1f}", f"{median(hung):.1f}"
        ratios = describe_ratios(hung, running)
        yield f"photos of {size / 1e6:.0f} MB", *rates, *ratios, TARGET, f"{writes:,}"


def main():
    with Bench() as bench:
        [side] = bench.start_sides([OURS])
        results = {size: measure(bench, side, size) for size in SIZES}
        title = f"{load.CLIENTS} clients, {ROUNDS} rounds"
        head = ("photos/s, memcached runs", "… hangs", "ratio, median", "quartiles", "at least")
        print_table((title, *head, "records written"), describe(results))


if __name__ == "__main__":
    main()
