"""A host vanishes: its packets are lost, and nothing tells that a connection has ended."""

import os
import time
import unittest
from contextlib import suppress

from tests.client import get, poll
from tests.servers import requires
from tests.waiting import wait_for

from .rig import Cluster, ClusterTestCase, Namespace

UPLOADS = 8


@requires("ip")
@unittest.skipIf(os.geteuid(), "Only root makes network namespaces.")
class VanishingTests(ClusterTestCase):
    @classmethod
    def make_cluster(cls):
        cls.namespace = cls.enterClassContext(Namespace())
        return Cluster(cls.namespace)

    def test_a_host_may_vanish(self):
        host = self.hosts[1]
        with self.uploading(UPLOADS):
            vanished = time.monotonic()
            with self.namespace.cut_off():
                self.go_on()
                early = [self.measure_page() for _ in range(10)]
                self.cluster.await_hosts(1)
                late = [self.measure_page() for _ in range(10)]
                polls = [self.measure_poll() for _ in range(20)]
                wait_for(lambda: len(self.ledger.entries) >= UPLOADS)
                host.kill()  # It had no power, and has forgotten all of its connections.
            host.start()
        self.cluster.await_hosts(2)

        self.assert_all_kept()
        self.assertEqual({status for status, _ in late}, {200})
        retries = [attempts[1].started for attempts in self.attempts if len(attempts) > 1]
        longest = max(retries) - vanished
        self.assertLess(longest, 10)
        note = (
            f"second try after {longest:.1f} s; {self.list_first_statuses()}; "
            f"pages meanwhile {early}, later {max(late)[1]:.1f} s, polls {max(polls):.2f} s"
        )
        self.audit(f"a host vanishes, {UPLOADS} uploads running", 1, killed=True, note=note)

    def measure_page(self):
        """Return the status of a page, or None if the connection ended, and the wait."""
        start, status = time.monotonic(), None
        with suppress(OSError):
            status = get(self.address, "/", secure=True).status
        return status, time.monotonic() - start

    def measure_poll(self):
        start = time.monotonic()
        self.assertIsNone(poll(self.address, "none", secure=True))
        return time.monotonic() - start
