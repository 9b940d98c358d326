"""The commands backup and restore, with real databases and folders."""

import hashlib
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import skipUnless
from unittest.mock import patch

from django.core.management import CommandError, call_command
from django.db import connection
from django.test import SimpleTestCase, TransactionTestCase, override_settings

from uploads import backups, snapshot
from uploads.backups import find_generations
from uploads.models import Dish, Picture

from .base import FoldersMixin, make_dish, store
from .photos import photo
from .servers import ROOT, manage

NOBODY = 65534


def read_mode(path):
    return path.stat().st_mode & 0o777


class ElsewhereTests(SimpleTestCase):
    def test_neither_postgresql_nor_a_store_is_backed_up_or_restored(self):
        for patched in (
            patch.object(connection, "vendor", "postgresql"),
            override_settings(S3={"endpoint": "http://10.0.0.9"}),
        ):
            for command in ("backup", "restore"):
                with patched, self.assertRaisesRegex(CommandError, "Use pg_dump .*\\.$"):
                    call_command(command, "/nowhere")


class BackupTestCase(FoldersMixin, TransactionTestCase):
    def setUp(self):
        super().setUp()
        self.dish = make_dish()
        self.picture = store(self.dish, photo())
        temporary = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.backups, self.site = temporary / "backups", temporary / "site"
        self.output = StringIO()

    def back_up(self, *arguments):
        """Back up, and return the new generation."""
        call_command("backup", str(self.backups), *arguments, stdout=self.output)
        return find_generations(self.backups)[-1]

    def add_pictures(self, number):
        """Add pictures whose originals are tiny and cannot be rendered."""
        contents = [f"{self.dish.pk} {name}".encode() for name in range(number)]
        rows = [
            Picture(
                dish=self.dish,
                original=f"{name}.jpg",
                width=1,
                height=1,
                digest=hashlib.sha256(content).hexdigest(),
            )
            for name, content in enumerate(contents)
        ]
        for row, content in zip(rows, contents, strict=True):
            Path(row.original.path).write_bytes(content)
        return Picture.objects.bulk_create(rows)

    def read_names(self, generation):
        return {path.name for path in generation.originals.iterdir()}

    def assert_whole(self, generation):
        """Assert that all originals of a generation are there, byte for byte, and no others."""
        pictures = snapshot.read_pictures(generation.database)
        snapshot.validate(generation.database)
        self.assertEqual(generation.find_faults(set(pictures)), [])
        self.assertEqual(self.read_names(generation), {row.original for row in pictures})


