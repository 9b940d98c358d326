"""Connections that end, stall, crawl or waver, anywhere in an upload."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.client import BOUNDARY, FORM_TYPE, add_dish, client_headers, poll
from tests.photos import photo
from tests.servers import requires
from tests.waiting import wait_for

from .rig import SEED, TIMES, Entry, FaultTestCase, Upload

# Connections end where these parts of an upload begin, and the id of the dish.
PARTS = (
    b"Content-Type: multipart",
    b"\r\n\r\n",
    f"--{BOUNDARY}".encode(),
    b'name="id"',
    b'name="picture"',
    b"\xff\xd8\xff",
    f"\r\n--{BOUNDARY}--".encode(),
)


class ConnectionTestCase(FaultTestCase):
    # After a client hangs up, its upload counts until the server has finished it.
    variables = {"GOURMIOUS_MAX_UPLOADS": "900", "GOURMIOUS_MAX_UPLOADS_PER_ADDRESS": "900"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addresses = (cls.http, cls.stack.uploads.address)
        for number in range(9):  # an id that is cut to its first digit names another dish
            add_dish(cls.http, f"Dish {number}")

    def choose_places(self, upload):
        """Return offsets in an upload: at the starts of parts, inside them, and near the end."""
        starts = [upload.data.index(part) for part in (*PARTS, f"{self.dish.pk}\r\n--".encode())]
        inside = [self.rng.randrange(len(upload.data)) for _ in range(5 * TIMES)]
        return [*starts, *(start + 1 for start in starts), *inside, len(upload.data) - 1]

    def make_upload_with_id_last(self, **options):
        """Return an upload that sends its photo before the id of the dish."""
        upload = self.make_upload(**options)
        upload.fill_in(picture=upload.content, id=self.dish.pk)
        return upload

    def make_upload_of_two_photos(self, **options):
        upload = self.make_upload(**options)
        files = [upload.content, self.make_upload().content]
        upload.fill_in(id=self.dish.pk, picture=files)
        return upload

    def make_uploads_for_all_places(self):
        """Yield pairs of an upload and a place in it, through nginx and straight to the app."""
        for make_upload in (self.make_upload, self.make_upload_with_id_last):
            for address in self.addresses:
                for number in range(len(self.choose_places(make_upload()))):
                    upload = make_upload(address=address)
                    yield upload, self.choose_places(upload)[number]

    @contextmanager
    def upload_beside(self):
        """Begin an upload before the block, and assert that it succeeds after the block."""
        with self.make_upload() as upload:
            upload.send(100_000)
            wait_for(lambda: poll(self.http, upload.progress_id))
            yield upload
            self.assertEqual(upload.answer().status, 200)


class CutTests(ConnectionTestCase):
    """When a client's connection ends, nginx ends its own to the app, and drops what it holds."""

    def cut(self, upload, place, reset):
        with upload:
            upload.send(place)
            upload.hang_up(reset)

    def cut_everywhere(self, reset):
        with self.upload_beside():
            return [self.cut(*cut, reset) for cut in self.make_uploads_for_all_places()]

    def test_a_connection_may_end_anywhere(self):
        cuts = self.cut_everywhere(reset=False)

        self.audit("the connection ends, anywhere in the upload", len(cuts))

    def test_a_connection_may_be_reset_anywhere(self):
        cuts = self.cut_everywhere(reset=True)

        self.audit("the connection is reset, anywhere in the upload", len(cuts))

    def test_a_connection_may_end_between_two_photos(self):
        for address in self.addresses * TIMES:
            for part in (f"\r\n--{BOUNDARY}\r\n", 'name="picture"'):
                for reset in (False, True):
                    upload = self.make_upload_of_two_photos(address=address)
                    place = upload.data.rindex(part.encode())
                    self.cut(upload, self.rng.randrange(place, place + 80), reset)

        self.audit("the connection ends between two photos", 8 * TIMES)

    def test_an_upload_that_stops_early_is_answered_as_interrupted(self):
        times = 0
        for upload, place in self.make_uploads_for_all_places():
            with upload:
                upload.send(place)
                upload.send_no_more()
                upload.answer()
            times += 1
            if upload.address != self.http and place >= len(upload.head):
                self.assertEqual(upload.reply.status, 400)
                self.assertIn('code="interrupted"', upload.reply.text)

        self.audit("a client stops sending, and still listens", times)

    def test_a_connection_may_end_before_the_answer(self):
        for number in range(6 * TIMES):
            with self.make_upload() as upload:
                upload.send()
                upload.hang_up(reset=number % 2)

        self.assert_uploads_work()
        self.audit("the connection ends between the last byte and the answer", 6 * TIMES)

    @requires("curl")
    def test_a_connection_over_http_2_may_end(self):
        content = photo(1600, 1200, randbytes=self.rng.randbytes)
        for _ in range(2 * TIMES):
            self.cut_over_http_2(self.make_upload(content))

        self.assert_uploads_work()
        self.audit("the connection ends in the middle of an upload over HTTP/2", 2 * TIMES)

    def cut_over_http_2(self, upload):
        """Kill the client when the server has received some part of the upload."""
        file = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")), "body")
        file.write_bytes(upload.body)
        headers = client_headers(self.https, secure=True) | {"Content-Type": FORM_TYPE}
        options = [f"-H{name}: {value}" for name, value in headers.items()]
        url = f"https://{self.https}/upload?X-Progress-ID={upload.progress_id}"
        command = ["curl", "-sk", "--http2", "--limit-rate", "800k", "--data-binary", f"@{file}"]
        least = self.rng.randrange(len(upload.body) // 4)
        with subprocess.Popen([*command, *options, url], stdout=subprocess.DEVNULL) as curl:
            wait_for(lambda: self.count_received(upload) > least)
            curl.kill()
        whole = curl.returncode == 0  # on a busy machine, the client may have finished first
        self.ledger.note(Entry(upload.progress_id, upload.digest, None, whole, self.dish.pk))

    def count_received(self, upload):
        record = poll(self.http, upload.progress_id)
        return record["uploaded"] if record else 0


class StallTests(ConnectionTestCase):
    variables = {**ConnectionTestCase.variables, "DJANGO_SETTINGS_MODULE": "tests.settings_small"}

    def test_a_connection_that_stalls_anywhere_is_closed(self):
        with ExitStack() as uploads:
            waits = [
                self.stall(uploads.enter_context(upload), place)
                for upload, place in self.make_uploads_for_all_places()
                if place >= len(upload.head) and upload.address == self.http
            ]
            for wait_for_end in waits:
                self.assertEqual(wait_for_end(), b"")

        self.audit("the connection stalls, anywhere in the body", len(waits))

    def stall(self, upload, place):
        """Stop sending, and return a function that waits until the server ends the connection."""
        upload.send(place)
        upload.socket.settimeout(20)  # seconds; less than nginx's default timeout
        return partial(upload.socket.recv, 1)


class SlowTests(ConnectionTestCase):
    def test_an_upload_may_arrive_one_byte_at_a_time(self):
        with self.make_upload(photo(16, 16, randbytes=self.rng.randbytes)) as upload:
            end = len(upload.data)
            middle = upload.data.index(b"\xff\xd8\xff") + len(upload.content) // 2
            slow = {*range(middle, middle + TIMES), *range(end - TIMES, end)}
            for until in range(end):
                upload.send(until)
                if until in slow:
                    time.sleep(1)  # one byte a second
            self.assertEqual(upload.answer().status, 200)

        self.audit("each byte is sent alone, some of them one a second", TIMES)

    def test_a_connection_may_waver(self):
        uploads = [self.make_upload() for _ in range(8 * TIMES)]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(self.send_wavering, uploads))

        self.assertEqual({answer.status for answer in answers}, {200})
        self.audit("the connection wavers by 50 milliseconds", len(answers))

    def send_wavering(self, upload):
        rng = Random(f"{SEED} {upload.progress_id}")
        with upload:
            for until in range(0, len(upload.data), 2**14):
                upload.send(until)
                time.sleep(rng.random() * 0.05)  # up to 50 milliseconds
            return upload.answer()


