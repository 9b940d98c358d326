"""Servers that are killed, stopped, restarted or replaced while 12 uploads run."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from random import Random
from socket import MSG_PEEK
from threading import Barrier, Event

from tests.cases import pages_requested, read_sizes
from tests.client import get, poll
from tests.photos import photo
from tests.processes import has_opened, is_stopped
from tests.servers import ROOT, Program, Server
from tests.stack import InstanceStack
from tests.waiting import wait_for

from .rig import SEED, TIMES, FaultTestCase, Ledger, StackSite

UPLOADS = 12

# The numbers of uploads that are kept, at least and at most.
ANY, ALL = (0, UPLOADS), (UPLOADS, UPLOADS)

# Removes orphaned files as soon as they are a third of a second old.
PRUNE = """
import time
from django.core.management import call_command
while True:
    call_command("prune_uploads", hours=0.0001, force=True)
    time.sleep(0.2)
"""


class PrunedSite(StackSite):
    """A site where prune_uploads runs all the time."""

    def prune(self):
        """Wait until orphaned files are removed, such as this one."""
        orphan = self.stack.data / "incoming" / "orphan.upload"
        orphan.touch()
        wait_for(lambda: not orphan.exists())


class ProcessTestCase(FaultTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ledger = Ledger(PrunedSite(cls.stack))
        cls.photo = photo(480, 360, randbytes=Random(f"{SEED} {cls.__qualname__}").randbytes)
        command = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", PRUNE]
        environment = {**os.environ, **cls.stack.environment}
        devnull = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        cls.enterClassContext(Program(command, cwd=ROOT, env=environment, **devnull))
        cls.ledger.site.prune()  # The faults begin when it runs.

    def tearDown(self):
        for server in (self.stack.pages, self.stack.uploads):
            wait_for(lambda server=server: not server.orphans())
        super().tearDown()

    def choose_place(self, upload):
        """Return where an upload waits for the fault: after its head, inside, or at its end."""
        head = upload.data.index(b"\r\n\r\n") + 4
        inside = self.rng.randrange(len(upload.data))
        return self.rng.choice([head, inside, inside, len(upload.data)])

    def strike(self, break_something, mend=lambda: None):
        """Send 12 uploads up to a place each, break something, send the rest, and mend it.

        `break_something` returns how many uploads must be kept, at least and at most.
        """
        ready, go_on = Barrier(UPLOADS + 1, timeout=60), Event()

        def send(upload, place):
            with upload:
                upload.send(place)
                ready.wait()
                go_on.wait(60)
                upload.answer()

        self.uploads = [self.make_upload() for _ in range(UPLOADS)]
        with ThreadPoolExecutor(UPLOADS) as pool:
            jobs = [pool.submit(send, upload, self.choose_place(upload)) for upload in self.uploads]
            ready.wait()
            try:
                least, most = break_something()
            finally:
                go_on.set()
            mend()
        for job in jobs:
            job.result()
        self.assert_count_kept(least, most)

    def assert_count_kept(self, least, most):
        """Assert how many of the uploads were kept."""
        replies = [upload.reply for upload in self.uploads]
        kept = sum(reply is not None and reply.status == 200 for reply in replies)
        self.assertIn(kept, range(least, most + 1), replies)

    def await_answers(self):
        """Wait until all uploads that were sent to their end are answered."""
        for upload in self.uploads:
            if upload not in self.list_unfinished():
                upload.socket.recv(1, MSG_PEEK)

    def await_all(self):
        """Wait until the app is receiving each upload, or has answered it."""
        self.await_answers()
        for upload in self.list_unfinished():
            upload.send(100_000)
            wait_for(lambda upload=upload: poll(self.http, upload.progress_id))

    def strike_often(self, fault, *break_and_mend):
        for _ in range(TIMES):
            self.strike(*break_and_mend)
            wait_for(self.is_up)
            self.assert_uploads_work()
        self.audit(f"{fault}, {UPLOADS} uploads running", TIMES, killed=True)

    def list_unfinished(self):
        """Return the uploads that were not sent to their end."""
        return [upload for upload in self.uploads if upload.sent < len(upload.data)]

    def is_up(self):
        """Return whether both services answer. GET is not allowed for uploads."""
        with suppress(OSError):
            return [get(self.http, path).status for path in ("/", "/upload")] == [200, 405]

    def kill(self, *servers):
        for server in servers:
            Server.stop(server)
        for server in servers:  # its workers may live a moment longer
            wait_for(lambda server=server: not server.listens())

    def kill_and_start(self, *servers):
        self.kill(*servers)
        for server in servers:
            server.start()

    def suspend(self, *workers):
        """Suspend some of Granian's workers."""
        for pid in workers:
            self.addCleanup(self.resume, pid)
            os.kill(int(pid), signal.SIGSTOP)
            wait_for(lambda pid=pid: is_stopped(pid))

    def resume(self, pid):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGCONT)

    def is_receiving(self, pid):
        """Return whether a worker has a photo that it has not stored yet."""
        return has_opened(pid, self.stack.data / "incoming")

    def list_receivers(self):
        return [pid for pid in self.stack.uploads.workers() if self.is_receiving(pid)]

    def kill_workers(self, count):
        """Kill some of Granian's workers, and wait until they are replaced."""
        self.kill_and_await(set(self.rng.sample(self.stack.uploads.workers(), count)))

    def kill_and_await(self, killed):
        server = self.stack.uploads
        for pid in killed:
            os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not killed & set(server.workers()))
        wait_for(lambda: len(server.workers()) == server.count)
        wait_for(self.is_up)

    def kill_renderers(self):
        """Kill all renderers. Each may be rendering a photo."""
        renderers = self.stack.uploads.renderers()
        self.kill_processes(renderers)
        return UPLOADS - len(renderers), UPLOADS

    def kill_processes(self, pids):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for(lambda: not set(pids) & set(self.stack.uploads.processes()))

    def kill_forkservers(self):
        """Kill all renderers and their forkservers. Each renderer may fail with two photos."""
        renderers = self.stack.uploads.renderers()
        self.kill_processes([*self.stack.uploads.forkservers(), *renderers])
        return UPLOADS - 2 * len(renderers), UPLOADS


