"""Lines that end, stall, crawl and waver, wherever in an upload they do."""

import hashlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test.client import BOUNDARY, MULTIPART_CONTENT

from tests.client import client_headers, poll
from tests.photos import photo
from tests.servers import requires
from tests.waiting import wait_for

from .rig import TIMES, Entry, FaultTestCase

# What begins at the places where a line is cut.
PARTS = (
    b"Content-Type: multipart",
    b"\r\n\r\n",
    f"--{BOUNDARY}".encode(),
    b'name="id"',
    b"1\r\n--",
    b'name="picture"',
    b"\xff\xd8\xff",
    f"\r\n--{BOUNDARY}--".encode(),
)


class LineTestCase(FaultTestCase):
    # An upload whose client is gone counts until the server is through with it.
    variables = {"GOURMIOUS_MAX_UPLOADS": "900", "GOURMIOUS_MAX_UPLOADS_PER_ADDRESS": "900"}

    def places(self, upload):
        """Return bytes of an upload at which something begins, is going on, or ends."""
        starts = [upload.data.index(part) for part in PARTS if part in upload.data]
        inside = [self.choice.randrange(len(upload.data)) for _ in range(5 * TIMES)]
        return [*starts, *(start + 1 for start in starts), *inside, len(upload.data) - 1]

    @contextmanager
    def witness(self):
        """Begin an upload, and end it well after the block, whatever happened there."""
        with self.fault_upload() as upload:
            upload.send(100_000)
            wait_for(lambda: poll(self.http, upload.progress_id))
            yield upload
            self.assertEqual(upload.answer().status, 200)


class CutTests(LineTestCase):
    def cut_everywhere(self, reset):
        places = self.places(self.fault_upload())
        for place in places:
            with self.fault_upload() as upload:
                upload.send(place)
                upload.hang_up(reset)
        return len(places)

    def test_a_line_may_end_anywhere(self):
        with self.witness():
            times = self.cut_everywhere(reset=False)

        self.audit("the line ends, anywhere in the upload", times)

    def test_a_line_may_be_reset_anywhere(self):
        with self.witness():
            times = self.cut_everywhere(reset=True)

        self.audit("the line is reset, anywhere in the upload", times)

    def test_a_line_may_end_before_the_answer(self):
        for number in range(6 * TIMES):
            with self.fault_upload() as upload:
                upload.send()
                upload.hang_up(reset=number % 2)

        self.assert_still_kept()
        self.audit("the line ends between the last byte and the answer", 6 * TIMES)

    @requires("curl")
    def test_a_line_over_http_2_may_end(self):
        content = photo(1600, 1200)
        for _ in range(2 * TIMES):
            self.cut_over_http_2(self.fault_upload(content))

        self.assert_still_kept()
        self.audit("the line ends in the middle of an upload over HTTP/2", 2 * TIMES)

    def cut_over_http_2(self, upload):
        """Kill the client when the server has received at least so much of the upload."""
        file = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")), "body")
        file.write_bytes(upload.body)
        headers = client_headers(self.https, secure=True) | {"Content-Type": MULTIPART_CONTENT}
        options = [f"-H{name}: {value}" for name, value in headers.items()]
        url = f"https://{self.https}/upload?X-Progress-ID={upload.progress_id}"
        command = ["curl", "-sk", "--http2", "--limit-rate", "800k", "--data-binary", f"@{file}"]
        least = self.choice.randrange(len(upload.body) // 2)
        with subprocess.Popen([*command, *options, url], stdout=subprocess.DEVNULL) as curl:
            wait_for(lambda: self.received(upload) > least)
            curl.kill()
        digest = hashlib.sha256(upload.content).hexdigest()
        whole = curl.returncode == 0  # the machine was so busy that it was through before
        self.ledger.note(Entry(upload.progress_id, digest, None, whole))

    def received(self, upload):
        record = poll(self.http, upload.progress_id)
        return record["uploaded"] if record else 0


class StallTests(LineTestCase):
    variables = {**LineTestCase.variables, "DJANGO_SETTINGS_MODULE": "tests.settings_small"}

    def test_a_line_may_stall_anywhere(self):
        head = self.fault_upload().data.index(b"\r\n\r\n") + 4
        places = [place for place in self.places(self.fault_upload()) if place >= head]
        with ExitStack() as stalled:
            uploads = [stalled.enter_context(self.fault_upload()) for _ in places]
            for upload, place in zip(uploads, places, strict=True):
                upload.send(place)
            ends = [upload.socket.recv(1) for upload in uploads]

        self.assertEqual(set(ends), {b""})
        self.audit("the line stalls, anywhere in the body", len(places))


class SlowTests(LineTestCase):
    def test_a_line_may_bring_one_byte_at_a_time(self):
        content = photo(8, 8)
        with self.fault_upload(content) as upload:
            for until in range(len(upload.data)):
                upload.send(until)
                if until > len(upload.data) - TIMES:
                    time.sleep(1)  # what a line of a byte a second is
            self.assertEqual(upload.answer().status, 200)

        self.audit("the line brings each byte by itself, the last ones once a second", TIMES)

    def test_a_line_may_waver(self):
        uploads = [self.fault_upload() for _ in range(8 * TIMES)]

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(self.send_wavering, uploads))

        self.assertEqual({answer.status for answer in answers}, {200})
        self.audit("the line wavers by 50 milliseconds", len(answers))

    def send_wavering(self, upload):
        with upload:
            for until in range(0, len(upload.data), 2**14):
                upload.send(until)
                time.sleep(self.choice.random() * 0.05)  # what such a line is
            return upload.answer()


class IdTests(LineTestCase):
    def test_two_uploads_may_have_the_same_id(self):
        for number in range(2 * TIMES):
            twins = [self.fault_upload(progress_id=f"twin-{number}") for _ in range(2)]
            with twins[0], twins[1]:
                for twin in twins:
                    twin.send(self.choice.randrange(len(twin.data)))
                for twin in self.choice.sample(twins, 2):
                    self.assertEqual(twin.answer().status, 200)

        self.audit("two connections send with the same id", 2 * TIMES)

    def test_the_address_of_the_polls_may_change(self):
        with self.witness() as upload:
            for number in range(2, 10):
                self.assertIsNone(poll(self.http, upload.progress_id, source=f"127.0.0.{number}"))
            self.assertIsNotNone(poll(self.http, upload.progress_id))

        self.audit("the polls come from another address", 8)
