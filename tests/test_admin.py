from itertools import product
from pathlib import Path
from unittest.mock import patch
from urllib.parse import quote

from django.contrib.auth.models import Permission, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models.deletion import Collector
from django.test import TransactionTestCase
from django.test.utils import CaptureQueriesContext

from uploads.admin import PictureAdmin
from uploads.models import Ban, Dish, Picture, Report

from .base import FoldersMixin, UploadTestCase, lose, make_dish, store
from .only import local_only
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
        lose(self.picture.original)

        self.assertContains(self.run_action("show"), "could not be shown again")

    def test_hidden_pictures_can_be_filtered(self):
        self.picture.hide()

        for hidden, count in ((1, 1), (0, 0)):
            response = self.client.get(f"/admin/uploads/picture/?hidden__exact={hidden}")
            self.assertEqual(response.context["cl"].result_count, count)

    @local_only
    def test_staff_can_fetch_an_original_byte_for_byte(self):
        response = self.client.get(f"/admin/uploads/picture/{self.picture.pk}/original")

        content = b"".join(response.streaming_content)
        self.assertTrue(content == Path(self.picture.original.path).read_bytes())
        self.assertIn("attachment", response["Content-Disposition"])

    def test_an_original_that_is_lost_is_not_found(self):
        lose(self.picture.original)

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
        self.picture.report("diner", script)

        rows = [self.dish, self.picture, self.picture.reports.get()]
        lists = [f"{row._meta.model_name}/" for row in rows]
        ones = [f"{page}{row.pk}/" for page, row in zip(lists, rows, strict=True)]
        pages = [*lists, *(f"{one}change/" for one in ones), *(f"{one}delete/" for one in ones[:2])]
        for page in pages:
            response = self.client.get(f"/admin/uploads/{page}")
            self.assertContains(response, "&lt;script&gt;alert(1)")
            self.assertNotContains(response, "<script>alert(1)")

    def test_no_more_than_the_newest_rows_are_listed_and_counted(self):
        newest = make_dish("Aïoli")

        with patch("uploads.admin.MAX_LISTED", 1):
            response = self.client.get("/admin/uploads/dish/")

        self.assertEqual(response.context["cl"].result_count, 1)
        self.assertEqual(response.context["cl"].result_list[0], newest)

    def test_the_pictures_of_a_dish_are_counted_before_it_is_deleted(self):
        store(self.dish, photo()).report("first", "Not food")

        response = self.client.get(f"/admin/uploads/dish/{self.dish.pk}/delete/")

        self.assertContains(response, "<li>Pictures: 2</li>", html=True)
        self.assertContains(response, "<li>Reports: 1</li>", html=True)
        self.assertNotContains(response, f"Picture {self.picture.pk}")

    def test_a_dish_is_kept_from_staff_who_may_not_delete_its_pictures(self):
        waiter = User.objects.create_user("waiter", is_staff=True)
        waiter.user_permissions.add(Permission.objects.get(codename="delete_dish"))
        self.client.force_login(waiter)

        self.client.post(f"/admin/uploads/dish/{self.dish.pk}/delete/", {"post": "yes"})

        self.assertTrue(Dish.objects.exists())

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


