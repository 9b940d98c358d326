"""The base of the fault tests: a ledger of all answers, and an audit of rows, files and records."""

import hashlib
import os
import random
import re
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from itertools import count
from statistics import median
from threading import Lock
from typing import NamedTuple
from xml.etree import ElementTree

from PIL import Image, ImageChops, ImageStat

from tests import client
from tests.cases import StackTestCase
from tests.client import Answer, get
from tests.contract import RECORD_LIFETIME, REFUSALS
from tests.photos import encoded, photo
from tests.servers import ADDRESS, manage
from tests.waiting import wait_for

TIMES = int(os.environ.get("TIMES", "1"))  # repeats each fault this many times
ANOTHER = "127.0.0.99"  # the address of a client that must not be kept out
SEED = int(os.environ.get("SEED", "1"))

# Other files and folders that may exist: in the data folder, and in each folder of nginx.
DATA = re.compile(
    r"db\.sqlite3(-wal|-shm|-migrate|-prune_uploads)?|lost\.json|incoming|originals|media|static"
)
NGINX = re.compile(r"nginx\.conf|pid|(access|error)\.log")

TOLERANCE = 15  # the colours of a photo and its rendition may differ by this much of 255


class Entry(NamedTuple):
    """The outcome of an upload, as its client knows it."""

    progress_id: str
    digest: str
    answer: Answer | None  # None if the connection ended first
    whole: bool  # whether all of it was sent: then only the answer can be lost
    dish: int | None = None  # the id of the dish, or None for any dish

    @property
    def picture(self):
        return self.dish, self.digest

    @property
    def upload(self):
        return ElementTree.fromstring(self.answer.text)

    @property
    def kept(self):
        return self.answer is not None and self.answer.status == 200


class Upload(client.Upload):
    """An upload that writes an entry into the ledger when the block ends."""

    def __init__(self, ledger, address, dish, content, progress_id, **options):
        super().__init__(address, dish, content, progress_id, **options)
        self.ledger, self.dish, self.content = ledger, dish, content
        self.digest = compute_digest(content)

    def __exit__(self, *exc_info):
        self.hang_up()
        whole = self.sent == len(self.data)
        entry = Entry(self.progress_id, self.digest, self.reply, whole, self.dish.pk)
        self.ledger.note(entry)


class StackSite:
    """The rows in SQLite, the files in folders, and the records of a stack."""

    def __init__(self, stack):
        self.stack = stack
        self.memcached = [stack.memcached]

    def read_rows(self):
        database = f"file:{self.stack.data}/db.sqlite3?mode=ro"
        with closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute("SELECT * FROM uploads_picture").fetchall()

    def read_file(self, folder, name):
        return (self.stack.data / folder / name).read_bytes()

    def list_files(self):
        """Yield the folder and the name of each file that arrives or is kept."""
        for path in self.files():
            yield path.parent.name, path.name

    def find_strange_files(self):
        """Yield the path of each file outside the folders of uploads that has no purpose."""
        data, folders = self.stack.data, self.stack.folder.glob("http*")
        for expected, paths in (
            (DATA, data.glob("*")),
            *((NGINX, find_files(folder)) for folder in folders),
        ):
            yield from (path for path in paths if not expected.fullmatch(path.name))

    def files(self):
        for folder in ("incoming", "originals", "media"):
            with suppress(FileNotFoundError):
                yield from (self.stack.data / folder).iterdir()

    def prune(self):
        """Make all files look old, and remove the orphaned ones."""
        for path in self.files():
            with suppress(FileNotFoundError):
                os.utime(path, (0, 0))
        manage("prune_uploads", "--force", **self.stack.environment)


