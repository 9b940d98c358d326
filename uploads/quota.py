"""How many bytes each client network has sent today. The cache counts them for all processes.

The thread of a request only adds to a number. The progress writer adds the numbers to the cache, so
a slow or hung cache slows no upload. A restarted cache counts from zero.
"""

import ipaddress
import logging
import time
from collections import Counter
from threading import Lock

from django.conf import settings
from django.core.cache import cache

from . import refusals
from .storage import has_room

DAY = 24 * 3600  # seconds
FLUSH_INTERVAL = 5  # seconds
MAX_NETWORKS = 10_000  # that a process remembers

logger = logging.getLogger(__name__)


class Quota:
    """The bytes that networks have sent today, in UTC."""

    def __init__(self):
        self.lock = Lock()
        self.today = None  # in days since 1970
        self.totals = {}  # by network: bytes, including those of other processes at the last flush
        self.pending = Counter()  # by network: bytes that the cache does not have yet
        self.flushed = 0

    def add(self, network, count):
        """Count more bytes of a network."""
        with self.lock:
            self.pending[network] += count

    def is_used_up(self, network):
        """Return whether a network has sent all that it may send today."""
        total = self.totals.get(network, 0) + self.pending[network]
        return total >= settings.MAX_BYTES_PER_DAY

    def flush(self, at_once=False):
        """Add the pending bytes to the cache, every FLUSH_INTERVAL or at once."""
        if not at_once and time.monotonic() - self.flushed < FLUSH_INTERVAL:
            return
        self.flushed = time.monotonic()
        for network, count in self._take_pending().items():
            try:
                total = self._add_to_cache(network, count)
            except Exception:
                logger.warning("The bytes of a network could not be counted.", exc_info=True)
                return
            if not total:  # The cache fails. Do not wait for it again for each network.
                return
            self.totals[network] = total

    def _take_pending(self):
        """Move the pending bytes to the totals, and return them. Start each day from zero."""
        today = int(time.time() // DAY)
        with self.lock:
            if today != self.today:
                self.today, self.totals = today, {}
            pending, self.pending = self.pending, Counter()
            for network, count in pending.items():
                self.totals[network] = self.totals.pop(network, 0) + count
            for network in list(self.totals)[:-MAX_NETWORKS]:  # the oldest ones
                del self.totals[network]
        return pending

    def _add_to_cache(self, network, count):
        """Return the total of all processes, or a false value if the cache fails."""
        key = f"quota_{self.today}_{network}"
        for _ in range(2):  # Another process may add the key between the two calls.
            try:
                return cache.incr(key, count)
            except ValueError:
                if cache.add(key, count, DAY):
                    return count
        return None


quota = Quota()


def get_network(address, ipv4_bits=24):
    """Return the network that a client's address is in, or None if it has no address.

    Many clients share an IPv4 /24. One client may have a whole IPv6 /48. An IPv4 address may be
    written as an IPv6 address.
    """
    try:
        client = ipaddress.ip_address(address)
    except ValueError:
        return None
    client = getattr(client, "ipv4_mapped", None) or client
    bits = ipv4_bits if client.version == 4 else 48
    return str(ipaddress.ip_network(f"{client}/{bits}", strict=False))


def find_shortage(network):
    """Return a ValidationError if the disk or the quota of a network is used up, or None."""
    if not has_room():
        return refusals.STORAGE_FULL.error()
    return refusals.OVER_QUOTA.error() if quota.is_used_up(network) else None
