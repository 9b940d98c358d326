import json
from datetime import UTC, datetime
from http import HTTPStatus
from struct import pack
from unittest.mock import DEFAULT, patch
from warnings import catch_warnings
from xml.etree import ElementTree

from django.core.cache import cache
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.db import DatabaseError
from django.test import Client, TestCase, override_settings
from PIL import Image

from uploads import renderer
from uploads.forms import read_banned_diners, validate_diners
from uploads.models import Ban, Cancellation, Dish, Picture, PictureQuerySet
from uploads.progress import writer
from uploads.responses import PICTURES_PER_PAGE, get_diner
from uploads.uploadhandler import PictureFileUploadHandler, UploadProgressCachedHandler
from uploads.views import DISHES_PER_PAGE

from .base import UploadTestCase, database_error, make_dish, store, upload_file
from .bombs import png
from .contract import FORMATS
from .photos import encoded, noise, photo
from .waiting import wait_for

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JQUERY = "application/xml, text/xml, */*; q=0.01"


class PageTests(UploadTestCase):
    def test_the_list_says_so_when_it_is_empty(self):
        Dish.objects.all().delete()

        self.assertContains(self.client.get("/"), "Add the first dish")

    def test_the_list_shows_the_newest_dish_first_with_its_cover(self):
        newest = make_dish("Pissaladière")
        picture = store(newest, photo())

        response = self.client.get("/")

        self.assertEqual(list(response.context["page"]), [newest, self.dish])
        self.assertContains(response, picture.thumbnail.url)
        self.assertContains(response, "No photo yet", 1)

    def test_the_list_leads_to_older_dishes_and_back(self):
        for number in range(DISHES_PER_PAGE):
            make_dish(f"Dish {number}")

        first = self.client.get("/")
        second = self.client.get(f"/?before={first.context['page'].older}")

        self.assertNotContains(first, self.dish.name)
        self.assertNotContains(first, "Newe")
        self.assertContains(first, "Older</a>")
        self.assertContains(second, self.dish.name)
        self.assertContains(second, "<title>Older dishes · Gourmious</title>")
        self.assertContains(second, 'rel="first" href="/">Newest</a>')
        self.assertContains(second, f'rel="prev" href="?after={self.dish.pk}">Newer</a>')
        self.assertNotContains(second, "Older</a>")

    def test_the_number_of_a_page_as_old_links_have_it_leads_to_the_first_page(self):
        for page in ("3", "0", "x", ""):
            response = self.client.get(f"/?page={page}")
            self.assertEqual(list(response.context["page"]), [self.dish])

    def test_a_page_of_a_dish_that_does_not_exist_is_the_last_or_the_first(self):
        for page in ("0", "-1", "99", "x", ""):
            response = self.client.get(f"/dishes/{self.dish.pk}/?page={page}")
            self.assertEqual(response.status_code, 200)

    def test_the_list_takes_as_many_queries_for_many_dishes_as_for_one(self):
        for number in range(DISHES_PER_PAGE):
            store(make_dish(f"Dish {number}"), photo(8, 8))

        with self.assertNumQueries(1):
            self.client.get("/")

    def test_a_dish_says_so_when_it_has_no_pictures(self):
        self.assertContains(self.client.get(f"/dishes/{self.dish.pk}/"), "the first photo")

    def test_a_dish_shows_its_pictures_newest_first_page_by_page(self):
        pictures = [
            Picture(
                dish=self.dish,
                display=f"{n}-d.jpg",
                thumbnail=f"{n}-t.jpg",
                width=4,
                height=3,
                digest=n,
            )
            for n in range(PICTURES_PER_PAGE + 1)
        ]
        Picture.objects.bulk_create(pictures)

        first = self.client.get(f"/dishes/{self.dish.pk}/")
        second = self.client.get(f"/dishes/{self.dish.pk}/?page=2")

        self.assertContains(first, f'href="/media/{PICTURES_PER_PAGE}-d.jpg"')
        self.assertNotContains(first, 'src="/media/0-t.jpg"')
        self.assertContains(second, 'src="/media/0-t.jpg"')

    def test_a_page_tells_the_size_of_a_picture_before_it_is_loaded(self):
        store(self.dish, photo(1000, 2000))

        response = self.client.get(f"/dishes/{self.dish.pk}/")

        self.assertContains(response, 'width="240" height="480"')
        self.assertRegex(
            response.content.decode(), r'srcset="/media/\w+-480.jpg 240w, /media/\w+-1600.jpg 800w"'
        )

    def test_a_dish_holds_the_form_of_the_tutorial(self):
        response = self.client.get(f"/dishes/{self.dish.pk}/")

        for tag in (
            '<input type="hidden" id="X-Progress-ID" name="X-Progress-ID" value="">',
            f'<input type="hidden" id="id" name="id" value="{self.dish.pk}"'
            f' data-name="{self.dish.name}" data-url="{self.dish.get_absolute_url()}">',
            '<button id="form_submit_button" class="button" type="submit">Upload</button>',
        ):
            self.assertContains(response, tag, html=True)

    def test_the_list_holds_the_form_too_for_a_dish_that_is_still_to_be_told(self):
        response = self.client.get("/")

        self.assertContains(response, '<input type="hidden" id="id" name="id" value="">', html=True)
        self.assertContains(response, f'href="/dishes/{self.dish.pk}/#form_upload"')
        self.assertTrue(response.cookies["diner"].value)

    def test_every_answer_tells_the_browser_to_run_and_load_nothing_from_elsewhere(self):
        answers = [self.client.get(path) for path in ("/", "/menu", "/get_upload_progress")]

        for response in (*answers, self.post(upload_file(photo()))):
            policy = response["Content-Security-Policy"].split("; ")
            self.assertIn("default-src 'self'", policy)
            self.assertNotIn("unsafe", str(policy))

    def test_a_page_that_is_not_there_is_told_in_our_words(self):
        for path in ("/dishes/0/", f"/dishes/{'9' * 40}/", "/menu"):
            self.assertContains(self.client.get(path), "This plate is empty", status_code=404)

    def test_a_new_dish_leads_to_its_page(self):
        response = self.client.post("/dishes/new", {"name": "Aïoli", "restaurant": "Chez Fonfon"})

        self.assertRedirects(response, Dish.objects.get(name="Aïoli").get_absolute_url())

    def test_a_dish_that_cannot_be_added_is_shown_with_its_errors(self):
        response = self.client.post("/dishes/new", {"name": "<script>", "restaurant": ""})

        self.assertContains(response, "A name needs at least one visible character.")
        self.assertContains(response, "&lt;script&gt;")