class OddInputTests(FoldersMixin, TransactionTestCase):
    """Odd input is answered with a page, a redirect or a 404, and never fails.

    After an error PostgreSQL refuses the rest of a transaction, such as that of a TestCase.
    """

    takes_minutes = True
    VALUES = ("9" * 19, "9" * 5000, "-1", "10000", "abc", "", "1\0", "(", "9999-12-31T23:59:59Z")
    PARAMETERS = {
        "uploads/picture": (
            *("uploaded__year", "uploaded__month", "uploaded__day", "uploaded__range", "hidden"),
            *("hidden__exact", "hidden__isnull", "dish", "dish__exact", "caption__regex"),
            *("id", "id__in", "id__range", "width__range", "caption"),
        ),
        "uploads/dish": ("created__year", "created__month", "id", "id__in", "name__regex"),
        "uploads/report": ("created__year", "created__month", "picture", "picture__exact", "id"),
        "uploads/ban": ("diner", "id"),
        "auth/user": ("date_joined__year", "groups", "groups__id__exact", "is_staff__exact", "id"),
        "auth/group": ("id", "name", "permissions"),
    }
    COMMON = ("p", "o", "e", "q", "all", "_popup", "_facets", "_changelist_filters")

    def setUp(self):
        super().setUp()
        self.dish = make_dish()
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
        response = self.client.get("/admin/uploads/picture/?uploaded__year=0", follow=True)

        self.assertContains(response, "A value in the address or in the form was not accepted.")
        self.assertContains(response, self.picture.thumbnail.url)
        self.assertIsInstance(self.warning.call_args.kwargs["exc_info"], ValueError)

    def test_a_relation_or_a_field_that_staff_may_not_query_is_a_bad_request(self):
        for query in ("_to_field=x", "_to_field=%00", "dish__pictures__hidden=1"):
            self.assert_answered(f"/admin/uploads/picture/?{query}", 400)

    def test_an_action_on_any_id(self):
        actions = {
            "uploads/picture": ("hide", "show", "ban", "delete_selected", "nonsense"),
            "uploads/report": ("hide", "ban", "delete_selected", "nonsense"),
        }
        for model in self.PARAMETERS:
            for action in actions.get(model, ("delete_selected", "nonsense")):
                for value in self.VALUES:
                    data = {"action": action, "_selected_action": value, "post": "yes"}
                    self.assert_answered(f"/admin/{model}/", 302, method="post", data=data)

        self.assertTrue(Picture.objects.filter(pk=self.picture.pk, hidden=False).exists())

    def test_an_action_on_a_list_with_an_odd_query(self):
        for query in ("uploaded__year=99999999999", "caption__regex=(", "id__in=x"):
            path = f"/admin/uploads/picture/?{query}"
            data = {"action": "hide", "_selected_action": self.picture.pk}
            self.assert_answered(path, 302, method="post", data=data)

        self.assertFalse(Picture.objects.get().hidden)

    def test_a_page_of_any_id(self):
        for model, value in product(self.PARAMETERS, self.VALUES):
            for page in ("change/", "delete/", "history/", "original", "password/", ""):
                path = f"/admin/{model}/{quote(value, safe='') or 'x'}/{page}"
                self.assert_answered(path, 301, 302, 404)
                # 403: nobody edits a report or a ban.
                self.assert_answered(path, 301, 302, 403, 404, method="post", data={"post": "yes"})

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
                for place in ("page", "before", "after"):
                    self.assert_answered(path, 200, data={place: value, "q": value})
            self.assert_answered(f"/dishes/{name}/", 404)
            for page in ("take_back", "report", "caption"):
                self.assert_answered(f"/pictures/{name}/{page}", 404, method="post", data={})

    def test_an_error_of_the_app_is_not_hidden(self):
        for error in (ValueError, ZeroDivisionError):
            with (
                patch.object(PictureAdmin, "get_queryset", side_effect=error),
                self.assertRaises(error),
            ):
                self.client.get("/admin/uploads/picture/?hidden__exact=0", follow=True)


