"""What following an upload costs: Django's parser with our handler, without it, and with another.

The other does as the tutorial's does: for each chunk it gets the record from the cache and sets
it again. All three parse the same body to a file on the disk, in turn, with one real memcached.

    python -m tests.benchmarks.uploadhandler
"""

import os
import time
from collections import defaultdict
from io import BytesIO
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.files.uploadhandler import FileUploadHandler  # noqa: E402
from django.test import RequestFactory, override_settings  # noqa: E402
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart  # noqa: E402

from tests.base import uploaded  # noqa: E402
from tests.stack import Memcached  # noqa: E402

SIZE = 200 * 2**20  # bytes
ROUNDS = 21


class GetAndSetHandler(FileUploadHandler):
    """Get and set the record for each chunk of 64 KiB."""

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        self.key = f"{META['REMOTE_ADDR']}_{self.request.GET['X-Progress-ID']}"
        caches["pickling"].set(self.key, {"length": content_length, "uploaded": 0})

    def receive_data_chunk(self, raw_data, start):
        record = caches["pickling"].get(self.key)
        record["uploaded"] += self.chunk_size
        caches["pickling"].set(self.key, record)
        return raw_data

    def file_complete(self, file_size):
        pass

    def upload_complete(self):
        caches["pickling"].delete(self.key)


DJANGOS_OWN = settings.FILE_UPLOAD_HANDLERS[1:]
HANDLERS = {
    "our handler": settings.FILE_UPLOAD_HANDLERS,
    "no handler of ours": DJANGOS_OWN,
    "get and set for each chunk": [f"{__name__}.GetAndSetHandler", *DJANGOS_OWN],
}


def parse(body, handlers):
    """Return how many bytes in a second Django's parser takes with these upload handlers."""
    request = RequestFactory().request(
        **{
            "REQUEST_METHOD": "POST",
            "QUERY_STRING": "X-Progress-ID=dish-1",
            "CONTENT_TYPE": MULTIPART_CONTENT,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
        }
    )
    with override_settings(FILE_UPLOAD_HANDLERS=handlers):
        started = time.perf_counter()
        [file] = request.FILES.values()
        duration = time.perf_counter() - started
    assert file.size == SIZE
    request.close()
    return SIZE / duration


def measure():
    """Return the rates of each variant, a round each."""
    body = encode_multipart(BOUNDARY, {"picture": uploaded(os.urandom(SIZE))})
    rates = defaultdict(list)
    variants = list(HANDLERS.items())
    parse(body, DJANGOS_OWN)  # warms up
    for _ in range(ROUNDS):
        for name, handlers in variants:
            rates[name].append(parse(body, handlers))
        variants.reverse()  # so that none is always measured after the same other
    return rates


def print_table(rates):
    ours = rates["our handler"]
    print(f"| {SIZE >> 20} MiB, {ROUNDS} rounds | MB/s, median | ours ÷ this, median | quartiles |")
    print("|---|---:|---:|---:|")
    for name, others in rates.items():
        ratios = [mine / other for mine, other in zip(ours, others, strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        print(f"| {name} | {median(others) / 1e6:.0f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


def main():
    with Memcached() as memcached, TemporaryDirectory() as folder:
        server = {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": memcached.address,
        }
        ours = {"serde": None, "timeout": 0.2, "connect_timeout": 0.2, "ignore_exc": True}
        with override_settings(
            FILE_UPLOAD_TEMP_DIR=folder,
            CACHES={"default": {**server, "OPTIONS": ours}, "pickling": server},
        ):
            print_table(measure())


if __name__ == "__main__":
    main()
