import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings
from django.db import DatabaseError, OperationalError, connection
from django.test import SimpleTestCase

from gourmious.sqlite.base import MAX_IDLE, DatabaseWrapper


class DatabaseTestCase(SimpleTestCase):
    def setUp(self):
        folder = self.enterContext(TemporaryDirectory(prefix="gourmious-"))
        defaults = {**connection.settings_dict, **settings.SQLITE, "OPTIONS": {}}
        self.settings = {**defaults, "NAME": Path(folder, "db.sqlite3")}
        self.wrapper = self.connect()
        self.addCleanup(self.empty_pool)

    def connect(self):
        wrapper = DatabaseWrapper({**self.settings}, "pooled")
        wrapper.ensure_connection()
        return wrapper

    def empty_pool(self):
        while self.wrapper.pool:
            self.wrapper.pool.pop().close()


class PoolTests(DatabaseTestCase):
    def test_a_closed_connection_is_used_again(self):
        first = self.wrapper.connection
        self.wrapper.close()

        again = self.connect()
        self.assertIs(again.connection, first)
        again.close()

    def test_a_connection_to_another_database_is_not_used(self):
        self.wrapper.settings_dict["NAME"] = self.settings["NAME"].with_name("other.sqlite3")
        self.wrapper.close()

        self.wrapper.ensure_connection()
        [(_, _, path)] = self.wrapper.connection.execute("PRAGMA database_list").fetchall()
        self.assertEqual(Path(path).name, "other.sqlite3")
        self.wrapper.close()

    def test_an_open_connection_is_not_shared(self):
        other = self.connect()
        self.addCleanup(other.close)

        self.assertIsNot(other.connection, self.wrapper.connection)
        self.wrapper.close()

    def test_a_connection_that_failed_is_not_used_again(self):
        with self.assertRaises(DatabaseError), self.wrapper.cursor() as cursor:
            cursor.execute("SELECT * FROM missing")
        self.wrapper.close_if_unusable_or_obsolete()

        self.assertFalse(self.wrapper.pool)

    def test_a_connection_in_a_transaction_is_not_used_again(self):
        self.wrapper.connection.execute("BEGIN IMMEDIATE")
        self.wrapper.close()

        self.assertFalse(self.wrapper.pool)

    def test_the_log_outlives_the_last_connection_that_is_closed(self):
        self.wrapper.connection.execute("CREATE TABLE dish (id)")
        self.wrapper.close()
        self.empty_pool()

        self.assertTrue(Path(f"{self.settings['NAME']}-wal").exists())

    def test_only_a_few_connections_are_kept(self):
        wrappers = [self.wrapper, *(self.connect() for _ in range(MAX_IDLE))]
        for wrapper in wrappers:
            wrapper.close()

        self.assertEqual(len(self.wrapper.pool), MAX_IDLE)


class TransactionTests(DatabaseTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.wrapper.close)

    def test_readers_do_not_wait_for_a_writer(self):
        with self.wrapper.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            self.assertEqual(cursor.fetchone(), ("wal",))

    def test_a_transaction_takes_the_write_lock_at_its_beginning(self):
        self.assertEqual(self.wrapper.transaction_mode, "IMMEDIATE")

    def test_an_upload_waits_half_a_minute_for_a_writer_and_is_answered_before_nginx_gives_up(self):
        self.assertIn(self.wrapper.settings_dict["OPTIONS"]["timeout"], range(31, 60))


class FaultTests(DatabaseTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.wrapper.close)

    def make_error(self, code):
        error = OperationalError()
        error.__cause__ = sqlite3.OperationalError()
        error.__cause__.sqlite_errorcode = code
        return error

    def test_a_full_disk_has_several_codes(self):
        for name in ("FULL", "IOERR_WRITE", "IOERR_SHMSIZE"):
            error = self.make_error(getattr(sqlite3, f"SQLITE_{name}"))
            self.assertTrue(self.wrapper.is_full(error), name)
            self.assertFalse(self.wrapper.is_unavailable(error), name)

    def test_a_writer_that_keeps_the_lock_makes_the_database_unavailable(self):
        self.settings["OPTIONS"] = {"timeout": 0}
        other = self.connect()
        self.addCleanup(other.close)
        self.wrapper.connection.execute("BEGIN IMMEDIATE")

        with self.assertRaises(OperationalError) as caught, other.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
        self.wrapper.connection.rollback()

        self.assertTrue(other.is_unavailable(caught.exception))
        self.assertFalse(other.is_full(caught.exception))

    def test_an_invalid_regular_expression_is_a_value_that_is_not_accepted(self):
        with self.assertRaises(OperationalError) as caught, self.wrapper.cursor() as cursor:
            cursor.execute("SELECT 'x' REGEXP '['")

        self.assertTrue(self.wrapper.is_value_error(caught.exception))

    def test_an_error_of_the_app_is_none_of_the_databases(self):
        for judge in (self.wrapper.is_full, self.wrapper.is_unavailable):
            self.assertFalse(judge(KeyError()))


class LockTests(DatabaseTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.wrapper.close)

    def is_free(self, name):
        with self.wrapper.hold_lock(name, wait=False) as held:
            return held

    def test_one_holds_a_lock_and_the_others_are_told(self):
        with self.wrapper.hold_lock("prune", wait=False) as held:
            self.assertTrue(held)
            self.assertFalse(self.is_free("prune"))
            self.assertTrue(self.is_free("migrate"))

        self.assertTrue(self.is_free("prune"))
