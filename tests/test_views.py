import json
from http import HTTPStatus
from unittest.mock import patch
from xml.etree import ElementTree

from django.core.cache import cache
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.db import DatabaseError
from django.test import Client, TestCase, override_settings

from uploads.models import Dish, Picture
from uploads.views import DISHES_PER_PAGE, PICTURES_PER_PAGE, STATUSES

from .base import UploadTestCase, make_dish, uploaded
from .photos import photo

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JQUERY = "application/xml, text/xml, */*; q=0.01"


class PageTests(UploadTestCase):
    def test_the_list_says_so_when_it_is_empty(self):
        Dish.objects.all().delete()

        self.assertContains(self.client.get("/"), "Add the first dish")

    def test_the_list_shows_the_newest_dish_first_with_its_cover(self):
        newest = make_dish("Pissaladière")
        picture = Picture.objects.store(newest, uploaded(photo()))

        response = self.client.get("/")

        self.assertEqual(list(response.context["page"]), [newest, self.dish])
        self.assertContains(response, picture.thumbnail.url)
        self.assertContains(response, "No photo yet", 1)

    def test_the_list_is_paginated(self):
        for number in range(DISHES_PER_PAGE):
            make_dish(f"Dish {number}")

        first, second = self.client.get("/"), self.client.get("/?page=2")

        self.assertNotContains(first, self.dish.name)
        self.assertContains(first, "Page 1 of 2")
        self.assertContains(second, self.dish.name)

    def test_a_page_that_does_not_exist_is_the_last_or_the_first(self):
        for page in ("0", "-1", "99", "x", ""):
            self.assertEqual(self.client.get(f"/?page={page}").status_code, 200)

    def test_a_dish_says_so_when_it_has_no_pictures(self):
        self.assertContains(self.client.get(f"/dishes/{self.dish.pk}/"), "the first photo")

    def test_a_dish_shows_its_pictures_newest_first_page_by_page(self):
        pictures = [
            Picture(dish=self.dish, display=f"{n}-d.jpg", thumbnail=f"{n}-t.jpg", width=4, height=3)
            for n in range(PICTURES_PER_PAGE + 1)
        ]
        Picture.objects.bulk_create(pictures)

        first = self.client.get(f"/dishes/{self.dish.pk}/")
        second = self.client.get(f"/dishes/{self.dish.pk}/?page=2")

        self.assertContains(first, f'href="/media/{PICTURES_PER_PAGE}-d.jpg"')
        self.assertNotContains(first, 'src="/media/0-t.jpg"')
        self.assertContains(second, 'src="/media/0-t.jpg"')

    def test_a_dish_holds_the_form_of_the_tutorial(self):
        response = self.client.get(f"/dishes/{self.dish.pk}/")

        for tag in (
            '<input type="hidden" id="X-Progress-ID" name="X-Progress-ID" value="">',
            f'<input type="hidden" id="id" name="id" value="{self.dish.pk}">',
            '<button id="form_submit_button" class="button" type="submit">Upload</button>',
        ):
            self.assertContains(response, tag, html=True)

    def test_a_page_that_is_not_there_is_told_in_our_words(self):
        for path in ("/dishes/0/", f"/dishes/{'9' * 40}/", "/menu"):
            self.assertContains(self.client.get(path), "This plate is empty", status_code=404)

    def test_a_new_dish_leads_to_its_page(self):
        response = self.client.post("/dishes/new", {"name": "Aïoli", "restaurant": "Chez Fonfon"})

        self.assertRedirects(response, Dish.objects.get(name="Aïoli").get_absolute_url())

    def test_a_dish_that_cannot_be_added_is_shown_with_its_errors(self):
        response = self.client.post("/dishes/new", {"name": "<script>", "restaurant": ""})

        self.assertContains(response, "This field is required.")
        self.assertContains(response, "&lt;script&gt;")


class UploadTests(UploadTestCase):
    def test_a_photo_is_answered_with_its_picture_in_xml(self):
        response = self.post(uploaded(photo()), accept=JQUERY)

        picture = self.dish.pictures.get()
        self.assertEqual(response["Content-Type"], "application/xml")
        self.assertXMLEqual(
            response.content.decode(),
            f'<upload><status>ok</status><picture id="{picture.pk}" '
            f'url="{picture.display.url}" thumbnail="{picture.thumbnail.url}"/></upload>',
        )
        self.assertEqual(len(self.files()), 3)

    def test_several_photos_in_one_upload_are_all_kept(self):
        response = self.post(uploaded(photo()), uploaded(photo(60, 40, "PNG")))

        upload = ElementTree.fromstring(response.content)
        self.assertEqual(upload.findtext("status"), "ok")
        self.assertEqual(len(upload.findall("picture")), 2)
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_the_good_photos_are_kept_and_the_others_told_by_name(self):
        name = '<menu> & "désserts".pdf'

        response = self.post(uploaded(b"A text.", name), uploaded(photo()))

        upload = ElementTree.fromstring(response.content)
        self.assertEqual((response.status_code, upload.findtext("status")), (200, "partial"))
        self.assertEqual(len(upload.findall("picture")), 1)
        error = upload.find("error")
        self.assertEqual((error.get("code"), error.get("file")), ("not_an_image", name))
        self.assertEqual(len(self.files()), 3)

    def test_an_upload_leaves_no_record(self):
        with patch.object(cache, "delete", wraps=cache.delete) as delete:
            self.post(uploaded(photo()), query="?X-Progress-ID=dish-1")

        delete.assert_called_once_with("127.0.0.1_dish-1")
        self.assertIsNone(cache.get("127.0.0.1_dish-1"))

    def test_an_upload_is_a_post(self):
        self.assertEqual(self.client.get("/upload").status_code, 405)


