"""PostgreSQL with Django's pool of connections, for many threads, and for servers that go away."""

import atexit
import os
import select
import time
from collections import defaultdict
from contextlib import closing, contextmanager

from django.db import DataError, InterfaceError, OperationalError
from django.db.backends.postgresql import base
from psycopg_pool import PoolTimeout

# The server ends a statement that waits longer for a lock, a transaction that is idle, and the
# connection of a host that has vanished. A page that writes gives up before nginx does: nginx waits
# for 60 seconds.
SESSION = {
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    # Otherwise a search goes on for minutes after its process was killed.
    "client_connection_check_interval": "10s",
    "tcp_keepalives_idle": "30s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
}

LOCK_INTERVAL = 0.5  # seconds

DISK_FULL = "53100"
# Classes and codes of SQLSTATE: the connection, the server's resources, an operator, a transaction
# that must be repeated, a server that only reads after a failover, and locks.
UNAVAILABLE = ("08", "53", "57", "40", "25006", "25P03", "55P03")

pools = defaultdict(dict)  # by process and database


@atexit.register
def close_pools():
    """Close the pools of this process.

    Otherwise psycopg_pool (3.3) waits for each of its threads for 5 seconds, since Python (3.13)
    has stopped them.
    """
    for (process, _), by_alias in pools.items():
        if process == os.getpid():
            for pool in by_alias.values():
                pool.close()


def serves_nobody(pool):
    """Return whether the first who waits for a connection has given up: all of them are stuck.

    A connection that comes back to the pool removes those who have given up.
    """
    with pool._lock:
        return any(client.error for client in [*pool._waiting][:1])


def fail_waiting(pool):
    """Fail all threads that wait for a connection, if the server accepts none.

    Threads that wait in vain would keep a host from answering its load balancer.
    """
    if pool.get_stats()["pool_size"]:
        return
    with pool._lock:  # The lock and the queue are private in psycopg_pool (3.3).
        waiting = [*pool._waiting]
        pool._waiting.clear()
    for client in waiting:
        client.fail(PoolTimeout("no connection to the server can be made"))


OPTIONS = {
    "pool": {
        "min_size": 1,
        "max_size": 8,
        "timeout": 10,
        # Ask again at the next request, and not after pauses that grow.
        "reconnect_timeout": 0,
        "reconnect_failed": fail_waiting,
    },
    "connect_timeout": 5,
    "options": " ".join(f"-c {name}={value}" for name, value in SESSION.items()),
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}


class DatabaseWrapper(base.DatabaseWrapper):
    def __init__(self, settings_dict, *args, **kwargs):
        options = settings_dict["OPTIONS"]
        pool = {**OPTIONS["pool"], **options.get("pool", {})}
        settings_dict["OPTIONS"] = {**OPTIONS, **options, "pool": pool}
        super().__init__(settings_dict, *args, **kwargs)

    @property
    def _connection_pools(self):
        """Return Django's pools. A fork must not use the connections of another process."""
        return pools[os.getpid(), self.settings_dict["NAME"]]

    def get_new_connection(self, conn_params):
        """Return a connection that the server has not ended.

        The pool's own check (psycopg_pool 3.3) takes a query each time, and sleeps for seconds
        when several connections have ended, as after a restart of the server.
        """
        if not self.pool:  # The connection that makes and drops the tests' databases has none.
            return super().get_new_connection(conn_params)
        if serves_nobody(self.pool):
            # Otherwise each thread waits in vain, and none answers the load balancer.
            raise PoolTimeout("the server does not answer")
        connection = super().get_new_connection(conn_params)
        while has_ended(connection):
            connection.close()
            self.pool.putconn(connection)
            connection = super().get_new_connection(conn_params)
        return connection

    def find_fault(self):
        """Return a sentence if the database can be read but not written to, or else None."""
        with self.cursor() as cursor:
            cursor.execute("SHOW transaction_read_only")
            [read_only] = cursor.fetchone()
        return "The database cannot be written to." if read_only == "on" else None

    def get_max_connections(self):
        """Return how many connections the server accepts, without those reserved for superusers."""
        names = ("max_connections", "superuser_reserved_connections")
        with self.cursor() as cursor:
            cursor.execute("SELECT current_setting(%s)::int - current_setting(%s)::int", names)
            return cursor.fetchone()[0]

    def is_full(self, error):
        """Return whether the server's disk has no room."""
        return get_code(error) == DISK_FULL

    def is_unavailable(self, error):
        """Return whether the same may succeed in a moment, or when the server is back."""
        if code := get_code(error):
            return code.startswith(UNAVAILABLE) and code != DISK_FULL
        return isinstance(error, (InterfaceError, OperationalError))

    def is_value_error(self, error):
        """Return whether the server did not accept a value."""
        return isinstance(error, DataError)

    @contextmanager
    def hold_lock(self, name, wait=True):
        """Hold a lock among all hosts while the block runs, and yield True.

        If others hold it, wait, or yield False at once.
        """
        # On a connection of its own: the thread may give its own back. A statement that waits for
        # the lock would keep indexes from being built.
        with closing(self._connect()) as connection:
            while not (held := try_lock(connection, name)) and wait:
                time.sleep(LOCK_INTERVAL)
            yield held

    def _connect(self):
        with self.wrap_database_errors:
            return self.Database.connect(**self.get_connection_params(), autocommit=True)


def try_lock(connection, name):
    lock = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [name])
    return lock.fetchone()[0]


def has_ended(connection):
    """Return whether the server has ended a connection: an idle one has nothing else to read."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def get_code(error):
    """Return the SQLSTATE of an error; None if it comes from no server."""
    return getattr(error.__cause__, "sqlstate", None)
