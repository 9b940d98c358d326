"""A client that sends an upload piece by piece, as a slow line does, and one that polls."""

import json
import socket
import ssl
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlencode

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from uploads.models import Dish

from .base import upload_file
from .servers import ADDRESS

TOKEN = "x" * 32  # a cookie and a header that agree are all that the check for forgery asks for


class Answer(NamedTuple):
    status: int
    headers: dict
    text: str


class UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path, **options):
        super().__init__(ADDRESS, **options)
        self.path = path

    def connect(self):
        self.sock = open_socket(f"unix:{self.path}", self.timeout)


def open_socket(address, timeout=30, source=None):
    """Connect to host:port or unix:path, from an address of this machine's own if given."""
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(address.removeprefix("unix:"))
        return client
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), timeout, source and (source, 0))


def host_of(address):
    """Return the Host header of requests to an address."""
    return ADDRESS if address.startswith("unix:") else address


def connect(address, secure=False, source=None):
    """Connect to host:port, over TLS if secure, or to unix:path; see open_socket()."""
    if address.startswith("unix:"):
        return UnixConnection(address.removeprefix("unix:"), timeout=30)
    options = {"timeout": 30, "source_address": source and (source, 0)}
    if not secure:
        return HTTPConnection(address, **options)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nobody vouches for a test
    return HTTPSConnection(address, context=context, **options)


def get(address, path, headers=(), **options):
    with closing(connect(address, **options)) as connection:
        connection.request("GET", path, headers=dict(headers))
        return get_answer(connection)


def add_dish(address, name="Aïoli"):
    """Fill in the form for a new dish, as a browser does, and return the dish."""
    form = urlencode({"name": name, "restaurant": "Chez Fonfon"})
    headers = {"Content-Type": "application/x-www-form-urlencoded", **client_headers(address)}
    with closing(connect(address)) as connection:
        connection.request("POST", "/dishes/new", form, headers)
        location = get_answer(connection).headers["location"]
    return Dish(pk=int(location.strip("/").split("/")[-1]))


def client_headers(address, secure=False):
    origin = f"{'https' if secure else 'http'}://{host_of(address)}"
    return {"Cookie": f"csrftoken={TOKEN}", "X-CSRFToken": TOKEN, "Origin": origin}


def get_answer(connection):
    return read_answer(connection.getresponse())


def read_answer(response):
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read().decode())


class SlowUpload:
    """An upload that has begun, and goes on when send() is called."""

    def __init__(self, address, dish, content, progress_id=None, headers=(), **options):
        self.progress_id = progress_id
        query = "?" + urlencode({"X-Progress-ID": progress_id}) if progress_id else ""
        self.body = encode_multipart(BOUNDARY, {"id": dish.pk, "picture": upload_file(content)})
        self.length = len(self.body)
        self.connection = connect(address, **options)
        self.connection.putrequest("POST", f"/upload{query}")
        own = {"Content-Type": MULTIPART_CONTENT, "Content-Length": self.length}
        secure = options.get("secure", False)
        for header in {**client_headers(address, secure), **own, **dict(headers)}.items():
            self.connection.putheader(*header)
        self.connection.endheaders()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.body and self.connection.sock:
            with suppress(ConnectionError):  # A proxy hangs up, too.
                self.break_off()
        self.connection.close()

    def send(self, count=None):
        """Send so many bytes more, or all that are left."""
        piece, self.body = self.body[:count], self.body[count:] if count else b""
        if piece:  # To send nothing fails, too, where the server has closed the connection.
            self.connection.send(piece)

    def answer(self):
        """Send what is left, and return the status of the answer and its text."""
        self.send()
        return self._answer()

    def break_off(self):
        """Send no more, and return what the server answers to that."""
        self.body = b""
        self.connection.sock.shutdown(socket.SHUT_WR)
        return self._answer()

    def _answer(self):
        status, _, text = get_answer(self.connection)
        return status, text


def poll(address, progress_id, **options):
    """Return what get_upload_progress says of an upload."""
    query = urlencode({"X-Progress-ID": progress_id})
    return json.loads(get(address, f"/get_upload_progress?{query}", **options).text)
