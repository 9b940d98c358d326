"""The disk and the database: no room, no leave to write, folders that are gone, locks that last."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from tests.base import upload_file
from tests.client import client_headers, connect, get, get_answer, poll
from tests.photos import photo
from tests.waiting import wait_for

from .rig import TIMES, Entry, FaultTestCase

FOLDERS = ("incoming", "originals", "media")
FIRST_READ = 17_000  # bytes; the server has read 16 KiB of them, and waits for more
LOCK = 30 if TIMES > 1 else 0.5  # seconds
NO_ROOM = (507, "storage_full", "There is no room for more photos; please try again later.")
NO_LUCK = (500, "server_error", "The server could not keep the photo; please try again later.")


@contextmanager
def mounted(folder, *options):
    """Mount something on a folder or a file, as root."""
    subprocess.run(["mount", *options, folder], check=True, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def may_mount():
    """Tell whether this machine lets the tests mount; not every container does, even for root."""
    with TemporaryDirectory(prefix="gourmious-") as folder:
        try:
            with mounted(folder, "-t", "tmpfs", "tmpfs"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


class DiskTestCase(FaultTestCase):
    """A stack with a small disk of its own, where the machine lets it be mounted."""

    @classmethod
    def setUpClass(cls):
        data = cls.enterClassContext(TemporaryDirectory(prefix="gourmious-"))
        cls.mounts = may_mount()
        if cls.mounts:
            size = f"size={16 + 6 * TIMES}m,nr_inodes={500 + 100 * TIMES}"
            cls.enterClassContext(mounted(data, "-t", "tmpfs", "-o", size, "tmpfs"))
        settings = "tests.faults.settings_disk"
        own = {"GOURMIOUS_DATA_DIR": data, "DJANGO_SETTINGS_MODULE": settings}
        cls.variables = {**cls.variables, **own}
        super().setUpClass()
        cls.photo = photo(320, 240)

    def setUp(self):
        super().setUp()
        self.data = self.stack.data
        self.database = self.data / "db.sqlite3"

    def lacks(self):
        """Return the ways in which there can be no room on this machine."""
        return [self.full, self.out_of_inodes, self.limited] if self.mounts else [self.limited]

    def lacks_of_bytes(self):
        return [self.full, self.limited] if self.mounts else [self.limited]

    @contextmanager
    def full(self, room=0):
        """Fill the disk up to so many bytes."""
        filler = self.data / "filler"
        filler.touch()
        try:
            wait_for(lambda: self.fill(filler, room))
            yield
        finally:
            filler.unlink()

    def fill(self, filler, room):
        """Let a file take what is free, and tell whether no upload was faster."""
        disk = os.statvfs(self.data)
        if (size := disk.f_bavail * disk.f_frsize - room) > 0:
            with suppress(OSError), filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                return True
        return size <= 0

    @contextmanager
    def out_of_inodes(self, room=0):
        """Fill the disk with empty files, so that none can be added."""
        with TemporaryDirectory(dir=self.data) as folder:
            with suppress(OSError):
                for number in range(10_000 + 1000 * TIMES):
                    Path(folder, str(number)).touch()
            yield

    def limited(self, room=0):
        return self.stack.uploads.limited(room)

    @contextmanager
    def gone(self, name):
        """Delete a folder, or set it aside with its pictures, which new ones join at the end."""
        folder, aside = self.data / name, self.data / "aside"
        if name == "incoming":
            shutil.rmtree(folder)
            yield
            return
        folder.rename(aside)
        try:
            yield
        finally:
            folder.mkdir(exist_ok=True)
            for path in folder.iterdir():
                path.replace(aside / path.name)
            folder.rmdir()
            aside.rename(folder)

    def skip_where_root_writes_everywhere(self):
        if not self.mounts and os.geteuid() == 0:
            self.skipTest("Root may write everywhere, and may not mount on this machine.")

    @contextmanager
    def read_only(self, path):
        if self.mounts:
            with mounted(path, "--bind", path):
                subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
                yield
            return
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            path.chmod(mode)

    @contextmanager
    def begun(self, until=FIRST_READ):
        """Begin an upload, of which some is on the disk when the block begins."""
        before = self.incoming()
        with self.make_upload() as upload:
            upload.send(until)
            wait_for(lambda: self.incoming().keys() - before)
            yield upload

    def incoming(self):
        """Return the sizes of the files of which some has arrived."""
        sizes = {}
        for path in (self.data / "incoming").iterdir():
            with suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
        return {path: size for path, size in sizes.items() if size}

    def answer(self, upload):
        with upload:
            return upload.answer()

    def send_up_to_the_renditions(self, upload):
        """Send all of an upload, and wait until it has arrived; the processing is held back."""
        upload.send()
        wait_for(lambda: len(upload.content) in self.incoming().values())

    def send_up_to_the_row(self, upload):
        """Send all of an upload, and wait until its files are stored; the database is locked."""
        before = set(self.files("media"))
        upload.send()
        wait_for(lambda: len(set(self.files("media")) - before) == 2)

    def assert_refused(self, upload, status, code, sentence):
        answer = upload.answer()
        self.assertIsNotNone(answer)
        error = f'<error code="{code}"'
        self.assertEqual(answer.status, status, answer.text)
        self.assertIn(error, answer.text)
        self.assertIn(f"{sentence}</error>", answer.text)

    def restart(self):
        for server in (self.stack.pages, self.stack.uploads):
            server.stop()
            server.start()

    def assert_pages_stay_up(self):
        for path in ("/", self.dish.get_absolute_url()):
            self.assertEqual(get(self.http, path).status, 200, path)

    def assert_uploads_work(self):
        super().assert_uploads_work()
        self.assertEqual(get(self.http, "/healthz").status, 200)

    def assert_ill(self, name):
        """Assert that the site says itself what is wrong."""
        answer = get(self.http, "/healthz")
        self.assertEqual(answer.status, 503, answer.text)
        self.assertRegex(json.loads(answer.text)[name], r"^[A-Z].*\.$")


class DiskTests(DiskTestCase):
    def test_an_upload_is_told_that_there_is_no_room(self):
        for lack in self.lacks() * TIMES:
            with self.subTest(lack.__name__), lack():
                with self.make_upload() as upload:
                    self.assert_refused(upload, *NO_ROOM)
                self.assert_pages_stay_up()
                if lack != self.limited:
                    self.assert_ill("disk")
            self.assert_uploads_work()
        self.audit("There is no room: disk, inodes, size of a file", len(self.lacks()) * TIMES)

    def test_a_server_that_starts_on_a_full_disk_shows_its_pages(self):
        if not self.mounts:
            self.skipTest("This machine lets no small disk be mounted.")
        for lack in (self.full, self.out_of_inodes) * TIMES:
            with self.subTest(lack.__name__), lack():
                self.restart()
                self.assert_pages_stay_up()
                with self.make_upload() as upload:
                    self.assert_refused(upload, *NO_ROOM)
            self.assert_uploads_work()
        self.audit("The server starts on a full disk", 2 * TIMES)

    def test_the_disk_fills_up_at_some_point_of_an_upload(self):
        for lack in self.lacks() * 2 * TIMES:
            point = self.rng.randrange(FIRST_READ, len(self.photo))
            with self.begun(point) as upload, self.begun() as beside:
                with self.subTest(lack.__name__), lack():
                    self.assert_refused(upload, *NO_ROOM)
                    self.assert_pages_stay_up()
                self.assertEqual(beside.answer().status, 200)
        self.audit("Room runs out at some point of an upload", len(self.lacks()) * 2 * TIMES)

    def test_who_polls_is_told_that_there_is_no_room_while_the_rest_arrives(self):
        for lack in self.lacks_of_bytes() * TIMES:
            with self.make_upload(photo(1600, 1200)) as upload, lack():
                codes = self.polled_codes(upload)
                self.assertIn("storage_full", codes)
                self.assertEqual({next(codes) for _ in range(10)}, {"storage_full"})
                self.assert_refused(upload, *NO_ROOM)
        self.audit("Room runs out while somebody polls", len(self.lacks_of_bytes()) * TIMES)

    def polled_codes(self, upload):
        """Send on, little by little, and yield the code in the record after each piece."""
        for until in range(0, len(upload.data), 2000):
            upload.send(until)
            record = poll(self.http, upload.progress_id) or {}
            yield record.get("code")

    def test_uploads_fill_the_disk_up_themselves(self):
        for _ in range(TIMES):
            with self.full(room=500_000) if self.mounts else self.limited(60_000):
                uploads = [self.make_upload() for _ in range(6)]
                with ThreadPoolExecutor(6) as threads:
                    answers = [*threads.map(self.answer, uploads)]
                self.assertEqual({answer.status for answer in answers} - {200}, {507})
                self.assert_pages_stay_up()
            self.assert_uploads_work()
        self.audit("Six uploads at once fill the disk up", TIMES)

    def assert_no_room_for_renditions(self, fill, room):
        with self.make_upload() as upload, ExitStack() as full:
            with self.processing_held_back():
                self.send_up_to_the_renditions(upload)
                full.enter_context(fill(room))
            self.assert_refused(upload, *NO_ROOM)
        self.assert_uploads_work()

    def test_the_disk_fills_up_while_the_renditions_are_written(self):
        for _ in range(4 * TIMES):
            fill = self.full if self.mounts else self.limited
            self.assert_no_room_for_renditions(fill, self.rng.randrange(20_000))
        self.audit("The disk fills up while the renditions are written", 4 * TIMES)

    def test_no_rendition_is_cut_short(self):
        """The row, which is written last, finds room: it is smaller than a rendition."""
        self.assert_uploads_work()
        size = max(path.stat().st_size for path in self.files("media"))
        for _ in range(TIMES):
            self.empty_wal()
            lack = self.rng.randrange(1000, 3000)  # from one photo to the next some hundreds
            self.assert_no_room_for_renditions(self.limited, size - lack)
        self.audit("A rendition is larger than a file may be", TIMES)

    def test_the_disk_fills_up_before_the_row_is_written(self):
        for fill in self.lacks_of_bytes() * TIMES:
            with self.make_upload() as upload, ExitStack() as full:
                with self.lock_database():
                    self.send_up_to_the_row(upload)
                    full.enter_context(fill())
                self.assert_refused(upload, *NO_ROOM)
            self.assert_uploads_work()
        self.audit(
            "The disk fills up before the row is written", len(self.lacks_of_bytes()) * TIMES
        )

    def test_of_two_photos_in_one_upload_the_one_that_there_is_room_for_is_kept(self):
        for _ in range(TIMES):
            small, large = photo(40, 30), photo(quality=50)  # its rendition is larger
            self.empty_wal()  # the row finds room
            with self.limited(len(large) + self.rng.randrange(1000)):
                answer = self.send_files(upload_file(small), upload_file(large, "large.jpg"))
            digest = hashlib.sha256(small).hexdigest()
            entry = Entry("none", digest, answer, whole=True)
            self.assertEqual((answer.status, entry.upload.findtext("status")), (200, "partial"))
            [error] = entry.upload.iter("error")
            self.assertEqual((error.get("code"), error.get("file")), (NO_ROOM[1], "large.jpg"))
            self.assertIn(digest, [row["digest"] for row in self.ledger.read_rows()])
            self.ledger.note(entry._replace(answer=None))
        self.audit("There is room for one of two photos", TIMES)

    def send_files(self, *files):
        body = encode_multipart(BOUNDARY, {"id": self.dish.pk, "picture": files})
        headers = {**client_headers(self.http), "Content-Type": MULTIPART_CONTENT}
        with closing(connect(self.http)) as connection:
            connection.request("POST", "/upload", body, headers)
            return get_answer(connection)

    def test_a_folder_that_is_gone_is_made_again(self):
        for name in FOLDERS * TIMES:
            with self.subTest(name), self.gone(name):
                self.assert_pages_stay_up()
                self.assert_uploads_work()
        self.audit("A folder is gone", len(FOLDERS) * TIMES)

    def test_a_folder_goes_at_some_point_of_an_upload(self):
        for name in FOLDERS * TIMES:
            point = self.rng.randrange(FIRST_READ, len(self.photo))
            with self.begun(point) as upload, self.subTest(name), self.gone(name):
                answer = upload.answer()
                self.assertEqual(answer.status, 500 if name == "incoming" else 200, answer)
            self.assert_uploads_work()
        self.audit("A folder goes at some point of an upload", len(FOLDERS) * TIMES)

    def test_nothing_can_be_written_to_a_folder(self):
        self.skip_where_root_writes_everywhere()
        names = ("incoming", "originals", "media", *("." if self.mounts else ""))
        for name in names * TIMES:
            with self.begun() as beside:
                with self.subTest(name), self.read_only(self.data / name):
                    with self.make_upload() as upload:
                        self.assert_refused(upload, *NO_LUCK)
                    self.assert_pages_stay_up()
                    self.assert_ill("disk")
                self.assertEqual(beside.answer().status, 200)
        self.audit("A folder, or all of the disk, is read-only", len(names) * TIMES)

    def test_nothing_can_be_written_to_the_database(self):
        self.skip_where_root_writes_everywhere()
        for _ in range(TIMES):
            with self.read_only(self.database):
                self.restart()  # else files that were open before can be written to
                with self.make_upload() as upload:
                    self.assert_refused(upload, *NO_LUCK)
                self.assert_pages_stay_up()
                self.assert_ill("database")
            self.restart()
            self.assert_uploads_work()
        self.audit("The database is read-only", TIMES)

    def test_a_lock_on_the_database_delays_uploads(self):
        count = min(TIMES, 20)
        with ExitStack() as uploads:
            waiting = [uploads.enter_context(self.make_upload()) for _ in range(count)]
            with self.lock_database():
                until = time.monotonic() + LOCK
                for upload in waiting:
                    self.send_up_to_the_row(upload)
                self.assert_pages_stay_up()
                while time.monotonic() < until:
                    self.assert_pages_stay_up()
            self.assertEqual({upload.answer().status for upload in waiting}, {200})
        self.audit(f"The database is locked by another writer for {LOCK} s", count)

    def test_a_lock_on_the_database_that_lasts_ends_an_upload(self):
        with self.lock_database(), self.make_upload() as upload:
            self.send_up_to_the_row(upload)
            self.assert_refused(upload, *NO_LUCK)
            self.assert_pages_stay_up()
        self.assert_uploads_work()
        self.audit("The database is locked for longer than an upload waits", 1)


class DescriptorTests(DiskTestCase):
    variables = {"GOURMIOUS_WORKERS": "1"}

    def warm_up(self):
        """Keep an upload, and refuse a page: Python reads the code for it only then."""
        self.assert_uploads_work()
        self.assertEqual(get(self.stack.uploads.address, "/menu").status, 404)

    @contextmanager
    def descriptors(self, spare, pids):
        """Let processes open no more than so many files at once."""
        with ExitStack() as limits:
            for pid in map(int, pids):
                used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
                free = next(number for number in count() if number not in used)
                before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                limits.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, before)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + spare, before[1]))
            yield

    def assert_refused_without(self, spare, pids):
        with self.begun() as upload, self.subTest(spare), self.descriptors(spare, pids):
            self.assert_refused(upload, *NO_LUCK)

    def audit_after(self, fault, times):
        """Assert that all goes well again, when memcached has been tried again."""
        wait_for(lambda: get(self.stack.uploads.address, "/healthz").status == 200)
        self.assert_uploads_work()
        self.audit(fault, times)

    def test_descriptors_run_out(self):
        self.warm_up()
        for spare in [*range(3)] * TIMES:
            self.assert_refused_without(spare, self.stack.uploads.workers())
        self.audit_after("Descriptors run out", 3 * TIMES)

    def test_descriptors_of_the_renderers_run_out(self):
        self.warm_up()
        for _ in range(TIMES):
            self.assert_refused_without(0, self.stack.uploads.renderers())
        self.audit_after("Descriptors of the renderers run out", TIMES)

    def test_descriptors_run_out_when_a_renderer_must_be_started(self):
        self.warm_up()
        for spare in [*range(5)] * TIMES:
            self.kill_renderers()
            self.assert_refused_without(spare, self.stack.uploads.workers())
        wait_for(self.is_kept)  # A forkserver that was called in vain ends, and is started again.
        self.audit_after("Descriptors run out when a renderer must be started", 5 * TIMES)

    def kill_renderers(self):
        old = self.stack.uploads.renderers()
        for pid in old:
            os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not set(old) & set(self.stack.uploads.renderers()))

    def is_kept(self):
        with self.make_upload() as upload:
            return upload.answer().status == 200
