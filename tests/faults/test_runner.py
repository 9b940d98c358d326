"""A run of the tests, and a stack, that are ended: no program and no folder is left."""

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from tests.client import get
from tests.processes import descendants, has_ended
from tests.servers import ADDRESS, ROOT, Program, free_port, listens, requires
from tests.stack import PROGRAMS
from tests.waiting import wait_for

from . import waiting_run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@requires("chromium", "chromedriver", *PROGRAMS)
class RunnerTests(SimpleTestCase):
    def assert_nothing_left(self, number, *labels):
        """Run tests that wait, end the run with a signal, and look for programs and folders."""
        # A short path: the address of a Unix socket has an end.
        folder = Path(self.enterContext(TemporaryDirectory(prefix="", dir="/tmp")))
        command = [sys.executable, "manage.py", "test", *labels]
        environment = {**os.environ, "TMPDIR": str(folder)}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with (
            Program(command, cwd=ROOT, env=environment, **options) as run,
            run.process.stdout as lines,
        ):
            ready = islice(filter("ready\n".__eq__, lines), len(labels))
            self.assertEqual(len(list(ready)), len(labels))
            programs = descendants(run.process.pid)
            self.assertGreater(len(programs), 5)

            run.process.send_signal(number)
            self.assertEqual(run.process.wait(60), -number)
            wait_for(lambda: all(map(has_ended, programs)))
            wait_for(lambda: not list(folder.iterdir()))

    def test_a_run_in_two_processes(self):
        labels = [f"{waiting_run.__name__}.{name}" for name in ("StackTests", "BrowserTests")]
        for number in SIGNALS:
            with self.subTest(number):
                self.assert_nothing_left(number, *labels)

    def test_a_run_in_one_process(self):
        for name in ("StackTests", "BrowserTests"):
            with self.subTest(name):
                self.assert_nothing_left(signal.SIGKILL, f"{waiting_run.__name__}.{name}")


@requires(*PROGRAMS)
class CommandTests(SimpleTestCase):
    def start(self, *arguments):
        """Start it, and return its process, and what it prints, by the servers' names."""
        command = [sys.executable, "-m", "tests.stack", *arguments]
        options = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE}
        program = Program(command, stderr=subprocess.DEVNULL, **options)
        process = self.enterContext(program).process
        self.addCleanup(process.stdout.close)
        return process, dict(process.stdout.readline().strip().split(": ") for _ in range(6))

    def test_it_says_where_it_listens_and_stops_when_it_is_told_to(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            port = free_port()
            process, lines = self.start(f"--http={port}")
            names = ["http", "https", "pages", "uploads", "memcached", "data"]
            self.assertEqual(list(lines), names)
            self.assertEqual(lines["http"], f"http://{ADDRESS}:{port}")
            wait_for(lambda port=port: get(f"{ADDRESS}:{port}", "/healthz").status == 200)
            https = lines["https"].removeprefix("https://")
            self.assertEqual(get(https, "/", secure=True).status, 200)
            process.send_signal(number)
            self.assertEqual(process.wait(30), 0)
            self.assertFalse(listens(port))
            self.assertFalse(Path(lines["data"]).exists())

    def test_no_server_outlives_it_when_it_is_killed(self):
        process, _ = self.start()
        servers = descendants(process.pid)
        self.assertGreater(len(servers), 10)

        process.kill()

        wait_for(lambda: all(map(has_ended, servers)))
