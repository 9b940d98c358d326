"""SQLite with a pool of connections, as Django (5.2) has one for PostgreSQL.

To open a connection and close it costs several times as much as the queries of a request: Django
creates some sixty functions in each, and to drop one takes the GIL, for which the threads of all
uploads wait.
"""

import os
from collections import defaultdict, deque

from django.db.backends.sqlite3 import base

MAX_IDLE = 8  # connections of a process that wait for their next use

idle = defaultdict(deque)  # by process and database


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that takes its place from the pool, and gives it back when it is closed."""

    @property
    def pool(self):
        # A connection must not be used in a process that was forked.
        return idle[os.getpid(), str(self.settings_dict["NAME"])]

    def get_new_connection(self, conn_params):
        try:
            return self.pool.pop()
        except IndexError:
            return super().get_new_connection(conn_params)

    def is_usable(self):
        """Have Django close a connection after an error, which it asks this for."""
        return False

    def _close(self):
        """Keep the connection, unless its state is in doubt; Django's own pool overrides this."""
        in_doubt = self.errors_occurred or self.connection.in_transaction
        if in_doubt or len(self.pool) >= MAX_IDLE:
            super()._close()
        else:
            self.pool.append(self.connection)
