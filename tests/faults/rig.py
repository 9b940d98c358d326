"""What the faults have in common: uploads that keep a ledger of what they were answered, and the
audit of what is left when something was broken.
"""

import hashlib
import os
import random
import re
import socket
import sqlite3
import struct
from contextlib import closing, contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from itertools import count
from threading import Lock
from typing import NamedTuple
from xml.etree import ElementTree

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from PIL import Image, ImageChops, ImageStat

from tests.base import upload_file
from tests.client import Answer, client_headers, host_of, open_socket, read_answer
from tests.photos import encoded, photo
from tests.servers import ADDRESS, manage
from tests.test_stack import StackTestCase
from tests.waiting import wait_for
from uploads.progress import LIFETIME
from uploads.refusals import BY_CODE

TIMES = int(os.environ.get("TIMES", "1"))  # how many times as often as in the suite
SEED = int(os.environ.get("SEED", "1"))

# What there may be beside the files of uploads: in the data folder, and in each folder of nginx.
DATA = re.compile(r"db\.sqlite3(-wal|-shm)?|incoming|originals|media|static")
NGINX = re.compile(r"nginx\.conf|pid|(access|error)\.log")

ALIKE = 15  # of 255, by which the colours of a photo and of its rendition may differ

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CODES = set(BY_CODE)


class Entry(NamedTuple):
    """What became of an upload, as its client knows it."""

    progress_id: str
    digest: str
    answer: Answer | None  # None where the line ended first
    whole: bool  # whether all of it was sent, so that only the answer can have been lost
    dish: int | None = None  # the id of the dish that it is of, or None for any

    @property
    def picture(self):
        return self.dish, self.digest

    @property
    def upload(self):
        return ElementTree.fromstring(self.answer.text)

    @property
    def kept(self):
        return self.answer is not None and self.answer.status == 200


