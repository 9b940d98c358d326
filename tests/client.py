"""A client that sends an upload piece by piece, as a slow line does, and one that polls."""

import json
from http.client import HTTPConnection
from socket import SHUT_WR
from urllib.parse import urlencode
from urllib.request import urlopen

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from .base import upload_file

TOKEN = "x" * 32  # a cookie and a header that agree are all that the check for forgery asks for


class SlowUpload:
    """An upload that has begun, and goes on when send() is called."""

    def __init__(self, address, dish, content, progress_id=None):
        query = "?" + urlencode({"X-Progress-ID": progress_id}) if progress_id else ""
        self.body = encode_multipart(BOUNDARY, {"id": dish.pk, "picture": upload_file(content)})
        self.connection = HTTPConnection(address, timeout=30)
        self.connection.putrequest("POST", f"/upload{query}")
        self.connection.putheader("Content-Type", MULTIPART_CONTENT)
        self.connection.putheader("Content-Length", len(self.body))
        self.connection.putheader("Cookie", f"csrftoken={TOKEN}")
        self.connection.putheader("X-CSRFToken", TOKEN)
        self.connection.endheaders()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.body and self.connection.sock:
            self.break_off()
        self.connection.close()

    def send(self, count=None):
        """Send so many bytes more, or all that are left."""
        piece, self.body = self.body[:count], self.body[count:] if count else b""
        self.connection.send(piece)

    def answer(self):
        """Send what is left, and return the status of the answer and its text."""
        self.send()
        return self._answer()

    def break_off(self):
        """Send no more, and return what the server answers to that."""
        self.body = b""
        self.connection.sock.shutdown(SHUT_WR)
        return self._answer()

    def _answer(self):
        response = self.connection.getresponse()
        return response.status, response.read().decode()


def poll(address, progress_id):
    """Return what get_upload_progress says of an upload."""
    query = urlencode({"X-Progress-ID": progress_id})
    with urlopen(f"http://{address}/get_upload_progress?{query}", timeout=30) as response:
        return json.load(response)
