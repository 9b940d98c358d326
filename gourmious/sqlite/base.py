"""SQLite with a pool of connections, as Django (5.2) has one for PostgreSQL.

Opening and closing a connection costs several times as much as the queries of a request. Django
registers some sixty SQL functions with each connection. Closing it drops each of them under the
GIL, for which the threads of all uploads wait.
"""

import math
import os
import sqlite3
from collections import defaultdict, deque
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from django.core.files import locks
from django.db.backends.sqlite3 import base

OPTIONS = {
    # Other requests can read while an upload's row is written.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
    # Take the write lock at the beginning of each transaction, where it can wait. One that reads
    # first and writes later fails at once if another wrote in between.
    "transaction_mode": "IMMEDIATE",
    # Seconds. Another writer, such as a migration, delays an upload and does not fail it. A page
    # that writes gives up before nginx does: nginx waits for 60.
    "timeout": 45,
}

MAX_IDLE = 8  # connections of a process that wait for their next use

# If a quota is exceeded, or the WAL's index does not fit, SQLite only reports a failed write.
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)

idle = defaultdict(deque)  # by process and database


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that comes from the pool, and returns to it when it is closed."""

    def __init__(self, settings_dict, *args, **kwargs):
        settings_dict["OPTIONS"] = {**OPTIONS, **settings_dict["OPTIONS"]}
        super().__init__(settings_dict, *args, **kwargs)

    @property
    def pool(self):
        return idle[self.key]

    def get_new_connection(self, conn_params):
        # A connection must not be used in a forked process, and the tests change the database.
        self.key = os.getpid(), str(conn_params["database"])
        with suppress(IndexError):
            return self.pool.pop()
        connection = super().get_new_connection(conn_params)
        with suppress(base.Database.Error):  # The next new connection retries.
            keep_open(*self.key)
        return connection

    def is_usable(self):
        """Return False: Django asks after an error, and then closes the connection."""
        return False

    def _close(self):
        """Keep the connection, unless its state is in doubt.

        Django (5.2) overrides this private method for its pool in the same way.
        """
        in_doubt = self.errors_occurred or self.connection.in_transaction
        if in_doubt or len(self.pool) >= MAX_IDLE:
            super()._close()
        else:
            self.pool.append(self.connection)

    def find_fault(self):
        """Return a sentence if the database can be read but not written to, or else None."""
        is_writable = os.access(self.settings_dict["NAME"], os.W_OK)
        return None if is_writable else "The database cannot be written to."

    def get_max_connections(self):
        """Return infinity: a connection is only an open file."""
        return math.inf

    def is_full(self, error):
        """Return whether the disk has no room for the database."""
        return get_code(error) in FULL

    def is_unavailable(self, error):
        """Return whether another writer had locked the database for too long."""
        return get_code(error) == sqlite3.SQLITE_BUSY

    def is_value_error(self, error):
        """Return whether SQLite may not have accepted a value: a regular expression has no code."""
        return get_code(error) == sqlite3.SQLITE_ERROR

    @contextmanager
    def hold_lock(self, name, wait=True):
        """Hold a lock among all processes while the block runs, and yield True.

        If others hold it, wait, or yield False at once.
        """
        with Path(f"{self.settings_dict['NAME']}-{name}").open("w") as file:
            yield locks.lock(file, locks.LOCK_EX | (0 if wait else locks.LOCK_NB))


@cache
def keep_open(process, database):
    """Open a connection that reads once, and keep it open: one for each process and database.

    SQLite needs the WAL and its index even to read. The last connection that closes deletes them,
    and on a full or read-only disk they could not be made again: no page could be read.
    """
    keeper = base.Database.connect(database, check_same_thread=False)
    keeper.execute("SELECT * FROM sqlite_master").fetchall()
    return keeper


def get_code(error):
    """Return SQLite's extended code of an error; None if it is not SQLite's."""
    return getattr(error.__cause__, "sqlite_errorcode", None)
