"""Granian as it is started in production: its sockets, its signals, and what it leaves: nothing."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from django.test import SimpleTestCase

from .cases import GranianTestCase
from .client import Upload, add_dish, get, poll
from .photos import photo
from .servers import ADDRESS, ROOT, Granian, Server, free_port, listens
from .waiting import wait_for

SERVICES = ("pages", "uploads")
PATHS = (
    "/",
    "/admin/login/",
    "/dishes/new",
    "/get_upload_progress?X-Progress-ID=none",
    "/healthz",
    "/menu",
)
# Print the number of buckets for futexes, or -1 where the kernel has one table for all processes.
COUNT_BUCKETS = """
import ctypes
from gourmious.serve import spread_futexes
spread_futexes(5000)
print(ctypes.CDLL(None).prctl(78, 2, 0, 0, 0))
"""
# What Python writes when it imports a module that a release may replace.
OURS = re.compile(r"^import '((?:csp|django|gourmious|uploads)\b.*?)' #", re.MULTILINE)


class FutexTests(SimpleTestCase):
    def test_the_kernel_has_a_bucket_for_each_thread(self):
        command = [sys.executable, "-c", COUNT_BUCKETS]
        output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        self.assertIn(int(output), {8192, -1})


class SocketTests(GranianTestCase):
    def test_two_services_run_beside_each_other(self):
        for server in [self.serve(service) for service in SERVICES]:
            self.assert_answers(server)

    def test_only_a_user_and_a_group_may_connect(self):
        server = self.serve("pages")

        self.assertEqual(stat.S_IMODE(server.socket.stat().st_mode), 0o660)

    def test_the_socket_that_a_killed_server_left_is_replaced(self):
        server = self.serve("pages")
        Server.stop(server)
        wait_for(lambda: not server.listens())  # Its worker takes a moment longer.
        self.assertTrue(server.socket.exists())

        server.start()

        self.assert_answers(server)


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

        self.assertIn(server.process.wait(20), {0, 1})


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
        self.assertEqual(server.process.wait(20), 0)
        self.assert_nothing_left(server)

    def test_a_server_that_ends_leaves_no_record(self):
        server, dish = self.serve_a_dish()
        upload = Upload(server.address, dish, photo(1600, 1200), "dish-1")
        self.enterContext(upload).send(200_000)
        wait_for(lambda: poll(server.address, "dish-1"))

        server.process.terminate()
        wait_for(lambda: not server.listens())
        self.assertEqual(upload.answer().status, 200)

        self.assertEqual(server.process.wait(20), 0)
        self.assertEqual(self.memcached.ask("get :1:127.0.0.1_dish-1"), "END\r\n")


class MetricsTests(GranianTestCase):
    def test_the_figures_of_uploads_are_one_port_higher(self):
        for higher, service in enumerate(SERVICES):
            port = free_port()
            self.serve(service, GOURMIOUS_METRICS_PORT=str(port - higher))
            wait_for(lambda port=port: listens(port))

            self.assertIn("granian_", get(f"{ADDRESS}:{port}", "/metrics").text)

    def test_a_port_that_is_taken_ends_the_server_with_all_its_processes(self):
        for higher, service in enumerate(SERVICES):
            taken = self.enterContext(closing(socket.create_server((ADDRESS, 0))))
            port = taken.getsockname()[1] - higher
            server = Granian(service, **self.environment, GOURMIOUS_METRICS_PORT=str(port))
            self.enterContext(server)

            self.assertNotEqual(server.process.wait(60), 0)
            self.assert_nothing_left(server)


class ImportTests(GranianTestCase):
    def test_all_modules_that_requests_need_are_imported_before_the_first_request(self):
        self.prepare()
        for service in SERVICES:
            log = self.folder / f"{service}.log"
            variables = {**self.environment, "PYTHONVERBOSE": "1"}
            with log.open("w") as file, Granian(service, file, **variables) as server:
                wait_for(lambda server=server, log=log: self.has_started(server, log))
                before = OURS.findall(log.read_text())
                self.assertIn("django.urls.resolvers", before)

                self.ask_for_everything(server, service)

                self.assertEqual(OURS.findall(log.read_text())[len(before) :], [])

    def has_started(self, server, log):
        """Tell whether the worker serves, and its renderers are through with what they import."""
        logs = [Path(f"/proc/{pid}/fd/2").readlink() for pid in server.renderers()]
        return "Started worker-1" in log.read_text() and set(logs) <= {Path("/dev/null")}

    def ask_for_everything(self, server, service):
        dish = add_dish(server.address, service)
        for path in (*PATHS, dish.get_absolute_url()):
            self.assertLess(get(server.address, path).status, 500)
        if service == "uploads":
            for content in (photo(), b"A text."):
                self.send(server, dish, content).answer()