class SearchTests(UploadTestCase):
    def search(self, query, **options):
        return self.client.get("/", {"q": query, **options})

    def test_only_the_dishes_that_match_are_shown_with_the_query(self):
        found = make_dish("Crème brûlée", "<Chez> & 'Michel'")

        response = self.search(" <CHEZ> creme ")

        self.assertEqual(list(response.context["page"]), [found])
        self.assertContains(response, 'value="&lt;CHEZ&gt; creme"')

    def test_no_match_leads_back_to_all_dishes(self):
        response = self.search("pizza")

        self.assertContains(response, "No dish matches “pizza”.")
        self.assertContains(response, '<a class="button" href="/">See all dishes</a>')
        self.assertContains(response, 'role="search"')

    def test_no_query_is_no_search(self):
        for query in ("", " ", "\t"):
            self.assertEqual(list(self.search(query).context["page"]), [self.dish])

    def test_there_is_nothing_to_search_before_the_first_dish(self):
        Dish.objects.all().delete()

        self.assertNotContains(self.client.get("/"), 'role="search"')

    def test_the_next_page_shows_matches_too(self):
        for number in range(DISHES_PER_PAGE + 1):
            make_dish(f"Aïoli & {number}")

        first = self.search("aïoli &")
        older = first.context["page"].older
        second = self.search("aïoli &", before=older)
        [last] = second.context["page"]

        self.assertContains(first, f'href="?q=a%C3%AFoli%20%26&amp;before={older}"')
        self.assertEqual(last.name, "Aïoli & 0")
        self.assertContains(second, f'href="?q=a%C3%AFoli%20%26&amp;after={last.pk}"')
        self.assertContains(second, 'href="/?q=a%C3%AFoli%20%26">Newest</a>')

    def test_a_query_is_cut_after_100_characters(self):
        dish = make_dish("x" * 100)

        response = self.search("x" * 100 + "y")

        self.assertEqual(list(response.context["page"]), [dish])
        self.assertContains(response, f'value="{"x" * 100}"')

    def test_a_dish_is_found_by_the_name_that_its_diner_typed(self):
        for name in ("\u2764\ufe0f", "1\ufe0f\u20e3", "\u8fbb\U000e0100", "short\u00adbread"):
            data = {"name": name, "restaurant": "Chez Fonfon"}
            location = self.client.post("/dishes/new", data).headers["location"]

            self.assertContains(self.search(name), f'href="{location}"')

    def test_an_odd_query_is_answered(self):
        for query in ("\0", "%", "_", "\\", "'", "\u202e", "🍲", "%s", "x" * 9999, "a " * 5000):
            with self.subTest(query[:9]):
                self.assertContains(self.search(query), 'role="search"')

    def test_a_card_tells_the_number_of_photos(self):
        make_dish("Aïoli")
        store(self.dish, photo())
        self.assertContains(self.client.get("/"), '<p class="photo-count">1 photo</p>', 1)

        store(self.dish, photo())
        response = self.client.get("/")

        self.assertContains(response, '<p class="photo-count">2 photos</p>', 1)
        self.assertContains(response, '<p class="photo-count"></p>', 1)


class UploadTests(UploadTestCase):
    def test_a_photo_is_answered_with_its_picture_in_xml(self):
        response = self.post(upload_file(photo()), accept=JQUERY)

        picture = self.dish.pictures.get()
        self.assertEqual(response["Content-Type"], "application/xml")
        self.assertXMLEqual(
            response.content.decode(),
            f'<upload><status>ok</status><picture id="{picture.pk}" '
            f'url="{picture.display.url}" thumbnail="{picture.thumbnail.url}" '
            f'srcset="{picture.srcset}" width="480" height="360" '
            f'datetime="{picture.uploaded:%Y-%m-%d}" '
            f'date="{picture.uploaded:%-d %b %Y}" '
            f'report="/pictures/{picture.pk}/report"/></upload>',
        )
        self.assertEqual(len(self.files()), 3)

    def test_several_photos_in_one_upload_are_all_kept(self):
        response = self.post(upload_file(photo()), upload_file(photo(60, 40, "PNG")))

        upload = ElementTree.fromstring(response.content)
        self.assertEqual(upload.findtext("status"), "ok")
        self.assertEqual(len(upload.findall("picture")), 2)
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_the_good_photos_are_kept_and_the_others_told_by_name(self):
        name = '<menu> & "désserts".pdf'

        response = self.post(upload_file(b"A text.", name), upload_file(photo()))

        upload = ElementTree.fromstring(response.content)
        self.assertEqual((response.status_code, upload.findtext("status")), (200, "partial"))
        self.assertEqual(len(upload.findall("picture")), 1)
        error = upload.find("error")
        self.assertEqual((error.get("code"), error.get("file")), ("not_an_image", name))
        self.assertEqual(len(self.files()), 3)

    def test_an_upload_that_is_soon_over_leaves_no_record(self):
        self.post(upload_file(photo()), query="?X-Progress-ID=dish-1")

        wait_for(lambda: not writer.thread)
        self.assertIsNone(cache.get("127.0.0.1_dish-1"))

    def test_an_upload_is_a_post(self):
        self.assertEqual(self.client.get("/upload").status_code, 405)


