"""Granian as it is started in production: how it hears signals."""

import re
import signal
from pathlib import Path

from django.test import SimpleTestCase

from .base import FoldersMixin
from .servers import Granian, requires
from .test_settings import PRODUCTION


@requires("memcached")
class SignalTests(FoldersMixin, SimpleTestCase):
    def serve(self):
        environment = {**PRODUCTION, "GOURMIOUS_DATA_DIR": str(self.folder)}
        return self.enterContext(Granian(**environment, GOURMIOUS_WORKERS="2"))

    def blocked(self, pid):
        """Return the masks of blocked signals of a process's threads."""
        statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
        return [int(re.search(r"SigBlk:\s+([0-9a-f]+)", status)[1], 16) for status in statuses]

    def test_no_thread_takes_a_signal_from_the_one_that_waits_for_it(self):
        server = self.serve()

        for pid in (server.process.pid, *server.workers()):
            waiting = [mask for mask in self.blocked(pid) if not mask & 1 << signal.SIGTERM - 1]
            self.assertEqual(len(waiting), 1)

    def test_a_server_ends_even_while_it_starts(self):
        for _ in range(3):
            server = self.serve()  # its second worker need not be there yet
            server.process.terminate()
            self.assertEqual(server.process.wait(20), 0)

    def test_a_second_and_a_third_signal_change_nothing(self):
        server = self.serve()
        for _ in range(3):
            server.signal_workers(signal.SIGTERM)
        server.process.terminate()

        self.assertIn(server.process.wait(20), {0, 1})
