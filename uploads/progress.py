"""The progress of uploads, as it is kept in the cache while their bytes arrive.

This module alone knows the key of a record, its shape, its lifetime, and that caches can fail. The
thread of a request only counts. One thread in each process writes the records of all its uploads:
a cache that is slow, hung or dead slows no upload.
"""

import json
import logging
import re
import time
from collections import deque
from threading import Event, Lock, Thread, main_thread

from django.core.cache import cache, caches
from django.core.exceptions import TooManyFieldsSent, ValidationError

from . import refusals
from .quota import quota

WRITE_INTERVAL = 0.5  # seconds between two writes, and the age of an upload at its first write
LIFETIME = 120  # seconds after its last write until a record expires, if its process was killed
BATCH = 200  # records per call; other threads can run between two calls

PROGRESS_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_CANCELLED = 20  # uploads in one request

logger = logging.getLogger(__name__)


def get_progress_id(request):
    """Return the upload id of a request, or None if it has none.

    The id is in the query or, if it is not there, in a header. Both are called X-Progress-ID, as in
    nginx's upload progress module. Raise ValidationError, code bad_progress_id, if it is malformed.
    """
    try:
        progress_id = request.GET.get("X-Progress-ID", request.headers.get("X-Progress-ID"))
    except TooManyFieldsSent:
        progress_id = ""
    if progress_id is not None and not PROGRESS_ID.fullmatch(progress_id):
        raise refusals.BAD_PROGRESS_ID.error()
    return progress_id


def get_cancelled_ids(request):
    """Return the upload ids in the form of a request.

    Raise ValidationError if there is none, if there are too many, or if one is malformed.
    """
    progress_ids = request.POST.getlist("X-Progress-ID")
    if len(progress_ids) > MAX_CANCELLED:
        raise refusals.TOO_MANY_CANCELLED.error(uploads=MAX_CANCELLED)
    if not progress_ids or not all(map(PROGRESS_ID.fullmatch, progress_ids)):
        raise refusals.BAD_PROGRESS_ID.error()
    return progress_ids


def get_content_length(request):
    """Return the Content-Length of a request in bytes, or None if it has none."""
    length = request.META.get("CONTENT_LENGTH") or ""
    return int(length) if length.isdecimal() else None


def cache_key(address, progress_id):
    return f"{address}_{progress_id}"


def get_record(request, progress_id):
    """Return the JSON text that is kept for an upload from this request's address, or None.

    Another web host may receive the upload, and keeps the record in its own cache.
    """
    key = cache_key(request.META["REMOTE_ADDR"], progress_id)
    try:
        return next(filter(None, (one.get(key) for one in caches.all())), None)
    except Exception:
        logger.warning("The progress of an upload could not be read.", exc_info=True)
        return None


def cache_answers():
    """Return whether the cache gives back what it was given."""
    try:
        cache.set("health", "ok", LIFETIME)
        return cache.get("health") in {"ok", b"ok"}  # memcached gives back bytes
    except Exception:
        logger.warning("The cache could not be asked.", exc_info=True)
        return False


def progress_of(request):
    """Return the one UploadProgress of a request."""
    if not hasattr(request, "upload_progress"):
        request.upload_progress = UploadProgress(request)
    return request.upload_progress