class ProcessTests(ProcessTestCase):
    takes_minutes = True

    def test_a_worker_may_be_killed(self):
        self.strike_often("a worker is killed", self.kill_a_worker)

    def kill_a_worker(self):
        killed = self.rng.choice(wait_for(self.list_receivers))
        self.suspend(killed)  # it must not store a photo in the meantime
        most = UPLOADS - self.is_receiving(killed)
        least = int(self.list_receivers() not in ([], [killed]))  # nginx may have sent all to one
        self.kill_and_await({killed})
        return least, most

    def test_workers_may_be_killed_again_and_again(self):
        with self.make_upload() as upload:
            upload.send(100_000)
            for _ in range(2 * TIMES):
                self.kill_workers(2)
            self.assert_uploads_work()

        self.assertIsNone(self.stack.uploads.process.poll())
        self.audit("all workers are killed again and again", 2 * TIMES, killed=True)

    def test_the_server_of_uploads_may_be_killed(self):
        self.strike_often("the server of uploads is killed", self.kill_uploads)

    def kill_uploads(self):
        server = self.stack.uploads
        wait_for(self.list_receivers)
        self.suspend(*server.workers())
        most = UPLOADS - bool(self.list_receivers())
        self.kill_and_start(server)
        return 0, most

    def test_the_server_of_pages_may_be_killed(self):
        def kill_and_start():
            self.kill_and_start(self.stack.pages)
            return ALL

        self.strike_often("the server of pages is killed", kill_and_start)

    def test_renderers_may_be_killed(self):
        self.strike_often("all renderers are killed", self.kill_renderers)

    def test_forkservers_may_be_killed(self):
        self.strike_often("all renderers and their forkservers are killed", self.kill_forkservers)

    def test_nginx_may_be_killed(self):
        self.strike_often("nginx is killed", lambda: self.cut_off(self.stack.http))

    def test_all_may_be_killed(self):
        stack = self.stack
        servers = (stack.http, stack.pages, stack.uploads, stack.memcached)
        self.strike_often("all are killed", lambda: self.cut_off(*servers))

    def cut_off(self, *servers):
        """Kill nginx and maybe other servers: unfinished uploads lose their connections."""
        self.kill_and_start(*servers)
        return 0, UPLOADS - len(self.list_unfinished())

    def test_memcached_may_be_killed(self):
        def kill_and_start():
            self.kill_and_start(self.stack.memcached)
            return ALL

        self.strike_often("memcached is killed", kill_and_start)

    def test_memcached_may_be_down_for_a_while(self):
        memcached = self.stack.memcached

        def kill():
            self.kill(memcached)
            return ALL

        def start():
            try:
                wait_for(self.is_half_answered)
            finally:
                memcached.start()

        self.strike_often("memcached is down for a while", kill, start)

    def is_half_answered(self):
        return sum(upload.reply is not None for upload in self.uploads) >= UPLOADS / 2

    def test_the_workers_may_be_killed_while_photos_are_processed(self):
        for _ in range(TIMES):
            with self.processing_held_back():
                self.kill_while_waiting("incoming", 5)
        self.assert_uploads_work()
        self.audit("all workers are killed while photos are processed", TIMES, killed=True)

    def test_the_workers_may_be_killed_before_a_row_is_written(self):
        for _ in range(TIMES):
            with self.lock_database():
                self.kill_while_waiting("media", 10)
        self.assert_uploads_work()
        self.audit("all workers are killed before a row is written", TIMES, killed=True)

    def kill_while_waiting(self, folder, count):
        """Send five uploads, and kill all workers when a folder has this many new files."""
        with ThreadPoolExecutor(5) as pool:
            jobs = self.send_five(pool, folder, count)
            self.kill_workers(2)
        self.assertFalse(any(job.result() for job in jobs))

    def send_five(self, pool, folder, count):
        before = set(self.files(folder))
        jobs = [pool.submit(self.send_whole) for _ in range(5)]
        wait_for(lambda: self.count_filled(set(self.files(folder)) - before) >= count)
        return jobs

    def count_filled(self, files):
        """Return how many files have bytes. Files that wait for their renditions are empty."""
        return sum(size > 0 for size in read_sizes(files))

    def test_files_that_wait_for_their_row_are_not_pruned(self):
        with ThreadPoolExecutor(5) as pool:
            with self.lock_database():
                jobs = self.send_five(pool, "media", 10)
                for _ in range(2):  # the second time, one run of prune_uploads is complete
                    self.ledger.site.prune()
            self.assertTrue(all(job.result() for job in jobs))

        self.audit("prune_uploads runs while uploads wait for their rows", 5, killed=True)

    def send_whole(self):
        """Send an upload, and return whether it was kept."""
        with self.make_upload() as upload:
            answer = upload.answer()
            return answer is not None and answer.status == 200

    def test_the_workers_may_be_killed_right_after_an_answer(self):
        for _ in range(TIMES):
            with self.make_upload() as upload:
                upload.send()
                upload.socket.recv(1, MSG_PEEK)  # before the client has read it
                self.kill_workers(2)
                self.assertEqual(upload.answer().status, 200)
        self.audit("all workers are killed right after an answer", TIMES, killed=True)

    def test_memcached_may_hang(self):
        with ExitStack() as hung:

            def hang():
                hung.enter_context(self.stack.memcached.hung())
                return ALL

            self.strike(hang)

        self.audit(f"memcached hangs, {UPLOADS} uploads running", 1, killed=True)

    def test_a_worker_may_be_suspended_for_a_while(self):
        self.strike_often(
            "a worker is suspended for a while", self.suspend_a_worker, self.resume_the_worker
        )

    def suspend_a_worker(self):
        self.await_answers()  # a suspended worker would never answer them
        self.awaited = self.list_unfinished()
        # nginx may have sent all uploads to one worker: suspend the other.
        other = self.rng.choice(wait_for(self.list_receivers))
        [self.suspended] = set(self.stack.uploads.workers()) - {other}
        self.suspend(self.suspended)
        return ALL

    def resume_the_worker(self):
        """Resume the worker when the other has answered an upload."""
        wait_for(lambda: any(upload.reply for upload in self.awaited))
        self.resume(self.suspended)

    def test_nginx_may_be_reloaded(self):
        nginx = self.stack.http
        for _ in range(TIMES):
            old = set(nginx.workers())
            self.strike(lambda old=old: self.reload(nginx, old))
            wait_for(lambda old=old: not old & set(nginx.workers()), 60)
            self.assert_uploads_work()
        self.audit(f"nginx is reloaded, {UPLOADS} uploads running", TIMES, killed=True)

    def reload(self, nginx, old):
        nginx.reload()
        wait_for(lambda: set(nginx.workers()) - old)
        return ALL

    def test_the_server_of_uploads_may_be_asked_to_end(self):
        self.end_often("the server of uploads", self.stack.uploads, ALL)

    def test_the_server_of_pages_may_be_asked_to_end(self):
        self.end_often("the server of pages", self.stack.pages, ALL)

    def test_nginx_may_be_asked_to_end(self):
        self.end_often("nginx", self.stack.http, ANY)

    def end_often(self, name, server, kept):
        def end():
            self.await_all()  # nginx must have passed on each upload before the server ends
            server.process.terminate()
            return kept

        for _ in range(TIMES):
            self.addCleanup(server.process.wait)
            self.strike(end)
            server.process.wait(60)
            server.start()
            wait_for(self.is_up)
            self.assert_uploads_work()
        self.audit(f"{name} is asked to end, {UPLOADS} uploads running", TIMES, killed=True)


