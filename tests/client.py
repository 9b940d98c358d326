"""Clients of a running site: they upload piece by piece, poll, and request pages."""

import json
import socket
import ssl
import struct
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlencode

from .servers import ADDRESS

TOKEN = "x" * 32  # a cookie and a header that agree are all that the check for forgery asks for
BOUNDARY = "----WebKitFormBoundarygourmious5678BcD"  # as long as Chromium's
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
FORM_END = f"\r\n--{BOUNDARY}--\r\n".encode()

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Answer(NamedTuple):
    status: int
    headers: dict
    text: str


class Dish(NamedTuple):
    """A dish on a running site, by the path of its page."""

    path: str

    @property
    def pk(self):
        return int(self.path.strip("/").split("/")[-1])

    def get_absolute_url(self):
        return self.path


class UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path, **options):
        super().__init__(ADDRESS, **options)
        self.path = path

    def connect(self):
        self.sock = open_socket(f"unix:{self.path}", self.timeout)


def open_socket(address, timeout=60, source=None, secure=False):
    """Connect to host:port, over TLS if secure, or to unix:path.

    The source is an address of this machine's own.
    """
    if address.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(address.removeprefix("unix:"))
        return client
    host, port = address.rsplit(":", 1)
    place = host.strip("[]"), int(port)
    client = socket.create_connection(place, timeout, source and (source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return trusting_context().wrap_socket(client) if secure else client


def trusting_context():
    """Return a context of TLS that takes any certificate: nobody vouches for those of the tests."""
    # Not create_default_context(), which reads all authorities of the machine: that takes 0.05 s.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


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
    return HTTPSConnection(address, context=trusting_context(), **options)


def get(address, path, headers=(), **options):
    with closing(connect(address, **options)) as connection:
        connection.request("GET", path, headers=dict(headers))
        return get_answer(connection)


def add_dish(address, name="Aïoli"):
    """Fill in the form for a new dish, as a browser does, and return the dish."""
    return Dish(post_dish(address, name).headers["location"])


def post_dish(address, name):
    form = urlencode({"name": name, "restaurant": "Chez Fonfon"})
    headers = {"Content-Type": "application/x-www-form-urlencoded", **client_headers(address)}
    with closing(connect(address)) as connection:
        connection.request("POST", "/dishes/new", form, headers)
        return get_answer(connection)


def client_headers(address, secure=False):
    origin = f"{'https' if secure else 'http'}://{host_of(address)}"
    name = "__Host-csrftoken" if secure else "csrftoken"
    return {"Cookie": f"{name}={TOKEN}", "X-CSRFToken": TOKEN, "Origin": origin}


def upload_head(address, length, progress_id=None, headers=(), secure=False, **query):
    """Return the head of an upload whose body is so many bytes long."""
    if progress_id:
        query["X-Progress-ID"] = progress_id
    path = f"/upload?{urlencode(query)}" if query else "/upload"
    fields = {
        "Host": host_of(address),
        "Content-Type": FORM_TYPE,
        "Content-Length": length,
        **client_headers(address, secure),
        **dict(headers),
    }
    lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
    return "".join([f"POST {path} HTTP/1.1\r\n", *lines, "\r\n"]).encode()


def encode_form(**form):
    """Return a form as the body of an upload; bytes are a photo, and a list is several of them."""
    parts = [
        encode_part(name, value)
        for name, values in form.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return b"\r\n".join(parts) + FORM_END


def encode_part(name, value):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    if isinstance(value, bytes):
        head += '; filename="dish.jpg"\r\nContent-Type: image/jpeg'
        return f"{head}\r\n\r\n".encode() + value
    return f"{head}\r\n\r\n{value}".encode()


def get_answer(connection):
    return read_answer(connection.getresponse())


def read_answer(response):
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read().decode())


class Upload:
    """An upload on a connection of its own. It goes on when it is told to."""

    def __init__(self, address, dish, content, progress_id=None, headers=(), **options):
        self.address, self.progress_id = address, progress_id
        self.headers, self.options = headers, options
        self.sent, self.reply = 0, None
        self.fill_in(id=dish.pk, picture=content)

    def fill_in(self, **form):
        """Send this form, in this order."""
        body = encode_form(**form)
        secure = self.options.get("secure", False)
        self.length = len(body)
        self.head = upload_head(self.address, self.length, self.progress_id, self.headers, secure)
        self.data = self.head + body

    @property
    def body(self):
        return self.data[len(self.head) :]

    def __enter__(self):
        self.socket = open_socket(self.address, **self.options)
        return self

    def __exit__(self, *exc_info):
        if self.sent < len(self.data):
            self.break_off()
        self.hang_up()

    def send(self, until=None):
        """Send on until this byte, or to the end; a server that hung up takes no more."""
        until = len(self.data) if until is None else until
        with suppress(OSError):
            while self.sent < until:
                self.sent += self.socket.send(self.data[self.sent : min(until, self.sent + 2**16)])

    def send_more(self, count):
        """Send so many bytes more, if as many are left."""
        self.send(min(self.sent + count, len(self.data)))

    def send_no_more(self):
        """End the connection in one direction; an answer can still come."""
        with suppress(OSError):  # The server may have hung up.
            self.socket.shutdown(socket.SHUT_WR)

    def break_off(self):
        """Send no more, and return what the server answers to that."""
        self.send_no_more()
        return self.answer()

    def hang_up(self, reset=False):
        """Close the connection in order, or with a reset."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()

    def answer(self):
        """Send the rest, and return the answer, or None if the connection ends without one."""
        self.send()
        return self.read_answer()

    def read_answer(self):
        """Return the answer, or None if the connection ends without one."""
        with suppress(OSError, HTTPException), closing(HTTPResponse(self.socket)) as response:
            response.begin()
            self.reply = read_answer(response)
        return self.reply


def poll(address, progress_id, **options):
    """Return what get_upload_progress says of an upload."""
    query = urlencode({"X-Progress-ID": progress_id})
    return json.loads(get(address, f"/get_upload_progress?{query}", **options).text)
