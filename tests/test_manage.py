"""manage.py reports errors of an operator in one line, without a traceback."""

import os
import subprocess
import sys
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from .buckets import describe_buckets
from .servers import ROOT, manage

CLOSED = "http://127.0.0.1:1"


class FaultTests(SimpleTestCase):
    def assert_told(self, pattern, *arguments, **environment):
        """Assert that manage.py fails, and that a line on stderr is all that it prints."""
        done = self.run_manage(*arguments, **environment)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, rf"\A{pattern}.*\.\n\Z")

    def run_manage(self, *arguments, **environment):
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            check=False,
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    def test_a_setting_that_cannot_be_used_is_told(self):
        for command in ("check", "migrate", "backup"):
            with self.subTest(command):
                pattern = "GOURMIOUS_WORKERS holds 'many'; it must be a number"
                self.assert_told(pattern, command, GOURMIOUS_WORKERS="many")

    def test_a_database_that_cannot_be_used_is_told(self):
        with TemporaryDirectory() as empty:
            pattern = "The database cannot be used: no such table: "
            self.assert_told(pattern, "clearsessions", GOURMIOUS_DATA_DIR=empty)

    def test_a_store_that_cannot_be_reached_is_told(self):
        with TemporaryDirectory() as folder:
            site = {"GOURMIOUS_DATA_DIR": folder, **describe_buckets(CLOSED, "gourmious")}
            manage("migrate", **site)

            pattern = "A file or the store cannot be used: .*Could not connect"
            self.assert_told(pattern, "prune_uploads", **site)

    def test_a_developer_can_ask_for_the_traceback(self):
        done = self.run_manage("check", "--traceback", GOURMIOUS_WORKERS="many")

        self.assertIn("Traceback", done.stderr)
        self.assertEqual(done.returncode, 1)
