"""Follow an upload while Django's multipart parser receives it, and refuse bad files early."""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.core.files import locks
from django.core.files.uploadhandler import (
    FileUploadHandler,
    SkipFile,
    StopFutureHandlers,
    TemporaryFileUploadHandler,
)
from django.http import UnreadablePostError

from . import images, refusals
from .progress import WRITE_INTERVAL, progress_of

# On a slow connection read less than Django's 64 KiB at once, but at least this much: the bar moves
# evenly, and thousands of uploads do not take turns for a few bytes each.
MIN_READ_SIZE = 24 * 2**10
READ_DURATION = WRITE_INTERVAL / 2  # seconds

# The last boundary is looked for in this many bytes at the end of a body; no client sends more
# behind it.
END_LENGTH = 2**10


class UploadProgressCachedHandler(FileUploadHandler):
    """Count the bytes of an upload, for get_upload_progress to tell."""

    def __init__(self, request=None):
        super().__init__(request)
        self.progress = progress_of(request)
        self.missing = 0  # bytes of the body that have not arrived
        self.last = self.last_boundary = b""  # the last bytes, and what must be among them

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        if input_data is self.request:  # not a body that was read before it is parsed
            self.missing, self.last_boundary = content_length, b"--%b--" % boundary
            self.request.read = self._count(self.request.read)
            self.progress.start()

    def receive_data_chunk(self, raw_data, start):
        self.progress.add(len(raw_data))
        return raw_data

    def file_complete(self, file_size):
        """Leave the file to the next handler."""

    def upload_complete(self):
        """Raise UploadInterrupted where the body ended early.

        Django raises nothing then. The view would take a part for the whole: an id cut to its
        first digit, the first of two files.
        """
        self.progress.end()
        if self.missing or self.last_boundary not in self.last:
            raise refusals.UploadInterrupted("The upload ended before all of it had arrived.")

    def _count(self, read):
        """Wrap the request's read(): count bytes, and treat a broken connection as an early end.

        Django's parser tells its handlers of an early end, but not of a broken connection. Granian
        waits for all the bytes that it is asked for: on a slow connection ask for fewer.
        """

        def counted_read(size):
            try:
                data = read(min(size, self._read_size()))
            except UnreadablePostError:
                return b""
            self.missing -= len(data)
            if self.missing < END_LENGTH:
                self.last = (self.last + data)[-END_LENGTH:]
            return data

        return counted_read

    def _read_size(self):
        """Return how many bytes come in READ_DURATION at the upload's average speed."""
        received = self.progress.length - self.missing
        seconds = time.monotonic() - self.progress.started
        return max(MIN_READ_SIZE, int(received * READ_DURATION / (seconds or 1)))


class PictureFileUploadHandler(TemporaryFileUploadHandler):
    """Receive pictures in temporary files, and refuse bad files before they are on the disk.

    A file is judged by its first bytes and by its size: the one that its part declares, which no
    browser does, or the one it has reached. The rest of a refused file is read and dropped; other
    files of the request are kept. A complete file has a digest, the SHA-256 of its bytes.
    """

    def __init__(self, request=None):
        super().__init__(request)
        self.refused = []  # pairs of a ValidationError and a file name

    def new_file(self, field_name, file_name, *args, **kwargs):
        """Use no part of the client's file name: Django would take its suffix."""
        Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(exist_ok=True)
        super().new_file(field_name, "upload", *args, **kwargs)
        self.file.name = self.file_name = file_name
        # Tells prune_uploads that the file is in use, wherever it is moved, until it is closed.
        locks.lock(self.file, locks.LOCK_SH)
        self.held = b""  # the first bytes, until there are enough of them to be judged
        self.digest = hashlib.sha256()
        raise StopFutureHandlers

    def receive_data_chunk(self, raw_data, start):
        if max(self.content_length or 0, start + len(raw_data)) > settings.PICTURE_MAX_SIZE:
            self._refuse(refusals.TOO_LARGE.error())
        if self.held is not None:
            raw_data = self._judge(raw_data)
        self.digest.update(raw_data)
        super().receive_data_chunk(raw_data, start)

    def file_complete(self, file_size):
        """Hand the file over: from now on it is not the handler's to delete."""
        file = super().file_complete(file_size)
        file.digest = self.digest.hexdigest()
        del self.file
        return file

    def _judge(self, raw_data):
        """Return what may be written: nothing, until enough bytes are held."""
        self.held += raw_data
        if len(self.held) < images.SIGNATURE_LENGTH:
            return b""
        if not images.may_be_picture(self.held[: images.SIGNATURE_LENGTH]):
            self._refuse(refusals.NOT_AN_IMAGE.error(formats=images.LABELS))
        raw_data, self.held = self.held, None
        return raw_data

    def _refuse(self, error):
        self.refused.append((error, self.file_name))
        progress_of(self.request).refuse(refusals.get_refusal(error))
        raise SkipFile


def get_refused_files(request):
    """Return the refused files of a parsed request: pairs of a ValidationError and a file name."""
    return [pair for handler in request.upload_handlers for pair in getattr(handler, "refused", ())]


def end_upload(request):
    """End an upload, however far it came: no file, no byte of the body and no record is left.

    Django's parser raises without a word to its handlers, which may hold a file.
    """
    for handler in request.upload_handlers:
        with suppress(OSError):  # A full disk fails once more when the file is closed.
            handler.upload_interrupted()
    drain(request)
    progress_of(request).end()


def drain(request):
    """Read the rest of the body: a proxy may lose an answer that is sent before."""
    # Django reads no chunked body. A server that detects its end can be asked directly.
    terminated = request.environ.get("wsgi.input_terminated")
    body = request.environ["wsgi.input"] if terminated else request
    with suppress(OSError):
        while body.read(2**16):
            pass
