import hashlib
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
from urllib.error import HTTPError
from urllib.request import Request
from xml.etree import ElementTree

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage, storages
from django.core.management import CommandError, call_command
from django.test import RequestFactory, SimpleTestCase, override_settings

from uploads import s3, storage
from uploads.checks import check_files_can_be_reached
from uploads.models import Picture
from uploads.views import media

from .base import FoldersMixin, UploadTestCase, store, upload_file, use_buckets
from .cases import StackTestCase
from .client import Upload, connect, get
from .environment import read_settings
from .photos import photo
from .proxy import Proxy, answer, hang, reset
from .servers import SeaweedFS, requires, share_store
from .stack import make_certificate
from .test_nginx import SECURITY_HEADERS
from .waiting import wait_for

FULL = "<Error><Code>XMinioStorageFull</Code><Message>No space left.</Message></Error>"
NAME = f"{'0' * 32}.jpg"


@cache
def make_buckets():
    return share_store().make_buckets("own")


class BucketsMixin:
    """Keep the files in two empty buckets of a store that the test may stop."""

    def setUp(self):
        super().setUp()
        self.store = share_store()
        self.enterContext(use_buckets(make_buckets()))
        self.originals, self.renditions = storages["originals"], default_storage

    @contextmanager
    def proxied(self):
        """Put a proxy before the store."""
        with (
            Proxy(self.store.address) as proxy,
            override_settings(S3={**settings.S3, "endpoint": f"http://{proxy.address}"}),
        ):
            yield proxy

    def call(self, name, **options):
        """Run a command, and return what it prints."""
        output = StringIO()
        with self.captureOnCommitCallbacks(execute=True):
            call_command(name, stdout=output, stderr=output, **options)
        return output.getvalue()

    def get_status(self, link, method="GET"):
        try:
            with urllib.request.urlopen(Request(link, method=method)) as response:
                return response.status
        except HTTPError as error:
            with error:
                return error.code


