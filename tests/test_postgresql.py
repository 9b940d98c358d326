"""The backend of PostgreSQL, and the answers of the app when a real server fails."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from unittest import skipUnless

from django.db import DatabaseError, connection
from django.test import SimpleTestCase

from gourmious.postgresql.base import DatabaseWrapper
from gourmious.postgresql.url import read_url

from .cases import PHOTO, GranianTestCase
from .client import Upload, get
from .faults.test_disk import can_mount, mount
from .servers import PostgreSQL, manage, requires
from .waiting import wait_for

IS_ROOT = os.geteuid() == 0

# Python calls these functions in the reverse order.
USE_POOL = """
import atexit
atexit.register(lambda: print(connection.pool.closed))
import django
django.setup()
from django.db import connection
connection.ensure_connection()
"""


# A commit with synchronous_commit = on waits for a standby that never comes.
WITHOUT_STANDBY = {"synchronous_standby_names": "nobody", "synchronous_commit": "local"}


class ServerMixin:
    """A server for all tests of a class, with a database that has the tables of the app."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.enterClassContext(PostgreSQL(**WITHOUT_STANDBY))
        manage("migrate", GOURMIOUS_DATABASE_URL=cls.server.create_database("tables"))

    def setUp(self):
        super().setUp()
        self.database = self.id().rpartition(".")[2][-60:]
        self.url = self.server.create_database(self.database, template="tables")


@requires("postgres")
class BackendTests(ServerMixin, SimpleTestCase):
    def connect(self, **pool):
        """Return Django's wrapper of a connection to the database of the test."""
        database = read_url(self.url)
        database["OPTIONS"]["pool"] = pool
        wrapper = DatabaseWrapper({**connection.settings_dict, **database}, self.database)
        self.addCleanup(wrapper.close_pool)
        return wrapper

    def ask(self, wrapper, command="SELECT pg_backend_pid()"):
        with wrapper.cursor() as cursor:
            cursor.execute(command)
            return cursor.fetchone()[0]

    def occupy_the_only_connection(self):
        """Take the only connection of the pool, and return its wrapper. Others wait 0.2 seconds."""
        wrapper = self.connect(max_size=1)
        self.ask(wrapper)
        wrapper.pool.timeout = 0.2
        return wrapper

    def provoke(self, wrapper, command):
        """Return the exception that Django raises for a command."""
        with closing(wrapper), self.assertRaises(DatabaseError) as caught:
            self.ask(wrapper, command)
        return caught.exception

    def test_a_closed_connection_is_used_again(self):
        wrapper = self.connect(max_size=1)
        first = self.ask(wrapper)
        wrapper.close()

        self.assertEqual(self.ask(wrapper), first)
        wrapper.close()

    def test_the_pool_is_closed_at_the_end_of_a_process(self):
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "gourmious.settings",
            "GOURMIOUS_DATABASE_URL": self.url,
        }
        command = [sys.executable, "-c", USE_POOL]

        output = subprocess.check_output(command, env=environment, text=True)
        self.assertEqual(output, "True\n")

    def test_eight_connections_serve_two_hundred_threads(self):
        everybody_is_here = threading.Barrier(200)

        def work(number):
            wrapper = self.connect()
            everybody_is_here.wait(60)
            for _ in range(5):
                self.ask(wrapper)
                wrapper.close()
            return wrapper.pool.get_stats()["pool_size"]

        with ThreadPoolExecutor(200) as threads:
            sizes = [*threads.map(work, range(200))]

        self.assertLessEqual(max(sizes), 8)

    def test_a_thread_that_gets_no_connection_is_told_that_the_database_is_unavailable(self):
        first, second = self.occupy_the_only_connection(), self.connect()

        error = self.provoke(second, "SELECT 1")

        self.assertTrue(second.is_unavailable(error))
        first.close()
        self.assertEqual(self.ask(second, "SELECT 1"), 1)
        second.close()

    def test_nobody_waits_after_another_has_waited_in_vain(self):
        first, others = self.occupy_the_only_connection(), [self.connect() for _ in range(2)]

        errors = [str(self.provoke(other, "SELECT 1")) for other in others]

        self.assertEqual(errors[1], "the server does not answer")
        first.close()
        for other in others:
            self.assertEqual(self.ask(other, "SELECT 1"), 1)
            other.close()

    def test_ended_connections_are_replaced_at_once(self):
        wrappers = [self.connect() for _ in range(8)]
        ended = {self.ask(wrapper) for wrapper in wrappers}
        for wrapper in wrappers:
            wrapper.close()
        self.assertEqual(self.server.end_sessions(self.database), 8)

        for wrapper in wrappers:
            self.assertNotIn(self.ask(wrapper), ended)
        for wrapper in wrappers:
            wrapper.close()

    def test_a_server_that_is_away_is_reported_at_once_and_used_again_when_it_is_back(self):
        wrapper = self.connect(timeout=60)
        self.ask(wrapper)
        wrapper.close()
        self.server.stop(signal.SIGINT)
        try:
            error = self.provoke(wrapper, "SELECT 1")
        finally:
            self.server.start()

        self.assertTrue(wrapper.is_unavailable(error))
        self.assertEqual(self.ask(wrapper, "SELECT 1"), 1)
        wrapper.close()

    def test_a_fork_has_connections_of_its_own(self):
        wrapper = self.connect(max_size=1)
        first = self.ask(wrapper)
        wrapper.close()
        receive, send = get_context("fork").Pipe(duplex=False)

        def work():
            send.send(self.ask(wrapper))
            wrapper.close()
            wrapper.close_pool()

        process = get_context("fork").Process(target=work)
        process.start()
        self.assertTrue(receive.poll(30))
        self.assertNotEqual(receive.recv(), first)
        process.join()

        self.assertEqual(self.ask(wrapper), first)
        wrapper.close()

    def test_the_connections_that_are_reserved_for_superusers_do_not_count(self):
        wrapper = self.connect()

        self.assertEqual(wrapper.get_max_connections(), 97)
        wrapper.close()

    def test_errors_are_told_apart(self):
        wrapper = self.connect()
        self.addCleanup(wrapper.close)

        for command, is_value_error in (
            ("SELECT 'x' ~ '['", True),
            ("SELECT 99999999999::int", True),
            ("SELECT * FROM missing", False),
        ):
            error = self.provoke(wrapper, command)
            self.assertEqual(wrapper.is_value_error(error), is_value_error, command)
            self.assertFalse(wrapper.is_full(error) or wrapper.is_unavailable(error), command)
        for judge in (wrapper.is_full, wrapper.is_unavailable, wrapper.is_value_error):
            self.assertFalse(judge(KeyError()))

    def test_a_deadlock_may_be_tried_again(self):
        wrapper = self.connect()
        code = "DO $$ BEGIN RAISE deadlock_detected; END $$"

        self.assertTrue(wrapper.is_unavailable(self.provoke(wrapper, code)))

    def test_one_host_holds_a_lock_and_the_others_are_told(self):
        one, other = self.connect(), self.connect()

        def is_free(name):
            with other.hold_lock(name, wait=False) as held:
                return held

        with one.hold_lock("prune", wait=False) as held:
            self.assertTrue(held)
            self.assertFalse(is_free("prune"))
            self.assertTrue(is_free("migrate"))
        self.assertTrue(is_free("prune"))

    def test_a_host_waits_for_a_lock(self):
        one, other = self.connect(), self.connect()
        order = []

        def wait():
            with other.hold_lock("migrate"):
                order.append("other")

        with ThreadPoolExecutor(1) as threads:
            with one.hold_lock("migrate"):
                job = threads.submit(wait)
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%try_advisory%'"
                wait_for(lambda: self.server.execute(waiting, self.database) >= [(2,)])
                order.append("one")
            job.result(30)

        self.assertEqual(order, ["one", "other"])


