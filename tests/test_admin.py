from pathlib import Path
from unittest.mock import patch

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models.deletion import Collector
from django.test import TransactionTestCase

from uploads.models import Dish, Picture

from .base import FoldersMixin, UploadTestCase, make_dish, store
from .photos import photo


class AdminTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.force_login(User.objects.create_superuser("cook"))
        self.picture = store(self.dish, photo())

    def test_the_dishes_are_listed_with_their_covers(self):
        make_dish("Aïoli")

        response = self.client.get("/admin/uploads/dish/")

        self.assertContains(response, self.picture.thumbnail.url)
        self.assertContains(response, "Aïoli")

    def test_the_pictures_are_listed_with_their_thumbnails(self):
        response = self.client.get("/admin/uploads/picture/")

        self.assertContains(response, self.picture.thumbnail.url)

    def test_a_dish_and_a_picture_can_be_opened(self):
        for name, pk in (("dish", self.dish.pk), ("picture", self.picture.pk)):
            response = self.client.get(f"/admin/uploads/{name}/{pk}/change/")
            self.assertContains(response, "Bouillabaisse")

    def test_a_picture_comes_by_upload_alone(self):
        response = self.client.get("/admin/uploads/picture/add/")

        self.assertEqual(response.status_code, 403)

    def run_action(self, action):
        with self.captureOnCommitCallbacks(execute=True):
            return self.client.post(
                "/admin/uploads/picture/",
                {"action": action, "_selected_action": self.picture.pk},
                follow=True,
            )

    def test_pictures_can_be_hidden_and_shown_again(self):
        self.assertContains(self.run_action("hide"), "is hidden.")
        self.assertEqual(len(self.files()), 1)

        self.assertContains(self.run_action("show"), "is shown again.")
        self.assertEqual(len(self.files()), 3)

    def test_a_picture_that_cannot_be_shown_is_told(self):
        self.run_action("hide")
        Path(self.picture.original.path).unlink()

        self.assertContains(self.run_action("show"), "could not be shown again")

    def test_hidden_pictures_can_be_filtered(self):
        self.picture.hide()

        for hidden, count in ((1, 1), (0, 0)):
            response = self.client.get(f"/admin/uploads/picture/?hidden__exact={hidden}")
            self.assertEqual(response.context["cl"].result_count, count)

    def test_staff_can_fetch_an_original_byte_for_byte(self):
        response = self.client.get(f"/admin/uploads/picture/{self.picture.pk}/original")

        content = b"".join(response.streaming_content)
        self.assertTrue(content == Path(self.picture.original.path).read_bytes())
        self.assertIn("attachment", response["Content-Disposition"])

    def test_an_original_that_is_lost_is_not_found(self):
        Path(self.picture.original.path).unlink()

        response = self.client.get(f"/admin/uploads/picture/{self.picture.pk}/original")

        self.assertEqual(response.status_code, 404)

    def test_nobody_else_can(self):
        url = f"/admin/uploads/picture/{self.picture.pk}/original"
        self.client.force_login(User.objects.create_user("waiter", is_staff=True))
        self.assertEqual(self.client.get(url).status_code, 403)

        self.client.logout()
        self.assertRedirects(self.client.get(url), f"/admin/login/?next={url}")

    def edit_caption(self, caption):
        url = f"/admin/uploads/picture/{self.picture.pk}/change/"
        return self.client.post(url, {"caption": caption})

    def test_staff_see_a_caption_and_can_edit_or_blank_it(self):
        self.picture.write_caption("Rude words")
        for page in ("", f"{self.picture.pk}/change/", "?q=rude"):
            response = self.client.get(f"/admin/uploads/picture/{page}")
            self.assertContains(response, "Rude words")

        for caption, kept in ((" Kind\0words ", "Kind words"), ("", "")):
            self.assertEqual(self.edit_caption(caption).status_code, 302)
            self.assertEqual(Picture.objects.get().caption, kept)

    def test_a_caption_that_is_too_long_is_refused_in_a_sentence(self):
        response = self.edit_caption("x" * 141)

        self.assertContains(response, "A caption may have at most 140 characters.")
        self.assertEqual(Picture.objects.get().caption, "")

    def test_a_picture_that_is_hidden_while_its_caption_is_edited_stays_hidden(self):
        write_caption = Picture.write_caption

        def hide_and_write(picture, caption):
            Picture.objects.get().hide()
            write_caption(picture, caption)

        with patch.object(Picture, "write_caption", hide_and_write):
            self.edit_caption("With aïoli")

        picture = Picture.objects.get()
        self.assertEqual((picture.hidden, picture.caption), (True, "With aïoli"))

    def test_nothing_that_a_diner_wrote_becomes_a_script(self):
        script = "'><script>alert(1)</script>"
        Dish.objects.update(name=script, restaurant=script)
        Picture.objects.update(caption=script)

        dish, picture = f"dish/{self.dish.pk}", f"picture/{self.picture.pk}"
        pages = ["dish/", "picture/"]
        pages += [f"{one}/{page}/" for one in (dish, picture) for page in ("change", "delete")]
        for page in pages:
            response = self.client.get(f"/admin/uploads/{page}")
            self.assertContains(response, "&lt;script&gt;alert(1)")
            self.assertNotContains(response, "<script>alert(1)")

    def test_deleting_a_dish_deletes_its_files(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(f"/admin/uploads/dish/{self.dish.pk}/delete/", {"post": "yes"})

        self.assertEqual((Dish.objects.count(), self.files()), (0, []))

    def test_deleting_pictures_deletes_their_files(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(
                "/admin/uploads/picture/",
                {"action": "delete_selected", "_selected_action": self.picture.pk, "post": "yes"},
            )

        self.assertEqual((Picture.objects.count(), self.files()), (0, []))

    def test_staff_choose_no_password_that_is_easily_guessed(self):
        cook = User(username="bouillabaisse-cook")
        for password in ("kX3!vT9", "password1234", "493017265518", "Bouillabaisse-Cook"):
            with self.assertRaises(ValidationError):
                validate_password(password, cook)

        validate_password("aïoli for all of us", cook)


class MeanwhileTests(FoldersMixin, TransactionTestCase):
    def test_dishes_are_deleted_whose_photos_are_stored_meanwhile(self):
        dish = make_dish()
        self.client.force_login(User.objects.create_superuser("cook"))
        collect = Collector.collect

        def collect_and_store(*args, **kwargs):
            collect(*args, **kwargs)
            if not connection.in_atomic_block:  # In one it would wait.
                store(dish, photo())

        chosen = {"action": "delete_selected", "_selected_action": dish.pk, "post": "yes"}
        with patch.object(Collector, "collect", collect_and_store):
            response = self.client.post("/admin/uploads/dish/", chosen)

        self.assertEqual(response.status_code, 302)
        self.assertFalse(Dish.objects.exists())
        self.assertEqual(self.files(), [])