class BackupTests(BackupTestCase):
    def test_it_holds_the_rows_the_originals_and_the_settings(self):
        generation = self.back_up()

        [row] = snapshot.read_pictures(generation.database)
        copy = generation.originals / self.picture.original.name
        self.assertEqual((row.pk, row.digest), (self.picture.pk, self.picture.digest))
        self.assertEqual(copy.read_bytes(), Path(self.picture.original.path).read_bytes())
        self.assertIn("\nGOURMIOUS_SECRET_KEY=", generation.settings.read_text())
        self.assert_whole(generation)

    def test_only_its_owner_can_read_it_whatever_the_umask(self):
        with backups.set_umask(0):
            generation = self.back_up()

        paths = [self.backups, *self.backups.rglob("*")]
        self.assertGreaterEqual(len(paths), 6)
        for path in paths:
            self.assertEqual(read_mode(path), 0o700 if path.is_dir() else 0o600, path)
        self.assertEqual(read_mode(generation.settings), 0o600)

    def test_the_database_is_one_file(self):
        generation = self.back_up()

        snapshot.read_pictures(generation.database)

        names = {path.name for path in generation.folder.iterdir()}
        self.assertEqual(names, {"db.sqlite3", "gourmious.env", "originals"})

    def test_the_next_one_links_the_originals_that_are_there_already(self):
        first = self.back_up()
        new = store(self.dish, photo())

        second = self.back_up()

        links = {path.name: path.stat().st_nlink for path in second.originals.iterdir()}
        self.assertEqual(links, {self.picture.original.name: 2, new.original.name: 1})
        self.assertRegex(self.output.getvalue(), r"Backed up 2 pictures to .* New originals: 1 ")
        self.assert_whole(first)
        self.assert_whole(second)

    def test_a_file_system_without_links_gets_copies(self):
        self.back_up()

        with patch.object(os, "link", side_effect=PermissionError):
            generation = self.back_up()

        self.assertEqual([path.stat().st_nlink for path in generation.originals.iterdir()], [1])
        self.assert_whole(generation)

    def test_it_gets_a_name_in_order_even_if_the_clock_goes_back(self):
        self.back_up().folder.rename(self.backups / "2099-12-31T23-59-59")

        self.assertEqual(self.back_up().folder.name, "2100-01-01T00-00-00")

    def test_a_copy_that_the_backup_disk_damaged_is_copied_again(self):
        first = self.back_up()
        copy = first.originals / self.picture.original.name
        copy.write_bytes(bytes(copy.stat().st_size))

        with self.assertLogs("uploads.backups", "WARNING"):
            second = self.back_up()

        self.assert_whole(second)

    def test_a_picture_that_is_deleted_meanwhile_is_not_missed(self):
        self.picture.report("diner", "Not a dish.")
        new = store(self.dish, photo())
        read_sizes = backups.read_sizes

        def delete_and_read(folder):
            Picture.objects.filter(pk=self.picture.pk).delete()
            return read_sizes(folder)

        with patch.object(backups, "read_sizes", delete_and_read):
            generation = self.back_up()

        self.assertEqual(self.read_names(generation), {new.original.name})
        self.assert_whole(generation)
        with closing(sqlite3.connect(generation.database)) as copy:
            self.assertEqual(copy.execute("PRAGMA foreign_key_check").fetchall(), [])
            self.assertEqual(copy.execute("SELECT * FROM uploads_report").fetchall(), [])

    def test_a_picture_that_has_lost_its_original_is_named_and_the_others_are_kept(self):
        new = store(self.dish, photo())
        Path(self.picture.original.path).unlink()

        with self.assertRaisesMessage(CommandError, f"picture {self.picture.pk}"):
            self.back_up()

        [generation] = find_generations(self.backups)
        self.assertEqual(self.read_names(generation), {new.original.name})
        self.assertIn(self.picture.original.name, generation.lost.read_text())

    def test_an_original_that_the_site_has_lost_is_taken_from_the_last_backup(self):
        self.add_pictures(19)
        self.back_up()
        Path(self.picture.original.path).unlink()

        for _ in range(2):
            with self.assertRaisesMessage(CommandError, self.picture.original.name):
                self.back_up()

        last = find_generations(self.backups)[-1]
        self.assertFalse(last.lost.exists())
        self.assert_whole(last)

    def test_a_damaged_original_is_named_each_time_and_kept_beside(self):
        Path(self.picture.original.path).write_bytes(b"damaged")

        for _ in range(2):
            with self.assertRaisesMessage(CommandError, "is damaged"):
                self.back_up()

        last = find_generations(self.backups)[-1]
        self.assertEqual(self.read_names(last), {f"{self.picture.original.name}.damaged"})
        self.assertIn(self.picture.original.name, last.lost.read_text())

    def test_an_original_that_is_no_file_does_not_stop_it(self):
        new = store(self.dish, photo())
        path = Path(self.picture.original.path)
        path.unlink()
        path.mkdir()

        with self.assertRaisesMessage(CommandError, f"picture {self.picture.pk}"):
            self.back_up()

        [generation] = find_generations(self.backups)
        self.assertEqual(self.read_names(generation), {new.original.name})

    def test_it_is_refused_where_more_than_a_tenth_of_the_rows_is_gone_unless_forced(self):
        pictures = self.add_pictures(19)
        self.back_up()
        Picture.objects.filter(pk__in=[picture.pk for picture in pictures[:3]]).delete()

        with self.assertRaisesMessage(CommandError, "has 17 pictures, but"):
            self.back_up()
        self.assertEqual(len(list(self.backups.glob("*"))), 2)  # with the lock

        self.assert_whole(self.back_up("--force"))

    def test_it_is_refused_where_more_than_a_tenth_of_the_originals_is_gone(self):
        pictures = self.add_pictures(19)
        self.back_up()
        for picture in pictures[:3]:
            Path(picture.original.path).unlink()

        with self.assertRaisesMessage(CommandError, "has 17 originals, but"):
            self.back_up()

    def test_a_tenth_of_the_pictures_may_be_deleted(self):
        pictures = self.add_pictures(19)
        self.back_up()
        Picture.objects.filter(pk__in=[picture.pk for picture in pictures[:2]]).delete()

        self.assertEqual(self.back_up().count(), {"dishes": 1, "pictures": 18, "originals": 18})

    def test_it_is_refused_where_the_dishes_are_gone(self):
        self.back_up()
        Dish.objects.all().delete()

        with self.assertRaisesMessage(CommandError, "has 0 dishes, but"):
            self.back_up()

    def test_it_is_refused_in_the_data_folder(self):
        with (
            override_settings(DATA_DIR=self.backups.parent),
            self.assertRaisesMessage(CommandError, "is in the data folder"),
        ):
            self.back_up()

    def test_what_a_killed_backup_left_is_removed(self):
        left = self.backups / "unfinished" / "originals"
        left.mkdir(parents=True)
        (left / self.picture.original.name).touch()

        self.assert_whole(self.back_up())

        self.assertFalse(left.exists())

    def test_a_second_backup_at_the_same_time_is_refused(self):
        self.backups.mkdir()

        with (
            backups.lock(self.backups),
            self.assertRaisesMessage(CommandError, "Another backup"),
        ):
            self.back_up()

    def test_old_backups_are_removed(self):
        made = [self.back_up("--keep", "2").folder for _ in range(3)]

        self.assertEqual([path.exists() for path in made], [False, True, True])
        with self.assertRaises(CommandError):
            self.back_up("--keep", "0")

    def test_the_last_backup_that_lacks_nothing_is_never_removed(self):
        good = self.back_up()
        new = store(self.dish, photo())
        Path(new.original.path).unlink()

        for _ in range(2):
            with self.assertRaises(CommandError):
                self.back_up("--keep", "1")

        self.assertEqual(len(find_generations(self.backups)), 2)
        self.assert_whole(good)

    def test_a_damaged_database_of_the_last_backup_is_named(self):
        database = self.back_up().database
        with database.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(range(256)) * 16)

        with self.assertRaisesMessage(CommandError, f"The database {database} is damaged: "):
            self.back_up()

        self.assert_whole(self.back_up("--force"))