class Upload:
    """An upload as bytes on a socket; when the block ends, the ledger has an entry of it."""

    def __init__(self, ledger, dish, content, progress_id, *, source=None, address=None):  # noqa: PLR0913
        self.ledger, self.dish, self.content, self.progress_id = ledger, dish, content, progress_id
        self.address, self.source = address or ledger.stack.http.address, source
        self.sent, self.reply = 0, None
        self.digest = digest_of(content)
        self.fill_in(id=dish.pk, picture=upload_file(content))

    def fill_in(self, **form):
        """Send this form, in this order."""
        self.body = encode_multipart(BOUNDARY, form)
        self.head = self._head()
        self.data = self.head + self.body

    def _head(self):
        own = {
            "Host": host_of(self.address),
            "Content-Type": MULTIPART_CONTENT,
            "Content-Length": len(self.body),
        }
        headers = {**own, **client_headers(self.address)}
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        start = f"POST /upload?X-Progress-ID={self.progress_id} HTTP/1.1\r\n"
        return "".join([start, *lines, "\r\n"]).encode()

    def __enter__(self):
        self.socket = open_socket(self.address, 60, self.source)
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *exc_info):
        self.socket.close()
        whole = self.sent == len(self.data)
        entry = Entry(self.progress_id, self.digest, self.reply, whole, self.dish.pk)
        self.ledger.note(entry)

    def send(self, until=None):
        """Send on until this byte, or to the end; a server that hung up takes no more."""
        until = len(self.data) if until is None else until
        with suppress(OSError):
            while self.sent < until:
                self.sent += self.socket.send(self.data[self.sent : min(until, self.sent + 2**16)])

    def send_no_more(self):
        """End the line in one direction; an answer can still come."""
        with suppress(OSError):  # The server may have hung up.
            self.socket.shutdown(socket.SHUT_WR)

    def hang_up(self, reset=False):
        """End the line in order, or with a reset."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.socket.close()

    def answer(self):
        """Send what is left, and return the answer, or None where the line ends without one."""
        self.send()
        with suppress(OSError, HTTPException), closing(HTTPResponse(self.socket)) as response:
            response.begin()
            self.reply = read_answer(response)
        return self.reply


class Ledger:
    """What the clients of a stack were answered; any thread may write to it."""

    def __init__(self, stack):
        self.stack = stack
        self.entries = []
        self.compared = {}  # whether photos look alike, by what is in their files
        self.lock = Lock()
        self.at_once = True  # no process was killed: records are to be gone by now

    def note(self, entry):
        with self.lock:
            self.entries.append(entry)

    def broken_promises(self):
        """Yield a sentence for each promise that is broken as things stand."""
        rows = self.read_rows()
        pictures = {picture for row in rows for picture in pictures_of(row)}
        for entry in self.entries:
            yield from broken_answer(entry)
            if entry.kept and entry.picture not in pictures:
                yield f"{entry.progress_id} was answered ok, and has no row."
        asked = {entry.picture for entry in self.entries if entry.kept or self.may_be_kept(entry)}
        for row in rows:
            yield from self.broken_row(row)
            if not asked & pictures_of(row):
                yield f"Picture {row['id']} has a row, and its upload was not answered ok."
        yield from self.strange_files(rows)
        yield from self.lasting_records()

    def may_be_kept(self, entry):
        """Tell whether only the answer can be missing: of the upload, or of nginx's own to it."""
        return entry.whole and (entry.answer is None or entry.answer.status in {502, 504})

    def read_rows(self):
        database = f"file:{self.stack.data}/db.sqlite3?mode=ro"
        with closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute("SELECT * FROM uploads_picture").fetchall()

    def broken_row(self, row):
        try:
            original = (self.stack.data / "originals" / row["original"]).read_bytes()
            if digest_of(original) != row["digest"]:
                yield f"The original of picture {row['id']} is not what was sent."
            for name in ("display", "thumbnail"):
                rendition = (self.stack.data / "media" / row[name]).read_bytes()
                if rendition == original:
                    yield f"The {name} of picture {row['id']} is the original itself."
                elif not self.are_alike(original, rendition):
                    yield f"The {name} of picture {row['id']} shows another photo."
        except OSError as error:
            yield f"Picture {row['id']} has lost a file: {error}."

    def are_alike(self, *files):
        key = tuple(map(digest_of, files))
        if key not in self.compared:
            self.compared[key] = are_alike(*files)
        return self.compared[key]

    def strange_files(self, rows):
        """Yield what is in a folder where it does not belong."""
        named = {"originals": {row["original"] for row in rows}}
        named["media"] = {row[name] for row in rows for name in ("display", "thumbnail")}
        for path in self.files():
            if path.name not in named.get(path.parent.name, ()):
                yield f"{path} belongs to no row."
        data, servers = self.stack.data, (self.stack.http, self.stack.https)
        for expected, paths in (
            (DATA, data.glob("*")),
            *((NGINX, files_below(server.folder)) for server in servers),
        ):
            for path in paths:
                if not expected.fullmatch(path.name):
                    yield f"{path} does not belong there."

    def files(self):
        for folder in ("incoming", "originals", "media"):
            with suppress(FileNotFoundError):
                yield from (self.stack.data / folder).iterdir()

    def lasting_records(self):
        """Yield the records in memcached that are of an upload that ended, and have no end."""
        for entry in self.entries:
            key = f":1:{ADDRESS}_{entry.progress_id}"
            if found := re.search(r"HD t(-?\d+)", self.stack.memcached.ask(f"mg {key} t")):
                seconds = int(found[1])
                if self.at_once or not 0 < seconds <= LIFETIME:
                    yield f"{entry.progress_id} has a record for {seconds} seconds."

    def audit(self, killed=False):
        """Raise where a promise is broken, and not soon kept: a thread may have to end first.

        What a process left that was killed may have to be pruned, and its records have an end.
        """
        self.at_once = not killed
        if killed:
            self.prune()
        broken = []

        def is_kept():
            broken[:] = self.broken_promises()
            return not broken

        try:
            wait_for(is_kept)
        except TimeoutError:
            raise AssertionError("\n".join([f"SEED={SEED}:", *broken])) from None

    def prune(self):
        """Let a day go by for the files that no upload holds, and remove those without a row."""
        for path in self.files():
            with suppress(FileNotFoundError):
                os.utime(path, (0, 0))
        manage("prune_uploads", "--force", **self.stack.environment)


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