class Ledger:
    """Record the answers to a site's clients. Any thread may write to it."""

    def __init__(self, site):
        self.site = site
        self.entries = []
        self.compared = {}  # whether two photos look alike, by the digests of their files
        self.lock = Lock()
        self.at_once = True  # whether records must be deleted at once, as no process was killed

    def note(self, entry):
        with self.lock:
            self.entries.append(entry)

    def broken_promises(self):
        """Yield a sentence for each promise that is broken at the moment."""
        rows = self.site.read_rows()
        pictures = {picture for row in rows for picture in list_pictures(row)}
        for entry in self.entries:
            yield from check_answer(entry)
            if entry.kept and entry.picture not in pictures:
                yield f"{entry.progress_id} was answered ok, but has no row."
        asked = {entry.picture for entry in self.entries if entry.kept or self.may_be_kept(entry)}
        for row in rows:
            if not asked & list_pictures(row):
                yield f"Picture {row['id']} has a row, but its upload was not answered ok."
        yield from self.find_strange_files(rows)
        yield from self.find_lasting_records()
        # To compare photos is slow, and comes last: an audit stops at the first broken promise.
        for row in rows:
            yield from self.check_row(row)

    def may_be_kept(self, entry):
        """Return whether the photo may be stored although its client was not answered ok.

        Only the answer may have been lost, on its way to nginx or to the client.
        """
        return entry.whole and (entry.answer is None or entry.answer.status in {502, 504})

    def check_row(self, row):
        """Yield a sentence for each file of a row that is lost or wrong."""
        try:
            original = self.site.read_file("originals", row["original"])
            if compute_digest(original) != row["digest"]:
                yield f"The original of picture {row['id']} is not what was sent."
            for name in ("display", "thumbnail"):
                rendition = self.site.read_file("media", row[name])
                if rendition == original:
                    yield f"The {name} of picture {row['id']} is the original itself."
                elif not self.are_alike(original, rendition):
                    yield f"The {name} of picture {row['id']} shows another photo."
        except OSError as error:
            yield f"Picture {row['id']} has lost a file: {error}."

    def are_alike(self, *files):
        key = tuple(map(compute_digest, files))
        if key not in self.compared:
            self.compared[key] = are_alike(*files)
        return self.compared[key]

    def find_strange_files(self, rows):
        """Yield a sentence for each file that is orphaned or in the wrong folder."""
        named = {"originals": {row["original"] for row in rows}}
        named["media"] = {row[name] for row in rows for name in ("display", "thumbnail")}
        for folder, name in self.site.list_files():
            if name not in named.get(folder, ()):
                yield f"{folder}/{name} belongs to no row."
        for path in self.site.find_strange_files():
            yield f"{path} does not belong there."

    def find_lasting_records(self):
        """Yield a sentence for each record in memcached that outlives its upload.

        After a process was killed, a record may still be there, but must expire.
        """
        for entry in self.entries:
            key = f"gourmious:1:{ADDRESS}_{entry.progress_id}"
            for memcached in self.site.memcached:
                found = re.search(r"HD t(-?\d+)", memcached.ask(f"mg {key} t"))
                seconds = int(found[1]) if found else None
                if found and (self.at_once or not 0 < seconds <= RECORD_LIFETIME):
                    yield f"{entry.progress_id} has a record for {seconds} seconds."

    def audit(self, killed=False):
        """Wait until every promise is kept, since threads may have to end first; raise if not.

        If a process was killed, remove the files that it left, and let its records expire.
        """
        self.at_once = not killed

        def is_kept():
            broken = next(self.broken_promises(), None)
            if broken and killed:
                self.site.prune()
            return not broken

        try:
            wait_for(is_kept)
        except TimeoutError:
            if found := [*self.broken_promises()]:
                raise AssertionError("\n".join([f"SEED={SEED}:", *found])) from None


def compute_digest(content):
    return hashlib.sha256(content).hexdigest()


def list_pictures(row):
    """Return the pairs of dish and digest by which an entry may name a row."""
    return {(row["dish_id"], row["digest"]), (None, row["digest"])}


def find_files(folder):
    return (path for path in folder.rglob("*") if path.is_file())