class UploadProgress:
    """Count the bytes of one upload. The writer keeps its record: {"length": …, "uploaded": …}.

    "length" is the number of bytes of the body, or null if the request does not state it;
    "uploaded" is the number of its files' bytes so far.
    After a refusal the record has three more fields: "error" is the sentence, "code" its code, and
    "retry" tells whether trying again may help.
    """

    def __init__(self, request):
        self.key = self._get_key(request)
        self.length = get_content_length(request)
        self.uploaded = 0
        self.refusal = None
        self.started = time.monotonic()
        self.ended = None  # when the body had been read, whole or not
        self.written = None  # the values in the last record

    def _get_key(self, request):
        try:
            progress_id = get_progress_id(request)
        except ValidationError:
            return None
        return progress_id and cache_key(request.META["REMOTE_ADDR"], progress_id)

    def start(self):
        """Ask the writer to keep the record up to date, and the counts of the quota."""
        writer.follow(self)

    def add(self, count):
        """Count more bytes."""
        self.uploaded += count

    def refuse(self, refusal):
        """Add a refusal to the record, and ask the writer to write it at once."""
        self.refusal = self.refusal or refusal
        if not self.ended:
            writer.follow(self, at_once=True)

    def end(self):
        """Ask the writer to delete the record."""
        if not self.ended:
            self.ended = time.monotonic()
            writer.forget(self)

    def is_due(self):
        """Return whether the record is out of date, and the upload is refused or old enough."""
        if not self.key or self.ended or self.written == (self.uploaded, self.refusal):
            return False
        return self.refusal or time.monotonic() - self.started >= WRITE_INTERVAL

    def make_record(self):
        """Return the record as JSON text, and note that it is written."""
        self.written = self.uploaded, self.refusal
        record = {"length": self.length, "uploaded": self.uploaded}
        if self.refusal:
            refused = self.refusal
            record |= {"error": refused.message, "code": refused.code, "retry": refused.retry}
        return json.dumps(record)


class ProgressWriter:
    """The thread that writes the records of all uploads of this process to the cache.

    It is started with the first upload, and ends when none is left. Every WRITE_INTERVAL it writes
    the records that have changed, and flushes the quota. It writes refusals and deletions at once.
    It never reads a record: the next write restores one that was evicted.
    """

    def __init__(self):
        self.lock = Lock()
        self.wake = Event()
        self.uploads = set()
        self.urgent = deque()  # uploads that were refused, or have ended and have a record
        self.thread = None

    def follow(self, upload, at_once=False):
        """Keep the record of an upload up to date; if at_once, write it at once."""
        with self.lock:
            self.uploads.add(upload)
            if at_once:
                self._hurry(upload)
            if not (self.thread and self.thread.is_alive()):
                self._start()

    def forget(self, upload):
        """Delete the record of an upload that has ended, if it has one."""
        with self.lock:
            self.uploads.discard(upload)
            if upload.written:
                self._hurry(upload)

    def _hurry(self, upload):
        self.urgent.append(upload)
        self.wake.set()

    def _start(self):
        # Not a daemon: when the process ends, Python waits until the records are deleted.
        self.thread = Thread(target=self._run, name="progress writer")
        try:
            self.thread.start()
        except RuntimeError:
            logger.warning("The progress of uploads cannot be written.", exc_info=True)

    def _run(self):
        next_write = time.monotonic() + WRITE_INTERVAL
        # The main thread is dead when the process ends. The records that are left are deleted then.
        while self._has_work() and main_thread().is_alive():
            self.wake.wait(max(0, next_write - time.monotonic()))
            self.wake.clear()
            self._write([self.urgent.popleft() for _ in range(len(self.urgent))])
            if time.monotonic() >= next_write:
                with self.lock:
                    uploads = list(self.uploads)
                self._write(uploads)
                quota.flush()
                next_write = time.monotonic() + WRITE_INTERVAL
        self._delete([upload.key for upload in (*self.urgent, *self.uploads) if upload.written])
        quota.flush(at_once=True)
        cache.close()

    def _has_work(self):
        """Return whether an upload is left; if none is, let the next one start a new thread."""
        with self.lock:
            if self.uploads or self.urgent:
                return True
            self.thread = None
            return False

    def _write(self, uploads):
        """Write the records that are due, and delete those of uploads that have ended."""
        due = [upload for upload in uploads if upload.is_due()]
        for start in range(0, len(due), BATCH):
            # Another thread may end an upload at any time. If it ends before `ended` is checked
            # below, nothing is written. If later, forget() finds `written` set, and the record is
            # deleted.
            records = [(upload, upload.make_record()) for upload in due[start : start + BATCH]]
            self._attempt(
                cache.set_many,
                {upload.key: record for upload, record in records if not upload.ended},
                LIFETIME,
            )
        self._delete([upload.key for upload in uploads if upload.ended and upload.written])

    def _delete(self, keys):
        if keys:
            self._attempt(cache.delete_many, keys)

    def _attempt(self, method, *args):
        try:
            method(*args)
        except Exception:
            logger.warning("The progress of uploads could not be written.", exc_info=True)


writer = ProgressWriter()
