"""A cluster: two web hosts behind HAProxy, one PostgreSQL, one S3 store; and what it keeps."""

import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import NamedTuple

import psycopg
from botocore.exceptions import ClientError
from django.test import SimpleTestCase
from psycopg.rows import dict_row

from tests import buckets, guardian
from tests.client import add_dish, get
from tests.faults.rig import SEED, Ledger, Upload, recolour
from tests.photos import photo
from tests.servers import Place, PostgreSQL, SeaweedFS, Server, manage, requires
from tests.stack import PROGRAMS, Balancer, Servers, Stack
from tests.waiting import wait_for

# The addresses of the hosts, without a namespace.
HERE = [Place("127.0.0.2"), Place("127.0.0.3")]

# Removes all orphaned files, however new they are.
PRUNE = """
from django.core.management import call_command
call_command("prune_uploads", hours=-0.001, force=True)
"""

# failure.js sends a photo again after these pauses, in seconds, or when the server says.
RETRY_PAUSES = (1, 3, 9, 27)
LOST = (None, 408, 502, 504)
BUSY = (429, 503)


class Host(Stack):
    """A web host: nginx, both of Granian's services and a memcached, on an address of its own."""

    def __init__(self, place, **variables):
        super().__init__(**variables)
        self.place = place

    @property
    def memcached_address(self):
        return f"{self.place.host}:{self.ports['memcached']}"

    def list_addresses(self):
        return [self.place.host]

    @property
    def servers(self):
        return (self.http, self.pages, self.uploads, self.memcached)

    def kill(self):
        """Kill all servers at once, as a power cut does."""
        for server in self.servers:
            Server.stop(server)
        for server in self.servers:
            wait_for(lambda server=server: not server.listens())

    def start(self):
        for server in self.servers:
            server.start()


class Namespace:
    """A network of its own for a host, which can be cut off: its packets then vanish."""

    def __init__(self):
        self.name = f"gourmious-{os.getpid()}"
        self.here, self.there = f"198.18.{os.getpid() % 250}.1", f"198.18.{os.getpid() % 250}.2"
        self.places = [Place(self.here), Place(self.there, ("ip", "netns", "exec", self.name))]

    def __enter__(self):
        guardian.watch(f"/run/netns/{self.name}")
        link = f"g{os.getpid()}"
        for command in (
            f"netns add {self.name}",
            f"link add {link} type veth peer name inner netns {self.name}",
            f"address add {self.here}/30 dev {link}",
            f"link set {link} up",
            f"-netns {self.name} address add {self.there}/30 dev inner",
            f"-netns {self.name} link set inner up",
            f"-netns {self.name} link set lo up",
        ):
            run_ip(command)
        return self

    def __exit__(self, *exc_info):
        run_ip(f"netns delete {self.name}")
        guardian.forget(f"/run/netns/{self.name}")

    @contextmanager
    def cut_off(self):
        run_ip(f"-netns {self.name} link set inner down")
        try:
            yield
        finally:
            run_ip(f"-netns {self.name} link set inner up")


def run_ip(command):
    subprocess.run(["ip", *command.split()], check=True)


class Cluster(Servers):
    """All servers, while the block runs; further variables of the hosts are arguments.

    With a namespace, the second host is in it.
    """

    def __init__(self, namespace=None, start_balancer=Balancer, **variables):
        super().__init__()
        self.namespace = namespace
        self.start_balancer = start_balancer
        self.variables = variables

    def _start(self):
        self.postgresql = self.enter_context(PostgreSQL())
        self.store = self.enter_context(SeaweedFS())
        self.url = self.postgresql.create_database("cluster")
        self.buckets = self.store.make_buckets("cluster")
        self._start_hosts()
        manage("migrate", **self.hosts[0].environment)
        folder = Path(self.enter_context(TemporaryDirectory(prefix="gourmious-")))
        addresses = [host.http.address for host in self.hosts]
        environment = self.hosts[0].environment
        self.balancer = self.enter_context(self.start_balancer(folder, addresses, environment))
        self.await_hosts(2)

    def _start_hosts(self):
        places = self.namespace.places if self.namespace else HERE
        self.hosts = [Host(place, **self._share_settings(places)) for place in places]
        for host, peer in zip(self.hosts, reversed(self.hosts), strict=True):
            host.variables["GOURMIOUS_MEMCACHED_PEERS"] = peer.memcached_address
            self.enter_context(host)

    def _share_settings(self, places):
        """Return the variables that both hosts have."""
        balancers = ["127.0.0.1", *([self.namespace.here] if self.namespace else [])]
        names = ["localhost", "127.0.0.1", *(place.host for place in places)]
        return {
            **self.buckets,
            "GOURMIOUS_SECRET_KEY": "a secret of the cluster",
            "GOURMIOUS_ALLOWED_HOSTS": ",".join(names),
            "GOURMIOUS_DATABASE_URL": self.url,
            "GOURMIOUS_BALANCERS": ",".join(balancers),
            "GOURMIOUS_WORKERS": "1",  # The hosts share this machine's cores.
            **self.variables,
        }

    def await_hosts(self, count):
        """Wait until so many hosts are up for the balancer."""
        wait_for(lambda: len(self.balancer.list_up()) == count, 60)
        secure = self.balancer.secure
        wait_for(lambda: get(self.balancer.address, "/", secure=secure).status == 200)