@requires("postgres")
class UnavailableTests(ServerMixin, GranianTestCase):
    """An upload and a page while the server fails, and right after that."""

    takes_minutes = True

    def setUp(self):
        super().setUp()
        self.environment["GOURMIOUS_DATABASE_URL"] = self.url
        self.uploads, self.dish = self.serve_a_dish()

    def serve_again(self, parameters):
        """Serve the app with further parameters in its URL."""
        self.uploads.stop()
        self.environment["GOURMIOUS_DATABASE_URL"] = f"{self.url}?{parameters}"
        self.uploads = self.serve()

    def upload(self):
        with Upload(self.uploads.address, self.dish, PHOTO) as upload:
            upload.send()
            return upload.answer()

    def assert_unavailable(self):
        """Assert that an upload and a page are answered 503, and that a poll is answered."""
        answer = self.upload()
        self.assert_may_be_retried(answer)
        for path in ("/", self.dish.path):
            page = get(self.uploads.address, path, {"Accept": "text/html"})
            self.assertEqual(page.status, 503)
            self.assertIn("please try again in a minute", page.text)
        self.assert_answers(self.uploads)
        self.assert_ill("The database is not available.")

    def assert_may_be_retried(self, answer):
        self.assertEqual(answer.status, 503, answer.text)
        self.assertIn('<error code="server_error"', answer.text)
        self.assertIn('retry="true"', answer.text)
        self.assertNotIn("<picture", answer.text)

    def assert_ill(self, sentence):
        health = get(self.uploads.address, "/healthz")
        self.assertEqual(health.status, 503)
        self.assertIn(sentence, health.text)
        self.assertEqual(get(self.uploads.address, "/healthz?host").status, 200)

    def assert_recovers(self):
        """Assert that the first upload is kept, and that the refused ones have left nothing."""
        self.assertEqual(self.upload().status, 200)
        self.assertEqual(get(self.uploads.address, "/").status, 200)
        counted = self.server.execute("SELECT count(*) FROM uploads_picture", self.database)
        self.assertEqual(counted, [(1,)])
        self.assertEqual(len(self.files("originals")), 1)
        self.assertEqual(len(self.files("media")), 2)
        self.assertEqual(self.files("incoming"), [])

    @contextmanager
    def table_locked(self):
        """Lock the table of the pictures against writers, until the block ends."""
        with self.server.connect(self.database) as session, session.transaction():
            session.execute("LOCK TABLE uploads_picture IN EXCLUSIVE MODE")
            yield

    def end_waiting(self, event):
        """Have the server end the connection that waits for this, as soon as one does."""
        waiting = f"FROM pg_stat_activity WHERE '{event}' IN (wait_event_type, wait_event)"
        wait_for(lambda: self.server.execute(f"SELECT 1 {waiting}", self.database))
        self.server.execute(f"SELECT pg_terminate_backend(pid) {waiting}", self.database)

    def test_it_is_stopped(self):
        self.server.stop(signal.SIGINT)
        try:
            self.assert_unavailable()
        finally:
            self.server.start()
        self.assert_recovers()

    def test_it_is_killed_and_starts_again(self):
        self.upload()
        self.server.execute("DELETE FROM uploads_picture", self.database)
        for path in (*self.files("originals"), *self.files("media")):
            path.unlink()
        self.server.stop()
        self.server.start()

        self.assert_recovers()

    def test_it_is_starting(self):
        self.server.stop()
        standby = self.server.get_path("standby.signal")
        standby.touch()
        self.server.command.append("--hot_standby=off")
        self.server.begin()
        try:
            wait_for(lambda: "not accepting connections" in self.server.find_refusal())
            self.assert_unavailable()
        finally:
            self.server.stop()
            standby.unlink()
            self.server.command.pop()
            self.server.start()
        self.assert_recovers()

    def test_it_has_too_many_clients(self):
        self.server.execute("ALTER ROLE gourmious CONNECTION LIMIT 0")
        self.server.end_sessions(self.database)
        try:
            self.assert_unavailable()
        finally:
            self.server.execute("ALTER ROLE gourmious CONNECTION LIMIT -1")
        self.assert_recovers()

    def test_it_ends_a_connection_in_a_transaction(self):
        with (
            Upload(self.uploads.address, self.dish, PHOTO) as upload,
            self.table_locked(),
        ):
            upload.send()
            self.end_waiting("Lock")
            self.assert_may_be_retried(upload.answer())
        self.assert_recovers()

    def test_a_lock_is_not_released_in_time(self):
        self.serve_again("options=-c%20lock_timeout%3D200ms")

        with self.table_locked():
            self.assert_may_be_retried(self.upload())

        self.assert_recovers()

    def test_it_only_reads_after_a_failover(self):
        change = f'ALTER DATABASE "{self.database}" SET default_transaction_read_only = '
        self.server.execute(f"{change} on")
        self.server.end_sessions(self.database)

        self.assert_may_be_retried(self.upload())
        self.assertEqual(get(self.uploads.address, self.dish.path).status, 200)
        self.assert_ill("The database cannot be written to.")

        self.server.execute(f"{change} off")
        self.server.end_sessions(self.database)
        self.assert_recovers()

    def test_files_are_kept_when_the_outcome_of_the_commit_is_unknown(self):
        self.server.execute(
            """
            CREATE FUNCTION vanish() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
            'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
            CREATE CONSTRAINT TRIGGER vanish AFTER INSERT ON uploads_picture
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION vanish()
            """,
            self.database,
        )

        self.assert_may_be_retried(self.upload())

        self.assertEqual(len(self.files("originals")), 1)
        self.assertEqual(len(self.files("media")), 2)

    def test_a_photo_whose_commit_was_not_answered_is_there_and_not_stored_twice(self):
        change = f'ALTER DATABASE "{self.database}" SET synchronous_commit = '
        self.server.execute(f"{change} on")
        self.server.end_sessions(self.database)
        with Upload(self.uploads.address, self.dish, PHOTO) as upload:
            upload.send()
            self.end_waiting("SyncRep")
            self.assert_may_be_retried(upload.answer())
        counted = self.server.execute("SELECT count(*) FROM uploads_picture", self.database)
        self.assertEqual(counted, [(1,)])

        self.server.execute(f"{change} local")
        self.server.end_sessions(self.database)
        self.assert_recovers()

    @skipUnless(IS_ROOT and can_mount(), "Only root can mount a small disk.")
    def test_its_disk_is_full(self):
        disk = self.server.get_path("disk")
        disk.mkdir()
        self.uploads.stop()
        options = f"size=64m,uid={disk.parent.stat().st_uid},mode=700"
        with mount(str(disk), "-t", "tmpfs", "-o", options, "tmpfs"):
            self.server.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            self.server.execute(f'ALTER DATABASE "{self.database}" SET TABLESPACE small')
            self.uploads = self.serve()
            filler = disk / "filler"
            room = os.statvfs(disk)
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)

            answer = self.upload()
            self.assertEqual(answer.status, 507, answer.text)
            self.assertIn('<error code="storage_full"', answer.text)
            self.assertEqual(get(self.uploads.address, self.dish.path).status, 200)

            filler.unlink()
            self.assert_recovers()
            self.uploads.stop()
            self.server.execute(f'DROP DATABASE "{self.database}" WITH (FORCE)')
            self.server.execute("DROP TABLESPACE small")


