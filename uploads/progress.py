"""The progress of uploads, as it is kept in the cache while their bytes arrive.

This module alone knows the key of a record, its shape, its lifetime, and that caches can fail.
"""

import json
import logging
import re
import time

from django.core.cache import cache
from django.core.exceptions import TooManyFieldsSent, ValidationError

WRITE_INTERVAL = 0.5  # seconds; an upload is written of no more often
LIFETIME = 120  # seconds after the last write, for the record of a process that was killed
CACHE_SHARE = 0.05  # of an upload's time is what a slow cache may take,
LONGEST_PAUSE = 4  # seconds without a write, even so

PROGRESS_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

logger = logging.getLogger(__name__)


def get_progress_id(request):
    """Return the upload id of a request, or None where it has none.

    It comes from the query, or else from a header; both are called X-Progress-ID, as in nginx's
    upload progress module. Raise ValidationError, code bad_progress_id, where it is malformed.
    """
    try:
        progress_id = request.GET.get("X-Progress-ID", request.headers.get("X-Progress-ID"))
    except TooManyFieldsSent:
        progress_id = ""
    if progress_id is not None and not PROGRESS_ID.fullmatch(progress_id):
        raise bad_progress_id()
    return progress_id


def bad_progress_id():
    return ValidationError(
        "The X-Progress-ID of an upload must be 1 to 64 characters long: letters, digits, _ and - "
        "are allowed.",
        code="bad_progress_id",
    )


def content_length(request):
    """Return how long the body of a request says it is, in bytes."""
    length = request.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else 0


def get_record(request, progress_id):
    """Return the JSON text that is kept for an upload from this request's address, or None."""
    try:
        return cache.get(cache_key(request.META["REMOTE_ADDR"], progress_id))
    except Exception:
        logger.warning("The progress of an upload could not be read.", exc_info=True)
        return None


def cache_answers():
    """Tell whether the cache gives back what it was given."""
    try:
        cache.set("health", "ok", LIFETIME)
        return cache.get("health") in {"ok", b"ok"}  # memcached gives back bytes
    except Exception:
        logger.warning("The cache could not be asked.", exc_info=True)
        return False


def progress_of(request):
    """Return the UploadProgress of a request, the same to all who ask."""
    if not hasattr(request, "upload_progress"):
        request.upload_progress = UploadProgress(request)
    return request.upload_progress


def cache_key(address, progress_id):
    return f"{address}_{progress_id}"


def pause_after(duration):
    """Return how long to write no more, after a write of this duration; both in seconds."""
    return min(max(WRITE_INTERVAL, duration / CACHE_SHARE), LONGEST_PAUSE)


class UploadProgress:
    """Keep the record of one upload: {"length": bytes to come, "uploaded": bytes received}.

    Once a file of it is refused there are two fields more: "error" has the sentence, and "code" its
    code. The cache is written to and never read back, so that an evicted record is simply there
    again with the next write. Nothing that the cache does makes an upload fail.
    """

    def __init__(self, request):
        self.key = self._get_key(request)
        self.length = content_length(request)
        self.uploaded = 0
        self.refusal = None
        self.next_write = 0.0
        self.started = time.monotonic()
        self.received = None  # when all of the upload was in, or it was given up

    def _get_key(self, request):
        try:
            progress_id = get_progress_id(request)
        except ValidationError:
            return None
        return progress_id and cache_key(request.META["REMOTE_ADDR"], progress_id)

    def add(self, count):
        """Count so many bytes more, and tell the cache if it is time to."""
        self.uploaded += count
        if self.key and time.monotonic() >= self.next_write:
            self._write()

    def refuse(self, refusal):
        """Tell at once that the server has refused a file, and only reads the rest.

        The refusal has a code and a message, as a ValidationError has.
        """
        self.refusal = self.refusal or refusal
        if self.key:
            self._write()

    def delete(self):
        """Delete the record, if there is one; a hung cache costs its time but once."""
        self.received = self.received or time.monotonic()
        if self.next_write:
            self.next_write = 0.0
            self._attempt(cache.delete, self.key)

    def _write(self):
        record = {"length": self.length, "uploaded": self.uploaded}
        if self.refusal:
            record |= {"error": self.refusal.message, "code": self.refusal.code}
        started = time.monotonic()
        self._attempt(cache.set, self.key, json.dumps(record), LIFETIME)
        if started - self.started > WRITE_INTERVAL / 2:
            # Else each slow upload holds a connection until its end, and memcached, with 1024 by
            # default, turns away the others and nginx's polls. A fast one soon needs it again.
            self._attempt(cache.close)
        finished = time.monotonic()
        self.next_write = finished + pause_after(finished - started)

    def _attempt(self, method, *args):
        try:
            method(*args)
        except Exception:
            logger.warning("The progress of an upload could not be written.", exc_info=True)
