"""Backups and restores that are killed, that run out of room, and that run beside uploads."""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from tests.photos import photo
from tests.servers import ROOT, manage, prepare_data
from uploads import snapshot
from uploads.backups import UNFINISHED, find_generations

from .rig import SEED, TIMES, FaultTestCase
from .test_disk import DELETE_ALL, can_mount, mount

PHOTOS = 6
SIZE = 12 * 2**20  # bytes of the small disk
INSERT = """
    INSERT INTO uploads_picture (dish_id, original, display, thumbnail, width, height, uploaded,
    hidden, digest, diner, caption, progress_id) VALUES (1, ?, ?, ?, 64, 48, 0, 0, ?, '', '', '')
"""
DELETE = """
from uploads.models import Picture
deleted = 0
while deleted < 20:
    for picture in Picture.objects.all()[:1]:
        picture.delete()
        deleted += 1
"""


def add_pictures(data, number):
    """Add pictures without renditions to a data folder, and return the digests of all."""
    with closing(sqlite3.connect(data / "db.sqlite3")) as database, database:
        dish = "INSERT OR IGNORE INTO uploads_dish (id, name, restaurant, created, search_text)"
        database.execute(f"{dish} VALUES (1, 'Dish', 'Restaurant', 0, '')")
        for _ in range(number):
            content = photo(64, 48)
            digest = hashlib.sha256(content).hexdigest()
            (data / "originals" / f"{digest}.jpg").write_bytes(content)
            names = (f"{digest}.jpg", f"{digest}-1600.jpg", f"{digest}-400.jpg")
            database.execute(INSERT, (*names, digest))
        return {digest for (digest,) in database.execute("SELECT digest FROM uploads_picture")}


