import json
from unittest.mock import patch

from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.core.exceptions import ValidationError
from django.test import RequestFactory, SimpleTestCase, override_settings

from uploads import progress, refusals
from uploads.progress import UploadProgress, get_progress_id, get_record, writer

from .base import FoldersMixin
from .servers import free_port
from .waiting import wait_for


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


class WriterTestCase(FoldersMixin, SimpleTestCase):
    """Uploads whose records are written by the real writer to a real cache, in memory."""

    def setUp(self):
        super().setUp()
        self.addCleanup(wait_for, lambda: not writer.thread)

    def start(self, progress_id="dish-1", length=1000):
        upload = UploadProgress(request(progress_id))
        upload.length = length
        upload.start()
        self.addCleanup(upload.end)
        return upload

    def record(self, progress_id="dish-1", **options):
        record = get_record(request(**options), progress_id)
        return record and json.loads(record)

    def watch(self, method):
        """Watch what the writer calls; each thread has a cache object of its own."""
        original = getattr(BaseCache, method)
        return patch.object(BaseCache, method, autospec=True, side_effect=original)

    def wait_for_record(self, **fields):
        wait_for(lambda: (self.record() or {}).items() >= fields.items())


class WriterTests(WriterTestCase):
    def test_the_bytes_are_recorded(self):
        self.start().add(10)

        self.wait_for_record(uploaded=10)
        self.assertEqual(self.record(), {"length": 1000, "uploaded": 10})

    def test_a_poll_from_another_address_sees_nothing(self):
        self.start().add(10)

        self.wait_for_record(uploaded=10)
        self.assertIsNone(self.record(address="127.0.0.2"))

    def test_the_first_record_is_written_when_the_upload_is_half_a_second_old(self):
        upload = self.start()
        wait_for(self.record)

        self.assertGreaterEqual(upload.written, (0, None))
        for age, is_due in ((0.49, False), (0.51, True)):
            with patch("time.monotonic", return_value=upload.started + age):
                upload.add(1)
                self.assertEqual(upload.is_due(), is_due)

    def test_an_upload_that_is_over_before_never_touches_the_cache(self):
        with self.watch("set_many") as set_many, self.watch("delete_many") as delete_many:
            for number in range(20):
                upload = self.start(f"fast-{number}")
                upload.add(10)
                upload.end()
            wait_for(lambda: not writer.thread)

        set_many.assert_not_called()
        delete_many.assert_not_called()

    def test_only_what_has_changed_is_written(self):
        still, moving = self.start("still"), self.start("moving")
        wait_for(lambda: self.record("still") and self.record("moving"))

        with self.watch("set_many") as set_many:
            moving.add(10)
            wait_for(lambda: self.record("moving")["uploaded"])

        written = [key for call in set_many.call_args_list for key in call.args[1]]
        self.assertEqual(written, [moving.key])
        self.assertEqual(still.written, (0, None))

    def test_an_evicted_record_is_back_with_the_next_write(self):
        upload = self.start()
        wait_for(self.record)
        cache.clear()

        upload.add(10)

        self.wait_for_record(uploaded=10)

    def test_the_record_is_deleted_at_the_end(self):
        upload = self.start()
        wait_for(self.record)

        upload.end()

        wait_for(lambda: not self.record())

    @patch("uploads.progress.BATCH", 100)
    def test_the_records_of_a_crowd_are_written_in_batches(self):
        ids = [f"crowd-{number}" for number in range(201)]
        with self.watch("set_many") as set_many:
            uploads = [self.start(progress_id) for progress_id in ids]
            wait_for(lambda: all(map(self.record, ids)))

        sizes = [len(call.args[1]) for call in set_many.call_args_list]
        self.assertEqual(sum(sizes), len(uploads))
        self.assertLessEqual(max(sizes), 100)

    def test_an_upload_without_an_id_or_with_a_malformed_one_has_no_record(self):
        for progress_id in (None, "a b"):
            upload = UploadProgress(request(progress_id))
            upload.start()
            upload.add(10)
            upload.refuse(refusals.TOO_LARGE.fill())
            upload.end()
            wait_for(lambda: not writer.thread)

            self.assertIsNone(upload.key)
            self.assertIsNone(upload.written)

    def test_the_thread_ends_with_the_last_upload_and_starts_with_the_next(self):
        for _ in range(2):
            upload = self.start()
            wait_for(self.record)
            upload.end()
            wait_for(lambda: not writer.thread)

    def test_an_upload_goes_on_where_no_thread_can_be_started(self):
        with (
            patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")),
            self.assertLogs("uploads.progress", "WARNING"),
        ):
            upload = self.start("unseen")
        upload.add(10)
        upload.end()

        self.start()
        wait_for(self.record)


class RefusalTests(WriterTestCase):
    refusal = refusals.TOO_LARGE.fill()

    def test_a_refusal_is_recorded_however_young_the_upload_is(self):
        upload = self.start()
        upload.add(10)
        with patch.object(progress, "WRITE_INTERVAL", 3600):
            upload.refuse(self.refusal)
            wait_for(self.record)

        message = self.refusal.message
        refused = {"error": message, "code": "too_large", "retry": False}
        self.assertEqual(self.record(), {"length": 1000, "uploaded": 10, **refused})

    def test_the_first_refusal_stays_while_the_rest_is_read(self):
        upload = self.start()
        upload.refuse(self.refusal)
        upload.refuse(refusals.INTERRUPTED)
        upload.add(20)

        self.wait_for_record(uploaded=20, code="too_large")

    def test_an_upload_that_is_refused_before_it_is_read_is_recorded(self):
        upload = UploadProgress(request())
        self.addCleanup(upload.end)

        upload.refuse(self.refusal)

        self.wait_for_record(code="too_large")

    def test_one_that_is_refused_when_it_is_over_is_not(self):
        upload = self.start()
        upload.end()

        upload.refuse(self.refusal)

        wait_for(lambda: not writer.thread)
        self.assertIsNone(self.record())


class CacheFailureTests(WriterTestCase):
    def test_a_cache_that_raises_is_logged_and_harms_nothing(self):
        no_server = {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"127.0.0.1:{free_port()}",
        }
        with override_settings(CACHES={"default": no_server}):
            with self.assertLogs("uploads.progress", "WARNING") as logs:
                upload = self.start()
                wait_for(lambda: logs.records)
            upload.add(10)
            upload.end()
            self.assertIsNone(self.record())
            wait_for(lambda: not writer.thread)

    def test_a_record_that_could_not_be_written_comes_with_the_next_write(self):
        upload = self.start()
        with (
            patch.object(BaseCache, "set_many", side_effect=OSError),
            self.assertLogs("uploads.progress", "WARNING") as logs,
        ):
            wait_for(lambda: logs.records)

        upload.add(10)

        self.wait_for_record(uploaded=10)