class IdTests(ConnectionTestCase):
    def test_two_uploads_may_have_the_same_id(self):
        for number in range(2 * TIMES):
            twins = [self.make_upload(progress_id=f"twin-{number}") for _ in range(2)]
            with twins[0], twins[1]:
                for twin in twins:
                    twin.send(self.rng.randrange(len(twin.data)))
                for twin in self.rng.sample(twins, 2):
                    self.assertEqual(twin.answer().status, 200)

        self.audit("two connections send with the same id", 2 * TIMES)

    def test_the_same_photo_may_come_with_the_same_id_at_once(self):
        for _ in range(2 * TIMES):
            first = self.make_upload()
            with first, self.repeat(first) as second, ThreadPoolExecutor(2) as pool:
                for upload in (first, second):
                    upload.send(len(upload.data) - 1)
                answers = [pool.submit(upload.answer) for upload in (first, second)]
                self.assertEqual([answer.result().status for answer in answers], [200, 200])
            self.assertEqual(self.count_rows(first), 1)

        self.audit("the same photo comes twice at once, with the same id", 2 * TIMES)

    def test_a_photo_whose_answer_was_lost_is_kept_once_when_it_is_sent_again(self):
        for number in range(4 * TIMES):
            with self.make_upload() as lost:
                lost.send()
                lost.hang_up(reset=number % 2)
            with self.repeat(lost) as again:
                self.assertEqual(again.answer().status, 200)
            self.assertEqual(self.count_rows(lost), 1)

        self.audit("a photo is sent again after its answer was lost", 4 * TIMES)

    def repeat(self, upload):
        """Return a second upload of the same photo with the same id."""
        return Upload(self.ledger, self.http, self.dish, upload.content, upload.progress_id)

    def count_rows(self, upload):
        return [row["digest"] for row in self.ledger.site.read_rows()].count(upload.digest)

    def test_a_poll_from_another_address_sees_nothing(self):
        with self.upload_beside() as upload:
            for number in range(2, 10):
                self.assertIsNone(poll(self.http, upload.progress_id, source=f"127.0.0.{number}"))
            wait_for(lambda: poll(self.http, upload.progress_id))

        self.audit("the polls come from another address", 8)