@requires("postgres")
class TogetherTests(ServerMixin, GranianTestCase):
    """Two things are done at the same moment, in transactions that see different rows."""

    def setUp(self):
        super().setUp()
        self.environment["GOURMIOUS_DATABASE_URL"] = self.url

    def run_meanwhile(self, code, statements):
        """Run code of the app while a transaction with some statements is open, then commit it."""
        code = f"from uploads.models import *; {code}"
        with ThreadPoolExecutor(1) as threads:
            with self.server.connect(self.database) as session, session.transaction():
                for statement in statements:
                    session.execute(statement)
                job = threads.submit(manage, "shell", "--command", code, **self.environment)
                locked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                wait_for(lambda: self.server.execute(locked, self.database), 30)
            job.result(60)

    def count(self, table):
        [(number,)] = self.server.execute(f"SELECT count(*) FROM {table}", self.database)
        return number

    def add(self, table, **values):
        names, literals = ", ".join(values), ", ".join(map(repr, values.values()))
        return f"INSERT INTO {table} ({names}) VALUES ({literals})"

    def picture(self):
        texts = dict.fromkeys(("display", "thumbnail", "diner", "caption", "progress_id"), "")
        numbers = {"id": 1, "dish_id": 1, "width": 1, "height": 1}
        more = {"original": "a.jpg", "digest": "a", "uploaded": "2026-11-27", "hidden": "true"}
        return self.add("uploads_picture", **numbers, **texts, **more)

    def dish(self):
        fields = {"name": "Aïoli", "restaurant": "Chez Fonfon", "search_text": ""}
        return self.add("uploads_dish", id=1, created="2026-11-27", **fields)

    def test_a_dish_is_deleted_while_a_photo_of_it_is_stored(self):
        self.server.execute(self.dish(), self.database)
        code = (
            "from django.contrib import admin; from uploads.admin import DishAdmin; "
            "DishAdmin(Dish, admin.site).delete_queryset(None, Dish.objects.with_cover())"
        )

        # A commit locks the dish for the check of the key, and a statement may do so before.
        self.run_meanwhile(code, [self.picture(), "SET CONSTRAINTS ALL IMMEDIATE"])

        self.assertEqual((self.count("uploads_dish"), self.count("uploads_picture")), (0, 0))

    def test_a_picture_is_taken_back_while_a_report_of_it_is_stored(self):
        self.server.execute(self.dish(), self.database)
        self.server.execute(self.picture(), self.database)
        report = self.add(
            "uploads_report", picture_id=1, reason="z", diner="", created="2026-11-27"
        )

        self.run_meanwhile(
            "Picture.objects.get().delete()",
            ["SELECT 1 FROM uploads_picture FOR UPDATE", report],
        )

        self.assertEqual((self.count("uploads_picture"), self.count("uploads_report")), (0, 0))

    def test_hosts_that_migrate_together_do_so_one_after_another(self):
        url = self.server.create_database("new")
        environment = {"GOURMIOUS_DATA_DIR": str(self.folder), "GOURMIOUS_DATABASE_URL": url}
        with ThreadPoolExecutor(3) as threads:
            jobs = [threads.submit(manage, "migrate", **environment) for _ in range(3)]
            for job in jobs:
                job.result(120)

        self.assertEqual(self.server.execute("TABLE uploads_dish", "new"), [])
