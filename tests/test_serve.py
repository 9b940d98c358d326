"""Granian as it is started in production: its sockets, its signals, and what it leaves: nothing."""

import hashlib
import re
import socket
import stat
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

from django.test import SimpleTestCase

from gourmious.serve import wait_until_threads_sleep

from .cases import GranianTestCase
from .client import add_dish, get
from .photos import photo
from .servers import ADDRESS, ROOT, Granian, Server, free_port, listens, prepare_data
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
# The line that Python writes for each import of a module that a release may replace.
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


class ThreadTests(SimpleTestCase):
    def test_it_waits_until_a_thread_that_works_sleeps(self):
        work = partial(hashlib.pbkdf2_hmac, "sha256", b"", b"", 5_000_000)  # without the GIL
        thread = threading.Thread(target=work)
        thread.start()

        wait_until_threads_sleep()

        thread.join(0.2)  # It would work for seconds.
        self.assertFalse(thread.is_alive())

    def test_it_does_not_wait_for_a_thread_that_sleeps(self):
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()

        wait_until_threads_sleep()

        self.assertTrue(thread.is_alive())
        end.set()
        thread.join()


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
        prepare_data(self.folder)
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