class UploadTests(BucketsMixin, UploadTestCase):
    def upload(self, content=None):
        return self.post(upload_file(content or photo()))

    def assert_unavailable(self, response):
        self.assertEqual(response.status_code, 503, response.content)
        self.assertContains(response, 'code="server_error"', status_code=503)
        self.assertContains(response, 'retry="true"', status_code=503)
        self.assertFalse(self.dish.pictures.exists())

    def test_a_photo_is_kept_byte_for_byte_with_its_renditions(self):
        content = photo()

        self.assertContains(self.upload(content), "<status>ok</status>")

        picture = self.dish.pictures.get()
        self.assertEqual(len(self.files()), 3)
        with picture.original.open() as original:
            self.assertEqual(original.read(), content)
        self.assertEqual(picture.display.url, f"/media/{picture.display.name}")

    def test_the_same_photo_is_kept_once(self):
        content = photo()
        self.upload(content)

        self.assertContains(self.upload(content), 'known="true"')

        self.assertEqual(len(self.files()), 3)

    def test_the_store_refuses_an_original_that_changes_on_its_way(self):
        file = ContentFile(photo())
        file.digest = hashlib.sha256(b"another").hexdigest()

        with self.assertRaises(OSError):
            self.originals.save(NAME, file)

        self.assertEqual(self.files(), [])

    def test_a_picture_can_be_hidden_shown_and_deleted(self):
        picture = store(self.dish, photo())

        with self.captureOnCommitCallbacks(execute=True):
            picture.hide()
        self.assertEqual(len(self.files()), 1)
        with self.captureOnCommitCallbacks(execute=True):
            picture.show()
        self.assertEqual(len(self.files()), 3)
        with self.captureOnCommitCallbacks(execute=True):
            picture.delete()
        self.assertEqual(self.files(), [])

    def test_a_store_that_is_stopped_can_be_tried_again(self):
        self.upload()
        self.store.stop()
        try:
            response = self.upload()
        finally:
            self.store.start()

        self.assertEqual(response.status_code, 503)
        self.assertContains(response, 'retry="true"', status_code=503)
        self.assertEqual(len(self.files()), 3)
        self.assertContains(self.upload(), "<status>ok</status>")

    def test_a_store_that_hangs_costs_less_than_ten_seconds(self):
        """Rendering is not counted: on a busy machine it takes seconds of its own."""
        with self.store.hung():
            start = time.monotonic()
            with self.assertRaises(OSError):
                storages["originals"].save("dish.jpg", ContentFile(b"A photo"))
            seconds = time.monotonic() - start
            response = self.upload()

        self.assert_unavailable(response)
        self.assertLess(seconds, 10)

    def test_a_store_that_hangs_while_files_are_deleted_costs_less_than_ten_seconds(self):
        picture = store(self.dish, photo())

        with self.store.hung(), self.assertLogs("uploads.storage", "ERROR") as logs:
            start = time.monotonic()
            with self.captureOnCommitCallbacks(execute=True):
                picture.delete()
            seconds = time.monotonic() - start

        self.assertLess(seconds, 10)
        self.assertEqual(len(logs.records), 1)

    def test_a_cut_in_the_middle_of_a_photo_leaves_nothing(self):
        with self.proxied() as proxy, proxy.fault("/", reset(after=1000)):
            self.assert_unavailable(self.upload(photo(640, 480)))

        self.assertEqual(self.files(), [])

    def test_a_single_cut_is_not_noticed(self):
        with self.proxied() as proxy, proxy.fault("/", reset(after=1000), times=1):
            self.assertContains(self.upload(photo(640, 480)), "<status>ok</status>")

        self.assertEqual(len(self.files()), 3)

    def test_what_a_store_that_went_away_has_kept_is_pruned_a_day_later(self):
        with self.proxied() as proxy, proxy.fault(f"/{settings.S3['renditions']}", reset()):
            self.assert_unavailable(self.upload())
        self.assertEqual(len(self.files()), 1)

        self.call("prune_uploads")
        self.assertEqual(len(self.files()), 1)
        with patch("time.time", return_value=time.time() + 25 * 3600):
            self.call("prune_uploads")

        self.assertEqual(self.files(), [])

    def test_a_full_store_is_told(self):
        for status in (507, 400, 500):
            with (
                self.subTest(status),
                self.proxied() as proxy,
                proxy.fault("/own-originals", answer(status, FULL, "application/xml")),
            ):
                response = self.upload()

            self.assertEqual(response.status_code, 507)
            self.assertContains(response, 'code="storage_full"', status_code=507)
            self.assertEqual(self.files(), [])

    def test_a_wrong_key_is_logged_and_nothing_that_a_retry_could_help(self):
        wrong = {**settings.S3, "secret_key": "wrong"}

        with override_settings(S3=wrong), self.assertLogs("uploads.refusals", "ERROR"):
            response = self.upload()

        self.assert_refused(response, "server_error", 500)


