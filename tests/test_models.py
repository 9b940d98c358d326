from pathlib import Path
from unittest.mock import patch

from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError

from uploads.models import Dish, Picture

from .base import UploadTestCase, make_dish, uploaded
from .photos import photo


class DishTests(UploadTestCase):
    def test_a_dish_is_there_once_in_a_restaurant(self):
        with self.assertRaises(IntegrityError):
            make_dish()

    def test_the_same_dish_may_be_in_two_restaurants(self):
        make_dish(restaurant="Chez Michel")

        self.assertEqual(Dish.objects.count(), 2)

    def test_the_cover_is_the_newest_picture(self):
        make_dish(name="Pissaladière")
        Picture.objects.store(self.dish, uploaded(photo()))
        newest = Picture.objects.store(self.dish, uploaded(photo()))

        with self.assertNumQueries(2):
            without, dish = Dish.objects.with_cover()
            self.assertEqual((without.cover, dish.cover), (None, newest))


class StoreTests(UploadTestCase):
    def test_the_original_is_kept_byte_for_byte(self):
        content = photo()

        picture = Picture.objects.store(self.dish, uploaded(content))

        with picture.original.open() as original:
            self.assertEqual(original.read(), content)

    def test_the_files_have_names_of_our_own_making(self):
        picture = Picture.objects.store(self.dish, uploaded(photo(), "../../menu.php"))

        self.assertRegex(picture.original.name, r"^[0-9a-f]{32}\.jpg$")
        self.assertRegex(picture.display.name, r"^[0-9a-f]{32}-display\.jpg$")
        self.assertRegex(picture.thumbnail.name, r"^[0-9a-f]{32}-thumbnail\.jpg$")

    def test_an_original_has_no_url_and_only_the_server_may_read_it(self):
        picture = Picture.objects.store(self.dish, uploaded(photo()))

        with self.assertRaises(ValueError):
            picture.original.url  # noqa: B018
        self.assertEqual(Path(picture.original.path).stat().st_mode & 0o777, 0o600)

    def test_everybody_may_read_the_renditions(self):
        picture = Picture.objects.store(self.dish, uploaded(photo()))

        for file in (picture.display, picture.thumbnail):
            self.assertEqual(Path(file.path).stat().st_mode & 0o777, 0o644)

    def test_nothing_is_kept_of_what_is_no_picture(self):
        with self.assertRaises(ValidationError):
            Picture.objects.store(self.dish, uploaded(b"A text."))

        self.assertEqual((Picture.objects.count(), self.files()), (0, []))

    def test_no_file_is_kept_when_the_row_cannot_be_written(self):
        with (
            patch.object(Picture, "save", side_effect=DatabaseError),
            self.assertRaises(DatabaseError),
        ):
            Picture.objects.store(self.dish, uploaded(photo()))

        self.assertEqual(self.files(), [])

    def test_no_file_is_kept_when_a_rendition_cannot_be_stored(self):
        (self.folder / "media").rmdir()
        (self.folder / "media").touch()

        with self.assertRaises(OSError):
            Picture.objects.store(self.dish, uploaded(photo()))

        (self.folder / "media").unlink()
        self.assertEqual(self.files(), [])


class DeleteTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        for _ in range(2):
            Picture.objects.store(self.dish, uploaded(photo()))

    def test_a_picture_takes_its_files_along(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.dish.pictures.first().delete()

        self.assertEqual(len(self.files()), 3)

    def test_pictures_deleted_in_bulk_take_their_files_along(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.dish.pictures.all().delete()

        self.assertEqual(self.files(), [])

    def test_a_dish_takes_the_files_of_its_pictures_along(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.dish.delete()

        self.assertEqual(self.files(), [])

    def test_the_files_stay_when_the_deletion_is_rolled_back(self):
        with self.captureOnCommitCallbacks():
            self.dish.delete()

        self.assertEqual(len(self.files()), 6)
