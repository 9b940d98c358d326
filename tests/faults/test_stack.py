"""The whole stack: servers that take over, renderers that die, and a client that sends the most."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from gourmious.settings import CORES
from tests.base import upload_file
from tests.bombs import jpeg_of_scans
from tests.cases import StackTestCase, pages_requested
from tests.client import Upload, client_headers, connect, get, get_answer, poll
from tests.photos import photo
from tests.processes import has_mapped
from tests.servers import Server
from tests.stack import InstanceStack
from tests.waiting import wait_for


class TakeoverTests(StackTestCase):
    """A deployment takes over from another, on the same sockets."""

    stack_class = InstanceStack

    def test_connections_wait_while_the_server_of_pages_starts_again(self):
        server = self.stack.pages
        with pages_requested(self, self.http):
            server.process.terminate()
            self.assertEqual(server.process.wait(60), 0)
            server.start()

        self.assertEqual(get(self.http, "/").status, 200)

    def test_connections_wait_while_the_server_of_pages_that_was_killed_starts_again(self):
        server = self.stack.pages
        Server.stop(server)
        with ThreadPoolExecutor(10) as pool:
            pages = [pool.submit(get, self.http, "/") for _ in range(10)]
            server.start()

        self.assertEqual({page.result().status for page in pages}, {200})

    def test_another_server_of_pages_takes_over_and_no_page_fails(self):
        old = self.stack.pages
        with pages_requested(self, self.http):
            self.stack.pages = self.stack.start_instance("pages")
            old.process.terminate()
            self.assertEqual(old.process.wait(60), 0)

        self.assertEqual(get(self.http, "/").status, 200)

    def test_another_server_of_uploads_takes_over_and_the_old_one_finishes_its_uploads(self):
        old, uploads = self.stack.uploads, self.uploads(10)

        self.stack.uploads = self.stack.start_instance("uploads")
        old.process.terminate()
        wait_for(lambda: "Shutting down granian" in self.log.read_text())
        later = self.uploads(2)
        for upload in later:
            self.assert_kept(upload)
        self.assertIsNone(old.process.poll())
        for upload in uploads:
            self.assert_kept(upload)

        self.assertEqual(old.process.wait(60), 0)
        wait_for(lambda: not old.processes())


class EndTests(StackTestCase):
    def test_a_server_that_is_asked_to_end_finishes_its_uploads(self):
        server = self.stack.uploads
        uploads = self.uploads(3)
        ids = [upload.progress_id for upload in uploads]

        server.process.terminate()
        wait_for(lambda: get(self.http, "/upload").status == 502)
        wait_for(lambda: all(poll(self.http, progress_id) for progress_id in ids))
        for upload in uploads:
            self.assert_kept(upload)

        self.assertEqual(server.process.wait(60), 0)
        self.assertFalse(any(poll(self.http, progress_id) for progress_id in ids))
        server.start()
        self.assert_kept(self.uploads(1)[0])

    def test_pages_that_are_down_disturb_no_upload(self):
        server = self.stack.pages
        uploads = self.uploads(2)

        server.process.terminate()
        self.assertEqual(server.process.wait(60), 0)
        self.assertEqual(get(self.http, "/").status, 502)
        for upload in uploads:
            self.assert_kept(upload)

        server.start()
        self.assertEqual(get(self.http, "/").status, 200)


class RendererTests(StackTestCase):
    def test_one_that_dies_costs_its_one_photo_and_is_replaced(self):
        content = jpeg_of_scans()
        # Granian logs this after a worker serves; there are two of each service.
        wait_for(lambda: self.log.read_text().count("Started worker-") == 4)
        for number, code in (
            (signal.SIGABRT, "damaged"),
            (signal.SIGBUS, "damaged"),
            (signal.SIGSEGV, "damaged"),
            (signal.SIGKILL, "too_complex"),  # by the kernel, when memory has run out
        ):
            with self.subTest(code):
                logged, others = len(self.log.read_text()), self.uploads(4)
                upload = Upload(self.http, self.dish, content + bytes([number]))
                self.enterContext(upload).send()
                [renderer] = wait_for(self.renderers_at_work)
                before = set(self.stack.uploads.renderers())
                os.kill(int(renderer), number)

                answer = upload.answer()
                self.assertEqual(answer.status, 415)
                self.assertIn(f'<error code="{code}" file="dish.jpg">', answer.text)
                for other in others:
                    self.assert_kept(other)
                self.assertEqual(len(set(self.stack.uploads.renderers()) - before), 1)
                lines = self.log.read_text()[logged:].splitlines()
                self.assertEqual([json.loads(line)["event"] for line in lines], ["upload"] * 5)

    def renderers_at_work(self):
        incoming = self.stack.data / "incoming"
        return [pid for pid in self.stack.uploads.renderers() if has_mapped(pid, incoming)]


class FairnessTests(StackTestCase):
    forms = 10 + 5 * CORES  # A queue without turns would render as many photos first.
    limits = ("GOURMIOUS_MAX_UPLOADS", "GOURMIOUS_MAX_UPLOADS_PER_ADDRESS")
    variables = {"GOURMIOUS_WORKERS": "1", **dict.fromkeys(limits, str(forms + 1))}

    def send_form(self, source, *contents):
        """Send a form with these photos, and return its connection, on which the answer comes."""
        files = [upload_file(content) for content in contents]
        body = encode_multipart(BOUNDARY, {"id": self.dish.pk, "picture": files})
        connection = self.enterContext(closing(connect(self.http, source=source)))
        headers = {**client_headers(self.http), "Content-Type": MULTIPART_CONTENT}
        connection.request("POST", "/upload", body, headers)
        return connection

    def test_a_photo_is_rendered_before_most_of_what_another_address_sent_earlier(self):
        slow, small = jpeg_of_scans(count=100, side=1000), photo(20, 20)
        with self.processing_held_back():
            crowd = [
                self.send_form("127.0.0.2", *(slow + b"%4d%d" % (form, file) for file in range(2)))
                for form in range(self.forms)
            ]
            wait_for(lambda: self.count_incoming(len(slow) + 5) == 2 * self.forms)
            mine = self.send_form("127.0.0.3", small)
            wait_for(lambda: self.count_incoming(len(small)) == 1)

        self.assertEqual(get_answer(mine).status, 200)
        self.assertLess(len(self.files("originals")), self.forms / 2)
        self.assertEqual({get_answer(connection).status for connection in crowd}, {200})