class RefusedUploadTests(UploadTestCase):
    def test_no_file(self):
        self.assert_refused(self.post(), "no_picture", 400)

    def test_a_file_that_is_no_picture(self):
        for content in (b"", b"A text.", photo()[:-2000]):
            with self.subTest(content[:8]):
                self.assert_refused(self.post(uploaded(content)), "not_an_image", 415)

    @override_settings(PICTURE_MAX_SIZE=1000)
    def test_a_file_that_is_too_large(self):
        self.assert_refused(self.post(uploaded(photo())), "too_large", 413)

    def test_an_id_that_is_no_dish(self):
        for value in ("", "x", str(self.dish.pk + 1), "9" * 40, "../../etc/passwd"):
            with self.subTest(value):
                self.assert_refused(self.post(uploaded(photo()), id=value), "unknown_dish", 404)

    def test_no_id(self):
        response = self.client.post("/upload", {"picture": uploaded(photo())})

        self.assert_refused(response, "unknown_dish", 404)

    def test_a_malformed_upload_id(self):
        for value in ("x" * 65, "a%20b", "a%0Ab", "a%00b", "%2E%2E", ""):
            with self.subTest(value):
                response = self.post(uploaded(photo()), query=f"?X-Progress-ID={value}")
                self.assert_refused(response, "bad_progress_id", 400)

    def test_more_files_than_are_allowed(self):
        files = [uploaded(photo(8, 8)) for _ in range(11)]

        self.assert_refused(self.post(*files), "too_many", 400)

    def test_a_body_that_is_no_form(self):
        for content_type in ("multipart/form-data", "multipart/form-data; boundary=é"):
            with self.subTest(content_type):
                response = self.client.post("/upload", b"x" * 99, content_type=content_type)
                self.assert_refused(response, "no_picture", 400)

    def test_a_body_of_another_type(self):
        for content_type in ("image/jpeg", "text/plain", "application/json", "multipart/mixed"):
            with self.subTest(content_type):
                response = self.client.post("/upload", photo(), content_type=content_type)
                self.assert_refused(response, "no_picture", 400)

    def test_a_field_that_is_too_large(self):
        response = self.post(uploaded(photo()), note="x" * 3_000_000)

        self.assert_refused(response, "too_large", 413)

    def test_a_base64_part_that_is_no_base64(self):
        body = (
            b"--b\r\nContent-Disposition: form-data; name=picture; filename=a.jpg\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" + b"A" * 200_001 + b"\r\n--b--\r\n"
        )

        response = self.client.post("/upload", body, content_type="multipart/form-data; boundary=b")

        self.assert_refused(response, "no_picture", 400)

    def test_a_full_disk_while_the_body_arrives(self):
        full = OSError(28, "No space left on device")

        with patch.object(TemporaryFileUploadHandler, "receive_data_chunk", side_effect=full):
            response = self.post(uploaded(photo()), query="?X-Progress-ID=dish-1")

        self.assert_refused(response, "storage_full", 507)
        self.assertIsNone(cache.get("127.0.0.1_dish-1"))

    def test_a_database_that_cannot_write(self):
        with (
            patch.object(Picture, "save", side_effect=DatabaseError),
            self.assertLogs("uploads.forms", "ERROR"),
        ):
            self.assert_refused(self.post(uploaded(photo())), "server_error", 500)

    def test_every_code_has_its_status(self):
        self.assertEqual(
            STATUSES,
            {
                "no_picture": 400,
                "bad_progress_id": 400,
                "too_many": 400,
                "interrupted": 400,
                "csrf": 403,
                "unknown_dish": 404,
                "too_large": 413,
                "not_an_image": 415,
                "too_many_pixels": 415,
                "storage_full": 507,
                "server_error": 500,
            },
        )


class CsrfTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client = Client(enforce_csrf_checks=True)
        self.client.get(f"/dishes/{self.dish.pk}/")
        self.token = self.client.cookies["csrftoken"].value

    def test_the_token_may_be_a_field(self):
        response = self.post(uploaded(photo()), csrfmiddlewaretoken=self.token)

        self.assertEqual(response.status_code, 200)

    def test_the_token_may_be_a_header(self):
        response = self.client.post(
            "/upload",
            {"id": self.dish.pk, "picture": uploaded(photo())},
            headers={"X-CSRFToken": self.token},
        )

        self.assertEqual(response.status_code, 200)

    def test_a_missing_or_wrong_token_is_refused(self):
        for fields in ({}, {"csrfmiddlewaretoken": "x"}, {"csrfmiddlewaretoken": "x" * 32}):
            with self.subTest(fields), self.assertLogs("django.security.csrf", "WARNING"):
                self.assert_refused(self.post(uploaded(photo()), **fields), "csrf", 403)

    def test_a_post_from_another_site_is_refused_before_its_body_is_read(self):
        body = photo()
        with self.assertLogs("django.security.csrf", "WARNING"):
            response = self.client.post(
                "/upload",
                {"id": self.dish.pk, "picture": uploaded(body), "csrfmiddlewaretoken": self.token},
                headers={"Origin": "https://attacker.example"},
            )

        self.assert_refused(response, "csrf", 403)
        self.assertGreater(len(response.wsgi_request.read()), len(body))

    def test_other_forms_have_djangos_own_answer(self):
        with self.assertLogs("django.security.csrf", "WARNING"):
            response = self.client.post("/dishes/new", {"name": "x", "restaurant": "y"})

        self.assertContains(response, "CSRF verification failed", status_code=403)


class WithoutScriptsTests(UploadTestCase):
    """What a browser gets that sends the form by itself."""

    def post(self, *files, **options):
        return super().post(*files, accept=BROWSER, **options)

    def test_a_photo_leads_back_to_the_dish(self):
        self.assertRedirects(self.post(uploaded(photo())), self.dish.get_absolute_url())

    def test_what_is_refused_is_told_on_the_dishs_page(self):
        response = self.post(uploaded(b"A text.", "menu.pdf"), uploaded(photo()))

        self.assertTemplateUsed(response, "uploads/dish_detail.html")
        self.assertContains(response, "<strong>menu.pdf</strong>: This file is not a picture")
        self.assertContains(response, self.dish.pictures.get().thumbnail.url)

    def test_a_form_without_a_photo_comes_again_with_the_error(self):
        self.assertContains(self.post(), "No photo was chosen", status_code=400)

    def test_an_unknown_dish_is_told_on_a_page(self):
        response = self.post(uploaded(photo()), id="0")

        self.assertContains(response, "There is no such dish.", status_code=HTTPStatus.NOT_FOUND)


class GetUploadProgressTests(TestCase):
    URL = "/get_upload_progress"

    def setUp(self):
        cache.clear()

    def test_the_record_is_answered_as_it_stands(self):
        record = json.dumps({"length": 10, "uploaded": 3})
        cache.set("127.0.0.1_dish-1", record)

        response = self.client.get(f"{self.URL}?X-Progress-ID=dish-1")

        self.assertEqual(response.content.decode(), record)
        self.assertEqual(response["Content-Type"], "application/json")

    def test_the_id_may_come_in_the_header(self):
        cache.set("127.0.0.1_dish-1", "{}")

        response = self.client.get(self.URL, headers={"X-Progress-ID": "dish-1"})

        self.assertEqual(response.content, b"{}")

    def test_an_upload_that_is_over_or_was_never_seen_is_null(self):
        response = self.client.get(f"{self.URL}?X-Progress-ID=dish-1")

        self.assertEqual((response.status_code, response.json()), (200, None))

    def test_a_poll_from_another_address_sees_nothing(self):
        cache.set("127.0.0.1_dish-1", "{}")

        response = self.client.get(f"{self.URL}?X-Progress-ID=dish-1", REMOTE_ADDR="127.0.0.2")

        self.assertIsNone(response.json())

    def test_no_answer_is_ever_cached(self):
        for query in ("?X-Progress-ID=dish-1", ""):
            response = self.client.get(self.URL + query)
            self.assertIn("no-store", response["Cache-Control"])

    def test_a_missing_or_malformed_id_is_an_error_in_a_sentence(self):
        for query in ("", "?X-Progress-ID=", "?X-Progress-ID=a%20b", "?x=1"):
            with self.subTest(query):
                response = self.client.get(self.URL + query)
                self.assertEqual(response.status_code, 400)
                self.assertRegex(response.json()["error"], r"^[A-Z].*\.$")

    def test_a_poll_is_a_get(self):
        self.assertEqual(self.client.post(f"{self.URL}?X-Progress-ID=a").status_code, 405)
