"""Measure the cost of the handler that counts: Django's parser with it, and without it.

Measured beside them are Django's own handlers alone, and a handler that does as the tutorial's: for
each chunk it gets the record from the cache and sets it again. All parse the same body to a file on
the disk, in turn, with one real memcached.

    python -m tests.benchmarks.uploadhandler
"""

import os
import time
from io import BytesIO
from statistics import median
from tempfile import TemporaryDirectory

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
django.setup()

from django.conf import global_settings, settings  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.core.files.uploadhandler import FileUploadHandler  # noqa: E402
from django.test import RequestFactory, override_settings  # noqa: E402
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart  # noqa: E402

from tests.base import PRODUCTION, upload_file  # noqa: E402
from tests.environment import read_settings  # noqa: E402
from tests.photos import photo  # noqa: E402
from tests.servers import Memcached  # noqa: E402

from .rounds import RATIOS, describe_ratios, measure_in_turns, print_table  # noqa: E402

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


COUNTING, STORING = settings.FILE_UPLOAD_HANDLERS
HANDLERS = {
    "with the handler": [COUNTING, STORING],
    "without it": [STORING],
    "Django's own handlers": global_settings.FILE_UPLOAD_HANDLERS,
    "get and set for each chunk": [f"{__name__}.GetAndSetHandler", STORING],
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
    """Return the rates of each variant, one for each round."""
    content = photo() + os.urandom(SIZE)
    body = encode_multipart(BOUNDARY, {"picture": upload_file(content[:SIZE])})
    parse(body, [STORING])  # warms up
    return measure_in_turns(HANDLERS, lambda name: parse(body, HANDLERS[name]), ROUNDS)


def describe(rates):
    """Yield a row for each variant."""
    ours = rates["with the handler"]
    for name, others in rates.items():
        yield name, f"{median(others) / 1e6:.0f}", *describe_ratios(ours, others)


def main():
    with Memcached() as memcached, TemporaryDirectory() as folder:
        environment = {**PRODUCTION, "GOURMIOUS_MEMCACHED": memcached.address}
        cache = read_settings(**environment)["CACHES"]["default"]
        pickling = {"BACKEND": cache["BACKEND"], "LOCATION": cache["LOCATION"]}
        with override_settings(
            FILE_UPLOAD_TEMP_DIR=folder,
            PICTURE_MAX_SIZE=SIZE,
            CACHES={"default": cache, "pickling": pickling},
        ):
            head = (f"{SIZE >> 20} MiB, {ROUNDS} rounds", "MB/s, median", *RATIOS)
            print_table(head, describe(measure()))


if __name__ == "__main__":
    main()
