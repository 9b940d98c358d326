import errno
import posixpath
import re
import shutil
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.test import SimpleTestCase, override_settings

from gourmious.staticfiles import StaticFilesStorage

from .base import PRODUCTION, FoldersMixin
from .environment import read_settings


class StaticFilesStorageTests(FoldersMixin, SimpleTestCase):
    """Each test has a copy of the files, as they are collected once."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        storages = read_settings(**PRODUCTION)["STORAGES"]
        cls.enterClassContext(override_settings(STORAGES=storages))
        cls.collected = cls.enterClassContext(TemporaryDirectory(prefix="gourmious-"))
        with override_settings(STATIC_ROOT=cls.collected):
            cls.collect()

    def setUp(self):
        super().setUp()
        self.static = self.folder / "static"
        shutil.copytree(self.collected, self.static)
        self.enterContext(override_settings(STATIC_ROOT=self.static))

    @staticmethod
    def collect(**options):
        call_command("collectstatic", interactive=False, stdout=StringIO(), **options)

    def read(self):
        """Return the content of each file, with its inode and time: a new file has others."""
        return {
            path: (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
            for path in self.files("static")
        }

    def hashed_scripts(self):
        names = staticfiles_storage.hashed_files.values()
        return {name for name in names if fnmatch(name, "uploads/*.js")}

    def imports(self, script):
        """Return the names of the scripts that a script imports."""
        paths = re.findall(r"""from\s*["'](.+?)["']""", (self.static / script).read_text())
        return {posixpath.normpath(f"{posixpath.dirname(script)}/{path}") for path in paths}

    def test_scripts_import_each_other_by_names_with_hashes(self):
        imported = set().union(*map(self.imports, self.hashed_scripts()))
        self.assertGreater(len(imported), 10)
        self.assertLessEqual(imported, self.hashed_scripts())

    def test_the_order_of_the_files_does_not_matter(self):
        before = staticfiles_storage.hashed_files
        storage = FileSystemStorage(self.static)
        chain = ["upload", "send", "cancel", "poll", "progress", "show", "page"]
        chain = [f"uploads/{name}.js" for name in chain]

        for names in (chain, chain[::-1]):
            paths = {name: (storage, name) for name in [*names, *before]}
            for _, _, processed in staticfiles_storage.post_process(paths):
                self.assertNotIsInstance(processed, Exception)
            self.assertEqual(staticfiles_storage.hashed_files, before)

    def test_nothing_is_left_of_the_names_that_scripts_had_in_between(self):
        scripts = {f"uploads/{path.name}" for path in self.static.glob("uploads/*.*.js")}
        self.assertEqual(scripts, self.hashed_scripts())

    def test_what_an_earlier_release_needs_stays_until_the_folder_is_cleared(self):
        earlier = self.static / "uploads" / "upload.0123456789ab.js"
        earlier.write_text("// a script of an earlier release")

        self.collect()
        self.assertTrue(earlier.exists())

        self.collect(clear=True)
        self.assertFalse(earlier.exists())
        self.assertTrue(self.hashed_scripts())

    def test_files_that_have_not_changed_are_left_alone(self):
        before = self.read()

        self.collect()

        self.assertGreater(len(before), 100)
        self.assertEqual(self.read(), before)

    def test_a_file_that_is_not_what_it_should_be_is_replaced(self):
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

        shutil.rmtree(self.static)
        with patch.object(Path, "write_bytes", write_a_part), self.assertRaises(OSError):
            self.collect()

        self.assertEqual(self.files("static"), [])

    def test_everybody_may_read_the_files(self):
        modes = {path.stat().st_mode & 0o777 for path in self.files("static")}
        self.assertEqual(modes, {0o644})


class ReleaseTests(FoldersMixin, SimpleTestCase):
    """Two releases collect their files in one folder: the second has changed a script."""

    def setUp(self):
        super().setUp()
        storages = read_settings(**PRODUCTION)["STORAGES"]
        self.enterContext(override_settings(STORAGES=storages))

    def release(self, name, script):
        """Return the settings of a release with a script, and with one that imports it."""
        source = self.folder / name / "static"
        (source / "uploads").mkdir(parents=True)
        (source / "uploads/page.js").write_text('import { show } from "./show.js";')
        (source / "uploads/show.js").write_text(script)
        return {
            "BASE_DIR": source.parent,
            "STATICFILES_DIRS": [source],
            "STATIC_ROOT": self.folder / "static",
        }

    def collect(self, release):
        """Collect the files of a release, and return their names with hashes."""
        with override_settings(**release):
            StaticFilesStorageTests.collect()
        return self.read_names(release)

    def read_names(self, release):
        with override_settings(**release):
            return {*StaticFilesStorage().hashed_files.values()}

    def test_the_old_release_finds_its_own_files_after_a_new_one_has_collected_others(self):
        old, new = self.release("old", "export let show = 1;"), self.release("new", "let show = 2;")
        before = self.collect(old)
        contents = {name: (self.folder / "static" / name).read_bytes() for name in before}

        after = self.collect(new)

        self.assertEqual(self.read_names(old), before)
        self.assertEqual(len(after - before), 2)
        for name, content in contents.items():
            self.assertEqual((self.folder / "static" / name).read_bytes(), content)

    def test_a_release_that_is_collected_again_leaves_the_files_of_a_newer_one(self):
        old, new = self.release("old", "export let show = 1;"), self.release("new", "let show = 2;")
        self.collect(old)
        after = self.collect(new)

        self.collect(old)

        for name in after:
            self.assertTrue((self.folder / "static" / name).exists())