class StorageTests(BucketsMixin, FoldersMixin, SimpleTestCase):
    def test_the_bucket_of_the_originals_is_closed_to_the_public(self):
        for bucket, status in ((self.originals, 403), (self.renditions, 200)):
            bucket.save(NAME, ContentFile(b"content"))
            link = f"{self.store.endpoint}/{bucket.bucket}"

            self.assertEqual(self.get_status(f"{link}/{NAME}"), status)
            self.assertEqual(self.get_status(link), 403)

    def test_a_rendition_has_the_headers_that_browsers_need(self):
        self.renditions.save(NAME, ContentFile(b"content"))

        with urllib.request.urlopen(
            f"{self.store.endpoint}/{self.renditions.bucket}/{NAME}"
        ) as response:
            self.assertEqual(response.headers["Content-Type"], "image/jpeg")
            self.assertIn("immutable", response.headers["Cache-Control"])

    def test_no_file_is_split(self):
        self.originals.save(NAME, ContentFile(bytes(9 * 2**20)))

        head = self.originals.client.head_object(Bucket=self.originals.bucket, Key=NAME)
        self.assertEqual(head["ContentLength"], 9 * 2**20)
        self.assertNotIn("-", head["ETag"])  # S3 adds the number of parts

    def test_a_file_that_is_missing_is_told_as_a_disk_tells_it(self):
        for ask in (self.originals.open, self.originals.size, self.originals.send):
            with self.assertRaises(FileNotFoundError):
                ask(NAME)
        self.assertFalse(self.originals.exists(NAME))
        self.originals.delete(NAME)

    def test_the_sizes_of_files_are_found_among_others(self):
        for number in range(6):
            self.originals.save(f"{number}.jpg", ContentFile(b"x" * number))

        sizes = self.originals.get_sizes(["4.jpg", "1.jpg", "2.png"])

        self.assertEqual(sizes, {"1.jpg": 1, "4.jpg": 4})

    def test_more_files_than_a_page_holds_are_listed(self):
        names = [f"{number}.jpg" for number in range(5)]
        for name in names:
            self.originals.save(name, ContentFile(b""))

        with patch.object(storage, "BATCH_SIZE", 2):
            pages = list(self.originals.list_old(time.time() + 3600))
            sizes = self.originals.get_sizes(names[1:])

        self.assertEqual(pages, [names[:2], names[2:4], names[4:]])
        self.assertEqual(list(sizes), names[1:])

    def test_many_threads_share_one_client(self):
        barrier, clients = threading.Barrier(200), set()

        def save(number):
            barrier.wait()
            clients.add(self.originals.client)
            return self.originals.save(f"{number}.jpg", ContentFile(b"content"))

        with ThreadPoolExecutor(200) as pool:
            names = set(pool.map(save, range(200)))

        self.assertEqual(len(clients), 1)
        self.assertEqual(set(self.originals.get_sizes(names)), names)

    def test_a_file_can_be_opened_by_its_path_and_the_copy_is_deleted(self):
        self.originals.save(NAME, ContentFile(b"content"))

        with self.originals.open_path(NAME):
            [path] = self.files("incoming")
            self.assertEqual(path.read_bytes(), b"content")

        self.assertEqual(self.files("incoming"), [])

    def test_in_development_a_view_serves_renditions(self):
        self.renditions.save(NAME, ContentFile(b"content"))

        response = media(RequestFactory().get("/"), NAME)

        self.assertEqual(b"".join(response), b"content")
        self.assertEqual(response["Content-Type"], "image/jpeg")

    def test_a_store_that_cannot_be_reached_is_told_without_its_address(self):
        self.assertEqual(check_files_can_be_reached(), [])

        with (
            override_settings(S3={**settings.S3, "secret_key": "wrong"}),
            self.assertLogs("uploads.s3", "WARNING"),
        ):
            faults = [warning.msg for warning in check_files_can_be_reached()]

        self.assertEqual(faults[0], "The bucket of the originals cannot be read.")


