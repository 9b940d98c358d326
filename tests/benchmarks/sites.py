"""The sites that are measured with all their servers: one host, or two behind a load balancer."""

import os
from contextlib import contextmanager
from typing import NamedTuple

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
django.setup()

from tests.cluster.rig import Cluster, ClusterSite  # noqa: E402
from tests.faults.rig import StackSite, compute_digest  # noqa: E402
from tests.stack import PlainBalancer, Stack  # noqa: E402


class Site(NamedTuple):
    """Where clients find a site, its web hosts, and what it keeps."""

    server: object  # that the clients connect to
    hosts: list
    kept: StackSite | ClusterSite
    services: dict = {}  # the other servers, by their names

    @property
    def proxies(self):
        """The servers that pass on what the clients send."""
        return list({self.server, *(host.http for host in self.hosts)})


@contextmanager
def one_host(**variables):
    """Start a host with SQLite and local files."""
    with Stack(**variables) as stack:
        yield Site(stack.http, [stack], StackSite(stack))


@contextmanager
def two_hosts(**variables):
    """Start two hosts behind HAProxy, on PostgreSQL and S3. HTTPS would cost the clients much."""
    # Each host has as many processes as one_host().
    variables = {"GOURMIOUS_WORKERS": "2", **variables}
    with Cluster(start_balancer=PlainBalancer, **variables) as cluster:
        services = {
            "HAProxy": cluster.balancer,
            "PostgreSQL": cluster.postgresql,
            "SeaweedFS": cluster.store,
        }
        yield Site(cluster.balancer, cluster.hosts, ClusterSite(cluster), services)


def is_whole(kept, row, length):
    """Return whether a row's original has its length and digest, and its renditions are there."""
    try:
        original = kept.read_file("originals", row["original"])
        renditions = [kept.read_file("media", row[name]) for name in ("display", "thumbnail")]
    except FileNotFoundError:
        return False
    is_same = len(original) == length and compute_digest(original) == row["digest"]
    return is_same and all(renditions)
