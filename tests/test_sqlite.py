from pathlib import Path
from tempfile import TemporaryDirectory

from django.db import DatabaseError, connection
from django.test import SimpleTestCase

from gourmious.sqlite.base import MAX_IDLE, DatabaseWrapper


class PoolTests(SimpleTestCase):
    def setUp(self):
        folder = self.enterContext(TemporaryDirectory(prefix="gourmious-"))
        self.settings = {**connection.settings_dict, "NAME": Path(folder, "db.sqlite3")}
        self.wrapper = self.connect()
        self.addCleanup(self.empty_pool)

    def connect(self):
        wrapper = DatabaseWrapper({**self.settings}, "pooled")
        wrapper.ensure_connection()
        return wrapper

    def empty_pool(self):
        while self.wrapper.pool:
            self.wrapper.pool.pop().close()

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
