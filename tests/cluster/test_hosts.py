"""Two hosts at work together: one is killed or replaced, or deletes what the other receives."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

from tests.cases import pages_requested
from tests.client import get, poll
from tests.faults.rig import recolour
from tests.servers import manage
from tests.waiting import wait_for

from .rig import PRUNE, ClusterTestCase

UPLOADS = 8
DELETE_DISH = "from uploads.models import Dish; Dish.objects.get(pk={}).delete()"


class HostTests(ClusterTestCase):
    def test_an_upload_to_one_host_is_polled_through_the_other(self):
        first, second = (host.http.address for host in self.hosts)
        with self.make_upload(address=first) as upload:
            upload.send(200_000)
            record = wait_for(lambda: poll(second, upload.progress_id))
            self.assertEqual(record["length"], upload.length)
            self.assertEqual(upload.answer().status, 200)

        self.assertIsNone(poll(second, upload.progress_id))
        self.audit("an upload to one host is polled through the other", 1)

    def test_no_level_believes_what_a_client_says_of_its_address(self):
        forged = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
        for address, options in (
            (None, {"source": "127.0.0.5"}),
            (self.hosts[0].http.address, {"source": "127.0.0.6"}),
            (self.hosts[1].http.address, {"source": "127.0.0.7"}),
        ):
            with self.make_upload(address=address, headers=forged, **options) as upload:
                upload.send(200_000)
                key = f"gourmious:1:{options['source']}_{upload.progress_id}"
                wait_for(lambda key=key: self.is_recorded(key))
                self.assertEqual(upload.answer().status, 200)

    def is_recorded(self, key):
        return any("uploaded" in host.memcached.ask(f"get {key}") for host in self.hosts)

    def test_a_host_may_be_killed(self):
        host = self.hosts[0]
        with self.uploading(UPLOADS):
            killed = time.monotonic()
            host.kill()
            self.go_on()
        host.start()
        self.cluster.await_hosts(2)

        self.assert_all_kept()
        retries = [attempts[1].started for attempts in self.attempts if len(attempts) > 1]
        self.assertTrue(retries)
        longest = max(retries) - killed
        self.assertLess(longest, 10)
        note = f"second try after {longest:.1f} s; {self.list_first_statuses()}"
        self.audit(f"a host is killed, {UPLOADS} uploads running", 1, killed=True, note=note)

    def test_equal_photos_through_both_hosts_are_kept_once(self):
        content = recolour(self.photo, self.rng)

        def send(number):
            with self.make_upload(content, self.hosts[number % 2].http.address) as upload:
                return upload.answer().status

        # nginx allows 30 at once from an address, and all may be on one host. It counts a request
        # until a moment after its answer.
        with ThreadPoolExecutor(20) as pool:
            statuses = list(pool.map(send, range(200)))

        self.assertEqual(set(statuses), {200})
        rows = [row for row in self.ledger.site.read_rows() if row["dish_id"] == self.dish.pk]
        self.assertEqual(len(rows), 1)
        self.audit("200 equal photos arrive at both hosts at once", 200, note="one row")

    def test_a_release_rolls_over_both_hosts(self):
        old = [server.process.pid for host in self.hosts for server in (host.pages, host.uploads)]
        with (
            pages_requested(self, self.address, clients=2, pause=0.05, secure=True),
            self.uploading_on(2) as answers,
        ):
            for number, host in enumerate(self.hosts, 1):
                self.balancer.ask(f"set server pages/host{number} state drain")
                wait_for(lambda: len(self.balancer.list_up()) == 1)
                host.pages.stop()
                host.uploads.stop()
                if number == 1:
                    manage("migrate", **host.environment)
                host.pages.start()
                host.uploads.start()
                self.balancer.ask(f"set server pages/host{number} state ready")
                self.cluster.await_hosts(2)
        new = [server.process.pid for host in self.hosts for server in (host.pages, host.uploads)]

        self.assertFalse(set(old) & set(new))
        self.assertEqual(set(answers), {200})
        note = f"{len(answers)} uploads, none sent twice"
        self.audit("a release rolls over both hosts under load", 1, note=note)

    @contextmanager
    def uploading_on(self, clients):
        """Upload without a pause; yield the list of the statuses."""
        ended, statuses = threading.Event(), []

        def send(rng):
            while not ended.is_set():
                with self.make_upload(recolour(self.photo, rng)) as upload:
                    answer = upload.answer()
                statuses.append(answer and answer.status)

        with ThreadPoolExecutor(clients) as pool:
            jobs = [pool.submit(send, Random(self.rng.random())) for _ in range(clients)]
            try:
                yield statuses
            finally:
                ended.set()
        for job in jobs:
            job.result()

    def test_a_dish_may_be_deleted_on_one_host_while_photos_for_it_arrive_on_the_other(self):
        first, second = self.hosts
        with self.uploading(UPLOADS):
            manage("shell", "-c", DELETE_DISH.format(self.dish.pk), **first.environment)
            self.go_on()

        self.assertEqual({attempts[-1].status for attempts in self.attempts}, {404})
        self.assertEqual(get(second.http.address, self.dish.path).status, 404)
        self.audit(f"a dish is deleted on one host, {UPLOADS} photos for it arrive", 1)

    def test_both_hosts_may_prune_at_once(self):
        with self.uploading(UPLOADS):
            self.go_on()
            self.prune_on_both("prune_uploads", "--hours=1")
        self.assert_all_kept()

        self.ledger.site.put_orphans(50)
        self.prune_on_both("shell", "-c", PRUNE)
        self.audit(f"both hosts prune at once, {UPLOADS} uploads running, 50 orphaned files", 1)

    def prune_on_both(self, *command):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda host: manage(*command, **host.environment), self.hosts))
