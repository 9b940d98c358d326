import json
from unittest.mock import patch

from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.test import RequestFactory, SimpleTestCase, override_settings

from uploads.progress import (
    WRITE_INTERVAL,
    UploadProgress,
    get_progress_id,
    get_record,
    pause_after,
)

from .base import FoldersMixin
from .servers import free_port


def request(progress_id="dish-1", address="127.0.0.1", **headers):
    query = {} if progress_id is None else {"X-Progress-ID": progress_id}
    return RequestFactory().get("/", query, REMOTE_ADDR=address, headers=headers)


class ProgressIdTests(SimpleTestCase):
    def test_it_is_read_from_the_query_or_else_from_the_header(self):
        header = {"X-Progress-ID": "header"}

        self.assertEqual(get_progress_id(request("query", **header)), "query")
        self.assertEqual(get_progress_id(request(None, **header)), "header")
        self.assertIsNone(get_progress_id(request(None)))

    def test_1_to_64_letters_digits_underscores_and_hyphens_are_allowed(self):
        for progress_id in ("a", "Az09_-", "x" * 64):
            self.assertEqual(get_progress_id(request(progress_id)), progress_id)

    def test_anything_else_is_refused(self):
        for progress_id in ("", "x" * 65, "a b", "a\n", "\n", "a\0", "é", "a/b", "a:b", "\uff11"):
            with self.subTest(progress_id), self.assertRaises(ValidationError) as caught:
                get_progress_id(request(progress_id))
            self.assertEqual(caught.exception.code, "bad_progress_id")


class UploadProgressTests(FoldersMixin, SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.request = request()
        self.progress = UploadProgress(self.request)
        self.progress.length = 1000

    def record(self, **options):
        record = get_record(request(**options), "dish-1")
        return record and json.loads(record)

    def let_time_pass(self):
        self.progress.next_write -= WRITE_INTERVAL

    def test_the_first_bytes_are_recorded_at_once(self):
        self.progress.add(10)

        self.assertEqual(self.record(), {"length": 1000, "uploaded": 10})

    def test_a_poll_from_another_address_sees_nothing(self):
        self.progress.add(10)

        self.assertIsNone(self.record(address="127.0.0.2"))

    def test_the_record_is_written_again_only_after_the_interval(self):
        self.progress.add(10)
        self.progress.add(10)
        self.assertEqual(self.record()["uploaded"], 10)

        self.let_time_pass()
        self.progress.add(10)
        self.assertEqual(self.record()["uploaded"], 30)

    def test_an_evicted_record_is_back_with_the_next_write(self):
        self.progress.add(10)
        cache.clear()
        self.assertIsNone(self.record())

        self.let_time_pass()
        self.progress.add(10)
        self.assertEqual(self.record()["uploaded"], 20)

    def test_the_record_is_deleted_at_the_end(self):
        self.progress.add(10)
        self.progress.delete()

        self.assertIsNone(self.record())

    def test_the_cache_is_asked_to_delete_a_record_only_once(self):
        self.progress.add(10)

        with patch.object(cache, "delete", wraps=cache.delete) as delete:
            for _ in range(3):
                self.progress.delete()

        delete.assert_called_once_with("127.0.0.1_dish-1")

    def test_an_upload_without_an_id_has_no_record(self):
        progress = UploadProgress(request(None))

        progress.add(10)
        progress.delete()

        self.assertIsNone(progress.key)

    def test_an_upload_with_a_malformed_id_has_no_record(self):
        self.assertIsNone(UploadProgress(request("a b")).key)

    def test_a_slow_write_is_followed_by_a_long_pause(self):
        self.assertEqual(pause_after(0.001), WRITE_INTERVAL)
        self.assertAlmostEqual(pause_after(0.1), 2)
        self.assertEqual(pause_after(0.4), 4)

    def test_a_cache_that_raises_is_logged_and_harms_nothing(self):
        no_server = {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"127.0.0.1:{free_port()}",
        }
        with override_settings(CACHES={"default": no_server}):
            with self.assertLogs("uploads.progress", "WARNING"):
                self.progress.add(10)
            self.progress.delete()
            self.assertIsNone(self.record())

    def test_a_refusal_is_told_at_once_and_from_then_on(self):
        self.progress.add(10)
        self.progress.refuse(ValidationError("No.", code="not_an_image"))
        refused = {"error": "No.", "code": "not_an_image"}
        self.assertEqual(self.record(), {"length": 1000, "uploaded": 10, **refused})

        self.let_time_pass()
        self.progress.add(10)
        self.assertEqual(self.record(), {"length": 1000, "uploaded": 20, **refused})
