"""The body of an upload, as it arrives. It counts its bytes, and ends early if it is too slow."""

import time

from django.conf import settings

from . import refusals
from .progress import WRITE_INTERVAL, get_content_length
from .quota import get_network, quota

# Granian waits until it has all the bytes that are requested. On a slow connection request fewer
# than Django's 64 KiB, so that the bar moves evenly. But request at least this much: with thousands
# of uploads, switching threads often costs too much.
MIN_READ_SIZE = 24 * 2**10  # bytes
READ_DURATION = WRITE_INTERVAL / 2  # seconds

# The speed of the first seconds says little: a client may send only the head of its form at once.
FIRST_SECONDS = 4

# The closing boundary must be within this many bytes of the end of a body.
TAIL_LENGTH = 2**10


def body_of(request):
    """Return the one Body of a request."""
    if not hasattr(request, "upload_body"):
        request.upload_body = Body(request)
    return request.upload_body


class Body:
    """Read the body of an upload from the server.

    It ends early if the connection breaks, if the client is too slow, or if a body that does not
    state its length grows too large. `refusal` then says why.
    """

    def __init__(self, request):
        self.stream = request.environ["wsgi.input"]
        self.network = get_network(request.META["REMOTE_ADDR"], ipv4_bits=32)
        self.length = get_content_length(request)
        self.max_length = self._get_max_length(request)
        self.received = 0  # bytes
        self.tail = b""  # the last bytes that arrived
        self.refusal = None
        self.read_size = 1  # bytes
        # At most two times, a period apart or more, with the bytes that had been received by then.
        # The speed is measured since the first.
        self.marks = [(time.monotonic(), 0)]

    def _get_max_length(self, request):
        if self.length is not None:
            return self.length
        # read() would wait for ever, unless the server marks the end of such a body.
        return settings.UPLOAD_MAX_SIZE + 1 if request.environ.get("wsgi.input_terminated") else 0

    def read(self, size=2**16):
        """Return at most this many bytes; none at the end."""
        if self.refusal:
            return b""
        try:
            data = self.stream.read(min(size, self.read_size, self.max_length - self.received))
        except OSError:
            self.refusal = refusals.INTERRUPTED
            return b""
        self.received += len(data)
        quota.add(self.network, len(data))
        self.tail = (self.tail + data[-TAIL_LENGTH:])[-TAIL_LENGTH:]
        self._judge()
        return data

    def drain(self):
        """Read the rest, and drop it: a proxy may lose an answer that is sent earlier."""
        while self.read():
            pass

    def find_refusal(self, closing_boundary):
        """Return why the body is not complete, or None."""
        if self.refusal:
            return self.refusal
        is_short = self.length is not None and self.received < self.length
        return refusals.INTERRUPTED if is_short or closing_boundary not in self.tail else None

    def _judge(self):
        """Give up a body that is too slow or too large; choose how much to read next."""
        now = time.monotonic()
        since, received = self.marks[0]
        seconds = now - since
        speed = (self.received - received) / max(seconds, FIRST_SECONDS)
        if seconds >= settings.UPLOAD_SPEED_PERIOD and speed < settings.UPLOAD_MIN_SPEED:
            self.refusal = refusals.TOO_SLOW.fill()
        if self.length is None and self.received > settings.UPLOAD_MAX_SIZE:
            self.refusal = refusals.UPLOAD_TOO_LARGE.fill()
        # Near the least speed a thread must wake up often enough to notice that it is too low.
        minimum = 1 if speed < 2 * settings.UPLOAD_MIN_SPEED else MIN_READ_SIZE
        self.read_size = max(minimum, int(speed * READ_DURATION))
        if now - self.marks[-1][0] >= settings.UPLOAD_SPEED_PERIOD:
            self.marks = [self.marks[-1], (now, self.received)]
