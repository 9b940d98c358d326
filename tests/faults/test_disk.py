"""Full and read-only disks, missing folders, a locked database, and too few descriptors."""

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
from urllib.parse import urlencode

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from tests.base import upload_file
from tests.client import add_dish, client_headers, connect, get, get_answer, poll
from tests.photos import photo
from tests.servers import manage
from tests.waiting import wait_for

from .rig import TIMES, Entry, FaultTestCase

FOLDERS = ("incoming", "originals", "media")
FIRST_READ = 34_000  # bytes; the server has read most of them, and waits for more
FIRST_WRITE = 32_000  # bytes, at least, that it has written by then
LOCK = 30 if TIMES > 1 else 0.5  # seconds
DELETE_ALL = "from uploads.models import Picture; Picture.objects.all().delete()"
NO_ROOM = (507, "storage_full", "There is no room for more photos; please try again later.")
NOT_STORED = (500, "server_error", "The server could not keep the photo; please try again later.")
LOCKED_OUT = (
    503,
    "server_error",
    "The server is not available at the moment; please try again in a minute.",
)


@contextmanager
def mount(folder, *options):
    """Mount something on a folder or a file, as root, during the block."""
    subprocess.run(["mount", *options, folder], check=True, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def can_mount():
    """Return whether the tests can mount. Some containers forbid it, even to root."""
    with TemporaryDirectory(prefix="gourmious-") as folder:
        try:
            with mount(folder, "-t", "tmpfs", "tmpfs"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


class DiskTestCase(FaultTestCase):
    """Run a stack on a small disk of its own, if the machine can mount one."""

    settings = "tests.faults.settings_disk"

    @classmethod
    def setUpClass(cls):
        data = cls.enterClassContext(TemporaryDirectory(prefix="gourmious-"))
        cls.can_mount = can_mount()
        if cls.can_mount:
            size = f"size={16 + 6 * TIMES}m,nr_inodes={500 + 100 * TIMES}"
            cls.enterClassContext(mount(data, "-t", "tmpfs", "-o", size, "tmpfs"))
        own = {"GOURMIOUS_DATA_DIR": data, "DJANGO_SETTINGS_MODULE": cls.settings}
        cls.variables = {**cls.variables, **own}
        super().setUpClass()
        cls.photo = photo(320, 240)

    def setUp(self):
        super().setUp()
        self.data = self.stack.data
        self.database = self.data / "db.sqlite3"

    def list_shortages(self):
        """Return the functions that make room run out, as far as this machine allows them."""
        shortages = [self.fill_disk, self.use_up_inodes] if self.can_mount else []
        return [*shortages, self.limit_file_size]

    def list_shortages_of_bytes(self):
        return [self.fill_disk, self.limit_file_size] if self.can_mount else [self.limit_file_size]

    @contextmanager
    def fill_disk(self, room=0):
        """Leave this many bytes free on the disk during the block."""
        filler = self.data / "filler"
        filler.touch()
        try:
            wait_for(lambda: self.try_to_fill(filler, room))
            yield
        finally:
            filler.unlink()

    def try_to_fill(self, filler, room):
        """Let a file take the free space; return False if an upload took some of it first."""
        disk = os.statvfs(self.data)
        if (size := disk.f_bavail * disk.f_frsize - room) > 0:
            with suppress(OSError), filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                return True
        return size <= 0

    @contextmanager
    def use_up_inodes(self, room=0):
        """Create empty files until the disk has no inodes left."""
        with TemporaryDirectory(dir=self.data) as folder:
            with suppress(OSError):
                for number in range(10_000 + 1000 * TIMES):
                    Path(folder, str(number)).touch()
            yield

    def limit_file_size(self, room=0):
        return self.stack.uploads.limited(room)

    @contextmanager
    def remove_folder(self, name):
        """Delete `incoming`, or move another folder away until the block ends.

        The moved folder gets the files that the app has stored in the meantime.
        """
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

    def skip_if_root_can_write_anywhere(self):
        if not self.can_mount and os.geteuid() == 0:
            self.skipTest("Root can write anywhere, and cannot mount on this machine.")

    @contextmanager
    def make_read_only(self, path):
        if self.can_mount:
            with mount(path, "--bind", path):
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
    def begin_upload(self, until=FIRST_READ):
        """Begin an upload, and wait until the server has written what it has read first.

        Otherwise it might write more when there is no room any longer.
        """
        before = self.measure_incoming()
        with self.make_upload() as upload:
            upload.send(until)
            wait_for(lambda: self.measure_incoming().keys() - before)
            yield upload

    def measure_incoming(self):
        """Return the paths and sizes of incoming files whose first part is written."""
        sizes = {}
        for path in (self.data / "incoming").iterdir():
            with suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
        return {path: size for path, size in sizes.items() if size >= FIRST_WRITE}

    def send_whole(self, upload):
        with upload:
            return upload.answer()

    def send_up_to_the_renditions(self, upload):
        """Send an upload, and wait until it has arrived. The processing must be held back."""
        upload.send()
        wait_for(lambda: len(upload.content) in self.measure_incoming().values())

    def send_up_to_the_row(self, upload):
        """Send an upload, and wait until its files are stored. The database must be locked."""
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
        wait_for(lambda: get(self.http, "/healthz").status == 200)

    def assert_unhealthy(self, name):
        """Assert that /healthz reports a fault, with a sentence."""
        answer = get(self.http, "/healthz")
        self.assertEqual(answer.status, 503, answer.text)
        self.assertRegex(json.loads(answer.text)[name], r"^[A-Z].*\.$")


class DiskTests(DiskTestCase):
    def test_an_upload_is_refused_when_there_is_no_room(self):
        for run_short in self.list_shortages() * TIMES:
            with self.subTest(run_short.__name__), run_short():
                with self.make_upload() as upload:
                    self.assert_refused(upload, *NO_ROOM)
                self.assert_pages_stay_up()
                if run_short != self.limit_file_size:
                    self.assert_unhealthy("disk")
            self.assert_uploads_work()
        times = len(self.list_shortages()) * TIMES
        self.audit("There is no room: disk, inodes, size of a file", times)

    def test_a_server_that_starts_on_a_full_disk_shows_its_pages(self):
        if not self.can_mount:
            self.skipTest("This machine cannot mount a small disk.")
        for run_short in (self.fill_disk, self.use_up_inodes) * TIMES:
            with self.subTest(run_short.__name__), run_short():
                self.restart()
                self.assert_pages_stay_up()
                with self.make_upload() as upload:
                    self.assert_refused(upload, *NO_ROOM)
            self.assert_uploads_work()
        self.audit("The server starts on a full disk", 2 * TIMES)

    def test_only_an_upload_that_needs_room_is_refused_when_room_runs_out(self):
        for run_short in self.list_shortages() * 2 * TIMES:
            point = self.rng.randrange(FIRST_READ, len(self.photo))
            with self.begin_upload(point) as upload, self.begin_upload() as other:
                with self.subTest(run_short.__name__), run_short():
                    self.assert_refused(upload, *NO_ROOM)
                    self.assert_pages_stay_up()
                self.assertEqual(other.answer().status, 200)
        times = len(self.list_shortages()) * 2 * TIMES
        self.audit("Room runs out at some point of an upload", times)

    def test_polls_report_a_full_disk_while_the_rest_of_the_upload_arrives(self):
        for run_short in self.list_shortages_of_bytes() * TIMES:
            with self.make_upload(photo(1600, 1200)) as upload, run_short():
                codes = self.poll_codes(upload)
                self.assertIn("storage_full", codes)
                self.assertEqual({next(codes) for _ in range(10)}, {"storage_full"})
                self.assert_refused(upload, *NO_ROOM)
        times = len(self.list_shortages_of_bytes()) * TIMES
        self.audit("Room runs out while somebody polls", times)

    def poll_codes(self, upload):
        """Send the upload piece by piece, and yield the code in its record after each."""
        for until in range(0, len(upload.data), 2000):
            upload.send(until)
            record = poll(self.http, upload.progress_id) or {}
            yield record.get("code")

    def test_uploads_that_fill_the_disk_are_kept_or_refused(self):
        for _ in range(TIMES):
            with self.fill_disk(500_000) if self.can_mount else self.limit_file_size(60_000):
                uploads = [self.make_upload() for _ in range(6)]
                with ThreadPoolExecutor(6) as threads:
                    answers = [*threads.map(self.send_whole, uploads)]
                self.assertEqual({answer.status for answer in answers} - {200}, {507})
                self.assert_pages_stay_up()
            self.assert_uploads_work()
        self.audit("Six uploads at once fill the disk", TIMES)

    def assert_no_room_for_renditions(self, run_short, room):
        with self.make_upload() as upload, ExitStack() as shortage:
            with self.processing_held_back():
                self.send_up_to_the_renditions(upload)
                shortage.enter_context(run_short(room))
            self.assert_refused(upload, *NO_ROOM)
        self.assert_uploads_work()

    def test_an_upload_is_refused_when_its_renditions_find_no_room(self):
        for _ in range(4 * TIMES):
            run_short = self.fill_disk if self.can_mount else self.limit_file_size
            self.assert_no_room_for_renditions(run_short, self.rng.randrange(20_000))
        self.audit("Room runs out while the renditions are written", 4 * TIMES)

    def test_no_rendition_is_cut_short(self):
        """The row still finds room, since it is smaller than a rendition."""
        self.assert_uploads_work()
        size = max(path.stat().st_size for path in self.files("media"))
        for _ in range(TIMES):
            self.empty_wal()
            missing = self.rng.randrange(1000, 3000)  # renditions differ by some hundreds
            self.assert_no_room_for_renditions(self.limit_file_size, size - missing)
        self.audit("A rendition is larger than a file may be", TIMES)

    def test_an_upload_is_refused_when_its_row_finds_no_room(self):
        for run_short in self.list_shortages_of_bytes() * TIMES:
            with self.make_upload() as upload, ExitStack() as shortage:
                with self.lock_database():
                    self.send_up_to_the_row(upload)
                    shortage.enter_context(run_short())
                self.assert_refused(upload, *NO_ROOM)
            self.assert_uploads_work()
        times = len(self.list_shortages_of_bytes()) * TIMES
        self.audit("Room runs out before the row is written", times)

    def test_only_the_photo_that_fits_is_kept_of_two_in_one_upload(self):
        for _ in range(TIMES):
            small, large = photo(40, 30), photo(quality=50)  # its rendition is larger
            self.empty_wal()  # makes room for the row
            with self.limit_file_size(len(large) + self.rng.randrange(1000)):
                answer = self.send_files(upload_file(small), upload_file(large, "large.jpg"))
            digest = hashlib.sha256(small).hexdigest()
            entry = Entry("none", digest, answer, whole=True)
            self.assertEqual((answer.status, entry.upload.findtext("status")), (200, "partial"))
            [error] = entry.upload.iter("error")
            self.assertEqual((error.get("code"), error.get("file")), (NO_ROOM[1], "large.jpg"))
            self.assertIn(digest, [row["digest"] for row in self.ledger.site.read_rows()])
            self.ledger.note(entry._replace(answer=None))
        self.audit("There is room for one of two photos", TIMES)

    def send_files(self, *files):
        body = encode_multipart(BOUNDARY, {"id": self.dish.pk, "picture": files})
        headers = {**client_headers(self.http), "Content-Type": MULTIPART_CONTENT}
        with closing(connect(self.http)) as connection:
            connection.request("POST", "/upload", body, headers)
            return get_answer(connection)

    def test_a_dish_is_refused_in_a_sentence_when_there_is_no_room(self):
        run_short = self.fill_disk if self.can_mount else self.stack.pages.limited
        for _ in range(TIMES):
            self.empty_wal()
            with run_short(0):
                for accept, format_ in (("text/html", "text/html"), ("*/*", "application/json")):
                    answer = self.send_dish(accept)
                    self.assertEqual(answer.status, 507)
                    self.assertIn("The server has no room to save anything;", answer.text)
                    self.assertIn(format_, answer.headers["content-type"])
                self.assert_pages_stay_up()
            self.assertEqual(self.send_dish("text/html").status, 302)
            self.assert_uploads_work()
        self.audit("There is no room for a dish", TIMES)

    def send_dish(self, accept):
        form = urlencode({"name": self.rng.random(), "restaurant": "Chez Fonfon"})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": accept}
        with closing(connect(self.http)) as connection:
            connection.request(
                "POST", "/dishes/new", form, {**client_headers(self.http), **headers}
            )
            return get_answer(connection)

    def test_a_missing_folder_is_created_again(self):
        for name in FOLDERS * TIMES:
            with self.subTest(name), self.remove_folder(name):
                self.assert_pages_stay_up()
                self.assert_uploads_work()
        self.audit("A folder is missing", len(FOLDERS) * TIMES)

    def test_only_the_folder_of_incoming_files_is_needed_during_an_upload(self):
        for name in FOLDERS * TIMES:
            point = self.rng.randrange(FIRST_READ, len(self.photo))
            with (
                self.begin_upload(point) as upload,
                self.subTest(name),
                self.remove_folder(name),
            ):
                answer = upload.answer()
                self.assertEqual(answer.status, 500 if name == "incoming" else 200, answer)
            self.assert_uploads_work()
        self.audit("A folder disappears during an upload", len(FOLDERS) * TIMES)

    def test_only_new_uploads_are_refused_when_a_folder_becomes_read_only(self):
        self.skip_if_root_can_write_anywhere()
        names = ("incoming", "originals", "media", *("." if self.can_mount else ""))
        for name in names * TIMES:
            with self.begin_upload() as other:
                with self.subTest(name), self.make_read_only(self.data / name):
                    with self.make_upload() as upload:
                        self.assert_refused(upload, *NOT_STORED)
                    self.assert_pages_stay_up()
                    self.assert_unhealthy("disk")
                self.assertEqual(other.answer().status, 200)
        self.audit("A folder, or all of the disk, is read-only", len(names) * TIMES)

    def test_an_upload_is_refused_when_the_database_is_read_only(self):
        self.skip_if_root_can_write_anywhere()
        for _ in range(TIMES):
            with self.make_read_only(self.database):
                self.restart()  # a file that is open for writing would stay writable
                with self.make_upload() as upload:
                    self.assert_refused(upload, *NOT_STORED)
                self.assert_pages_stay_up()
                self.assert_unhealthy("database")
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

    def test_an_upload_is_refused_when_the_database_stays_locked(self):
        with self.lock_database(), self.make_upload() as upload:
            self.send_up_to_the_row(upload)
            self.assert_refused(upload, *LOCKED_OUT)
            self.assert_pages_stay_up()
        self.assert_uploads_work()
        self.audit("The database is locked for longer than an upload waits", 1)


class ReserveTests(DiskTestCase):
    """Some of the disk is kept free for the database and for staff."""

    settings = "tests.settings_small"

    def setUp(self):
        super().setUp()
        if not self.can_mount:
            self.skipTest("This machine cannot mount a small disk.")
        disk = os.statvfs(self.data)
        self.reserve = disk.f_blocks * disk.f_frsize // 20

    def test_uploads_are_refused_while_everything_else_works(self):
        with self.make_upload() as kept:
            self.assertEqual(kept.answer().status, 200)
        with self.fill_disk(self.reserve - 50_000):
            with self.make_upload() as upload:
                self.assert_refused(upload, *NO_ROOM)
            dish = add_dish(self.http, "A dish of a full disk")
            self.assertEqual(get(self.http, dish.get_absolute_url()).status, 200)
            self.assert_unhealthy("disk")
            manage("shell", "-c", DELETE_ALL, **self.stack.environment)
        self.ledger.entries.clear()
        self.assert_uploads_work()
        self.audit("Less is free than uploads must leave", 1)

    def test_an_upload_that_reaches_the_reserve_is_refused_there(self):
        with self.begin_upload() as upload, self.fill_disk(self.reserve - 50_000):
            self.assert_refused(upload, *NO_ROOM)
            self.assertGreater(shutil.disk_usage(self.data).free, self.reserve - 100_000)
        self.audit("An upload reaches the space that is kept free", 1)


class DescriptorTests(DiskTestCase):
    variables = {"GOURMIOUS_WORKERS": "1"}

    def warm_up(self):
        """Send an upload, and request a missing page: Python reads code for each only then."""
        self.assert_uploads_work()
        self.assertEqual(get(self.stack.uploads.address, "/menu").status, 404)

    @contextmanager
    def limit_descriptors(self, spare, pids):
        """Leave each process this many descriptors during the block."""
        with ExitStack() as limits:
            for pid in map(int, pids):
                used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
                free = next(number for number in count() if number not in used)
                before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                limits.callback(resource.prlimit, pid, resource.RLIMIT_NOFILE, before)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (free + spare, before[1]))
            yield

    def assert_refused_without(self, spare, pids):
        with (
            self.begin_upload() as upload,
            self.subTest(spare),
            self.limit_descriptors(spare, pids),
        ):
            self.assert_refused(upload, *NOT_STORED)

    def audit_after(self, fault, times):
        """Wait until the app is healthy: it tries memcached again only after a while."""
        wait_for(lambda: get(self.stack.uploads.address, "/healthz").status == 200)
        self.assert_uploads_work()
        self.audit(fault, times)

    def test_an_upload_is_refused_when_descriptors_run_out(self):
        self.warm_up()
        for spare in [*range(2)] * TIMES:
            self.assert_refused_without(spare, self.stack.uploads.workers())
        self.audit_after("Descriptors run out", 2 * TIMES)

    def test_an_upload_is_refused_when_a_renderer_has_no_descriptors(self):
        self.warm_up()
        for _ in range(TIMES):
            self.assert_refused_without(0, self.stack.uploads.renderers())
        self.audit_after("Descriptors of the renderers run out", TIMES)

    def test_an_upload_is_refused_when_no_renderer_can_start_without_descriptors(self):
        self.warm_up()
        for spare in [*range(5)] * TIMES:
            self.kill_renderers()
            self.assert_refused_without(spare, self.stack.uploads.workers())
        wait_for(self.is_kept)  # A forkserver that failed ends, and is started again.
        self.audit_after("Descriptors run out when a renderer must be started", 5 * TIMES)

    def kill_renderers(self):
        old = self.stack.uploads.renderers()
        for pid in old:
            os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not set(old) & set(self.stack.uploads.renderers()))

    def is_kept(self):
        with self.make_upload() as upload:
            return upload.answer().status == 200
