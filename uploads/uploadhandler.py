"""Follow an upload while Django's multipart parser receives it, and refuse bad files early."""

import hashlib
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

from . import formats, refusals
from .body import body_of
from .progress import progress_of
from .quota import find_shortage


class UploadProgressCachedHandler(FileUploadHandler):
    """Count the received bytes of an upload, so that get_upload_progress can report them."""

    def __init__(self, request=None):
        super().__init__(request)
        self.progress = progress_of(request)
        self.body = None
        self.closing_boundary = b""

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        if input_data is self.request:  # Otherwise the body was read before, as request.body.
            self.body, self.closing_boundary = body_of(self.request), b"--%b--" % boundary
            # Django reads with read(), and drops the rest with readline().
            self.request.read = self.request.readline = self.body.read
            self.progress.start()

    def receive_data_chunk(self, raw_data, start):
        self.progress.add(len(raw_data))
        return raw_data

    def file_complete(self, file_size):
        """Leave the file to the next handler."""

    def upload_complete(self):
        """Raise UploadInterrupted if the body ended early.

        Django does not raise. The view would treat what arrived as complete: an id of one digit
        instead of two, or one file instead of two.
        """
        self.progress.end()
        if self.body and (refusal := self.body.find_refusal(self.closing_boundary)):
            raise refusals.UploadInterrupted(refusal)


class PictureFileUploadHandler(TemporaryFileUploadHandler):
    """Write pictures to temporary files, and refuse bad files while they arrive.

    A file is refused if its first bytes are not those of an accepted format, or if it is too large.
    The rest of it is read and dropped; other files of the request are kept. A complete file has a
    `digest`, the SHA-256 of the bytes that were written.
    """

    def __init__(self, request=None):
        super().__init__(request)
        self.refused = []  # pairs of a ValidationError and a file name

    def new_file(self, field_name, file_name, *args, **kwargs):
        """Keep the client's file name out of the path; Django would use its suffix."""
        Path(settings.FILE_UPLOAD_TEMP_DIR).mkdir(exist_ok=True)
        super().new_file(field_name, "upload", *args, **kwargs)
        self.file.name = self.file_name = file_name
        # This tells prune_uploads that the file is in use, even after it has been moved.
        locks.lock(self.file, locks.LOCK_SH)
        self.first_bytes = b""  # None after _judge() has accepted them
        self.digest = hashlib.sha256()
        raise StopFutureHandlers

    def receive_data_chunk(self, raw_data, start):
        if error := self._find_limit(start + len(raw_data)):
            self._refuse(error)
        if self.first_bytes is not None:
            raw_data = self._judge(raw_data)
        self.digest.update(raw_data)
        super().receive_data_chunk(raw_data, start)

    def file_complete(self, file_size):
        """Return the file, and forget it, so that upload_interrupted() does not delete it.

        Return None for one that is too short for a signature.
        """
        if self.first_bytes is not None:
            self._add_refusal(find_error(self.first_bytes) or refusals.DAMAGED.error())
            self.file.close()
            return None
        file = super().file_complete(file_size)
        file.digest = self.digest.hexdigest()
        del self.file
        return file

    def _find_limit(self, size):
        """Return the ValidationError for a file of this size in bytes, or None if it is allowed."""
        if max(self.content_length or 0, size) > settings.PICTURE_MAX_SIZE:
            return refusals.TOO_LARGE.error()
        return find_shortage(body_of(self.request).network)

    def _judge(self, raw_data):
        """Return the bytes that may be written now: none before SIGNATURE_LENGTH have arrived.

        Raise SkipFile if they refuse the file.
        """
        self.first_bytes += raw_data
        if len(self.first_bytes) < formats.SIGNATURE_LENGTH:
            return b""
        if error := find_error(self.first_bytes):
            self._refuse(error)
        raw_data, self.first_bytes = self.first_bytes, None
        return raw_data

    def _refuse(self, error):
        self._add_refusal(error)
        raise SkipFile

    def _add_refusal(self, error):
        self.refused.append((error, self.file_name))
        progress_of(self.request).refuse(refusals.get_refusal(error))


def find_error(first_bytes):
    """Return a ValidationError for a file that begins with these bytes, or None."""
    if not first_bytes:
        return refusals.EMPTY_FILE.error()
    kind = formats.identify(first_bytes)
    if kind in formats.FORMATS:
        return None
    if kind:
        return refusals.OTHER_FORMAT.error(kind=kind.label, formats=formats.LABELS)
    return refusals.NOT_AN_IMAGE.error(formats=formats.LABELS)


def get_refused_files(request):
    """Return the refused files of a parsed request: pairs of a ValidationError and a file name."""
    return [pair for handler in request.upload_handlers for pair in getattr(handler, "refused", ())]


def end_upload(request):
    """Clean up after an upload, whether it succeeded or not.

    Read the rest of its body, and delete its record. If Django's parser raised, it called no
    handler: delete the file that a handler may still have open.
    """
    for handler in request.upload_handlers:
        with suppress(OSError):  # On a full disk, closing the file fails as well.
            handler.upload_interrupted()
    body_of(request).drain()
    progress_of(request).end()
