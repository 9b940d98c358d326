"""Granian while it gets signals: no photo, no record and no process is left behind."""

import os
import re
import signal
from pathlib import Path

from tests.cases import GranianTestCase
from tests.client import Upload, poll
from tests.photos import photo
from tests.servers import Granian
from tests.waiting import wait_for

SERVICES = ("pages", "uploads")


class SignalTests(GranianTestCase):
    def assert_one_thread_waits(self, pid):
        """Assert that a process has one thread that takes SIGTERM, and no other."""
        statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
        masks = [int(re.search(r"SigBlk:\s+([0-9a-f]+)", status)[1], 16) for status in statuses]
        self.assertEqual(sum(not mask & 1 << signal.SIGTERM - 1 for mask in masks), 1)

    def test_no_thread_takes_a_signal_from_the_one_that_waits_for_it(self):
        for service in SERVICES:
            server = self.serve(service, GOURMIOUS_WORKERS="2")
            wait_for(lambda server=server: len(server.workers()) == 2)
            for pid in (server.process.pid, *server.workers()):
                self.assert_one_thread_waits(pid)

    def test_the_thread_that_replaces_a_renderer_takes_no_signal(self):
        server, dish = self.serve_a_dish()
        old = server.renderers()
        for pid in old:
            os.kill(int(pid), signal.SIGKILL)
        self.assert_gone(server, old)

        self.assertEqual(self.send(server, dish, photo()).answer().status, 200)

        self.assertFalse(set(old) & set(server.renderers()))
        [worker] = server.workers()
        self.assert_one_thread_waits(worker)

    def test_a_server_ends_even_while_it_starts(self):
        for service in SERVICES:
            for _ in range(3):
                server = Granian(service, **{**self.environment, "GOURMIOUS_WORKERS": "2"})
                self.enterContext(server)  # its second worker need not be there yet
                server.process.terminate()
                self.assertEqual(server.process.wait(60), 0)
                self.assert_nothing_left(server)

    def test_a_second_and_a_third_signal_change_nothing(self):
        server = self.serve()
        for _ in range(3):
            server.signal_workers(signal.SIGTERM)
        server.process.terminate()

        self.assertIn(server.process.wait(60), {0, 1})


class EndTests(GranianTestCase):
    def test_a_worker_that_is_killed_leaves_no_renderer_in_the_midst_of_a_photo(self):
        server, dish = self.serve_a_dish()
        old = [*server.forkservers(), *server.renderers()]
        self.send_slow_photo(server, dish)

        server.signal_workers(signal.SIGKILL)

        self.assert_gone(server, old, seconds=3)  # The photo alone would take longer.

    def test_a_worker_that_is_asked_to_end_renders_its_photo_and_leaves_no_renderer(self):
        server, dish = self.serve_a_dish()
        old = [*server.forkservers(), *server.renderers()]
        upload = self.send_slow_photo(server, dish)

        server.signal_workers(signal.SIGTERM)

        self.assertIn('<error code="too_complex"', upload.answer().text)
        self.assert_gone(server, old)

    def test_a_server_that_is_asked_to_end_renders_all_photos_that_wait_for_it(self):
        server, dish = self.serve_a_dish()
        contents = [photo(), photo(), photo(), photo()]
        with server.rendering_held_back():
            uploads = [self.send(server, dish, content) for content in contents]
            wait_for(lambda: self.incoming() >= set(map(len, contents)))
            server.process.terminate()
            wait_for(lambda: not server.listens())

        self.assertEqual([upload.answer().status for upload in uploads], [200] * 4)
        self.assertEqual(server.process.wait(60), 0)
        self.assert_nothing_left(server)

    def test_a_server_that_ends_leaves_no_record(self):
        server, dish = self.serve_a_dish()
        upload = Upload(server.address, dish, photo(1600, 1200), "dish-1")
        self.enterContext(upload).send(200_000)
        wait_for(lambda: poll(server.address, "dish-1"))

        server.process.terminate()
        wait_for(lambda: not server.listens())
        self.assertEqual(upload.answer().status, 200)

        self.assertEqual(server.process.wait(60), 0)
        self.assertEqual(self.memcached.ask("get gourmious:1:127.0.0.1_dish-1"), "END\r\n")
