import errno
import os
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Barrier
from unittest.mock import DEFAULT, patch

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.files.storage import FileSystemStorage
from django.db import DatabaseError, IntegrityError, connection
from django.db.migrations.loader import MigrationLoader
from django.test import TransactionTestCase

from uploads import models, renderer
from uploads.models import Dish, Picture, Report

from .base import FoldersMixin, UploadTestCase, make_dish, overwrite, store
from .only import local_only
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
        store(self.dish, photo())
        newest = store(self.dish, photo())

        with self.assertNumQueries(1):
            without, dish = Dish.objects.with_cover()
            self.assertEqual((without.cover, dish.cover), (None, newest))

    def test_only_shown_pictures_are_counted(self):
        make_dish(name="Pissaladière")
        for _ in range(3):
            hidden = store(self.dish, photo())
        hidden.hide()

        with self.assertNumQueries(1):
            counts = [dish.photo_count for dish in Dish.objects.with_cover()]
        self.assertEqual(counts, [0, 2])


class SearchTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.creme = make_dish("Crème brûlée à l\u2019orange", "Café 50 %")
        self.beef = make_dish("Bœuf_bourguignon\\", "ΣΊΣΥΦΟΣ Straße İstanbul")

    def assert_finds(self, dish, *queries):
        for query in queries:
            with self.subTest(query):
                self.assertEqual(list(Dish.objects.search(query)), [dish] if dish else [])

    def test_case_and_accents_make_no_difference(self):
        self.assert_finds(self.creme, "creme brulee", "CREME", "crème", "cre\u0300me", "BRÛL")
        self.assert_finds(self.beef, "boeuf", "BŒUF", "strasse", "σισυφος", "istanbul", "ISTANBUL")

    def test_an_apostrophe_may_be_typed_or_straight(self):
        self.assert_finds(self.creme, "l'orange", "l\u2019orange")

    def test_each_word_must_be_in_the_name_or_the_restaurant(self):
        self.assert_finds(
            self.creme, "cafe creme", "  brulee\tcafe\n", "creme\0cafe", "creme\xa0cafe"
        )
        self.assert_finds(None, "creme bourguignon", "orangecafe", "orange\\cafe")

    def test_no_character_has_a_meaning_of_its_own(self):
        self.assert_finds(self.creme, "50 %", "%")
        self.assert_finds(self.beef, "_", "f_b", "\\", "n\\")
        self.assert_finds(None, "c%e", "cr_me", "%%", '"', "*", "?", "[a-z]", "ca.e")

    def test_no_word_finds_every_dish(self):
        for query in ("", " ", "\0", "\u0300"):
            self.assertEqual(Dish.objects.search(query).count(), 3)

    def test_only_the_first_ten_words_are_searched(self):
        self.assert_finds(self.creme, "creme " * 10 + "pizza")
        self.assert_finds(None, "creme " * 9 + "pizza")

        with self.assertNumQueries(1) as queries:
            self.assert_finds(None, "\ufdfa" * 100)
        self.assertEqual(queries[0]["sql"].count(" LIKE "), 10)

    def test_a_dish_is_found_by_its_new_name_alone(self):
        self.creme.name = "Île flottante"
        self.creme.save()

        self.assert_finds(self.creme, "ile")
        self.assert_finds(None, "creme")

    def test_short_words_alone_are_searched_in_the_newest_dishes(self):
        newest = make_dish("Pâté", "Chez Michel")

        with patch.object(models, "MAX_SEARCHED", 1):
            self.assert_finds(newest, "pâ")
            self.assert_finds(newest, "ch mi")
            self.assert_finds(None, "br")
            self.assert_finds(self.creme, "br crème")
            self.assert_finds(None, "br pâté")

    def test_the_dishes_of_an_older_release_are_found_after_the_migration(self):
        Dish.objects.bulk_create(Dish(name=f"Aïoli {n}", restaurant="Été") for n in range(600))
        self.assert_finds(None, "aioli")

        migration = import_module("uploads.migrations.0003_fill_search_text")
        migration.fill_search_text(apps, None)

        self.assertEqual(Dish.objects.search("ete aioli").count(), 600)
        self.assert_finds(self.creme, "creme")


class OlderReleaseTests(UploadTestCase):
    def test_a_process_of_an_older_release_may_write_rows(self):
        old = MigrationLoader(connection).project_state(("uploads", "0001_initial")).apps
        dish = old.get_model("uploads", "Dish").objects.create(name="Aïoli", restaurant="Été")
        old.get_model("uploads", "Picture").objects.create(dish=dish, width=4, height=3)

        picture = Picture.objects.get()
        self.assertEqual((picture.caption, picture.progress_id), ("", ""))
        self.assertFalse(Dish.objects.search("aïoli").exists())