class ClusterSite:
    """The rows in PostgreSQL, the files in S3, and the records of a cluster."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.client = cluster.enter_context(closing(buckets.connect(cluster.store.endpoint)))
        self.memcached = [host.memcached for host in cluster.hosts]
        self.buckets = {
            "originals": cluster.buckets["GOURMIOUS_S3_ORIGINALS"],
            "media": cluster.buckets["GOURMIOUS_S3_RENDITIONS"],
        }

    def read_rows(self):
        with psycopg.connect(self.cluster.url, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM uploads_picture").fetchall()

    def read_file(self, folder, name):
        try:
            return self.client.get_object(Bucket=self.buckets[folder], Key=name)["Body"].read()
        except ClientError as error:
            raise FileNotFoundError(f"{folder}/{name}: {error}") from error

    def list_files(self):
        """Yield the folder and the name of each file that arrives or is kept."""
        for host in self.cluster.hosts:
            yield from (("incoming", path.name) for path in (host.data / "incoming").iterdir())
        for folder, bucket in self.buckets.items():
            yield from ((folder, key) for key in buckets.list_keys(self.client, bucket))

    def find_strange_files(self):
        """Yield the path of each photo that a host keeps, although there is S3."""
        for host in self.cluster.hosts:
            for folder in ("originals", "media"):
                yield from (host.data / folder).iterdir()

    def put_orphans(self, count):
        """Put so many files that belong to no row into each bucket."""
        for bucket in self.buckets.values():
            for number in range(count):
                self.client.put_object(Bucket=bucket, Key=f"orphan-{number}.jpg", Body=b"orphan")

    def prune(self):
        for host in self.cluster.hosts:
            manage("shell", "-c", PRUNE, **host.environment)


class Attempt(NamedTuple):
    started: float
    status: int | None  # None if the connection ended first


@requires(*PROGRAMS, "haproxy", "postgres")
class ClusterTestCase(SimpleTestCase):
    """Break something while diners upload. At the end every promise must be kept."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster = cls.enterClassContext(cls.make_cluster())
        cls.hosts, cls.balancer = cls.cluster.hosts, cls.cluster.balancer
        cls.address = cls.balancer.address
        cls.ledger = Ledger(ClusterSite(cls.cluster))
        cls.photo = photo(randbytes=random.Random(SEED).randbytes)

    @classmethod
    def make_cluster(cls):
        return Cluster()

    def setUp(self):
        super().setUp()
        self.rng = random.Random(f"{SEED} {self.id()}")
        self.dish = add_dish(self.hosts[0].http.address, self.id()[-100:])
        self.numbers = iter(range(10**6))

    def make_upload(self, content=None, address=None, **options):
        """Return an upload of a new photo, or of this one, through the balancer or to a host."""
        content = content or recolour(self.photo, self.rng)
        progress_id = f"{self.id().split('.')[-1][-50:]}-{next(self.numbers)}"
        options = options if address else {"secure": True, **options}
        address = address or self.address
        return Upload(self.ledger, address, self.dish, content, progress_id, **options)

    def upload_as_page(self, content, wait_halfway=lambda: None):
        """Send a photo again and again, as the page does, and return all attempts.

        The first attempt waits after half of the photo.
        """
        attempts, pauses, waits = [], list(RETRY_PAUSES), 0
        while True:
            started = time.monotonic()
            with self.make_upload(content) as upload:
                if not attempts:
                    upload.send(len(upload.data) // 2)
                    wait_halfway()
                answer = upload.answer()
            attempts.append(Attempt(started, answer and answer.status))
            if attempts[-1].status in LOST and pauses:
                pause = pauses.pop(0)
            elif attempts[-1].status in BUSY and waits < 8:
                pause = float(answer.headers.get("retry-after", 2**waits))
                waits += 1
            else:
                return attempts
            Event().wait(pause)

    @contextmanager
    def uploading(self, count):
        """Yield when so many photos are half sent; send the rest, and collect all attempts."""
        self.attempts, halfway, go_on = [], [Event() for _ in range(count)], Event()

        def wait_halfway(event):
            event.set()
            go_on.wait(60)

        with ThreadPoolExecutor(count) as pool:
            contents = [recolour(self.photo, self.rng) for _ in range(count)]
            jobs = [
                pool.submit(self.upload_as_page, content, lambda event=event: wait_halfway(event))
                for content, event in zip(contents, halfway, strict=True)
            ]
            try:
                for event in halfway:
                    event.wait(60)
                self.go_on = go_on.set
                yield
            finally:
                go_on.set()
            self.attempts = [job.result() for job in jobs]

    def assert_all_kept(self):
        for attempts in self.attempts:
            self.assertEqual(attempts[-1].status, 200, attempts)

    def list_first_statuses(self):
        return {attempt.status for attempts in self.attempts for attempt in attempts[:-1]}

    def assert_uploads_work(self):
        with self.make_upload() as upload:
            self.assertEqual(upload.answer().status, 200, upload.reply)

    def audit(self, fault, times, killed=False, note=""):
        """Assert that nothing was lost. If TIMES is set, print a row for the table."""
        self.ledger.audit(killed)
        if "TIMES" in os.environ:
            print(f"| {fault} | {times} | {note} | nothing |", flush=True)