class BackupFaultTestCase(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(f"{SEED} {self.id()}")
        folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.data, self.backups, self.site = (folder / name for name in ("data", "backups", "site"))
        for path in (self.data, self.backups, self.site):
            path.mkdir()
        prepare_data(self.data)
        self.digests = add_pictures(self.data, PHOTOS)

    def start_backup(self):
        return self.start("backup", self.backups, "--keep", "2")

    def start_restore(self):
        return self.start("restore", self.backups, data=self.site)

    def start(self, *arguments, program=("manage.py",), data=None, **options):
        """Start a command of manage.py, and return its process."""
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "GOURMIOUS_DATA_DIR": str(data or self.data)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    @contextmanager
    def killed_runs(self, folder, *arguments, data=None):
        """Yield a function that kills a command before an operation in a folder.

        It takes the number of the operation, and returns whether the command came that far.
        """
        program = ("-m", "tests.faults.killed_run", str(folder))
        options = {"program": program, "data": data, "stdin": subprocess.PIPE}

        def is_killed(number):
            print(number, file=process.stdin, flush=True)
            status = process.stdout.readline().strip()
            if status not in {"0", str(-signal.SIGKILL)}:
                process.stdin.close()
                self.fail(process.stderr.read())
            return status != "0"

        with self.start(*arguments, **options) as process:
            yield is_killed

    def assert_succeeds(self, process):
        _, errors = process.communicate()
        self.assertEqual((process.returncode, errors), (0, ""))

    def assert_whole(self, generation, digests=None):
        """Assert that a generation has its originals, byte for byte, and those of the digests."""
        pictures = snapshot.read_pictures(generation.database)
        snapshot.validate(generation.database)
        self.assertEqual(generation.find_faults(set(pictures)), [])
        self.assertIn(digests, (None, {picture.digest for picture in pictures}))


class KillTests(BackupFaultTestCase):
    def test_a_backup_that_is_killed_at_any_moment_never_looks_complete(self):
        self.assert_succeeds(self.start_backup())
        digests = add_pictures(self.data, 2)
        numbers = count(1)

        with self.killed_runs(self.backups, "backup", self.backups, "--keep", "1") as is_killed:
            while is_killed(next(numbers)):
                generations = find_generations(self.backups)
                self.assertGreaterEqual(len(generations), 1)
                for generation in generations:
                    self.assert_whole(generation)

        self.assertGreater(next(numbers), 30)
        [last] = find_generations(self.backups)
        self.assert_whole(last, digests)
        self.assertEqual(len(list(self.backups.iterdir())), 2)  # with the lock

    def test_a_restore_that_is_killed_at_any_moment_can_be_run_again(self):
        self.assert_succeeds(self.start_backup())
        step = 1 if TIMES > 1 else 7
        numbers = count(self.rng.randint(1, step), step)

        restore = self.killed_runs(self.site, "restore", self.backups, data=self.site)
        with restore as is_killed:
            while is_killed(next(numbers)):
                pass

        self.assertGreater(next(numbers), 30)
        self.assert_site_is_whole()

    def assert_site_is_whole(self):
        rows = self.read_site()
        self.assertEqual({row["digest"] for row in rows}, self.digests)
        for row in rows:
            content = (self.site / "originals" / row["original"]).read_bytes()
            self.assertEqual(hashlib.sha256(content).hexdigest(), row["digest"])
            for name in ("display", "thumbnail"):
                self.assertTrue((self.site / "media" / row[name]).exists())

    def read_site(self):
        with closing(sqlite3.connect(self.site / "db.sqlite3")) as database:
            database.row_factory = sqlite3.Row
            return database.execute("SELECT * FROM uploads_picture").fetchall()


class DiskTests(BackupFaultTestCase):
    def setUp(self):
        super().setUp()
        if not can_mount():
            self.skipTest("This machine cannot mount a small disk.")

    def fill(self, folder, room):
        """Leave this many bytes free on the disk of a folder, and return the file that fills it."""
        filler = folder / "filler"
        with filler.open("wb") as file:
            disk = os.statvfs(folder)
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - room)
        return filler

    def assert_finds_no_room(self, process):
        _, errors = process.communicate()
        self.assertEqual(process.returncode, 1)
        self.assertRegex(
            errors, r"^CommandError: The (backup|restore) failed.*(No space|full).*\.\n$"
        )

    def test_a_full_disk_leaves_earlier_backups_whole(self):
        self.enterContext(mount(self.backups, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs"))
        self.assert_succeeds(self.start_backup())
        [first] = find_generations(self.backups)
        digests = add_pictures(self.data, PHOTOS)
        added = sum(path.stat().st_size for path in (self.data / "originals").iterdir()) // 2

        for _ in range(3 * TIMES):
            needed = first.database.stat().st_size + added
            filler = self.fill(self.backups, self.rng.randrange(needed))
            self.assert_finds_no_room(self.start_backup())
            self.assertEqual(len(find_generations(self.backups)), 1)
            self.assertFalse((self.backups / UNFINISHED).exists())
            self.assert_whole(first, self.digests)
            filler.unlink()

        self.assert_succeeds(self.start_backup())
        self.assert_whole(find_generations(self.backups)[-1], digests)

    def test_a_restore_that_finds_no_room_can_be_run_again(self):
        self.assert_succeeds(self.start_backup())
        self.enterContext(mount(self.site, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs"))
        filler = self.fill(self.site, 100_000)

        self.assert_finds_no_room(self.start_restore())
        filler.unlink()

        self.assert_succeeds(self.start_restore())


class MeanwhileTests(FaultTestCase):
    def test_a_backup_beside_uploads_and_deletions_is_consistent(self):
        for _ in range(TIMES):
            self.assert_uploads_work()
            self.back_up_meanwhile()
        self.audit("A backup runs beside 40 uploads and 20 deletions", TIMES)

    def back_up_meanwhile(self):
        with TemporaryDirectory(prefix="gourmious-") as folder, ThreadPoolExecutor(5) as threads:
            uploads = [self.make_upload() for _ in range(40)]
            answers = threads.map(self.send, uploads)
            deletions = threads.submit(manage, "shell", "-c", DELETE, **self.stack.environment)
            for _ in range(4):
                manage("backup", folder, "--force", **self.stack.environment)
            self.assertEqual({answer.status for answer in answers}, {200})
            deletions.result()
            for generation in find_generations(Path(folder)):
                self.assert_consistent(generation)
        manage("shell", "-c", DELETE_ALL, **self.stack.environment)
        self.ledger.entries.clear()

    def assert_consistent(self, generation):
        """Assert that exactly the originals of its rows are there, byte for byte."""
        pictures = snapshot.read_pictures(generation.database)
        snapshot.validate(generation.database)
        self.assertEqual(generation.find_faults(set(pictures)), [])
        self.assertEqual(generation.count()["originals"], len(pictures))

    def send(self, upload):
        with upload:
            return upload.answer()