class RefusedUploadTests(UploadTestCase):
    def test_no_file(self):
        self.assert_refused(self.post(), "no_picture", 400)

    def test_a_file_that_is_no_picture(self):
        for content, code in (
            (b"", "empty_file"),
            (b"A text.", "not_an_image"),
            (b"A longer text, of some words.", "not_an_image"),
            (b"%PDF-1.7 of some kind", "other_format"),
            (b"GIF89a", "damaged"),
            (photo()[:-2000], "damaged"),
        ):
            with self.subTest(content[:8]):
                self.assert_refused(self.post(upload_file(content)), code, 415)

    @override_settings(PICTURE_MAX_SIZE=1000)
    def test_a_file_that_is_too_large(self):
        self.assert_refused(self.post(upload_file(photo())), "too_large", 413)

    def test_an_id_that_is_no_dish(self):
        for value in ("", "x", str(self.dish.pk + 1), "9" * 40, "../../etc/passwd"):
            with self.subTest(value):
                self.assert_refused(self.post(upload_file(photo()), id=value), "unknown_dish", 404)

    def test_no_id(self):
        response = self.client.post("/upload", {"picture": upload_file(photo())})

        self.assert_refused(response, "unknown_dish", 404)

    def test_a_malformed_upload_id(self):
        for value in ("x" * 65, "a%20b", "a%0Ab", "a%00b", "%2E%2E", ""):
            with self.subTest(value):
                response = self.post(upload_file(photo()), query=f"?X-Progress-ID={value}")
                self.assert_refused(response, "bad_progress_id", 400)

    def test_more_files_than_are_allowed(self):
        files = [upload_file(photo(8, 8)) for _ in range(11)]

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
        response = self.post(upload_file(photo()), note="x" * 3_000_000)

        self.assert_refused(response, "too_large", 413)

    def post_broken_base64(self, path):
        """Post a form whose parser raises in the middle of a file."""
        body = (
            b"--b\r\nContent-Disposition: form-data; name=picture; filename=a.jpg\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n/9j/" + b"A" * 200_001 + b"\r\n--b--\r\n"
        )
        return self.client.post(path, body, content_type="multipart/form-data; boundary=b")

    def test_a_base64_part_that_is_no_base64(self):
        self.assert_refused(self.post_broken_base64("/upload"), "no_picture", 400)

    def test_a_broken_form_for_another_page_leaves_nothing_either(self):
        response = self.post_broken_base64("/dishes/new")

        self.assertEqual((response.status_code, self.files()), (400, []))

    def test_a_full_database(self):
        full = database_error("full")

        with patch.object(Picture, "save", side_effect=full):
            self.assert_refused(self.post(upload_file(photo())), "storage_full", 507)

    def test_a_full_disk_while_the_body_arrives(self):
        full = OSError(28, "No space left on device")

        with patch.object(TemporaryFileUploadHandler, "receive_data_chunk", side_effect=full):
            response = self.post(upload_file(photo()), query="?X-Progress-ID=dish-1")

        self.assert_refused(response, "storage_full", 507)
        wait_for(lambda: cache.get("127.0.0.1_dish-1") is None)

    def test_a_full_disk_that_fails_once_more_when_the_file_is_closed(self):
        full = OSError(28, "No space left on device")

        def close_and_fail(handler):
            handler.file.close()
            raise full

        with (
            patch.object(TemporaryFileUploadHandler, "receive_data_chunk", side_effect=full),
            patch.object(PictureFileUploadHandler, "upload_interrupted", close_and_fail),
        ):
            response = self.post(upload_file(photo()), query="?X-Progress-ID=dish-1")

        self.assert_refused(response, "storage_full", 507)
        wait_for(lambda: cache.get("127.0.0.1_dish-1") is None)

    def test_a_disk_that_fails_once_the_picture_is_kept(self):
        close = TemporaryUploadedFile.close

        def close_and_fail(file):
            close(file)
            raise OSError(30, "Read-only file system")

        with patch.object(TemporaryUploadedFile, "close", close_and_fail):
            response = self.post(upload_file(photo()))

        self.assertContains(response, "<status>ok</status>")

    def test_a_database_that_cannot_write(self):
        with (
            patch.object(Picture, "save", side_effect=DatabaseError),
            self.assertLogs("uploads.refusals", "ERROR"),
        ):
            self.assert_refused(self.post(upload_file(photo())), "server_error", 500)

    def test_what_may_help_later_says_so(self):
        full = OSError(28, "No space left on device")
        with patch.object(Picture, "save", side_effect=full):
            later = self.post(upload_file(photo()))
        never = self.post(upload_file(b"A text.\n" * 100))

        self.assertContains(later, ' retry="true"', status_code=507)
        self.assertNotContains(never, "retry", status_code=415)


class BoundTests(UploadTestCase):
    @override_settings(PICTURE_MAX_SIZE=300_000)
    def test_a_file_may_have_the_largest_size_and_not_a_byte_more(self):
        content = photo()
        for size, code in ((300_001, "too_large"), (300_000, None), (299_999, None)):
            with self.subTest(size):
                response = self.post(upload_file(content.ljust(size, b"\0")))
                if code:
                    self.assert_refused(response, code, 413)
                self.assertEqual(response.status_code, 413 if code else 200)

    @override_settings(UPLOAD_MAX_SIZE=200_000)
    def test_a_body_that_is_too_large_is_not_parsed(self):
        with patch.object(UploadProgressCachedHandler, "handle_raw_input") as parse:
            self.assert_refused(self.post(upload_file(photo())), "too_large", 413)

        parse.assert_not_called()

    def test_a_dish_that_the_query_names_and_is_not_there_ends_it_before_the_body_is_parsed(self):
        with patch.object(UploadProgressCachedHandler, "handle_raw_input") as parse:
            response = self.post(upload_file(photo()), query="?id=0")

        self.assert_refused(response, "unknown_dish", 404)
        parse.assert_not_called()

    def test_ten_files_are_allowed(self):
        files = [upload_file(photo(8, 8)) for _ in range(10)]

        self.assertEqual(self.post(*files).content.count(b"<picture "), 10)

    def test_files_with_any_name_are_taken(self):
        for name in (
            "a." + "x" * 240,
            "." * 200,
            "menu\u202egpj.exe",
            "a\tb\x01.jpg",
            "'\"</script><script>.jpg",
            "C:\\dish.jpg",
            "é" * 130 + ".jpg",
        ):
            with self.subTest(name):
                response = self.post(upload_file(photo(8, 8), name))
                self.assertEqual(response.status_code, 200, response.content)

    def test_a_size_that_the_query_tells_ends_it_before_the_body_is_parsed(self):
        for size in (64 * 2**20 + 1, "9" * 5000):
            with patch.object(UploadProgressCachedHandler, "handle_raw_input") as parse:
                response = self.post(upload_file(photo()), query=f"?size={size}")
            self.assert_refused(response, "too_large", 413)
            parse.assert_not_called()

        for size in (64 * 2**20, "", "x", "-1"):
            self.assertEqual(
                self.post(upload_file(photo()), query=f"?size={size}").status_code, 200
            )

    def test_the_name_of_a_refused_file_is_told_without_what_could_deceive(self):
        for name, told in (
            ("menu\u202egpj.exe", "menugpj.exe"),
            ("a\tb\x01.jpg", "ab.jpg"),
            ("<b>&amp;\"'.jpg", "<b>&\"'.jpg"),
            ("../../etc/passwd", "passwd"),
        ):
            with self.subTest(name):
                response = self.post(upload_file(b"A text.", name))
                self.assert_refused(response, "not_an_image", 415)
                error = ElementTree.fromstring(response.content).find("error")
                self.assertEqual(error.get("file"), told)

    def test_a_query_of_a_thousand_fields_is_refused(self):
        query = "?X-Progress-ID=a&" + "&".join(f"a{number}=1" for number in range(1100))

        self.assert_refused(self.post(upload_file(photo()), query=query), "too_many", 400)