class ReportTests(UploadTestCase):
    URL = "/admin/uploads/report/"

    def setUp(self):
        super().setUp()
        self.client.force_login(User.objects.create_superuser("cook"))
        self.picture = store(self.dish, photo())
        self.picture.report("first", "Not food")
        self.picture.report("second", "Not this dish")

    def run_action(self, action, **options):
        chosen = list(Report.objects.values_list("pk", flat=True))
        with self.captureOnCommitCallbacks(execute=True):
            data = {"action": action, "_selected_action": chosen, **options}
            return self.client.post(self.URL, data, follow=True)

    def test_reports_are_listed_newest_first_with_their_pictures(self):
        response = self.client.get(self.URL)

        reasons = [report.reason for report in response.context["cl"].result_list]
        self.assertEqual(reasons, ["Not this dish", "Not food"])
        self.assertContains(response, self.picture.thumbnail.url)
        self.assertContains(response, f'href="/admin/uploads/picture/{self.picture.pk}/change/"')

    def test_the_reports_of_a_picture_are_counted_and_can_be_listed(self):
        store(self.dish, photo()).report("first", "Not food")
        link = f'<a href="{self.URL}?picture={self.picture.pk}">2</a>'

        self.assertContains(self.client.get(self.URL), link, 2, html=True)
        response = self.client.get("/admin/uploads/picture/")
        self.assertContains(response, link, 1, html=True)

        response = self.client.get(f"{self.URL}?picture={self.picture.pk}")
        self.assertEqual(response.context["cl"].result_count, 2)

    def test_a_picture_without_reports_has_none(self):
        Report.objects.all().delete()

        response = self.client.get("/admin/uploads/picture/")

        self.assertContains(response, '<td class="field-reports">0</td>', html=True)

    def test_a_list_takes_as_many_queries_for_many_rows_as_for_one(self):
        for page in ("report", "picture"):
            with CaptureQueriesContext(connection) as for_few:
                self.client.get(f"/admin/uploads/{page}/")
            for number in range(3):
                dish = make_dish(f"{page} {number}")
                store(dish, photo()).report("first", "Not food")
            with self.assertNumQueries(len(for_few)):
                self.client.get(f"/admin/uploads/{page}/")

    def test_reports_are_found_by_reason_dish_and_restaurant(self):
        for query, count in (("THIS dish", 1), ("bouillabaisse", 2), ("fonfon", 2), ("aïoli", 0)):
            response = self.client.get(f"{self.URL}?q={query}")
            self.assertEqual(response.context["cl"].result_count, count)

    def test_reports_can_be_opened_and_are_neither_added_nor_edited(self):
        report = self.picture.reports.first()
        url = f"{self.URL}{report.pk}/change/"

        self.assertContains(self.client.get(url), "Not this dish")
        self.assertEqual(self.client.post(url, {"reason": "Fine"}).status_code, 403)
        self.assertEqual(self.client.get(f"{self.URL}add/").status_code, 403)

    def test_reports_are_deleted_and_their_pictures_stay(self):
        response = self.run_action("delete_selected", post="yes")

        self.assertContains(response, "Successfully deleted 2 reports.")
        self.assertFalse(Report.objects.exists())
        self.assertTrue(Picture.objects.exists())

    def test_reported_pictures_can_be_hidden_once(self):
        self.assertContains(self.run_action("hide"), "is hidden.", 1)

        self.assertTrue(Picture.objects.get().hidden)
        self.assertEqual(Report.objects.count(), 2)

    def test_the_diners_of_reported_pictures_can_be_banned(self):
        Picture.objects.update(diner="sender")

        self.assertContains(self.run_action("ban"), "is banned.", 1)

        self.assertEqual(Ban.objects.get().diner, "sender")


class BanTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.force_login(User.objects.create_superuser("cook"))

    def ban(self, *diners):
        chosen = [store(self.dish, photo(), diner=diner).pk for diner in diners]
        data = {"action": "ban", "_selected_action": chosen}
        return self.client.post("/admin/uploads/picture/", data, follow=True)

    def banned(self):
        return set(Ban.objects.values_list("diner", flat=True))

    def test_diners_are_banned_once(self):
        self.ban("first", "first", "second")
        self.assertContains(self.ban("second"), "is banned.")

        self.assertEqual(self.banned(), {"first", "second"})
        self.assertEqual(Picture.objects.shown().count(), 4)

    def test_a_browser_without_a_cookie_cannot_be_banned(self):
        response = self.ban("", "first")

        self.assertContains(response, "without a cookie, which cannot be banned.", 1)
        self.assertEqual(self.banned(), {"first"})

    def test_bans_lead_to_the_pictures_of_their_diners(self):
        self.ban("first")
        store(self.dish, photo(), diner="second")
        url = "/admin/uploads/picture/?diner=first"

        self.assertContains(self.client.get("/admin/uploads/ban/"), f'href="{url}"')
        self.assertEqual(self.client.get(url).context["cl"].result_count, 1)

    def test_a_ban_is_lifted_when_it_is_deleted(self):
        self.ban("first")
        url = f"/admin/uploads/ban/{Ban.objects.get().pk}"

        self.assertContains(self.client.get(f"{url}/change/"), "first")
        self.client.post(f"{url}/delete/", {"post": "yes"})

        self.assertEqual(self.banned(), set())

    def test_bans_are_neither_added_nor_edited_by_hand(self):
        self.ban("first")
        url = f"/admin/uploads/ban/{Ban.objects.get().pk}/change/"

        self.assertEqual(self.client.get("/admin/uploads/ban/add/").status_code, 403)
        self.assertEqual(self.client.post(url, {"diner": "second"}).status_code, 403)

    def test_staff_who_may_only_edit_pictures_ban_nobody(self):
        waiter = User.objects.create_user("waiter", is_staff=True)
        for codename in ("view_picture", "change_picture"):
            waiter.user_permissions.add(Permission.objects.get(codename=codename))
        self.client.force_login(waiter)

        self.assertNotContains(self.ban("first"), "is banned.")

        self.assertEqual(self.banned(), set())


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
