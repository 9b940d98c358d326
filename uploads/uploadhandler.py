"""Follow the bytes of an upload while Django's multipart parser receives them."""

from django.core.files.uploadhandler import FileUploadHandler
from django.http import UnreadablePostError
from django.http.multipartparser import MultiPartParserError

from .progress import UploadProgress


class UploadInterrupted(MultiPartParserError):
    """The body of an upload ended before its Content-Length."""


class UploadProgressCachedHandler(FileUploadHandler):
    """Keep the progress of an upload in the cache, for get_upload_progress to tell."""

    def __init__(self, request=None):
        super().__init__(request)
        self.progress = UploadProgress(request)
        self.missing = 0  # bytes of the body that have not arrived

    def handle_raw_input(self, input_data, META, content_length, boundary, encoding=None):
        self.progress.length = content_length
        if input_data is self.request:
            self.missing = content_length
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
        if self.missing:
            raise UploadInterrupted("The upload ended before all of it had arrived.")

    def _counted(self, read):
        """Wrap the request's read(): count its bytes, and take a broken line for an early end.

        Django's parser tells the handlers of an early end, but not of a broken line.
        """

        def counted_read(*args):
            try:
                data = read(*args)
            except UnreadablePostError:
                return b""
            self.missing -= len(data)
            return data

        return counted_read