class TakeoverTests(ProcessTestCase):
    """Another deployment takes over on the same sockets while 12 uploads run."""

    stack_class = InstanceStack

    def test_another_server_of_uploads_may_take_over(self):
        self.take_over_often("uploads")

    def test_another_server_of_pages_may_take_over(self):
        self.take_over_often("pages")

    def take_over_often(self, service):
        for _ in range(TIMES):
            old = getattr(self.stack, service)
            with pages_requested(self, self.http):
                self.strike(lambda: self.take_over(service))
                self.assertEqual(old.process.wait(60), 0)
            wait_for(lambda old=old: not old.processes())
            self.assert_uploads_work()
        what = f"another server of {service} takes over, {UPLOADS} uploads running"
        self.audit(what, TIMES, killed=True)

    def take_over(self, service):
        old, new = getattr(self.stack, service), self.stack.start_instance(service)
        setattr(self.stack, service, new)
        old.process.terminate()
        return ALL


class StormTests(ProcessTestCase):
    """Servers are killed at any moment, while uploads come and go without a pause."""

    def test_servers_may_be_killed_at_any_moment(self):
        self.photo = photo(160, 120, randbytes=self.rng.randbytes)
        stack = self.stack
        servers = (stack.http, stack.pages, stack.uploads, stack.memcached)
        faults = [partial(self.kill_workers, count) for count in (1, 2)]
        faults += [partial(self.kill_and_start, server) for server in servers]
        faults += [self.kill_renderers, self.kill_forkservers]
        for _ in range(TIMES):
            for fault in self.rng.sample(faults, len(faults)):
                with self.storm():
                    fault()
                    wait_for(self.is_up)
                self.assert_uploads_work()
        self.audit("a server is killed at any moment", TIMES * len(faults), killed=True)

    @contextmanager
    def storm(self):
        """Upload without a pause while the block runs. It begins and ends at a random moment."""
        ended = Event()
        with ThreadPoolExecutor(UPLOADS) as pool:
            generators = [Random(self.rng.random()) for _ in range(UPLOADS)]
            jobs = [pool.submit(self.send_until, ended, rng) for rng in generators]
            try:
                self.wait_for_some()
                yield
                self.wait_for_some()
            finally:
                ended.set()
        for job in jobs:
            job.result()

    def send_until(self, ended, rng):
        while not ended.is_set():
            with suppress(OSError), self.make_upload(rng=rng) as upload:
                if rng.random() < 0.2:
                    upload.send(rng.randrange(len(upload.data)))
                else:
                    upload.answer()

    def wait_for_some(self):
        """Wait until a random number of uploads has ended."""
        count = len(self.ledger.entries) + self.rng.randrange(2 * UPLOADS)
        wait_for(lambda: len(self.ledger.entries) > count, 60)
