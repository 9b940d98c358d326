from io import StringIO
from pathlib import Path
from unittest.mock import patch

from django.core.management import CommandError, call_command
from django.test import override_settings

from uploads import storage

from .base import UploadTestCase, store
from .photos import photo
from .test_commands import Terminal
from .test_s3 import BucketsMixin


class MoveFilesTests(BucketsMixin, UploadTestCase):
    """The pictures are in the buckets first."""

    def setUp(self):
        super().setUp()
        self.pictures = [store(self.dish, photo()) for _ in range(2)]

    def move(self, output=None, **options):
        """Move the files, and return what the command prints."""
        output, self.errors = output or StringIO(), StringIO()
        call_command("move_files", stdout=output, stderr=self.errors, **options)
        return output.getvalue()

    def empty_buckets(self):
        for picture in self.pictures:
            for file in picture.files():
                file.storage.delete(file.name)

    def local_files(self):
        return {
            path.name: path.read_bytes()
            for folder in ("originals", "media")
            for path in (self.folder / folder).iterdir()
        }

    def bucket_files(self):
        return {
            file.name: file.open().read() for picture in self.pictures for file in picture.files()
        }

    def test_all_files_move_to_folders_and_back_to_buckets(self):
        expected = self.bucket_files()

        self.assertIn("6 files were copied, 0 were there", self.move(back=True))
        self.assertEqual(self.local_files(), expected)
        self.empty_buckets()
        self.assertIn("6 files were copied, 0 were there", self.move())

        self.assertEqual(self.bucket_files(), expected)
        self.assertEqual(self.local_files(), expected)

    def test_only_the_server_may_read_originals_that_move_back(self):
        self.move(back=True)

        for path in (self.folder / "originals").iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_what_is_there_is_not_copied_again(self):
        self.move(back=True)

        self.assertIn("0 files were copied, 6 were there", self.move(back=True))
        self.assertIn("0 files were copied, 6 were there", self.move())

    def test_what_an_interrupted_copy_left_is_copied_again(self):
        self.move(back=True)
        expected = self.local_files()
        path = self.folder / "originals" / self.pictures[0].original.name
        path.write_bytes(b"a part")

        self.assertIn("1 files were copied, 5 were there", self.move(back=True))

        self.assertEqual(self.local_files(), expected)

    def test_a_file_that_is_lost_or_damaged_is_named_and_the_others_are_copied(self):
        self.move(back=True)
        self.empty_buckets()
        damaged, lost = self.pictures
        Path(storage.OriginalStorage().path(damaged.original.name)).write_bytes(b"damaged")
        Path(storage.RenditionStorage().path(lost.display.name)).unlink()

        with self.assertRaisesMessage(CommandError, "2 files could not be copied."):
            self.move()

        self.assertRegex(self.errors.getvalue(), rf"original of picture {damaged.pk}, .*damaged")
        self.assertRegex(self.errors.getvalue(), rf"display of picture {lost.pk}, .*No such file")
        for file, is_copied in (
            (damaged.original, False),
            (damaged.display, True),
            (lost.original, True),
            (lost.thumbnail, True),
        ):
            self.assertEqual(file.storage.exists(file.name), is_copied)

    def test_hidden_pictures_have_their_original_alone(self):
        with self.captureOnCommitCallbacks(execute=True):
            for picture in self.pictures:
                picture.hide()

        self.assertIn("2 files were copied", self.move(back=True))

    def test_pictures_of_several_batches_are_moved(self):
        with patch("uploads.models.BATCH_SIZE", 1), patch("uploads.storage.BATCH_SIZE", 1):
            self.assertIn("6 files were copied", self.move(back=True))

    def test_a_terminal_sees_how_far_it_is(self):
        self.assertIn("█ 6 of 6\n", self.move(Terminal(), back=True))

    def test_a_store_is_needed(self):
        with (
            override_settings(S3=None),
            self.assertRaisesMessage(CommandError, "GOURMIOUS_S3"),
        ):
            self.move()
