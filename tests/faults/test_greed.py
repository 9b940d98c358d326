"""Slow clients, and clients that send much, keep nobody out."""

from contextlib import ExitStack, contextmanager
from threading import Event, Thread

from tests.client import poll
from tests.photos import photo
from tests.waiting import wait_for

from .rig import TIMES, FaultTestCase

DRIBBLE_INTERVAL = 0.2  # seconds


class GreedTestCase(FaultTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.photo = photo(160, 120)

    def begin(self, sources):
        """Begin an upload from each of these addresses; yield each."""
        for source in sources:
            upload = self.enterContext(self.make_upload(source=source))
            upload.send(upload.data.index(b"\xff\xd8\xff") + 2000)
            yield upload

    @contextmanager
    def dribbling(self, uploads):
        """Send a byte of each upload every DRIBBLE_INTERVAL during the block."""
        ended = Event()

        def dribble():
            while not ended.wait(DRIBBLE_INTERVAL):
                for upload in uploads:
                    upload.send_more(1)

        thread = Thread(target=dribble)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class SlowTests(GreedTestCase):
    def test_210_dribbling_uploads_from_seven_addresses_keep_nobody_out(self):
        sources = [f"127.0.0.{number % 7 + 10}" for number in range(210)]
        uploads = [*self.begin(sources)]
        with self.dribbling(uploads):
            wait_for(lambda: len(self.files("incoming")) == 210)
            self.assert_open_to_others(50 * TIMES)
            self.assertEqual(len(self.files("incoming")), 210)

        for upload in uploads:
            upload.hang_up()
        self.audit("210 uploads of some bytes a second", 210)


class TooSlowTests(GreedTestCase):
    variables = {
        "DJANGO_SETTINGS_MODULE": "tests.faults.settings_slow",
        "GOURMIOUS_MAX_UPLOADS_PER_ADDRESS": "2",
    }

    def test_an_upload_that_dribbles_is_refused_and_gives_its_place_back(self):
        for _ in range(TIMES):
            for address in (self.http, self.stack.uploads.address):
                with self.make_upload(address=address) as upload, self.dribbling([upload]):
                    upload.send(len(upload.head) + 200)
                    reply = upload.read_answer()
                    self.assertEqual(reply.status, 408)
                    self.assertIn('code="too_slow" retry="true"', reply.text)
            with ExitStack() as uploads:
                pair = [uploads.enter_context(self.make_upload()) for _ in range(2)]
                self.assertEqual({upload.answer().status for upload in pair}, {200})
        self.audit("An upload dribbles", 2 * TIMES)

    def test_an_upload_that_dribbles_after_it_was_refused_is_not_read_for_ever(self):
        address = self.stack.uploads.address
        upload = self.make_upload(progress_id="a:b", address=address)
        with upload, self.dribbling([upload]):
            upload.send(len(upload.head))
            self.assertIn('code="bad_progress_id"', upload.read_answer().text)

        self.audit("An upload dribbles after it was refused", 1)

    def test_an_upload_that_is_slow_but_fast_enough_is_kept(self):
        with self.make_upload(photo(64, 48)) as upload:
            upload.send(len(upload.head))
            for until in range(len(upload.head), len(upload.data), 300):
                upload.send(until)
                self.assertIsNone((poll(self.http, upload.progress_id) or {}).get("error"))
            self.assertEqual(upload.answer().status, 200)
        self.audit("An upload is slow, but fast enough", 1)


class QuotaTests(GreedTestCase):
    variables = {"GOURMIOUS_MAX_MB_PER_DAY": "1"}

    def test_a_network_that_has_used_up_its_quota_keeps_nobody_else_out(self):
        for content in (photo(640, 480), photo(1600, 1200)):
            wait_for(lambda content=content: self.is_refused(content))
        self.assert_open_to_others(10)

        self.audit("A network uses up its quota", 1)

    def is_refused(self, content):
        with self.make_upload(content, source="127.0.0.10") as upload:
            reply = upload.answer()
        return reply.status == 403 and 'code="over_quota"' in reply.text
