"""Servers that are killed, stopped, restarted and reloaded while twenty uploads run."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import Barrier, Event

from tests.client import get, poll
from tests.photos import photo
from tests.servers import ROOT, Server, listens
from tests.waiting import wait_for

from .rig import TIMES, FaultTestCase

UPLOADS = 20

# Every file that no upload holds and that is of no row is removed as soon as it is this old.
PRUNE = """
import time
from django.core.management import call_command
while True:
    call_command("prune_uploads", hours=0.0001, force=True)
    time.sleep(0.1)
"""


class ProcessTestCase(FaultTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        command = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", PRUNE]
        environment = {**os.environ, **cls.stack.environment}
        devnull = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        prune = subprocess.Popen(command, cwd=ROOT, env=environment, **devnull)
        cls.addClassCleanup(prune.wait)
        cls.addClassCleanup(prune.kill)

    def setUp(self):
        super().setUp()
        self.assert_pruned()

    def tearDown(self):
        self.assert_pruned()
        super().tearDown()

    def assert_pruned(self):
        """Assert that prune_uploads is at work: what belongs to nobody is gone at once."""
        left = self.stack.data / "incoming" / "left.upload"
        left.touch()
        wait_for(lambda: not left.exists())

    def place(self, upload):
        """Return where an upload waits for the fault: in its head, its body, or at its end."""
        head = upload.data.index(b"\r\n\r\n") + 4
        inside = self.choice.randrange(len(upload.data))
        return self.choice.choice([head, inside, inside, len(upload.data)])

    def strike(self, break_something):
        """Let twenty uploads come to a place each, break something, and let them go on.

        Return those that were kept.
        """
        ready, go_on = Barrier(UPLOADS + 1, timeout=60), Event()

        def send(upload, place):
            with upload:
                upload.send(place)
                ready.wait()
                go_on.wait(60)
                upload.answer()

        uploads = [self.fault_upload() for _ in range(UPLOADS)]
        with ThreadPoolExecutor(UPLOADS) as pool:
            jobs = [pool.submit(send, upload, self.place(upload)) for upload in uploads]
            ready.wait()
            break_something()
            go_on.set()
        for job in jobs:
            job.result()
        self.replies = [upload.reply for upload in uploads]
        return [reply for reply in self.replies if reply and reply.status == 200]

    def strike_often(self, fault, break_something, least=0):
        """Do that some times; each time no fewer than the least number must be kept."""
        for _ in range(TIMES):
            kept = self.strike(break_something)
            self.assertGreaterEqual(len(kept), least, self.replies)
            wait_for(self.is_up)
            self.assert_still_kept()
        self.audit(f"{fault}, {UPLOADS} uploads running", TIMES, killed=True)

    def is_up(self):
        with suppress(OSError):
            return get(self.http, "/").status == 200

    def kill(self, *servers):
        for server in servers:
            Server.stop(server)
        for server in servers:  # the workers may take a moment longer than their parent
            wait_for(lambda server=server: not listens(server.port))

    def kill_and_start(self, *servers):
        self.kill(*servers)
        for server in servers:
            server.start()

    def kill_workers(self, count):
        """Kill some of Granian's workers, and wait until there are others."""
        granian = self.stack.granian
        workers = granian.workers()
        killed = set(self.choice.sample(workers, count))
        for pid in killed:
            os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not killed & set(granian.workers()))
        wait_for(lambda: len(granian.workers()) == len(workers))
        wait_for(self.is_up)