class RestoreTests(BackupTestCase):
    """Restore to another data folder, in a process of its own."""

    def setUp(self):
        super().setUp()
        self.environment = {
            "GOURMIOUS_DATA_DIR": str(self.site),
            "GOURMIOUS_RUN_DIR": str(self.site.parent / "run"),
        }

    def run_command(self, *arguments):
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            check=False,
            capture_output=True,
            text=True,
        )

    def restore(self, *arguments):
        """Restore, and return the output."""
        done = self.run_command("restore", self.backups, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def assert_refused(self, sentence, *arguments):
        """Assert that nothing is restored, with one sentence."""
        done = self.run_command("restore", self.backups, *arguments)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rf"^CommandError: .*{sentence}.*\n$")

    def read_rows(self):
        with closing(sqlite3.connect(self.site / "db.sqlite3")) as database:
            database.row_factory = sqlite3.Row
            return database.execute("SELECT * FROM uploads_picture").fetchall()

    def read_original(self, picture=None):
        return (self.site / "originals" / (picture or self.picture).original.name).read_bytes()

    def test_a_new_machine_gets_all_of_it(self):
        generation = self.back_up()

        printed = self.restore()

        [row] = self.read_rows()
        self.assertEqual(row["digest"], hashlib.sha256(self.read_original()).hexdigest())
        for name in ("display", "thumbnail"):
            self.assertTrue((self.site / "media" / row[name]).exists())
        self.assertRegex(printed, r"Restored 1 pictures \(.*KB\) from .* in [0-9.]+ seconds")
        self.assertIn(str(generation.settings), printed)
        self.assertFalse((self.site / "restoring").exists())

    def test_files_have_the_modes_that_the_services_give_them(self):
        self.back_up()

        self.restore()

        [row] = self.read_rows()
        modes = {
            "db.sqlite3": 0o640,
            "media": 0o750,
            f"media/{row['display']}": 0o644,
            f"originals/{row['original']}": 0o600,
        }
        self.assertEqual({name: read_mode(self.site / name) for name in modes}, modes)

    @skipUnless(os.geteuid() == 0, "Only root can give files to others.")
    def test_root_gives_everything_to_the_owner_of_the_data_folder(self):
        self.back_up()
        self.site.mkdir()
        os.chown(self.site, NOBODY, NOBODY)

        self.restore()

        paths = list(self.site.rglob("*"))
        self.assertGreaterEqual(len(paths), 6)
        self.assertEqual(
            {(path.stat().st_uid, path.stat().st_gid) for path in paths}, {(NOBODY,) * 2}
        )

    def test_the_site_shares_no_file_with_the_backup(self):
        generation = self.back_up()

        self.restore()
        (self.site / "originals" / self.picture.original.name).write_bytes(b"")

        self.assert_whole(generation)

    def test_an_earlier_backup_can_be_chosen(self):
        first = self.back_up()
        store(self.dish, photo())
        self.back_up()

        self.restore(first.folder.name)

        self.assertEqual(len(self.read_rows()), 1)
        self.assert_refused("There is no backup", "2000-01-01T00-00-00")

    def test_the_backup_of_an_older_release_is_migrated(self):
        folder = self.back_up().folder
        manage("migrate", "uploads", "0003", GOURMIOUS_DATA_DIR=str(folder))

        self.restore()

        with closing(sqlite3.connect(self.site / "db.sqlite3")) as database:
            self.assertEqual(database.execute("SELECT * FROM uploads_ban").fetchall(), [])

    def test_it_is_refused_while_a_service_runs(self):
        self.back_up()
        folder = self.site.parent / "run" / "uploads"
        folder.mkdir(parents=True)

        with closing(socket.socket(socket.AF_UNIX)) as service:
            service.bind(str(folder / "socket"))
            service.listen()
            self.assert_refused("The site is running")
            self.assert_refused("The site is running", "--force")
        self.assertFalse(self.site.exists())

    def test_it_is_refused_where_pictures_are_unless_forced(self):
        self.back_up()
        self.restore()
        store(self.dish, photo())
        self.back_up()

        self.assert_refused("has pictures already")
        self.assertEqual(len(self.read_rows()), 1)

        self.restore("--force")
        self.assertEqual(len(self.read_rows()), 2)

    def test_an_interrupted_one_goes_on_with_the_missing_renditions(self):
        store(self.dish, photo())
        generation = self.back_up()
        self.restore()
        (self.site / "restoring").write_text(str(generation))
        kept, lost = self.read_rows()
        (self.site / "media" / lost["display"]).unlink()

        self.restore()

        self.assertEqual(self.read_rows()[0]["display"], kept["display"])
        self.assertEqual(len(list((self.site / "media").iterdir())), 4)
        self.assertFalse((self.site / "restoring").exists())

    def test_one_that_was_interrupted_before_the_rows_restores_them(self):
        self.site.mkdir()
        (self.site / "restoring").touch()
        self.back_up()

        self.restore()

        self.assertEqual(len(self.read_rows()), 1)
        self.assertFalse((self.site / "restoring").exists())

    def test_only_missing_and_damaged_originals_are_copied(self):
        generation = self.back_up()
        originals = self.site / "originals"
        originals.mkdir(parents=True)
        (originals / self.picture.original.name).write_bytes(b"damaged")
        other = originals / "other.jpg"
        other.touch()

        self.restore()

        copy = generation.originals / self.picture.original.name
        self.assertEqual(self.read_original(), copy.read_bytes())
        self.assertTrue(other.exists())
        self.assertEqual(list((self.site / "incoming").iterdir()), [])

    def test_a_damaged_database_of_the_site_is_replaced(self):
        self.back_up()
        self.site.mkdir()
        for suffix in ("", "-wal", "-shm"):
            (self.site / f"db.sqlite3{suffix}").write_bytes(b"damaged" * 1000)

        self.restore()

        self.assertEqual(len(self.read_rows()), 1)

    def test_a_backup_that_has_lost_originals_is_refused_unless_forced(self):
        new = store(self.dish, photo())
        generation = self.back_up()
        (generation.originals / self.picture.original.name).unlink()

        self.assert_refused("lacks 1 originals")
        self.assertFalse(self.site.exists())

        done = self.run_command("restore", self.backups, "--force")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"picture {self.picture.pk}, {self.picture.original.name}, is", done.stderr)
        self.assertIn("Restored 1 pictures", done.stdout)
        self.assertTrue(self.read_original(new))

    def test_a_backup_that_has_a_damaged_original_is_refused(self):
        generation = self.back_up()
        (generation.originals / self.picture.original.name).write_bytes(b"damaged")

        self.assert_refused("lacks 1 originals, or has damaged ones")

    def test_a_backup_with_a_damaged_database_is_refused(self):
        self.back_up().database.write_bytes(b"damaged" * 1000)

        self.assert_refused("is damaged", "--force")
        self.assertFalse(self.site.exists())

    def test_what_the_site_had_lost_before_the_backup_is_no_reason_to_refuse(self):
        new = store(self.dish, photo())
        Path(self.picture.original.path).unlink()
        with self.assertRaises(CommandError):
            self.back_up()

        done = self.run_command("restore", self.backups)

        self.assertEqual(done.returncode, 1)
        self.assertIn("Restored 1 pictures", done.stdout)
        self.assertTrue(self.read_original(new))

    def test_a_folder_without_a_database_is_not_backed_up(self):
        done = self.run_command("backup", self.backups)

        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^CommandError: There is no database .*\n$")
        self.assertEqual(find_generations(self.backups), [])
