"""Follow an upload while Django's multipart parser receives it, and refuse what cannot be kept."""

import time
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files import locks
from django.core.files.uploadhandler import (
    FileUploadHandler,
    SkipFile,
    StopFutureHandlers,
    TemporaryFileUploadHandler,
)
from django.http import UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.template.defaultfilters import filesizeformat

from . import images
from .progress import WRITE_INTERVAL, progress_of

# On a slow line fewer bytes are asked for at once than Django does, but no fewer than these: so its
# bar moves evenly, and it holds little memory.
MIN_READ_SIZE = 2**14
READ_DURATION = WRITE_INTERVAL / 2  # seconds

# Among so many bytes at a body's end its last boundary is looked for; nobody sends more behind it.
END_LENGTH = 2**10


class UploadInterrupted(MultiPartParserError):
    """The body of an upload ended before its Content-Length, or without its last boundary.

    Raised as an error of the parser, which Django takes note of: it does not parse again.
    """


class UploadProgressCachedHandler(FileUploadHandler):
    """Keep the progress of an upload in the cache, for get_upload_progress to tell."""

    def __init__(self, request=None):
        super().__init__(request)
        self.progress = progress_of(request)
        self.missing = 0  # bytes of the body that have not arrived
        self.last = self.last_boundary = b""  # bytes that did, and what is to be among them

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        if input_data is self.request:  # else the body was read, whole, before it is parsed
            self.missing, self.last_boundary = content_length, b"--%b--" % boundary
            self.request.read = self._counted(self.request.read)

    def receive_data_chunk(self, raw_data, start):
        self.progress.add(len(raw_data))
        return raw_data

    def file_complete(self, file_size):
        """Leave the file to the next handler."""

    def upload_interrupted(self):
        self.progress.delete()

    def upload_complete(self):
        """Raise UploadInterrupted where the body ended early.

        Django raises nothing then, and the view would take what has come for the whole: an id
        cut to its first digit, the first of two files.
        """
        self.progress.delete()
        if self.missing or self.last_boundary not in self.last:
            raise UploadInterrupted("The upload ended before all of it had arrived.")

    def _counted(self, read):
        """Wrap the request's read(): count its bytes, and take a broken line for an early end.

        Django's parser tells the handlers of an early end, but not of a broken line. Granian waits
        for all the bytes that it is asked for: on a slow line these are fewer, and are soon there.
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
        """Return how many bytes come in READ_DURATION, as the upload has gone so far."""
        received = self.progress.length - self.missing
        seconds = time.monotonic() - self.progress.started
        return max(MIN_READ_SIZE, int(received * READ_DURATION / (seconds or 1)))


class PictureFileUploadHandler(TemporaryFileUploadHandler):
    """Receive pictures in temporary files, and refuse what cannot be kept before it is on the disk.

    A file is judged by its first bytes, and by its size: the one that its part declares, as no
    browser does, or the one it has grown to. What is left of a refused file is read and dropped;
    other files of the request are kept.
    """

    def __init__(self, request=None):
        super().__init__(request)
        self.refusals = []  # pairs of a ValidationError and a file name

    def new_file(self, field_name, file_name, *args, **kwargs):
        """Name the temporary file without the client's help, whose suffix Django would take."""
        Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(exist_ok=True)
        super().new_file(field_name, "upload", *args, **kwargs)
        self.file.name = self.file_name = file_name
        # Tells prune_uploads that the file is in use, wherever it is moved, until it is closed.
        locks.lock(self.file, locks.LOCK_SH)
        self.held = b""  # the first bytes, until they are enough to tell what they begin
        raise StopFutureHandlers

    def receive_data_chunk(self, raw_data, start):
        if max(self.content_length or 0, start + len(raw_data)) > settings.PICTURE_MAX_SIZE:
            self._refuse(too_large())
        if self.held is not None:
            raw_data = self._judge(raw_data)
        super().receive_data_chunk(raw_data, start)

    def _judge(self, raw_data):
        """Return what may be written: nothing, until enough bytes are held."""
        self.held += raw_data
        if len(self.held) < images.SIGNATURE_LENGTH:
            return b""
        if not images.may_be_picture(self.held[: images.SIGNATURE_LENGTH]):
            self._refuse(images.not_an_image())
        raw_data, self.held = self.held, None
        return raw_data

    def _refuse(self, error):
        self.refusals.append((error, self.file_name))
        progress_of(self.request).refuse(error)
        raise SkipFile


def too_large():
    return ValidationError(
        f"This file is larger than the {filesizeformat(settings.PICTURE_MAX_SIZE)} that are "
        "allowed.",
        code="too_large",
    )


def get_refusals(request):
    """Return what was refused of a parsed request: pairs of a ValidationError and a file name."""
    return [
        pair for handler in request.upload_handlers for pair in getattr(handler, "refusals", ())
    ]