def pictures_of(row):
    """Return the dish and the digest of a row, with any dish, too."""
    return {(row["dish_id"], row["digest"]), (None, row["digest"])}


def files_below(folder):
    return (path for path in folder.rglob("*") if path.is_file())


def painted(content, choice):
    """Return a photo, no smaller, in four colours of its own, and with bytes of its own behind."""
    with Image.open(BytesIO(content)) as image:
        colours = Image.frombytes("RGB", (2, 2), choice.randbytes(12))
        colours = colours.resize(image.size, Image.Resampling.NEAREST)
        mixed = encoded(Image.blend(image.convert("RGB"), colours, 0.5), quality=96)
    return mixed + choice.randbytes(max(16, len(content) + 16 - len(mixed)))


def are_alike(original, rendition):
    difference = ImageChops.difference(colours_of(original), colours_of(rendition, ["JPEG"]))
    return max(ImageStat.Stat(difference).mean) < ALIKE


def colours_of(content, formats=None):
    """Return the colours of a photo's four quarters; raise OSError where it is not whole."""
    with Image.open(BytesIO(content), formats=formats) as image:
        image.draft(None, (480, 480))
        return image.convert("RGB").resize((2, 2), Image.Resampling.BOX)


def broken_answer(entry):
    """Yield a sentence where an answer is not the contract's."""
    if entry.answer is None:
        return
    try:
        upload = entry.upload
        codes = {error.get("code") for error in upload.iter("error")}
        status = upload.findtext("status")
    except ElementTree.ParseError:
        yield f"{entry.progress_id} was not answered in XML: {entry.answer}"
        return
    if status != ("ok" if entry.kept else "error") or codes - CODES or entry.kept == bool(codes):
        yield f"{entry.progress_id} was not answered as the contract says: {entry.answer}"


class FaultTestCase(StackTestCase):
    """Break something while uploads run; at the end every promise must be kept."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ledger = Ledger(cls.stack)
        cls.photo = photo(randbytes=random.Random(f"{SEED} {cls.__qualname__}").randbytes)

    def setUp(self):
        super().setUp()
        self.choice = random.Random(f"{SEED} {self.id()}")
        self.numbers = count(1)

    def __str__(self):
        return f"{super().__str__()}, SEED={SEED}"

    def fault_upload(self, content=None, progress_id=None, choice=None, **options):
        """Return an upload of a photo that nobody has sent before; a thread has its own choice."""
        content = painted(content or self.photo, choice or self.choice)
        progress_id = progress_id or f"{self.progress_id[-50:]}-{next(self.numbers)}"
        return Upload(self.ledger, self.dish, content, progress_id, **options)

    @contextmanager
    def database_locked(self):
        """Write to the database, and do not come to an end."""
        self.empty_wal()  # else a row may find room in it, even on a full disk
        with closing(self.connect_to_database()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def empty_wal(self):
        with closing(self.connect_to_database()) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def connect_to_database(self):
        return sqlite3.connect(self.stack.data / "db.sqlite3", isolation_level=None)

    def assert_still_kept(self):
        """Assert that an upload goes well now."""
        with self.fault_upload() as upload:
            self.assertEqual(upload.answer().status, 200, upload.reply)

    def audit(self, fault, times, killed=False):
        """Assert that nothing was lost, and tell so in the table of a run by hand."""
        self.ledger.audit(killed)
        if "TIMES" in os.environ:
            print(f"| {fault[0].upper()}{fault[1:]} | {times} | nothing |", flush=True)