class PictureTests(UploadTestCase):
    """Pictures of every kind, through the view."""

    def test_every_format_is_taken(self):
        for name in FORMATS:
            with self.subTest(name):
                self.assertEqual(self.post(upload_file(photo(60, 40, name))).status_code, 200)

    def test_an_orientation_that_there_is_not_turns_nothing(self):
        short, text, undefined, real = 3, 2, 7, 11
        for kind, value in (
            (short, b"\0\0\0\0"),
            (short, b"\x09\0\0\0"),
            (short, b"\xff\xff\0\0"),
            (text, b"6\0\0\0"),
            (undefined, b"\x06\0\0\0"),
            (real, pack("<f", 6)),
        ):
            exif = b"Exif\0\0II*\0" + pack("<LHHHL4sL", 8, 1, 0x0112, kind, 1, value, 0)
            with self.subTest(kind=kind, value=value), catch_warnings(action="ignore"):
                content = encoded(noise(60, 40), exif=exif)
                self.assertEqual(self.post(upload_file(content)).status_code, 200)
                picture = self.dish.pictures.first()
                with picture.display.open() as file, Image.open(file) as shown:
                    self.assertEqual(shown.size, (picture.width, picture.height))

    def test_a_bomb_is_refused(self):
        bomb = png(65_535, 65_535, (b"IDAT", b""))

        self.assert_refused(self.post(upload_file(bomb)), "too_many_pixels", 415)

    def test_a_script_with_a_pictures_head_is_refused(self):
        for head in (b"GIF89a", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBPVP8 "):
            with self.subTest(head):
                content = head + b"/*<script>alert(1)</script>*/" * 10
                self.assert_refused(self.post(upload_file(content)), "damaged", 415)


class OnceTests(UploadTestCase):
    def test_the_same_photo_again_is_answered_with_the_picture_that_is_there(self):
        content = photo()

        first, again = self.post(upload_file(content)), self.post(upload_file(content, "copy.jpg"))

        self.assertEqual(again.content, first.content.replace(b" />", b' known="true" />'))
        self.assertEqual((self.dish.pictures.count(), len(self.files())), (1, 3))

    def test_the_same_photo_of_another_dish_is_another_picture(self):
        content = photo()
        other = make_dish("Aïoli")

        self.post(upload_file(content))
        self.post(upload_file(content), id=other.pk)

        self.assertEqual(Picture.objects.count(), 2)

    def test_a_photo_that_staff_hid_is_refused(self):
        content = photo()
        self.post(upload_file(content))
        self.dish.pictures.get().hide()

        response = self.post(upload_file(content))

        upload = ElementTree.fromstring(response.content)
        self.assertEqual((response.status_code, upload.find("error").get("code")), (403, "hidden"))

    def test_a_photo_that_was_taken_back_may_come_again(self):
        content = photo()
        self.post(upload_file(content))
        self.dish.pictures.get().delete()

        self.assertContains(self.post(upload_file(content)), "<status>ok</status>")


class TakeBackTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.get(f"/dishes/{self.dish.pk}/")
        self.post(upload_file(photo()))
        self.picture = self.dish.pictures.get()
        self.url = f"/pictures/{self.picture.pk}/take_back"

    def test_the_diner_is_asked_and_takes_the_picture_back(self):
        self.assertContains(self.client.get(self.url), "Take this photo back?")

        with self.captureOnCommitCallbacks(execute=True):
            response = self.client.post(self.url)

        self.assertRedirects(response, self.dish.get_absolute_url())
        self.assertEqual((self.dish.pictures.count(), self.files()), (0, []))

    def test_nothing_that_a_diner_wrote_becomes_a_script(self):
        Dish.objects.update(name="'><script>alert(1)", restaurant="'><script>alert(2)")

        for page in (self.url, self.dish.get_absolute_url(), "/"):
            response = self.client.get(page)
            for number in (1, 2):
                self.assertContains(response, f"&lt;script&gt;alert({number})")
                self.assertNotContains(response, f"<script>alert({number})")

    def test_the_dish_may_be_deleted_meanwhile(self):
        delete = Picture.delete

        def delete_both(picture):
            delete(picture)
            self.dish.delete()

        with patch.object(Picture, "delete", delete_both):
            self.assertEqual(self.client.post(self.url).status_code, 302)

    def test_nobody_else_can(self):
        stranger = Client()

        for answer in (stranger.get(self.url), stranger.post(self.url)):
            self.assertEqual(answer.status_code, 404)
        self.assertTrue(self.dish.pictures.exists())

    def test_a_picture_of_nobody_belongs_to_nobody(self):
        Picture.objects.update(diner="")

        self.assertEqual(Client().post(self.url).status_code, 404)

    def test_the_answer_to_the_upload_offers_it_too(self):
        content = photo()

        self.assertContains(self.post(upload_file(content)), "take_back=")
        self.assertNotContains(self.post_as_stranger(content), "take_back=")

    def post_as_stranger(self, content):
        return Client().post("/upload", {"id": self.dish.pk, "picture": upload_file(content)})

    def test_a_forged_cookie_is_nobodys(self):
        stranger = Client()
        stranger.cookies["diner"] = self.picture.diner

        self.assertEqual(stranger.post(self.url).status_code, 404)

    def test_only_the_diners_own_page_offers_it(self):
        page = self.dish.get_absolute_url()

        self.assertContains(self.client.get(page), f'href="{self.url}"')
        self.assertNotContains(Client().get(page), f'href="{self.url}"')


class ReportTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.get("/")
        self.picture = store(self.dish, photo())
        self.url = f"/pictures/{self.picture.pk}/report"

    def report(self, reason, client=None):
        return (client or self.client).post(self.url, {"reason": reason})

    def reasons(self):
        return [report.reason for report in self.picture.reports.all()]

    def test_the_diner_is_asked_for_a_reason_and_thanked(self):
        response = self.client.get(self.url)
        self.assertContains(response, "Report this photo")
        self.assertContains(response, self.picture.thumbnail.url)

        response = self.report("Not food")

        self.assertRedirects(response, f"{self.dish.get_absolute_url()}?reported")
        self.assertContains(self.client.get(response.url), "Thank you. Our staff will look at")
        self.assertEqual(self.reasons(), ["Not food"])
        self.assertTrue(Picture.objects.shown().exists())

    def test_nobody_else_is_thanked(self):
        self.assertNotContains(self.client.get(self.dish.get_absolute_url()), "Thank you")

    def test_thanks_take_no_session(self):
        self.client.get(self.report("Not food").url)

        self.assertNotIn("sessionid", self.client.cookies)
        self.assertNotIn("messages", self.client.cookies)

    def test_a_reason_becomes_one_line(self):
        self.report(" Not\tfood\r\nat\0all\u2028 ")

        self.assertEqual(self.reasons(), ["Not food at all"])

    def test_140_characters_are_allowed_and_not_one_more(self):
        for length in (141, 2000):
            response = self.report("x" * length)
            self.assertContains(response, "At most 140 characters are allowed.")
        self.assertEqual(self.reasons(), [])

        self.report("🍲" * 140 + " ")
        self.assertEqual(self.reasons(), ["🍲" * 140])

    def test_a_report_needs_a_reason(self):
        for reason in ("", " \t\0"):
            response = self.report(reason)
            self.assertContains(response, "This field is required.")
            self.assertContains(response, "<title>Error: ")
        self.assertEqual(self.reasons(), [])

    def test_nothing_that_a_diner_wrote_becomes_a_script(self):
        script = "'\"><script>alert(1)</script>"
        Dish.objects.update(name=script)
        Picture.objects.update(caption=script)

        for response in (self.client.get(self.url), self.report(script * 6)):
            self.assertContains(response, "&lt;script&gt;alert(1)")
            self.assertNotContains(response, "<script>alert(1)")

    def test_a_second_report_of_a_diner_replaces_the_first(self):
        self.report("Not food")
        self.report("Not this dish")

        self.assertEqual(self.reasons(), ["Not this dish"])

    def test_the_reports_of_others_stay(self):
        other = Client()
        other.get("/")
        self.report("Not food", other)
        self.report("Not this dish")

        self.assertEqual(self.reasons(), ["Not this dish", "Not food"])

    def test_browsers_without_the_cookie_can_report_too(self):
        for reason in ("Not food", "Not this dish"):
            self.assertEqual(self.report(reason, Client()).status_code, 302)

        self.assertEqual(self.reasons(), ["Not this dish", "Not food"])

    def test_only_a_picture_that_is_shown_can_be_reported(self):
        self.picture.hide()
        for url in (self.url, "/pictures/0/report"):
            for response in (self.client.get(url), self.client.post(url, {"reason": "Not food"})):
                self.assertContains(response, "This plate is empty", status_code=404)
        self.assertEqual(self.reasons(), [])

    def test_a_picture_that_is_deleted_while_its_form_is_filled_in_is_not_found(self):
        self.client.get(self.url)
        self.picture.delete()

        self.assertEqual(self.report("Not food").status_code, 404)

    def test_a_page_lets_a_diner_report_only_pictures_of_others(self):
        self.assertContains(self.post(upload_file(photo())), "take_back=")
        own = self.dish.pictures.first()

        response = self.client.get(self.dish.get_absolute_url())

        self.assertContains(response, f'href="{self.url}"')
        self.assertNotContains(response, f'href="/pictures/{own.pk}/report"')

    def test_a_page_lets_a_browser_without_the_cookie_report_every_picture(self):
        self.assertContains(Client().get(self.dish.get_absolute_url()), f'href="{self.url}"')

    def test_the_answer_to_an_upload_has_the_link_only_for_pictures_of_others(self):
        content = photo()
        Client().post("/upload", {"id": self.dish.pk, "picture": upload_file(content)})

        self.assertContains(self.post(upload_file(content)), ' report="/pictures/')
        self.assertNotContains(self.post(upload_file(photo())), " report=")


class BanTests(UploadTestCase):
    SENTENCE = "Our staff do not accept photos from this browser."

    def setUp(self):
        super().setUp()
        self.client.get("/")
        self.diner = get_diner(self.client.get("/").wsgi_request)

    def upload_at(self, seconds, **options):
        """Upload a photo so many seconds after the beginning of an hour."""
        with patch("uploads.forms.time.time", return_value=3600 + seconds):
            return self.post(upload_file(photo()), **options)

    def test_a_banned_diner_is_refused_before_the_body_is_parsed(self):
        Ban.objects.create(diner=self.diner)

        with patch.object(UploadProgressCachedHandler, "handle_raw_input") as parse:
            response = self.post(upload_file(photo()))

        self.assert_refused(response, "hidden", 403)
        self.assertContains(response, self.SENTENCE, status_code=403)
        parse.assert_not_called()

    def test_without_scripts_a_banned_diner_gets_a_page(self):
        Ban.objects.create(diner=self.diner)

        response = self.post(upload_file(photo()), accept=BROWSER)

        self.assertTemplateUsed(response, "uploads/refused.html")
        self.assertContains(response, self.SENTENCE, status_code=403)

    def test_nobody_else_is_banned(self):
        Ban.objects.create(diner=self.diner)

        stranger, other = Client(), Client()
        other.get("/")  # sets the cookie
        for client in (stranger, other):
            data = {"id": self.dish.pk, "picture": upload_file(photo())}
            self.assertEqual(client.post("/upload", data).status_code, 200)

    def test_a_ban_begins_and_ends_within_a_minute(self):
        self.assertEqual(self.upload_at(0).status_code, 200)
        ban = Ban.objects.create(diner=self.diner)
        self.assertEqual(self.upload_at(60).status_code, 403)

        ban.delete()
        self.assertEqual(self.upload_at(120).status_code, 200)

    def test_a_ban_that_comes_while_a_photo_arrives_refuses_it_too(self):
        def ban():
            Ban.objects.create(diner=self.diner)
            read_banned_diners.cache_clear()

        with patch.object(UploadProgressCachedHandler, "upload_complete", side_effect=ban):
            response = self.post(upload_file(photo()))

        self.assert_refused(response, "hidden", 403)

    def test_a_ban_holds_for_the_id_of_an_old_cookie_too(self):
        Ban.objects.create(diner=self.diner)
        self.client.get("/", secure=True)

        data = {"id": self.dish.pk, "picture": upload_file(photo())}
        response = self.client.post("/upload", data, secure=True)

        self.assert_refused(response, "hidden", 403)

    def test_the_bans_are_read_once_a_minute(self):
        for seconds, queries in ((0, 1), (59, 0), (60, 1)):
            with (
                patch("uploads.forms.time.time", return_value=3600 + seconds),
                self.assertNumQueries(queries),
            ):
                validate_diners(["diner"])

    def test_the_photos_of_a_banned_diner_stay_until_they_are_taken_back(self):
        self.post(upload_file(photo()))
        picture = self.dish.pictures.get()
        Ban.objects.create(diner=picture.diner)

        self.assertContains(self.client.get(self.dish.get_absolute_url()), picture.thumbnail.url)
        response = self.client.post(f"/pictures/{picture.pk}/take_back")
        self.assertEqual((response.status_code, self.dish.pictures.count()), (302, 0))


class CaptionTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.get("/")

    def upload(self, caption="", client=None, content=None):
        """Return the attributes of the picture in the answer."""
        data = {"id": self.dish.pk, "picture": upload_file(content or photo()), "caption": caption}
        response = (client or self.client).post("/upload", data)
        return ElementTree.fromstring(response.content).find("picture").attrib

    def edit(self, caption, client=None):
        pk = self.dish.pictures.get().pk
        return (client or self.client).post(f"/pictures/{pk}/caption", {"caption": caption})

    def test_a_caption_is_kept_and_answered_as_it_was_written(self):
        for caption in ("With aïoli", "5 < 6 & \"'> ]]>&amp;", "🍲 שלום"):
            with self.subTest(caption):
                picture = self.upload(caption)
                self.assertEqual(picture["caption"], caption)
                self.assertEqual(Picture.objects.get(pk=picture["id"]).caption, caption)

    def test_a_caption_becomes_one_line_that_xml_can_hold(self):
        picture = self.upload(" a\t\tb\r\nc\0d\x1b\x85e\ufffe\ufffff\u3000\u2028\u202eg ")

        self.assertEqual(picture["caption"], "a b c d e f g")

    def test_a_picture_without_a_caption_has_no_such_attribute(self):
        for caption in ("", " \t\0"):
            self.assertNotIn("caption", self.upload(caption))

    def test_140_characters_are_allowed_and_not_one_more(self):
        response = self.post(upload_file(photo()), caption="x" * 141)
        self.assert_refused(response, "bad_caption", 400)
        self.assertContains(response, "at most 140 characters.", status_code=400)

        self.assertEqual(self.upload("é" * 139 + "🍲  ")["caption"], "é" * 139 + "🍲")

    def test_without_scripts_all_photos_of_a_form_have_its_caption(self):
        self.post(upload_file(photo()), upload_file(photo()), accept=BROWSER, caption="With aïoli")

        captions = [picture.caption for picture in self.dish.pictures.all()]
        self.assertEqual(captions, ["With aïoli"] * 2)

    def test_the_day_is_told_for_machines_and_for_people(self):
        content = photo()
        self.upload(content=content)
        Picture.objects.update(uploaded=datetime(2026, 3, 7, 23, 59, tzinfo=UTC))

        picture = self.upload(content=content)

        self.assertEqual((picture["datetime"], picture["date"]), ("2026-03-07", "7 Mar 2026"))

    def test_a_known_photo_takes_the_new_caption_of_its_diner_alone(self):
        content = photo()
        self.upload("Old", content=content)

        for client, caption, kept in (
            (self.client, "New", "New"),
            (self.client, "", "New"),
            (Client(), "Foreign", "New"),
        ):
            self.assertEqual(self.upload(caption, client, content)["caption"], kept)
            self.assertEqual(self.dish.pictures.get().caption, kept)

    def test_a_known_photo_of_nobody_keeps_its_caption(self):
        content = photo()
        self.upload("Old", Client(), content)

        self.assertEqual(self.upload("New", Client(), content)["caption"], "Old")

    def test_the_answer_lets_the_diner_alone_edit_it(self):
        content = photo()
        picture = self.upload(content=content)

        self.assertEqual(picture["edit_caption"], f"/pictures/{picture['id']}/caption")
        self.assertNotIn("edit_caption", self.upload(client=Client(), content=content))

    def test_the_diner_edits_and_removes_it(self):
        self.upload("Old")

        for caption, kept in (("  A\tnew\0one ", "A new one"), ("", "")):
            response = self.edit(caption)
            self.assertEqual((response.status_code, response.content), (204, b""))
            self.assertEqual(self.dish.pictures.get().caption, kept)

    def test_a_new_caption_that_is_too_long_is_an_error_in_a_sentence(self):
        self.upload("Old")

        response = self.edit("x" * 141)

        self.assertEqual(response.status_code, 400)
        error = "A caption may have at most 140 characters."
        self.assertEqual(response.json(), {"error": error})
        self.assertEqual(self.dish.pictures.get().caption, "Old")

    def test_nobody_else_edits_it(self):
        self.upload("Old")
        self.assertEqual(self.edit("Foreign", Client()).status_code, 404)
        self.dish.pictures.get().hide()
        self.assertEqual(self.edit("Hidden").status_code, 404)
        Picture.objects.update(diner="", hidden=False)
        self.assertEqual(self.edit("Nobody's", Client()).status_code, 404)

        self.assertEqual(self.dish.pictures.get().caption, "Old")

    def test_editing_is_a_post(self):
        picture = self.upload()

        self.assertEqual(self.client.get(picture["edit_caption"]).status_code, 405)


class CancelTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.get("/")
        self.content = photo()

    def upload(self, progress_id="dish-1", *files):
        with self.captureOnCommitCallbacks(execute=True):
            files = files or [upload_file(self.content)]
            return self.post(*files, query=f"?X-Progress-ID={progress_id}")

    def cancel(self, *progress_ids, client=None):
        with self.captureOnCommitCallbacks(execute=True):
            data = {"X-Progress-ID": progress_ids}
            return (client or self.client).post("/cancel_upload", data)

    def assert_cancelled(self, *progress_ids):
        response = self.cancel(*progress_ids)
        self.assertEqual((response.status_code, response.content), (204, b""))

    def assert_error(self, response, status):
        self.assertEqual(response.status_code, status)
        self.assertRegex(response.json()["error"], r"^[A-Z].*\.$")
        self.assertFalse(Cancellation.objects.exists())

    def test_photos_that_are_stored_are_deleted(self):
        self.upload("dish-1", upload_file(self.content), upload_file(photo()))

        self.assert_cancelled("dish-1")

        self.assertEqual((self.dish.pictures.count(), self.files()), (0, []))

    def test_a_photo_that_arrives_later_is_refused(self):
        self.assert_cancelled("dish-1")

        self.assert_refused(self.upload(), "cancelled", 409)

    def test_a_photo_that_is_being_rendered_is_refused(self):
        def cancel_and_render(*args):
            self.assert_cancelled("dish-1")
            return DEFAULT

        with patch.object(renderer, "render", wraps=renderer.render, side_effect=cancel_and_render):
            self.assert_refused(self.upload(), "cancelled", 409)

    def test_a_photo_whose_row_is_written_is_refused(self):
        write = Picture.write

        def write_and_cancel(*args):
            write(*args)
            self.assert_cancelled("dish-1")

        with patch.object(Picture, "write", write_and_cancel):
            self.assert_refused(self.upload(), "cancelled", 409)

    def test_cancelling_twice_changes_nothing(self):
        for _ in range(2):
            self.assert_cancelled("dish-1", "dish-1")

        self.assertEqual(Cancellation.objects.count(), 1)

    def test_the_photo_of_another_upload_stays(self):
        self.upload("another")
        self.assertContains(self.upload("dish-1"), 'known="true"')

        self.assert_cancelled("dish-1")

        self.assertEqual(len(self.files()), 3)

    def test_a_photo_that_the_first_of_two_attempts_stored_is_deleted(self):
        self.upload("attempt-1")
        self.assertContains(self.upload("attempt-2"), 'known="true"')

        self.assert_cancelled("attempt-1", "attempt-2")

        self.assertEqual((self.dish.pictures.count(), self.files()), (0, []))

    def test_the_photo_may_come_again_with_another_id(self):
        self.upload("dish-1")
        self.assert_cancelled("dish-1")

        self.assertContains(self.upload("dish-2"), "<status>ok</status>")

    def test_a_photo_without_an_upload_id_stays(self):
        self.post(upload_file(self.content))

        self.assert_cancelled("dish-1")

        self.assertEqual(self.dish.pictures.get().progress_id, "")

    def test_nobody_else_cancels_an_upload(self):
        stranger = Client()
        stranger.get("/")
        self.upload("dish-1")

        self.assertEqual(self.cancel("dish-1", "dish-2", client=stranger).status_code, 204)

        self.assertTrue(self.dish.pictures.exists())
        self.assertEqual(self.upload("dish-2", upload_file(photo())).status_code, 200)

    def test_a_hidden_photo_stays(self):
        self.upload("dish-1")
        self.dish.pictures.get().hide()

        self.assert_cancelled("dish-1")

        self.assertTrue(self.dish.pictures.exists())

    def test_20_uploads_are_cancelled_at_once_and_not_one_more(self):
        self.assert_error(self.cancel(*map(str, range(21))), 400)

        self.assert_cancelled(*map(str, range(20)))

    def test_a_missing_or_malformed_id_is_an_error_in_a_sentence(self):
        for progress_ids in ([], [""], ["a b"], ["dish-1", "x" * 65], ["a\0"], ["a\n"], ["é"]):
            with self.subTest(progress_ids):
                self.assert_error(self.cancel(*progress_ids), 400)

    def test_a_browser_without_the_cookie_is_asked_to_reload_the_page(self):
        self.assert_error(self.cancel("dish-1", client=Client()), 403)

    def test_cancelling_is_a_post(self):
        self.assertEqual(self.client.get("/cancel_upload").status_code, 405)


class HiddenTests(UploadTestCase):
    def test_a_hidden_picture_is_on_no_page(self):
        picture = store(self.dish, photo())
        picture.hide()

        for url in ("/", self.dish.get_absolute_url()):
            self.assertNotContains(self.client.get(url), "/media/")


class CsrfTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client = Client(enforce_csrf_checks=True)
        self.client.get(f"/dishes/{self.dish.pk}/")
        self.token = self.client.cookies["csrftoken"].value

    def test_the_token_may_be_a_field(self):
        response = self.post(upload_file(photo()), csrfmiddlewaretoken=self.token)

        self.assertEqual(response.status_code, 200)

    def test_the_token_may_be_a_header(self):
        response = self.client.post(
            "/upload",
            {"id": self.dish.pk, "picture": upload_file(photo())},
            headers={"X-CSRFToken": self.token},
        )

        self.assertEqual(response.status_code, 200)

    def test_a_missing_or_wrong_token_is_refused(self):
        for fields in ({}, {"csrfmiddlewaretoken": "x"}, {"csrfmiddlewaretoken": "x" * 32}):
            with self.subTest(fields), self.assertLogs("django.security.csrf", "WARNING"):
                self.assert_refused(self.post(upload_file(photo()), **fields), "csrf", 403)

    def test_a_post_from_another_site_is_dropped_without_a_look(self):
        with (
            self.assertLogs("django.security.csrf", "WARNING"),
            patch.object(UploadProgressCachedHandler, "handle_raw_input") as parse,
        ):
            response = self.client.post(
                "/upload",
                {"picture": upload_file(photo()), "csrfmiddlewaretoken": self.token},
                headers={"Origin": "https://attacker.example"},
            )

        self.assert_refused(response, "csrf", 403)
        parse.assert_not_called()
        body = response.wsgi_request.upload_body
        self.assertEqual(body.received, body.length)

    def test_without_scripts_a_wrong_token_is_told_on_a_page(self):
        with self.assertLogs("django.security.csrf", "WARNING"):
            response = self.post(upload_file(photo()), accept=BROWSER)

        self.assertContains(response, "please reload the page.", status_code=403)

    def send(self, path, accept=BROWSER, secure=False, headers=(), **fields):
        fields = {"name": "x", "restaurant": "y", **fields}
        headers = {"accept": accept, **dict(headers)}
        with self.assertLogs("django.security.csrf", "WARNING"):
            return self.client.post(path, fields, headers=headers, secure=secure)

    def assert_told(self, sentence, path, **options):
        """Assert that a browser is told a sentence on a page, and a script in its own format."""
        response = self.send(path, **options)
        self.assertTemplateUsed(response, "uploads/refused.html")
        self.assertContains(response, sentence, status_code=403)
        response = self.send(path, accept="*/*", **options)
        self.assertContains(response, sentence, status_code=403)
        self.assertIn(response["Content-Type"], ("application/xml", "application/json"))

    def assert_told_by_all(self, sentence, **options):
        paths = ("/upload", "/dishes/new", "/pictures/1/report", "/cancel_upload", "/admin/login/")
        for path in paths:
            with self.subTest(path, **options):
                self.assert_told(sentence, path, **options)

    def test_a_missing_or_wrong_token_is_an_old_form(self):
        for token in ("", "x", "x" * 32):
            self.assert_told_by_all("This form is too old;", csrfmiddlewaretoken=token)

    def test_a_malformed_cookie_is_an_old_form(self):
        self.client.cookies["csrftoken"] = "x"

        self.assert_told_by_all("This form is too old;", csrfmiddlewaretoken=self.token)

    def test_a_page_from_before_the_cookie_was_renamed_is_an_old_form(self):
        self.client.cookies["old"] = self.client.cookies.pop("csrftoken").value

        self.assert_told_by_all("This form is too old;", csrfmiddlewaretoken=self.token)

    def test_a_browser_that_sends_no_cookie_is_told_to_allow_them(self):
        self.client.cookies.clear()

        self.assert_told_by_all("Cookies are off in your browser;", csrfmiddlewaretoken=self.token)

    def test_a_form_of_another_site_is_told(self):
        sentence = "This form was sent from another site,"
        for origin in ("https://attacker.example", "null", "http://[x", "https://testserver.evil"):
            self.assert_told_by_all(sentence, headers={"origin": origin})
        self.assert_told_by_all(sentence, secure=True, headers={"origin": "http://testserver"})
        for headers in ({}, {"referer": "https://attacker.example/"}, {"referer": "x"}):
            self.assert_told_by_all(sentence, secure=True, headers=headers)

    def test_a_proxy_that_ends_tls_and_is_not_trusted_is_told(self):
        headers = {"origin": "https://testserver", "x-forwarded-proto": "https"}

        self.assert_told_by_all("must set GOURMIOUS_BALANCERS", headers=headers)


class FailedPageTests(UploadTestCase):
    """The forms that are no uploads."""

    def setUp(self):
        super().setUp()
        self.client.get("/")
        self.post(upload_file(photo()))
        self.client.raise_request_exception = False
        self.picture = f"/pictures/{self.dish.pictures.get().pk}"

    def send(self, path, target, name, error, accept=BROWSER):
        """Post a form to a page that calls a method, which raises this error."""
        fields = {"name": "x", "restaurant": "y", "reason": "z", "X-Progress-ID": "dish-1"}
        with (
            patch.object(target, name, side_effect=error),
            self.assertLogs("django.request", "ERROR"),
        ):
            return self.client.post(path, fields, headers={"accept": accept})

    def test_a_browser_is_told_on_a_page(self):
        for path, target, name in (
            ("/dishes/new", Dish, "save"),
            (f"{self.picture}/take_back", Picture, "delete"),
            (f"{self.picture}/report", Picture, "report"),
        ):
            response = self.send(path, target, name, database_error("full"))
            self.assertTemplateUsed(response, "uploads/refused.html")
            self.assertContains(response, "no room to save anything", status_code=507)

    def test_a_script_is_told_in_json(self):
        for path, target, name in (
            (f"{self.picture}/caption", Picture, "write_caption"),
            ("/cancel_upload", PictureQuerySet, "cancel"),
        ):
            full = database_error("full")
            response = self.send(path, target, name, full, accept="*/*")
            self.assertEqual(response.status_code, 507)
            self.assertIn("no room to save anything", response.json()["error"])

    def test_a_browser_may_try_again_when_the_database_is_back(self):
        response = self.send("/dishes/new", Dish, "save", database_error("unavailable"))

        self.assertTemplateUsed(response, "uploads/refused.html")
        self.assertContains(response, "please try again in a minute", status_code=503)

    def test_any_other_error_has_the_usual_page(self):
        for error in (DatabaseError(), KeyError()):
            response = self.send("/dishes/new", Dish, "save", error)
            self.assertContains(response, "Something burnt in our kitchen", status_code=500)


class WithoutScriptsTests(UploadTestCase):
    """The answers to a browser that sends the form without scripts."""

    def post(self, *files, **options):
        return super().post(*files, accept=BROWSER, **options)

    def test_a_photo_leads_back_to_the_dish(self):
        self.assertRedirects(self.post(upload_file(photo())), self.dish.get_absolute_url())

    def test_what_is_refused_is_told_on_the_dishs_page(self):
        response = self.post(upload_file(b"A text.", "menu.pdf"), upload_file(photo()))

        self.assertTemplateUsed(response, "uploads/dish_detail.html")
        self.assertContains(response, "<strong>menu.pdf</strong>: This file is not a picture")
        self.assertContains(response, self.dish.pictures.get().thumbnail.url)

    def test_a_form_without_a_photo_comes_again_with_the_error(self):
        self.assertContains(self.post(), "No photo was chosen", status_code=400)

    def test_the_pages_of_pictures_can_be_turned_after_an_error(self):
        Picture.objects.bulk_create(
            Picture(dish=self.dish, display="d.jpg", thumbnail="t.jpg", width=4, height=3, digest=n)
            for n in range(PICTURES_PER_PAGE + 1)
        )

        self.assertContains(self.post(), f"{self.dish.get_absolute_url()}?page=2", status_code=400)

    def test_an_unknown_dish_is_told_on_a_page(self):
        response = self.post(upload_file(photo()), id="0")

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
