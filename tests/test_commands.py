import os
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadhandler import StopFutureHandlers
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone

from uploads import models, renderer
from uploads.models import Cancellation, Dish, Picture
from uploads.storage import FolderStorage, read_lost_files
from uploads.uploadhandler import PictureFileUploadHandler

from .base import UploadTestCase, lose, overwrite, read, store
from .only import local_only
from .photos import photo


class Terminal(StringIO):
    def isatty(self):
        return True


class CommandTestCase(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.picture = store(self.dish, photo())
        self.output, self.errors = StringIO(), StringIO()

    def call(self, name, stdout=None, **options):
        with self.captureOnCommitCallbacks(execute=True):
            call_command(name, stdout=stdout or self.output, stderr=self.errors, **options)


class PruneUploadsTests(CommandTestCase):
    def leave(self, name, hours):
        """Leave a file that nothing was written to for so many hours."""
        path = self.folder / name
        path.touch()
        self.age(path, hours)
        return path

    def age(self, path, hours):
        then = time.time() - 3600 * hours
        os.utime(path, (then, then))

    @local_only
    def test_old_files_that_belong_to_nothing_are_removed(self):
        left = [self.leave(f"{name}/left", 24.1) for name in ("incoming", "originals", "media")]
        for file in self.picture.files():
            self.age(file.path, 10_000)

        self.call("prune_uploads")

        self.assertEqual(len(self.files()), 3)
        for path in left:
            self.assertFalse(path.exists())
            self.assertIn(f"Removed {path}.", self.output.getvalue())

    @local_only
    def test_many_originals_without_a_row_are_left_alone_unless_that_is_forced(self):
        left = [self.leave(f"originals/{number}.jpg", 48) for number in range(11)]
        incoming = self.leave("incoming/left", 48)

        with self.assertRaisesMessage(CommandError, "11 of 12 originals have no row"):
            self.call("prune_uploads")
        self.call("prune_uploads", dry_run=True)
        self.assertTrue(all(path.exists() for path in left))
        self.assertFalse(incoming.exists())

        self.call("prune_uploads", force=True)
        self.assertFalse(any(path.exists() for path in left))

    @local_only
    def test_a_tenth_of_the_originals_may_be_removed(self):
        for number in range(110):
            self.leave(f"originals/{number}.jpg", 48)
        rows = [
            Picture(dish=self.dish, original=f"{n}.jpg", width=1, height=1, digest=n)
            for n in range(99)
        ]
        Picture.objects.bulk_create(rows)

        self.call("prune_uploads")

        self.assertEqual(len(self.files("originals")), 100)

    @local_only
    def test_files_with_odd_names_are_left_alone_and_are_no_obstacle(self):
        for name in (f"left\n{self.picture.original.name}", os.fsdecode(b"\xff.jpg")):
            odd = self.leave(f"originals/{name}", 48)
            left = self.leave("originals/left", 48)

            self.call("prune_uploads")

            self.assertTrue(odd.exists())
            self.assertFalse(left.exists())
        self.assertTrue(self.path_of(self.picture.original).exists())

    @local_only
    def test_young_files_are_left_alone(self):
        young = [self.leave(f"{name}/young", 23.9) for name in ("incoming", "originals", "media")]

        self.call("prune_uploads")

        self.assertTrue(all(path.exists() for path in young))
        self.assertEqual(self.output.getvalue(), "")

    @local_only
    def test_the_files_of_a_running_upload_are_left_alone_however_old(self):
        handler = PictureFileUploadHandler(self.client.get("/").wsgi_request)
        with self.assertRaises(StopFutureHandlers):
            handler.new_file("picture", "dish.jpg", "image/jpeg", None)
        path = Path(handler.file.temporary_file_path())
        self.age(path, 48)

        with handler.file:
            self.call("prune_uploads")
            self.assertTrue(path.exists())

            stored = path.rename(self.folder / "originals" / "stored.jpg")
            self.call("prune_uploads")
            self.assertTrue(stored.exists())

        self.call("prune_uploads")
        self.assertFalse(stored.exists())

    @local_only
    def test_renditions_are_left_alone_until_their_row_is_written(self):
        original = self.folder / "original.jpg"
        original.write_bytes(photo())
        with renderer.render(original) as renditions:
            path = Path(renditions.display.temporary_file_path())
            self.age(path, 48)
            stored = path.rename(self.folder / "media" / "stored.jpg")

            self.call("prune_uploads")
            self.assertTrue(stored.exists())

        self.call("prune_uploads")
        self.assertFalse(stored.exists())

    @local_only
    def test_pictures_that_are_stored_meanwhile_are_left_alone_however_old(self):
        left = self.leave("originals/left.jpg", 48)
        is_in_use = FolderStorage.is_in_use

        def write_row_and_look(*args):
            Picture.objects.update(original=left.name)
            return is_in_use(*args)

        with patch.object(FolderStorage, "is_in_use", write_row_and_look):
            self.call("prune_uploads")

        self.assertTrue(left.exists())

    @local_only
    def test_the_files_of_pictures_are_known_whatever_the_way_to_the_folder(self):
        for file in self.picture.files():
            self.age(file.path, 48)
        roundabout = {
            "ORIGINALS_ROOT": self.folder / "media" / ".." / "originals",
            "MEDIA_ROOT": self.folder / "originals" / ".." / "media",
        }

        with override_settings(**roundabout):
            self.call("prune_uploads")

        self.assertEqual(len(self.files()), 3)

    def test_a_dry_run_only_tells(self):
        path = self.leave("incoming/left", 24.1)

        self.call("prune_uploads", dry_run=True)

        self.assertTrue(path.exists())
        self.assertEqual(self.output.getvalue(), f"Would remove {path}.\n")

    def test_what_is_older_can_be_told_but_not_what_is_running(self):
        path = self.leave("incoming/left", 2)

        for hours in ("0", "-1"):
            with self.assertRaises(CommandError):
                call_command("prune_uploads", "--hours", hours)
        self.assertTrue(path.exists())

        self.call("prune_uploads", hours=1)
        self.assertFalse(path.exists())

    def test_a_row_without_a_file_is_reported_and_kept(self):
        thumbnail = self.picture.thumbnail
        lose(thumbnail)

        with self.assertRaisesMessage(CommandError, "Files of pictures are lost: 1."):
            self.call("prune_uploads")

        self.assertIn(
            f"{self.picture} has lost {thumbnail.storage.locate(thumbnail.name)}.",
            self.errors.getvalue(),
        )
        self.assertTrue(Picture.objects.exists())

    def test_lost_files_are_noted_until_they_are_there_again(self):
        contents = {file: read(file) for file in self.picture.files()}
        for file in contents:
            lose(file)

        with self.assertRaises(CommandError):
            self.call("prune_uploads")
        lost = read_lost_files()
        self.assertEqual((lost.count, lost.names[0]), (3, f"original of picture {self.picture.pk}"))

        for file, content in contents.items():
            overwrite(file, content)
        self.call("prune_uploads", dry_run=True)
        self.assertEqual(read_lost_files().count, 3)
        self.call("prune_uploads")
        self.assertEqual(read_lost_files().count, 0)

    def test_what_nothing_needs_is_removed_even_if_files_are_lost(self):
        lose(self.picture.original)
        left = self.leave("incoming/left", 24.1)
        self.cancel("old", 24.1)

        with self.assertRaises(CommandError):
            self.call("prune_uploads")

        self.assertFalse(left.exists())
        self.assertFalse(Cancellation.objects.exists())

    @local_only
    def test_a_picture_that_is_deleted_while_its_files_are_looked_for_has_lost_nothing(self):
        get_sizes = FolderStorage.get_sizes

        def deleted(storage, names):
            with self.captureOnCommitCallbacks(execute=True):
                Picture.objects.all().delete()
            return get_sizes(storage, names)

        with patch.object(FolderStorage, "get_sizes", deleted):
            self.call("prune_uploads")

        self.assertEqual(self.errors.getvalue(), "")

    def cancel(self, progress_id, hours):
        """Cancel an upload so many hours ago."""
        Picture.objects.cancel("diner", [progress_id])
        created = timezone.now() - timedelta(hours=hours)
        Cancellation.objects.filter(progress_id=progress_id).update(created=created)

    def test_old_cancellations_are_deleted(self):
        self.cancel("old", 24.1)
        self.cancel("young", 23.9)

        self.call("prune_uploads", dry_run=True)
        self.assertEqual(Cancellation.objects.count(), 2)

        self.call("prune_uploads")
        self.assertEqual(Cancellation.objects.get().progress_id, "young")

    def test_a_picture_that_a_killed_process_left_of_a_cancelled_upload_is_deleted(self):
        self.cancel("dish-1", 0)
        Picture.objects.update(diner="diner", progress_id="dish-1")

        self.call("prune_uploads")

        self.assertEqual((Picture.objects.count(), self.files()), (0, []))

    def test_a_dish_that_an_older_release_added_is_found_afterwards(self):
        Dish.objects.update(search_text="")

        self.call("prune_uploads", dry_run=True)
        self.assertFalse(Dish.objects.search("bouillabaisse").exists())

        self.call("prune_uploads")
        self.assertEqual(Dish.objects.search("bouillabaisse").get(), self.dish)

    def test_a_hidden_picture_has_lost_nothing(self):
        self.picture.hide()

        self.call("prune_uploads")

        self.assertEqual(self.errors.getvalue(), "")


class MakeRenditionsTests(CommandTestCase):
    def change_sizes(self):
        """Let the display rendition have another size from now on, by its name."""
        self.enterContext(patch.object(models, "DISPLAY_SUFFIX", "-320.jpg"))

    def test_after_a_change_of_sizes_all_are_made_anew_from_the_originals(self):
        old = self.picture.display.name
        self.change_sizes()

        self.call("make_renditions")

        self.picture.refresh_from_db()
        self.assertRegex(self.picture.display.name, r"-320\.jpg$")
        self.assertNotEqual(self.picture.display.name, old)
        self.assertEqual(len(self.files()), 3)
        self.assertIn("1 of 1 pictures are up to date now.", self.output.getvalue())

    def test_what_is_made_already_is_not_made_again(self):
        self.call("make_renditions")

        self.assertEqual(Picture.objects.get().display.name, self.picture.display.name)
        self.assertIn("0 of 0 pictures", self.output.getvalue())

    def test_a_single_rendition_of_another_size_is_outdated(self):
        for name in ("display", "thumbnail"):
            old = self.picture.renditions()
            other = default_storage.save(f"x-{name}.jpg", ContentFile(b""))
            Picture.objects.update(**{name: other})

            self.call("make_renditions")

            self.assertIn("1 of 1 pictures", self.output.getvalue())
            self.picture.refresh_from_db()
            self.assertNotEqual(self.picture.renditions(), old)

    def test_lost_ones_are_made_again(self):
        lose(self.picture.thumbnail)
        store(self.dish, photo())

        self.call("make_renditions")

        self.assertEqual(len(self.files()), 6)
        self.assertIn("1 of 1 pictures", self.output.getvalue())

    def test_all_can_be_made_anew(self):
        self.call("make_renditions", all=True)

        self.assertNotEqual(Picture.objects.get().display.name, self.picture.display.name)
        self.assertEqual(len(self.files()), 3)

    def test_a_hidden_picture_stays_hidden(self):
        self.picture.hide()
        self.change_sizes()

        self.call("make_renditions", all=True)

        self.assertTrue(Picture.objects.get().hidden)
        self.assertIn("0 of 0 pictures", self.output.getvalue())

    def test_a_picture_that_cannot_be_made_is_reported_and_the_others_go_on(self):
        overwrite(self.picture.original, b"")
        store(self.dish, photo())
        self.change_sizes()

        with self.assertRaises(CommandError):
            self.call("make_renditions")

        self.assertIn("1 of 2 pictures", self.output.getvalue())
        self.assertIn(f"Picture {self.picture.pk}: ", self.errors.getvalue())

    def test_a_terminal_sees_how_far_it_is(self):
        terminal = Terminal()

        self.call("make_renditions", stdout=terminal, all=True)

        self.assertIn("█ 1 of 1\n", terminal.getvalue())