class ProcessTests(ProcessTestCase):
    def test_a_worker_may_be_killed(self):
        self.strike_often("a worker is killed", lambda: self.kill_workers(1))

    def test_workers_may_be_killed_again_and_again(self):
        with self.fault_upload() as upload:
            upload.send(100_000)
            for _ in range(3 * TIMES):
                self.kill_workers(2)
            self.assert_still_kept()

        self.assertIsNone(self.stack.granian.process.poll())
        self.audit("all workers are killed again and again", 3 * TIMES, killed=True)

    def test_granian_may_be_killed(self):
        granian = self.stack.granian
        self.strike_often("Granian is killed", lambda: self.kill_and_start(granian))

    def test_nginx_may_be_killed(self):
        nginx = self.stack.http
        self.strike_often("nginx is killed", lambda: self.kill_and_start(nginx))

    def test_memcached_may_be_killed(self):
        memcached = self.stack.memcached
        self.strike_often(
            "memcached is killed", lambda: self.kill_and_start(memcached), least=UPLOADS
        )

    def test_all_may_be_killed(self):
        servers = (self.stack.http, self.stack.granian, self.stack.memcached)
        self.strike_often("all are killed", lambda: self.kill_and_start(*servers))

    def test_the_workers_may_be_killed_while_photos_are_processed(self):
        for _ in range(TIMES):
            with self.processing_held_back(), ThreadPoolExecutor(5) as pool:
                before = len(self.files("incoming"))
                jobs = [pool.submit(self.send_whole) for _ in range(5)]
                wait_for(lambda before=before: len(self.files("incoming")) >= before + 5)
                self.kill_workers(2)
            self.assertFalse(any(job.result() for job in jobs))
        self.assert_still_kept()
        self.audit("all workers are killed while photos are processed", TIMES, killed=True)

    def send_whole(self):
        """Send an upload, and tell whether it was kept."""
        with self.fault_upload() as upload:
            answer = upload.answer()
            return answer is not None and answer.status == 200

    def test_the_workers_may_be_killed_right_after_an_answer(self):
        for _ in range(TIMES):
            self.assert_still_kept()
            self.kill_workers(2)
        self.audit("all workers are killed right after an answer", TIMES, killed=True)

    def test_memcached_may_hang(self):
        with ExitStack() as hung:
            kept = self.strike(lambda: hung.enter_context(self.stack.memcached.hung()))

        self.assertEqual(len(kept), UPLOADS, self.replies)
        self.audit(f"memcached hangs, {UPLOADS} uploads running", 1, killed=True)

    def test_a_worker_may_stop_for_a_while(self):
        def stop_and_go_on():
            pid = int(self.choice.choice(self.stack.granian.workers()))
            os.kill(pid, signal.SIGSTOP)
            try:
                for number in range(100):
                    poll(self.http, f"none-{number}")
            finally:
                os.kill(pid, signal.SIGCONT)

        self.strike_often("a worker is stopped for a while", stop_and_go_on, least=UPLOADS)

    def test_granian_may_be_reloaded(self):
        self.reload_often("Granian", self.stack.granian)

    def test_nginx_may_be_reloaded(self):
        self.reload_often("nginx", self.stack.http)

    def reload_often(self, name, server):
        for _ in range(TIMES):
            old = set(server.workers())
            kept = self.strike(lambda old=old: self.reload(server, old))
            self.assertEqual(len(kept), UPLOADS, self.replies)
            # Until the old ones have ended Granian replaces none that dies.
            wait_for(lambda old=old: not old & set(server.workers()), 60)
            self.assert_still_kept()
        self.audit(f"{name} is reloaded, {UPLOADS} uploads running", TIMES, killed=True)

    def reload(self, server, old):
        server.reload()
        wait_for(lambda: set(server.workers()) - old)

    def test_granian_may_be_asked_to_end(self):
        self.end_often("Granian", self.stack.granian)

    def test_nginx_may_be_asked_to_end(self):
        self.end_often("nginx", self.stack.http)

    def end_often(self, name, server):
        for _ in range(TIMES):
            process = server.process
            self.addCleanup(process.wait)
            self.strike(process.terminate)
            process.wait(60)
            server.start()
            wait_for(self.is_up)
            self.assert_still_kept()
        self.audit(f"{name} is asked to end, {UPLOADS} uploads running", TIMES, killed=True)


class StormTests(ProcessTestCase):
    """Servers are killed while uploads come and go without a pause, wherever each of them is."""

    def test_servers_may_be_killed_at_any_moment(self):
        self.photo = photo(160, 120)
        servers = (self.stack.http, self.stack.granian, self.stack.memcached)
        faults = [partial(self.kill_workers, count) for count in (1, 2)]
        faults += [partial(self.kill_and_start, server) for server in servers]
        for _ in range(TIMES):
            for fault in self.choice.sample(faults, len(faults)):
                with self.storm():
                    fault()
                    wait_for(self.is_up)
                self.assert_still_kept()
        self.audit("a server is killed at any moment", TIMES * len(faults), killed=True)

    @contextmanager
    def storm(self):
        """Upload all the while; the block begins and ends at some moment of it."""
        ended = Event()
        with ThreadPoolExecutor(UPLOADS) as pool:
            jobs = [pool.submit(self.send_until, ended) for _ in range(UPLOADS)]
            try:
                self.wait_for_some()
                yield
                self.wait_for_some()
            finally:
                ended.set()
        for job in jobs:
            job.result()

    def send_until(self, ended):
        while not ended.is_set():
            with suppress(OSError), self.fault_upload() as upload:
                if self.choice.random() < 0.2:
                    upload.send(self.choice.randrange(len(upload.data)))
                else:
                    upload.answer()

    def wait_for_some(self):
        """Wait until a number of uploads more have come to their end."""
        count = len(self.ledger.entries) + self.choice.randrange(2 * UPLOADS)
        wait_for(lambda: len(self.ledger.entries) > count, 60)