class LinkTests(BucketsMixin, UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.force_login(User.objects.create_superuser("cook"))
        self.content = photo()
        self.picture = store(self.dish, self.content)

    def fetch_link(self):
        response = self.client.get(f"/admin/uploads/picture/{self.picture.pk}/original")
        self.assertEqual(response.status_code, 302)
        return response["Location"]

    def test_staff_download_an_original_by_a_link(self):
        with urllib.request.urlopen(self.fetch_link()) as response:
            self.assertEqual(response.read(), self.content)
            self.assertEqual(
                response.headers["Content-Disposition"],
                f'attachment; filename="{self.picture.original.name}"',
            )

    def test_a_link_is_good_for_a_minute(self):
        self.assertIn("X-Amz-Expires=60&", self.fetch_link())

        with patch.object(s3, "LINK_LIFETIME", 1):
            link = self.fetch_link()
        self.assertEqual(wait_for(lambda: self.get_status(link) != 200 and 403), 403)

    def test_a_link_is_good_for_one_file_and_for_reading(self):
        other = store(self.dish, photo(30, 20))
        link = self.fetch_link()

        moved = link.replace(self.picture.original.name, other.original.name)
        self.assertEqual(self.get_status(moved), 403)
        for method in ("PUT", "DELETE"):
            self.assertEqual(self.get_status(link, method), 403)

    def test_an_original_that_is_lost_is_not_linked(self):
        self.picture.original.storage.delete(self.picture.original.name)

        response = self.client.get(f"/admin/uploads/picture/{self.picture.pk}/original")

        self.assertEqual(response.status_code, 404)


class CommandTests(BucketsMixin, UploadTestCase):
    def setUp(self):
        super().setUp()
        self.picture = store(self.dish, photo())

    def test_lost_files_are_reported(self):
        for file in self.picture.files():
            file.storage.delete(file.name)

        with self.assertRaisesMessage(CommandError, "Files of pictures are lost: 3."):
            self.call("prune_uploads")

    def test_lost_renditions_are_made_again(self):
        store(self.dish, photo())
        self.renditions.delete(self.picture.thumbnail.name)

        self.assertIn("1 of 1", self.call("make_renditions"))

        self.assertEqual(len(self.files()), 6)
        self.assertNotEqual(Picture.objects.get(pk=self.picture.pk).display, self.picture.display)


@requires("openssl")
class TlsTests(StackTestCase):
    """A store over TLS, with a certificate that no public CA has signed."""

    @classmethod
    def setUpClass(cls):
        folder = Path(cls.enterClassContext(TemporaryDirectory(prefix="gourmious-")))
        certificate, key = make_certificate(folder).values()
        store = cls.enterClassContext(SeaweedFS(certificate, key))
        further = {"GOURMIOUS_S3_ENDPOINT": store.tls_endpoint, "GOURMIOUS_S3_CA": certificate}
        cls.variables = {**store.make_buckets("tls"), **further}
        super().setUpClass()

    def get_status(self, address, path):
        with closing(connect(address)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def test_a_photo_is_stored_and_shown(self):
        with Upload(self.http, self.dish, photo()) as upload:
            path = ElementTree.fromstring(upload.answer().text).find("picture").get("url")

        self.assertEqual(self.get_status(self.http, path), 200)
        with self.another_nginx(GOURMIOUS_S3_CA="") as address:
            self.assertEqual(self.get_status(address, path), 503)

    def test_a_certificate_that_nobody_vouches_for_is_refused(self):
        store = read_settings(**self.variables)["S3"]
        with override_settings(S3={**store, "ca": ""}), self.assertRaises(ConnectionError):
            s3.OriginalStorage().exists(NAME)


class NginxTests(StackTestCase):
    """nginx before the real store, with a proxy between them that tells what the store is asked."""

    @classmethod
    def setUpClass(cls):
        store = share_store()
        cls.proxy = cls.enterClassContext(Proxy(store.address))
        endpoint = f"http://{cls.proxy.address}"
        cls.variables = {**store.make_buckets("nginx"), "GOURMIOUS_S3_ENDPOINT": endpoint}
        super().setUpClass()

    def setUp(self):
        super().setUp()
        self.path = self.upload_photo()
        self.proxy.requests.clear()

    def upload_photo(self):
        """Upload a photo, and return the path of its display rendition."""
        with Upload(self.http, self.dish, photo()) as upload:
            return ElementTree.fromstring(upload.answer().text).find("picture").get("url")

    def ask(self, path, method="GET", address=None, secure=False, **headers):
        """Return the response to a request, and its body."""
        with closing(connect(address or self.http, secure)) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def test_a_rendition_may_be_kept_for_ever_and_has_the_headers_of_the_site(self):
        for address, secure in ((self.http, False), (self.https, True)):
            response, body = self.ask(self.path, address=address, secure=secure)
            page = get(address, "/", secure=secure)

            self.assertEqual((response.status, body[:3]), (200, b"\xff\xd8\xff"))
            self.assertEqual(response.headers["Content-Type"], "image/jpeg")
            caching = response.headers["Cache-Control"]
            self.assertEqual(caching, "private, max-age=31536000, immutable")
            for name in ("server", "strict-transport-security", *SECURITY_HEADERS):
                found, expected = response.headers.get_all(name), page.headers.get(name)
                if name == "content-security-policy":
                    found = ["; ".join(sorted(found[0].split("; ")))]
                    expected = "; ".join(sorted(expected.split("; ")))
                self.assertEqual(found, expected and [expected], name)

    def test_a_browser_learns_nothing_of_the_store(self):
        for path in (self.path, f"/media/{'0' * 32}-480.jpg"):
            response, body = self.ask(path)
            self.assertNotRegex(str(response.headers), r"(?i)amz|seaweed|set-cookie|owner")
            self.assertNotIn(b"<Error>", body)

    def test_a_part_of_a_rendition_and_one_that_is_cached_can_be_asked_for(self):
        response, whole = self.ask(self.path)

        part, body = self.ask(self.path, Range="bytes=2-5")
        self.assertEqual((part.status, body), (206, whole[2:6]))
        tag = response.headers["ETag"]
        cached, body = self.ask(self.path, **{"If-None-Match": tag})
        self.assertEqual((cached.status, body), (304, b""))
        self.assertEqual(self.ask(self.path, Range="bytes=99999999-")[0].status, 416)
        self.assertEqual(self.ask(self.path, "HEAD")[0].status, 200)

    def test_the_store_learns_nothing_of_the_client(self):
        secrets = {
            "Cookie": "sessionid=secret",
            "Authorization": "Basic secret",
            "X-Forwarded-For": "192.0.2.7",
            "User-Agent": "secret",
            "Referer": "http://secret/",
            "x-amz-acl": "secret",
        }

        response, _ = self.ask(f"{self.path}?acl&secret", **secrets)

        self.assertEqual(response.status, 200)
        [request] = self.proxy.requests
        bucket = self.variables["GOURMIOUS_S3_RENDITIONS"]
        self.assertEqual(request.path, f"/{bucket}/{self.path.removeprefix('/media/')}")
        self.assertEqual(dict(request.head.headers), {"Host": self.proxy.address})

    def test_the_store_does_not_wait_for_the_body_of_a_request(self):
        with closing(connect(self.http)) as connection:
            connection.request("GET", self.path, b"body")
            self.assertEqual(connection.getresponse().status, 200)

        [request] = self.proxy.requests
        self.assertEqual(dict(request.head.headers), {"Host": self.proxy.address})

    def test_only_reading_reaches_the_store(self):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
            self.assertEqual(self.ask(self.path, method)[0].status, 405, method)

        self.assertEqual(self.proxy.requests, [])

    def test_no_other_address_reaches_the_store(self):
        name = self.path.removeprefix("/media/")
        other = self.variables["GOURMIOUS_S3_ORIGINALS"]
        for path in (
            "/media/",
            "/media/?list-type=2",
            "/media/?acl",
            f"/media/../{other}/{name}",
            f"/media/%2e%2e/{other}/{name}",
            f"/media/..%2f{other}%2f{name}",
            f"/media/{name}/",
            f"/media/{name}/../../{other}/{name}",
            f"/media/{name}%3Facl",
            f"/media/{name}%00",
            f"/media/{name}%0d%0aCookie:a",
            f"/media/{name};a",
            f"/media/x{name}",
            f"/media/{name[1:]}",
            f"/media/{name.upper()}",
            f"/media/{other}/{name}",
            f"/{other}/{name}",
        ):
            self.assertIn(self.ask(path)[0].status, (400, 404), path)

        self.assertEqual(self.proxy.requests, [])

    def test_a_rendition_that_is_not_there_is_not_found(self):
        response, _ = self.ask(f"/media/{'0' * 32}-480.jpg")

        self.assertEqual(response.status, 404)
        self.assertNotIn("Cache-Control", response.headers)
        for status in (403, 404):
            with self.proxy.fault("/", answer(status)):
                self.assertEqual(self.ask(self.path)[0].status, 404)

    def test_a_store_that_fails_gets_a_page_of_the_site(self):
        for status in (500, 503, 307):
            with self.proxy.fault("/", answer(status, "secret")):
                response, body = self.ask(self.path)
            self.assertEqual(response.status, 503)
            self.assertIn(b"The server cannot be reached at the moment", body)
            self.assertNotIn("Cache-Control", response.headers)

    def test_a_store_that_hangs_is_given_up_soon(self):
        with self.proxy.fault("/", hang()):
            start = time.monotonic()
            response, _ = self.ask(self.path)

        self.assertEqual(response.status, 503)
        self.assertLess(time.monotonic() - start, 10)
