from itertools import product
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models.deletion import Collector
from django.test import TransactionTestCase

from uploads.admin import PictureAdmin
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

    def test_staff_name_a_dish_as_diners_do(self):
        url = f"/admin/uploads/dish/{self.dish.pk}/change/"
        self.assertContains(self.client.get(url), 'class="vTextField" maxlength="100"', 2)

        response = self.client.post(url, {"name": "\u200b\u0301", "restaurant": "Chez Fonfon"})
        self.assertContains(response, "A name needs at least one visible character.")
        self.client.post(url, {"name": "\u202eAi\u0308oli ", "restaurant": "Chez\0Fonfon"})
        self.assertEqual(str(Dish.objects.get()), "Aïoli, Chez Fonfon")

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


class OddInputTests(UploadTestCase):
    """Odd input is answered with a page, a redirect or a 404, and never fails."""

    VALUES = ("9" * 19, "9" * 5000, "-1", "10000", "abc", "", "1\0", "(", "9999-12-31T23:59:59Z")
    PARAMETERS = {
        "uploads/picture": (
            *("uploaded__year", "uploaded__month", "uploaded__day", "uploaded__range", "hidden"),
            *("hidden__exact", "hidden__isnull", "dish", "dish__exact", "dish__restaurant"),
            *("dish__restaurant__regex", "id", "id__in", "caption", "nonsense"),
        ),
        "uploads/dish": ("created__year", "created__month", "id", "id__in", "name__regex"),
        "auth/user": ("date_joined__year", "groups", "groups__id__exact", "is_staff__exact", "id"),
        "auth/group": ("id", "name", "permissions"),
    }
    COMMON = ("p", "o", "e", "q", "all", "_popup", "_facets", "_changelist_filters")

    def setUp(self):
        super().setUp()
        self.cook = User.objects.create_superuser("cook")
        self.client.force_login(self.cook)
        self.picture = store(self.dish, photo(8, 8))
        self.warning = self.enterContext(patch("uploads.middleware.logger.warning"))

    def assert_answered(self, path, *statuses, method="get", data=None):
        with self.subTest(path=path[:99], data=str(data)[:99]):
            response = getattr(self.client, method)(path, data)
            self.assertIn(response.status_code, statuses)
            return response

    def test_a_list_with_any_query(self):
        for model, parameters in self.PARAMETERS.items():
            for parameter in (*parameters, *self.COMMON):
                for value in self.VALUES:
                    self.assert_answered(f"/admin/{model}/", 200, 302, data={parameter: value})

    def test_a_list_of_any_day(self):
        for year, month, day in product((0, 1, 2026, 9999), (0, 1, 12, 13), (0, 31, 32)):
            dates = {"uploaded__year": year, "uploaded__month": month, "uploaded__day": day}
            self.assert_answered("/admin/uploads/picture/", 200, 302, data=dates)

    def test_staff_are_told_and_the_log_keeps_the_error(self):
        response = self.client.get("/admin/uploads/picture/?uploaded__year=9999", follow=True)

        self.assertContains(response, "A value in the address or in the form was not accepted.")
        self.assertContains(response, self.picture.thumbnail.url)
        self.assertIsInstance(self.warning.call_args.kwargs["exc_info"], ValueError)

    def test_a_relation_or_a_field_that_staff_may_not_query_is_a_bad_request(self):
        for query in ("_to_field=x", "_to_field=%00", "dish__pictures__hidden=1"):
            self.assert_answered(f"/admin/uploads/picture/?{query}", 400)

    def test_an_action_on_any_id(self):
        actions = {"uploads/picture": ("hide", "show", "delete_selected", "nonsense")}
        for model in self.PARAMETERS:
            for action in actions.get(model, ("delete_selected", "nonsense")):
                for value in self.VALUES:
                    data = {"action": action, "_selected_action": value, "post": "yes"}
                    self.assert_answered(f"/admin/{model}/", 302, method="post", data=data)

        self.assertTrue(Picture.objects.filter(pk=self.picture.pk, hidden=False).exists())

    def test_an_action_on_a_list_that_there_is_not(self):
        for query in ("uploaded__year=99999999999", "dish__restaurant__regex=(", "id__in=x"):
            path = f"/admin/uploads/picture/?{query}"
            data = {"action": "hide", "_selected_action": self.picture.pk}
            self.assert_answered(path, 302, method="post", data=data)

        self.assertFalse(Picture.objects.get().hidden)

    def test_a_page_of_any_id(self):
        for model, value in product(self.PARAMETERS, self.VALUES):
            for page in ("change/", "delete/", "history/", "original", "password/", ""):
                path = f"/admin/{model}/{quote(value, safe='') or 'x'}/{page}"
                self.assert_answered(path, 301, 302, 404)
                self.assert_answered(path, 301, 302, 404, method="post", data={"post": "yes"})

    def test_the_other_pages_of_the_admin(self):
        for value in self.VALUES:
            name = quote(value, safe="") or "x"
            for path in (f"r/{name}/{name}/", f"r/1/{name}/", f"{name}/", f"uploads/{name}/"):
                self.assert_answered(f"/admin/{path}", 302, 404)
            self.assert_answered(f"/admin/jsi18n/?language={name}", 200)
            for data in (
                {"app_label": "auth", "model_name": "user", "field_name": "groups", "page": value},
                {"app_label": value, "model_name": value, "field_name": value, "term": value},
            ):
                self.assert_answered("/admin/autocomplete/", 200, 403, 404, data=data)

    def test_the_forms_of_the_admin(self):
        for value in self.VALUES:
            user = {"username": value, "groups": value, "user_permissions": value}
            user |= {"password1": value, "password2": value, "date_joined_0": value}
            for path, data in (
                ("uploads/dish/add/", {"name": value, "restaurant": value}),
                (f"uploads/picture/{self.picture.pk}/change/", {"caption": value}),
                ("auth/group/add/", {"name": value, "permissions": value}),
                ("auth/user/add/", user),
                (f"auth/user/{self.cook.pk}/change/", user),
            ):
                self.assert_answered(f"/admin/{path}", 200, 302, method="post", data=data)

    def test_the_pages_of_diners(self):
        for value in self.VALUES:
            name = quote(value, safe="") or "x"
            for path in ("/", self.dish.get_absolute_url()):
                self.assert_answered(path, 200, data={"page": value, "q": value})
            self.assert_answered(f"/dishes/{name}/", 404)
            for page in ("take_back", "caption"):
                self.assert_answered(f"/pictures/{name}/{page}", 404, method="post", data={})

    def test_an_error_of_the_app_is_not_hidden(self):
        for error in (ValueError, ZeroDivisionError):
            with (
                patch.object(PictureAdmin, "get_queryset", side_effect=error),
                self.assertRaises(error),
            ):
                self.client.get("/admin/uploads/picture/?hidden__exact=0", follow=True)


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
