"""PostgreSQL, S3 or a memcached is stopped or hangs while diners upload."""

from contextlib import contextmanager
from functools import partial

from tests.client import poll
from tests.waiting import wait_for

from .rig import ClusterTestCase

UPLOADS = 8


@contextmanager
def away(server):
    """Stop a server, and start it again when the block ends."""
    server.stop()
    try:
        yield
    finally:
        server.start()


class ServiceTests(ClusterTestCase):
    def strike(self, fault, breaking, count=UPLOADS):
        """Break something while photos are half sent; mend it when so many diners were told.

        The page then sends the photos again.
        """
        with self.uploading(UPLOADS), breaking:
            before = len(self.ledger.entries)
            self.go_on()
            wait_for(lambda: len(self.ledger.entries) >= before + count, 60)
            told = self.ledger.entries[before : before + count]
        self.cluster.await_hosts(2)

        self.assert_all_kept()
        self.assertEqual({entry.answer.status for entry in told}, {503})
        codes = {error.get("code") for entry in told for error in entry.upload.iter("error")}
        self.assertEqual(codes, {"server_error"})
        waits = [second.started - first.started for first, second, *_ in self.list_repeated()]
        note = f"503, second try after {max(waits):.0f} s"
        self.audit(f"{fault}, {UPLOADS} uploads running", 1, killed=True, note=note)

    def list_repeated(self):
        return [attempts for attempts in self.attempts if len(attempts) > 1]

    def test_postgresql_may_be_stopped(self):
        self.strike("PostgreSQL is stopped", away(self.cluster.postgresql))

    def test_postgresql_may_hang(self):
        self.strike("PostgreSQL hangs", self.cluster.postgresql.hung(), 1)

    def test_the_store_may_be_stopped(self):
        self.strike("S3 is stopped", away(self.cluster.store))

    def test_the_store_may_hang(self):
        self.strike("S3 hangs", self.cluster.store.hung())

    def test_each_memcached_may_be_stopped_or_hang(self):
        for host in self.hosts:
            for breaking in (partial(away, host.memcached), host.memcached.hung):
                with self.uploading(UPLOADS), breaking():
                    self.go_on()
                    wait_for(lambda: poll(self.address, "none", secure=True) is None)
                self.assert_all_kept()
                self.assertEqual({len(attempts) for attempts in self.attempts}, {1})
        fault = f"each memcached is stopped, and hangs, {UPLOADS} uploads running"
        self.audit(fault, 4, killed=True, note="200")
