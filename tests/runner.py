import logging
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import Counter
from multiprocessing import Value
from pathlib import Path

from django.conf import settings
from django.db import connection, connections
from django.test.runner import DiscoverRunner, ParallelTestSuite

from . import guardian
from .only import LOCAL, POSTGRESQL

PROCESSES = 3


class Suite(ParallelTestSuite):
    """Tests in several processes, each of which may start renderers."""

    def __init__(self, subsuites, *args, **kwargs):
        # At the end no process waits for another that has just begun such a class.
        subsuites.sort(key=takes_minutes, reverse=True)
        super().__init__(subsuites, *args, **kwargs)

    def init_worker(*arguments, **options):
        ParallelTestSuite.init_worker(*arguments, **options)
        multiprocessing.current_process().daemon = False
        guardian.end_with_parent()


def takes_minutes(subsuite):
    """Return whether the class of these tests says that it takes minutes."""
    return getattr(next(iter(subsuite)), "takes_minutes", False)


class Runner(DiscoverRunner):
    """Run the tests with a database file of their own, and with warnings as errors.

    Their classes run in several processes, since each spends much of its time waiting for servers.
    """

    parallel_test_suite = Suite

    def __init__(self, parallel=0, **kwargs):
        super().__init__(parallel=parallel or PROCESSES, **kwargs)

    def build_suite(self, test_labels=(), **kwargs):
        """Build the suite of these labels; without any, of the modules in this folder alone."""
        paths = Path(__file__).parent.glob("test_*.py")
        modules = sorted(path.stem for path in paths)
        return super().build_suite(test_labels or [f"tests.{name}" for name in modules], **kwargs)

    def setup_test_environment(self, **kwargs):
        super().setup_test_environment(**kwargs)
        # The hashes of production are meant to take long: a third of a second.
        settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
        # The refusals that the tests provoke would fill the screen.
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.CRITICAL)
        # A signal ends the run at once, and the guardian ends all else. unittest would leave
        # servers and folders.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.folder = tempfile.mkdtemp(prefix="gourmious-")
        guardian.watch(self.folder)
        os.environ["TMPDIR"] = tempfile.tempdir = self.folder

    def setup_databases(self, **kwargs):
        if connection.vendor != "sqlite":
            return super().setup_databases(**kwargs)
        # A file: SQLite in memory is one connection that all threads of a live server share.
        connection.settings_dict["TEST"]["NAME"] = Path(self.folder, "test.sqlite3")
        # Django (5.2) copies the file alone, without the write-ahead log that the tables are in.
        processes, self.parallel = self.parallel, 0
        config = super().setup_databases(**kwargs)
        self.parallel = processes
        if config and processes > 1:
            self.clone_database(processes)
        return config

    def clone_database(self, processes):
        """Give each process a database of its own."""
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(1, processes + 1):
            connection.creation.clone_test_db(str(number), self.verbosity)

    def get_test_runner_kwargs(self):
        return {**super().get_test_runner_kwargs(), "warnings": "error"}

    def run_suite(self, suite, **kwargs):
        # An exception in a destructor cannot fail a test, for example the ResourceWarning of an
        # unclosed file. Count them here.
        self.unraisable = Value("i")
        connections.close_all()  # The processes that are forked must not use them.
        previous, sys.unraisablehook = sys.unraisablehook, self.note_unraisable
        try:
            return super().run_suite(suite, **kwargs)
        finally:
            sys.unraisablehook = previous

    def note_unraisable(self, unraisable):
        with self.unraisable:
            self.unraisable.value += 1
        sys.__unraisablehook__(unraisable)

    def suite_result(self, suite, result, **kwargs):
        failures = super().suite_result(suite, result, **kwargs) + self.unraisable.value
        skipped = Counter(reason for _, reason in result.skipped)
        for reason, count in skipped.items():
            print(f"Skipped {count}: {reason}")
        # Where everything can be installed, nothing else may be skipped.
        for reason in (LOCAL, POSTGRESQL):
            skipped.pop(reason, None)
        return failures + (skipped.total() if os.environ.get("CI") == "true" else 0)
