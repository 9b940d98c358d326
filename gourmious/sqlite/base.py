"""SQLite with a pool of connections, as Django (5.2) has one for PostgreSQL.

Opening and closing a connection costs several times as much as the queries of a request. Django
registers some sixty SQL functions with each connection. Closing it drops each of them under the
GIL, for which the threads of all uploads wait.
"""

import os
from collections import defaultdict, deque
from contextlib import suppress
from functools import cache

from django.db.backends.sqlite3 import base

MAX_IDLE = 8  # connections of a process that wait for their next use

idle = defaultdict(deque)  # by process and database


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that comes from the pool, and returns to it when it is closed."""

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


@cache
def keep_open(process, database):
    """Open a connection that reads once, and keep it open: one for each process and database.

    SQLite needs the WAL and its index even to read. The last connection that closes deletes them,
    and on a full or read-only disk they could not be made again: no page could be read.
    """
    keeper = base.Database.connect(database, check_same_thread=False)
    keeper.execute("SELECT * FROM sqlite_master").fetchall()
    return keeper