class StoreTests(UploadTestCase):
    def test_the_original_is_kept_byte_for_byte(self):
        content = photo()

        picture = store(self.dish, content)

        with picture.original.open() as original:
            self.assertEqual(original.read(), content)

    def test_the_files_have_names_of_our_own_making(self):
        picture = store(self.dish, photo(), "../../menu.php")

        self.assertRegex(picture.original.name, r"^[0-9a-f]{32}\.jpg$")
        self.assertRegex(picture.display.name, r"^[0-9a-f]{32}-1600\.jpg$")
        self.assertRegex(picture.thumbnail.name, r"^[0-9a-f]{32}-480\.jpg$")

    @local_only
    def test_an_original_has_no_url_and_only_the_server_may_read_it(self):
        picture = store(self.dish, photo())

        with self.assertRaises(ValueError):
            picture.original.url  # noqa: B018
        self.assertEqual(Path(picture.original.path).stat().st_mode & 0o777, 0o600)

    @local_only
    def test_everybody_may_read_the_renditions(self):
        picture = store(self.dish, photo())

        for file in (picture.display, picture.thumbnail):
            self.assertEqual(Path(file.path).stat().st_mode & 0o777, 0o644)

    def test_nothing_is_kept_of_what_is_no_picture(self):
        with self.assertRaises(ValidationError):
            store(self.dish, b"A text.")

        self.assertEqual((Picture.objects.count(), self.files()), (0, []))

    def test_no_file_is_kept_when_the_row_cannot_be_written(self):
        with (
            patch.object(Picture, "save", side_effect=DatabaseError),
            self.assertRaises(DatabaseError),
        ):
            store(self.dish, photo())

        self.assertEqual(self.files(), [])

    @local_only
    def test_no_file_is_kept_when_a_rendition_cannot_be_stored(self):
        (self.folder / "media").rmdir()
        (self.folder / "media").touch()

        with self.assertRaises(OSError):
            store(self.dish, photo())

        (self.folder / "media").unlink()
        self.assertEqual(self.files(), [])

    @local_only
    def test_nothing_is_kept_where_a_full_disk_takes_only_a_part_of_a_copy(self):
        write = os.write

        def write_a_part(descriptor, data):
            return write(descriptor, data[: len(data) // 2])

        with (
            patch("os.rename", side_effect=OSError(errno.EXDEV, "Invalid cross-device link")),
            patch("os.write", write_a_part),
            self.assertRaisesRegex(OSError, "No space left"),
        ):
            store(self.dish, photo())

        self.assertEqual(self.files(), [])


class RenditionTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.picture = store(self.dish, photo())

    def test_a_hidden_picture_has_its_original_alone(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.picture.hide()

        self.assertEqual(self.files(), [self.path_of(self.picture.original)])
        self.assertEqual(self.dish.pictures.shown().count(), 0)

    def test_a_picture_that_is_shown_again_has_renditions_with_new_names(self):
        old = self.picture.display.name
        with self.captureOnCommitCallbacks(execute=True):
            self.picture.hide()
            self.picture.show()

        picture = self.dish.pictures.shown().get()
        self.assertNotEqual(picture.display.name, old)
        self.assertEqual(set(self.files()), {self.path_of(file) for file in picture.files()})

    def test_new_renditions_of_a_picture_that_is_hidden_meanwhile_are_dropped(self):
        stale = Picture.objects.get()
        with self.captureOnCommitCallbacks(execute=True):
            self.picture.hide()

            with self.assertRaises(Picture.DoesNotExist):
                stale.show()

        self.assertEqual(len(self.files()), 1)
        self.assertTrue(Picture.objects.get().hidden)

    def test_a_picture_whose_original_is_damaged_stays_hidden(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.picture.hide()
        overwrite(self.picture.original, b"")

        with self.assertRaises(ValidationError):
            self.picture.show()

        self.assertEqual(len(self.files()), 1)
        self.assertTrue(Picture.objects.get().hidden)

    @local_only
    def test_old_renditions_that_cannot_be_deleted_harm_nothing(self):
        with (
            patch.object(FileSystemStorage, "delete", side_effect=PermissionError),
            self.assertLogs("uploads.storage", "ERROR"),
            self.captureOnCommitCallbacks(execute=True),
        ):
            self.picture.show()

        for file in Picture.objects.get().files():
            self.assertTrue(file.storage.exists(file.name))


class CancelTests(UploadTestCase):
    def test_no_file_is_kept_of_an_upload_that_was_cancelled(self):
        Picture.objects.cancel("diner", ["dish-1"])

        with (
            self.captureOnCommitCallbacks(execute=True),
            self.assertRaises(ValidationError) as caught,
        ):
            store(self.dish, photo(), diner="diner", progress_id="dish-1")

        self.assertEqual((caught.exception.code, self.files()), ("cancelled", []))
        self.assertFalse(Picture.objects.exists())

    @local_only  # PostgreSQL scans a small table without the index.
    def test_the_pictures_of_an_upload_are_found_by_the_index(self):
        pictures = Picture.objects.owned_by("diner").exclude(progress_id="")

        plan = pictures.filter(progress_id__in=["dish-1", "dish-2"]).explain()

        self.assertRegex(plan, "USING INDEX picture_(progress_id|diner)")


class ReportTests(UploadTestCase):
    def test_a_diner_has_one_report_of_a_picture(self):
        picture = store(self.dish, photo())
        picture.report("diner", "Not food")

        with self.assertRaises(IntegrityError):
            picture.reports.create(diner="diner", reason="Not this dish")

    def test_the_reports_of_a_picture_are_deleted_with_it(self):
        picture, other = (store(self.dish, photo()) for _ in range(2))
        for one in (picture, other):
            one.report("diner", "Not food")

        picture.delete()

        self.assertEqual(Report.objects.get().picture, other)


class MeanwhileTests(FoldersMixin, TransactionTestCase):
    def test_an_upload_and_its_cancellation_at_once_keep_nothing(self):
        dish, barrier = make_dish(), Barrier(2)
        write = Picture.write

        def write_at_once(*args):
            barrier.wait()
            write(*args)

        def cancel_at_once():
            barrier.wait()
            Picture.objects.cancel("diner", ["dish-1"])
            connection.close()

        with patch.object(Picture, "write", write_at_once), ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(cancel_at_once)
            with suppress(ValidationError):  # The cancellation may come a moment later.
                store(dish, photo(), diner="diner", progress_id="dish-1")
            cancelled.result()

        self.assertEqual((dish.pictures.count(), self.files()), (0, []))

    def test_a_picture_is_deleted_only_after_a_report_that_is_being_stored(self):
        picture, report = store(make_dish(), photo()), Picture.report

        def delete():
            picture.delete()
            connection.close()

        def report_while_deleted(*args):
            deletions.append(pool.submit(delete))
            self.assertFalse(wait(deletions, timeout=0.5).done)
            report(*args)

        deletions, url = [], f"/pictures/{picture.pk}/report"
        with ThreadPoolExecutor(1) as pool, patch.object(Picture, "report", report_while_deleted):
            response = self.client.post(url, {"reason": "Not food"})
            deletions[0].result()

        self.assertEqual((response.status_code, Report.objects.count()), (302, 0))

    def test_no_file_is_kept_of_a_dish_that_is_deleted_meanwhile(self):
        dish = make_dish()

        def delete_and_render(*args):
            Dish.objects.all().delete()
            return DEFAULT

        with (
            patch.object(renderer, "render", wraps=renderer.render, side_effect=delete_and_render),
            self.assertRaises(ValidationError) as caught,
        ):
            store(dish, photo())

        self.assertEqual((caught.exception.code, self.files()), ("unknown_dish", []))

    def test_of_the_same_photo_twice_at_once_one_picture_is_kept(self):
        dish, content, barrier = make_dish(), photo(), Barrier(4)

        def store_at_once(number):
            barrier.wait()
            try:
                return store(dish, content).pk
            finally:
                connection.close()

        with ThreadPoolExecutor(4) as pool:
            keys = set(pool.map(store_at_once, range(4)))

        self.assertEqual(len(keys), 1)
        self.assertEqual((dish.pictures.count(), len(self.files())), (1, 3))

    def test_new_renditions_stay_where_ctrl_c_comes_while_the_old_are_deleted(self):
        picture = store(make_dish(), photo())
        delete_files = models.delete_files

        def delete_and_interrupt(files):
            delete_files(files)
            raise KeyboardInterrupt

        with (
            patch.object(models, "delete_files", delete_and_interrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            picture.show()

        kept = Picture.objects.get().files()
        self.assertEqual(set(self.files()), {self.path_of(file) for file in kept})


class DeleteTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        for _ in range(2):
            store(self.dish, photo())

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

    def test_renditions_that_were_made_meanwhile_go_too(self):
        stale = self.dish.pictures.first()
        with self.captureOnCommitCallbacks(execute=True):
            Picture.objects.get(pk=stale.pk).show()
            stale.delete()

        self.assertEqual(len(self.files()), 3)

    @local_only
    def test_a_file_that_cannot_be_deleted_keeps_no_other(self):
        delete, kept = FileSystemStorage.delete, []

        def fail_once(storage, name):
            if not kept:
                kept.append(storage.path(name))
                raise OSError(errno.EIO, "Input/output error")
            delete(storage, name)

        with (
            patch.object(FileSystemStorage, "delete", fail_once),
            self.assertLogs("uploads.storage", "ERROR"),
            self.captureOnCommitCallbacks(execute=True),
        ):
            self.dish.delete()

        self.assertEqual([str(path) for path in self.files()], kept)

    def test_the_files_stay_when_the_deletion_is_rolled_back(self):
        with self.captureOnCommitCallbacks():
            self.dish.delete()

        self.assertEqual(len(self.files()), 6)
