import errno
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from django.conf import settings
from django.core.management import call_command
from django.test import SimpleTestCase, override_settings

from .base import FoldersMixin
from .test_settings import PRODUCTION, read_settings


class StaticFilesStorageTests(FoldersMixin, SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.static = self.folder / "static"
        storages = read_settings(**PRODUCTION)["STORAGES"]
        self.enterContext(override_settings(STORAGES=storages, STATIC_ROOT=self.static))

    def collect(self):
        call_command("collectstatic", interactive=False, stdout=StringIO())

    def read(self):
        """Return the content of each file, and what tells it from one that was written anew."""
        return {
            path: (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
            for path in self.files("static")
        }

    def test_files_that_have_not_changed_are_left_alone(self):
        self.collect()
        before = self.read()

        self.collect()

        self.assertGreater(len(before), 100)
        self.assertEqual(self.read(), before)

    def test_a_file_that_is_not_what_it_should_be_is_replaced(self):
        self.collect()
        before = self.read()
        style_sheet = next(self.static.glob("uploads/gourmious.*.css"))
        style_sheet.write_bytes(b"")

        self.collect()

        self.assertEqual(style_sheet.read_bytes(), before[style_sheet][0])
        self.assertNotEqual(style_sheet.stat().st_ino, before[style_sheet][1])

    def test_no_file_is_cut_short_by_a_full_disk(self):
        def write_a_part(path, data):
            with path.open("wb") as file:
                file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        with patch.object(Path, "write_bytes", write_a_part), self.assertRaises(OSError):
            self.collect()

        self.assertEqual(self.files("static"), [])

    def test_everybody_may_read_the_files(self):
        self.collect()

        modes = {path.stat().st_mode & 0o777 for path in self.files("static")}
        self.assertEqual(modes, {settings.FILE_UPLOAD_PERMISSIONS})