def recolour(content, rng):
    """Return the photo, tinted with four random colours, and with random bytes at its end.

    It has at least as many bytes as before.
    """
    with Image.open(BytesIO(content)) as image:
        colours = Image.frombytes("RGB", (2, 2), rng.randbytes(12))
        colours = colours.resize(image.size, Image.Resampling.NEAREST)
        mixed = encoded(Image.blend(image.convert("RGB"), colours, 0.5), quality=96)
    return mixed + rng.randbytes(max(16, len(content) + 16 - len(mixed)))


def are_alike(original, rendition):
    difference = ImageChops.difference(read_colours(original), read_colours(rendition, ["JPEG"]))
    return max(ImageStat.Stat(difference).mean) < TOLERANCE


def read_colours(content, formats=None):
    """Return the colours of a photo's four quarters; raise OSError if it is not whole."""
    with Image.open(BytesIO(content), formats=formats) as image:
        image.draft(None, (480, 480))
        return image.convert("RGB").resize((2, 2), Image.Resampling.BOX)


def check_answer(entry):
    """Yield a sentence if an answer breaks the contract."""
    if entry.answer is None:
        return
    try:
        upload = entry.upload
        codes = {error.get("code") for error in upload.iter("error")}
        status = upload.findtext("status")
    except ElementTree.ParseError:
        yield f"{entry.progress_id} was not answered in XML: {entry.answer}"
        return
    if (
        status != ("ok" if entry.kept else "error")
        or codes - set(REFUSALS)
        or entry.kept == bool(codes)
    ):
        yield f"{entry.progress_id} was not answered as the contract says: {entry.answer}"


class FaultTestCase(StackTestCase):
    """Break something while uploads run. At the end every promise must be kept."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ledger = Ledger(StackSite(cls.stack))
        cls.photo = photo(randbytes=random.Random(f"{SEED} {cls.__qualname__}").randbytes)

    def setUp(self):
        super().setUp()
        self.rng = random.Random(f"{SEED} {self.id()}")
        self.numbers = count(1)

    def __str__(self):
        return f"{super().__str__()}, SEED={SEED}"

    def make_upload(self, content=None, progress_id=None, rng=None, **options):
        """Return an upload of a new photo. A thread must pass its own random generator."""
        content = recolour(content or self.photo, rng or self.rng)
        progress_id = progress_id or f"{self.progress_id[-50:]}-{next(self.numbers)}"
        address = options.pop("address", self.http)
        return Upload(self.ledger, address, self.dish, content, progress_id, **options)

    @contextmanager
    def lock_database(self):
        """Hold a write lock on the database during the block."""
        self.empty_wal()  # A row might fit into it, even on a full disk.
        with closing(self.connect_to_database()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def empty_wal(self):
        with closing(self.connect_to_database()) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def connect_to_database(self):
        return sqlite3.connect(self.stack.data / "db.sqlite3", isolation_level=None)

    def assert_uploads_work(self):
        with self.make_upload() as upload:
            self.assertEqual(upload.answer().status, 200, upload.reply)

    def assert_open_to_others(self, times):
        """See a page and upload, from another address. If TIMES is set, print the waits."""
        waits = []
        for _ in range(times):
            start = time.monotonic()
            self.assertEqual(get(self.http, "/", source=ANOTHER).status, 200)
            with self.make_upload(source=ANOTHER) as upload:
                self.assertEqual(upload.answer().status, 200, upload.reply)
            waits.append(1000 * (time.monotonic() - start))
        if "TIMES" in os.environ:
            print(f"Median and longest wait: {median(waits):.0f}, {max(waits):.0f} ms", flush=True)

    def audit(self, fault, times, killed=False):
        """Assert that nothing was lost. If TIMES is set, print a row for the table."""
        self.ledger.audit(killed)
        if "TIMES" in os.environ:
            print(f"| {fault[0].upper()}{fault[1:]} | {times} | nothing |", flush=True)
