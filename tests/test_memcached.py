"""The whole way of an upload, with a real memcached."""

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from unittest.mock import patch

from django.conf import settings
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.cache import cache
from django.test import RequestFactory
from pymemcache.client.base import Client

from uploads import refusals
from uploads.formats import LABELS
from uploads.progress import UploadProgress, cache_answers, writer
from uploads.quota import quota

from .base import FoldersMixin, make_dish
from .cases import PIECE, WRITER, MemcachedMixin, is_writing
from .client import Upload, poll
from .photos import photo
from .servers import requires
from .waiting import wait_for

KEY = "gourmious:1:127.0.0.1_dish-1"


@requires("memcached")
class MemcachedTests(MemcachedMixin, FoldersMixin, StaticLiveServerTestCase):
    def setUp(self):
        super().setUp()
        self.dish = make_dish()
        self.address = self.live_server_url.removeprefix("http://")

    def begin(self, content, progress_id="dish-1"):
        return self.enterContext(Upload(self.address, self.dish, content, progress_id))

    def upload(self):
        """Begin an upload of megabytes, and return it when its record is there."""
        upload = self.begin(photo(1600, 1200))
        upload.send(PIECE)
        wait_for(self.poll)
        return upload

    def poll(self):
        return poll(self.address, "dish-1")

    def send_until(self, upload, condition):
        """Send on, little by little, until the condition holds."""
        wait_for(lambda: upload.send_more(1000) or condition())

    def assert_deleted(self):
        """Assert that there is no record, or soon is none."""
        wait_for(lambda: self.poll() is None)

    def assert_kept(self, upload):
        answer = upload.answer()
        self.assertEqual(answer.status, 200)
        self.assertIn("<status>ok</status>", answer.text)
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_a_slow_upload_can_be_watched(self):
        upload = self.upload()
        seen = [self.poll()]
        while len(seen) < 3:
            self.send_until(upload, lambda: self.poll() != seen[-1])
            seen.append(self.poll())

        self.assertEqual({record["length"] for record in seen}, {upload.length})
        counts = [record["uploaded"] for record in seen]
        self.assertEqual(counts, sorted(counts))
        self.assertLessEqual(counts[-1], upload.sent - len(upload.head))
        self.assert_kept(upload)
        self.assert_deleted()

    def test_a_refusal_is_told_at_once(self):
        upload = self.begin(b"A text. " * PIECE)
        with patch("uploads.progress.WRITE_INTERVAL", 3600):
            upload.send(PIECE)
            record = wait_for(self.poll)
            self.assertEqual(upload.answer().status, 415)
            self.assert_deleted()

        refusal = refusals.NOT_AN_IMAGE.fill(formats=LABELS)
        told = {"error": refusal.message, "code": "not_an_image", "retry": False}
        self.assertEqual(record, {**record, **told})

    def test_an_upload_that_is_soon_over_never_has_a_record(self):
        quota.add("127.0.0.1/32", 1)
        quota.flush(at_once=True)  # Later uploads of the network only add to this.
        before = self.count_commands()
        with patch("uploads.progress.WRITE_INTERVAL", 3600):  # however busy the machine is
            self.assert_kept(self.begin(photo(1, 1)))
            writer.wake.set()
            wait_for(lambda: not is_writing())

        self.assertEqual(self.count_commands(), before)

    def count_commands(self):
        stats = self.memcached.ask("stats")
        return dict(re.findall(r"STAT (cmd_(?:get|set|touch)|delete_\w+) (\d+)", stats))

    def test_the_record_is_text_under_the_key_of_the_tutorial(self):
        self.upload()

        flags, text = re.search(
            rf"VALUE {KEY} (\d+) \d+\r\n(.*)\r\n", self.memcached.ask(f"get {KEY}")
        ).groups()

        self.assertEqual(flags, "0")
        self.assertEqual(set(json.loads(text)), {"length", "uploaded"})

    def test_the_record_of_a_killed_process_has_an_end(self):
        self.upload()

        seconds = int(re.search(r"HD t(-?\d+)", self.memcached.ask(f"mg {KEY} t"))[1])

        self.assertGreater(seconds, 0)
        self.assertLessEqual(seconds, 120)

    def test_an_evicted_record_comes_back(self):
        upload = self.upload()
        self.memcached.ask("flush_all")
        self.assertIsNone(self.poll())

        self.send_until(upload, self.poll)

        self.assert_kept(upload)

    def test_an_upload_outlives_memcached_and_finds_it_again(self):
        upload = self.upload()
        self.memcached.stop()
        upload.send_more(PIECE)
        self.assertIsNone(self.poll())

        self.memcached.start()
        self.send_until(upload, self.poll)

        self.assert_kept(upload)

    def test_who_saw_memcached_fail_long_ago_finds_it_at_once(self):
        self.addCleanup(cache.close)
        clock = self.enterContext(patch("pymemcache.client.hash.time"))
        clock.time.return_value = time.time()
        cache.close()
        self.memcached.stop()
        for _ in range(3):
            self.assertIsNone(cache.get("dish-1"))
            clock.time.return_value += 3

        self.memcached.start()
        self.assertTrue(cache_answers())

    def test_a_record_is_deleted_right_after_a_write_that_was_too_slow(self):
        progress = UploadProgress(RequestFactory().post("/upload?X-Progress-ID=dish-1"))
        written = self.count_writes()
        with self.memcached.hung():
            progress.refuse(refusals.TOO_LARGE.fill())
            wait_for(lambda: progress.written)
        wait_for(lambda: self.count_writes() > written)  # it came through after all

        progress.end()

        self.assert_deleted()

    def count_writes(self):
        return int(re.search(r"STAT cmd_set (\d+)", self.memcached.ask("stats"))[1])

    def test_an_upload_is_kept_without_memcached(self):
        self.memcached.stop()

        self.assert_kept(self.begin(photo()))

    def test_an_upload_is_kept_while_memcached_hangs(self):
        with self.memcached.hung():
            self.assert_kept(self.begin(photo(1600, 1200)))
            self.assertIsNone(self.poll())

    def test_while_memcached_hangs_it_slows_down_none_of_many_uploads(self):
        slow = self.upload()
        with self.memcached.hung(), self.talkers() as talkers, ThreadPoolExecutor(4) as pool:
            statuses = [*pool.map(self.send_whole, range(8))]

        self.assertEqual(statuses, [200] * 8)
        self.assertLessEqual(talkers, {WRITER})
        self.send_until(slow, lambda: (self.poll() or {"uploaded": 0})["uploaded"] > PIECE)
        slow.answer()
        self.assertEqual(self.dish.pictures.count(), 9)

    def send_whole(self, number):
        return self.begin(photo(), f"fast-{number}").answer().status

    @contextmanager
    def talkers(self):
        """Yield a set of the names of the threads that connect to memcached."""
        names, connect = set(), Client._connect

        def note_and_connect(client):
            names.add(threading.current_thread().name)
            connect(client)

        with patch.object(Client, "_connect", note_and_connect):
            yield names

    def test_a_line_that_breaks_leaves_nothing(self):
        upload = self.upload()
        self.assertEqual(len(self.files("incoming")), 1)

        answer = upload.break_off()

        self.assertEqual(answer.status, 400)
        self.assertIn('<error code="interrupted" retry="true">', answer.text)
        self.assertEqual(self.files(), [])
        self.assert_deleted()
        self.assertFalse(self.dish.pictures.exists())

    def test_two_uploads_at_once_have_a_record_each(self):
        first = self.upload()
        second = self.begin(photo(1600, 1000), "dish-2")
        second.send(PIECE)
        wait_for(lambda: poll(self.address, "dish-2"))

        self.assertNotEqual(self.poll(), poll(self.address, "dish-2"))
        first.answer()
        self.assert_deleted()
        self.assertTrue(poll(self.address, "dish-2"))

    def test_nothing_is_pickled(self):
        self.assertIsNone(settings.CACHES["default"]["OPTIONS"]["serde"])
