"""The real servers that the tests talk to, on loopback ports: how each is started and stopped."""

import csv
import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import unittest
from contextlib import closing, contextmanager, suppress
from functools import cache
from multiprocessing import util
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg

from gourmious.settings import CORES, MALLOC

from . import buckets, guardian
from .processes import children, descendants, forks, processes_of, stat, stopped
from .waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
# Debian's nginx and PostgreSQL are in folders where ordinary users do not look.
for folder in (Path("/usr/sbin"), *Path("/usr/lib/postgresql").glob("*/bin")):
    os.environ["PATH"] += f":{folder}"
ADDRESS = "127.0.0.1"
WEED = Path(sys.executable).with_name("weed")  # the program of SeaweedFS
WEED_PARTS = ("master", "volume", "filer", "s3")
WEED_OPTIONS = {
    "ip": ADDRESS,
    "ip.bind": ADDRESS,
    # Each bucket has volumes of its own.
    "master.volumeSizeLimitMB": 1024,
    "master.telemetry": "false",
    "master.electionTimeout": "1s",  # After a start it waits for other masters.
    "master.resumeState": "false",
    "volume.max": 10_000,
    "volume.preStopSeconds": 0,
    "filer": "true",
    "s3": "true",
    "s3.iam": "false",
    "s3.port.iceberg": 0,
    "s3.port.lance": 0,
    "webdav": "false",
}
# Run a program on the socket that is this shell's standard input, as systemd does.
PASS_SOCKET = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 </dev/null'


def missing_packages(*programs):
    """Return the Debian packages of those programs that are not installed."""
    packages = {
        "avifenc": "libavif-bin",
        "chromedriver": "chromium-driver",
        "java": "default-jdk-headless",
        "node": "nodejs",
        "postgres": "postgresql",
        "systemd-analyze": "systemd",
        "WebKitWebDriver": "webkit2gtk-driver",
        "Xvfb": "xvfb",
    }
    return [packages.get(name, name) for name in programs if not shutil.which(name)]


def requires(*programs):
    """Skip a test where a program is missing, and name the Debian packages that have it."""
    missing = missing_packages(*programs)
    return unittest.skipIf(missing, f"To be installed from Debian: {' '.join(missing)}.")


def manage(command, *arguments, **environment):
    """Run manage.py in a process of its own, and return what it prints.

    Its environment comes as keyword arguments.
    """
    return subprocess.run(
        [sys.executable, "manage.py", command, "--verbosity", "0", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@cache
def make_data():
    """Make a new site; return its data folder, with the static files, and its variables.

    Its database is empty.
    """
    folder = mkdtemp(prefix="gourmious-")
    guardian.watch(folder)
    variables = make_database()
    environment = {
        "GOURMIOUS_SECRET_KEY": "a secret of production",
        "GOURMIOUS_ALLOWED_HOSTS": ADDRESS,
        "GOURMIOUS_MEMCACHED": f"{ADDRESS}:11211",
        "GOURMIOUS_DATA_DIR": folder,
        **variables,
    }
    manage("collectstatic", "--no-input", **environment)
    manage("migrate", **environment)
    return folder, variables


def prepare_data(folder):
    """Fill the data folder of a new site, and return the variables of its database.

    A site is made once in a process, and then copied.
    """
    data, variables = make_data()
    shutil.copytree(data, folder, dirs_exist_ok=True)
    return make_database(variables)


def make_database(copied=None):
    """Make a database where the tests run on PostgreSQL, and return its variable.

    It is empty, or a copy of the database of other variables.
    """
    url = os.environ.get("GOURMIOUS_DATABASE_URL")
    if not url:
        return {}
    template = urlsplit(copied["GOURMIOUS_DATABASE_URL"]).path[1:] if copied else "template1"
    name = f"site_{secrets.token_hex(8)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return {"GOURMIOUS_DATABASE_URL": urlsplit(url)._replace(path=f"/{name}").geturl()}


def free_port():
    """Return a free port that the system gives to nobody else for a minute.

    The server closes a connection first, so the port is in TIME_WAIT: only who names it gets it.
    """
    with (
        closing(socket.create_server((ADDRESS, 0))) as server,
        closing(socket.create_connection(server.getsockname())),
        closing(server.accept()[0]),
    ):
        return server.getsockname()[1]


def listens(port, host=ADDRESS):
    with closing(socket.socket()) as client:
        return client.connect_ex((host, port)) == 0


class Program:
    """A program in a process group of its own. It is stopped when the block ends."""

    def __init__(self, command, **options):
        self.command = command
        self.options = options

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def start(self):
        # In a session of its own, as systemd starts it: Ctrl-C in a terminal does not reach it, and
        # the kernel shares the cores equally between sessions.
        self.process = subprocess.Popen(self.command, start_new_session=True, **self.options)
        guardian.watch(self.process.pid)

    def stop(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        guardian.forget(self.process.pid)


class Place(NamedTuple):
    """Where a server listens: its address, and the command that runs it in another network."""

    host: str = ADDRESS
    prefix: tuple = ()


HERE = Place()


class Server(Program):
    """A program that listens on a port, and has started when it does."""

    def __init__(self, port, command, host=ADDRESS, **options):
        super().__init__(command, **options)
        self.port, self.host = port, host

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def listens(self):
        return listens(self.port, self.host)

    def start(self):
        if self.listens():
            raise RuntimeError(f"{self.address} is taken.")
        super().start()
        try:
            wait_for(lambda: self.process.poll() is not None or self.listens())
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} stopped at once.")
        except BaseException:
            self.stop()
            raise

    def hung(self):
        """Stop the process in its tracks: it accepts connections, and never answers."""
        return stopped(self.process.pid)


class ServerWithWorkers(Server):
    """One that ends its workers when it is asked to end; killed, it would leave them behind."""

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)  # with thousands of threads it takes long
        finally:
            super().stop()

    def workers(self):
        """Return the process ids of the workers, old ones that are still at work among them."""
        return children(self.process.pid)


class Memcached(Server):
    def __init__(self, port=None, place=HERE):
        port = port or free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        options = ["-l", place.host, "-p", str(port), "-U", "0", *user]
        super().__init__(port, [*place.prefix, "memcached", *options], place.host)

    def ask(self, command):
        """Return the answer to a command of memcached's text protocol."""
        with closing(socket.create_connection((self.host, self.port))) as client:
            client.sendall(f"{command}\r\nquit\r\n".encode())
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()


class PostgreSQL(Server):
    """PostgreSQL with a new cluster of its own; its settings come as keyword arguments.

    The app is the role `gourmious`, which may make databases.
    """

    def __init__(self, **settings):
        port = free_port()
        defaults = {
            "listen_addresses": ADDRESS,
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",  # Nothing is lost when a process is killed, only when the power fails.
            "full_page_writes": "off",
        }
        pairs = {**defaults, **settings}.items()
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
            options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        command = ["postgres", *(f"--{name}={value}" for name, value in pairs)]
        super().__init__(port, command, **options)

    def __enter__(self):
        # Not in the folder of the tests, which only their user may enter.
        self.folder = self.options["cwd"] = mkdtemp(prefix="gourmious-", dir="/tmp")
        guardian.watch(self.folder)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        options = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]
        initdb = ["initdb", "--no-sync", "--pgdata=data", *options]
        subprocess.run(initdb, check=True, **self.options)
        self.command = [*self.command, "-D", "data"]
        super().__enter__()
        self.execute("CREATE ROLE gourmious LOGIN CREATEDB")
        return self

    def __exit__(self, *exc_info):
        super().__exit__(*exc_info)
        guardian.remove(self.folder)
        guardian.forget(self.folder)

    def begin(self):
        """Start the server, and do not wait until it lets clients in."""
        Program.start(self)

    def stop(self, number=signal.SIGQUIT):
        """End the server: at once, or as another signal asks it to; it ends its processes."""
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        finally:
            super().stop()

    def listens(self):
        """Return whether it lets clients in; it listens before that."""
        return not self.find_refusal()

    def hung(self):
        return stopped(self.process.pid, *children(self.process.pid))

    def get_url(self, database, role="gourmious"):
        return f"postgresql://{role}@{self.address}/{database}"

    def get_path(self, name):
        """Return the path of a file of the cluster."""
        return Path(self.folder, "data", name)

    def find_refusal(self):
        """Return why the server lets nobody in, or an empty text."""
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return str(error)
        return ""

    def connect(self, database):
        """Return a connection of the superuser, which the block ends."""
        url = self.get_url(database, "postgres")
        return psycopg.connect(url, autocommit=True, connect_timeout=10)

    def execute(self, command, database="postgres"):
        """Execute a command as the superuser, and return the rows that it may have."""
        with self.connect(database) as connection:
            cursor = connection.execute(command)
            return cursor.fetchall() if cursor.description else []

    def end_sessions(self, database):
        """Have the server end the connections of all clients to a database; return how many."""
        others = "datname = current_database() AND pid != pg_backend_pid()"
        clients = f"{others} AND backend_type = 'client backend'"
        ended = f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {clients}"
        return len(self.execute(ended, database))

    def create_database(self, name, template="template1"):
        """Make a database of the app, or copy one that nobody uses; return its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER gourmious')
        return self.get_url(name)


class SeaweedFS(Server):
    """An S3 store, with all of its parts in one process, and with its files in a folder.

    With a certificate and a key it speaks TLS on a second port. It is stopped by SIGKILL: it takes
    long to end.
    """

    def __init__(self, certificate=None, key=None):
        ports = [free_port() for _ in range(8)]
        names = [f"{part}.port{kind}" for part in WEED_PARTS for kind in ("", ".grpc")]
        self.ports = dict(zip(names, ports, strict=True))
        self.folder = Path(mkdtemp(prefix="gourmious-"))
        (self.folder / "data").mkdir()
        (self.folder / "s3.json").write_text(json.dumps({"identities": buckets.IDENTITIES}))
        flags = self._describe() | (self._describe_tls(certificate, key) if certificate else {})
        command = [str(WEED), "server", *(f"-{name}={value}" for name, value in flags.items())]
        environment = {**os.environ, "TMPDIR": str(self.folder)}  # for its logs
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        options = {"cwd": self.folder, "env": environment, **quiet}
        super().__init__(self.ports["s3.port"], command, **options)

    def _describe(self):
        return {
            **WEED_OPTIONS,
            **self.ports,
            "dir": self.folder / "data",
            "filer.localSocket": self.folder / "filer.sock",
            "s3.config": self.folder / "s3.json",
            "s3.localSocket": self.folder / "s3.sock",
        }

    def _describe_tls(self, certificate, key):
        self.tls_port = free_port()
        return {
            "s3.port.https": self.tls_port,
            "s3.cert.file": certificate,
            "s3.key.file": key,
        }

    def __enter__(self):
        guardian.watch(self.folder)
        return super().__enter__()

    def __exit__(self, *exc_info):
        super().__exit__(*exc_info)
        shutil.rmtree(self.folder)
        guardian.forget(self.folder)

    def stop(self):
        super().stop()
        for port in self.ports.values():
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()

    def listens(self):
        """Tell whether an object can be written: the port is open seconds earlier."""
        return super().listens() and buckets.is_ready(self.endpoint)

    @property
    def endpoint(self):
        return f"http://{self.address}"

    @property
    def tls_endpoint(self):
        return f"https://localhost:{self.tls_port}"

    def make_buckets(self, name):
        """Make two empty buckets, and return the environment of an app that uses them."""
        return buckets.make_buckets(self.endpoint, name)


@cache
def share_store():
    """Start the S3 store of this process, and return it. It is stopped at exit."""
    store = SeaweedFS()
    store.__enter__()
    util.Finalize(None, store.__exit__, exitpriority=0)
    return store


class Nginx(ServerWithWorkers):
    """nginx with the main file that deployconf prints, and one site.

    It keeps its files in a folder that is empty before.
    """

    def __init__(self, folder, port, main, site, place=HERE):
        self.folder = Path(folder)
        config = write_nginx_conf(self.folder, main, site)
        options = ["-e", f"{folder}/error.log", "-c", str(config), "-g", "daemon off;"]
        super().__init__(port, [*place.prefix, "nginx", *options], place.host)

    def reload(self):
        """Begin to replace the workers by new ones."""
        self.process.send_signal(signal.SIGHUP)


def write_nginx_conf(folder, main, site):
    """Write nginx's main file with this site alone, and with all its files in the folder."""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")
    )
    for text, replacement in (
        ("user www-data;", "user root;" if os.geteuid() == 0 else ""),
        ("/run/nginx.pid", f"{folder}/pid"),
        ("include /etc/nginx/modules-enabled/*.conf;", ""),
        ("/var/log/nginx", str(folder)),
        ("include /etc/nginx/conf.d/*.conf;", temporary),
        ("include /etc/nginx/sites-enabled/*;", site),
    ):
        assert text in main, text
        main = main.replace(text, replacement)
    config = folder / "nginx.conf"
    config.write_text(main)
    return config


class HAProxy(Server):
    """HAProxy with the configuration that deployconf prints, and with its files in a folder."""

    def __init__(self, folder, port, config, log=subprocess.DEVNULL):
        self.folder = Path(folder)
        path = write_haproxy_conf(self.folder, config)
        super().__init__(port, ["haproxy", "-f", str(path)], stdout=log, stderr=log)

    def listens(self):
        """Return whether it listens on its port and, a moment later, for its operator."""
        return super().listens() and (self.folder / "admin.sock").exists()

    def ask(self, command):
        """Return the answer to a command of HAProxy's socket for its operator."""
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(self.folder / "admin.sock"))
            client.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()

    def list_up(self, backend="uploads"):
        """Return the names of the web hosts that get new requests."""
        hosts = self.read_stats(backend)
        return {host["svname"] for host in hosts if host["status"].startswith(("UP", "no check"))}

    def read_stats(self, backend):
        """Return HAProxy's figures of each web host."""
        rows = csv.DictReader(self.ask("show stat").removeprefix("# ").splitlines())
        return [row for row in rows if row["pxname"] == backend and row["svname"] != "BACKEND"]


def write_haproxy_conf(folder, config, **replacements):
    """Write HAProxy's file, and have HAProxy run as this user, with all its files in the folder."""
    for text, replacement in {
        "    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n": "",
        "/run/haproxy/": f"{folder}/",
        **replacements,
    }.items():
        assert text in config, text
        config = config.replace(text, replacement)
    path = Path(folder, "haproxy.cfg")
    path.write_text(config)
    return path


class Runserver(Server):
    """Django's development server, with a database and files of its own in a folder."""

    def __init__(self, folder):
        port = free_port()
        command = [sys.executable, "manage.py", "runserver", "--noreload", f"{ADDRESS}:{port}"]
        options = {
            # TMPDIR: killed, it leaves a folder that multiprocessing made.
            "env": {**os.environ, "GOURMIOUS_DATA_DIR": str(folder), "TMPDIR": str(folder)},
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        super().__init__(port, command, cwd=ROOT, **options)


class Exporter(Server):
    """The server of the app's figures for Prometheus."""

    def __init__(self, **environment):
        command = [sys.executable, "-m", "gourmious.exporter"]
        port = int(environment["GOURMIOUS_METRICS_PORT"])
        super().__init__(port, command, cwd=ROOT, env={**os.environ, **environment})


class Granian(ServerWithWorkers):
    """The app's server of pages or of uploads; its environment comes as keyword arguments."""

    def __init__(self, service, log=subprocess.DEVNULL, **environment):
        run = Path(environment["GOURMIOUS_RUN_DIR"])
        run.mkdir(parents=True, exist_ok=True)
        self.socket = run / service / "socket"
        self.count = int(environment.get("GOURMIOUS_WORKERS", CORES))
        # TMPDIR: killed, its workers leave what multiprocessing made.
        variables = {**os.environ, **MALLOC, "TMPDIR": str(run), **environment}
        options = {"env": variables, "stdout": log, "stderr": log}
        command = [sys.executable, "-m", "gourmious.serve", service]
        super().__init__(None, command, cwd=ROOT, **options)

    @property
    def address(self):
        return f"unix:{self.socket}"

    def listens(self):
        with closing(socket.socket(socket.AF_UNIX)) as client:
            return client.connect_ex(str(self.socket)) == 0

    def workers(self):
        return forks(self.process.pid)  # multiprocessing has other children beside them

    def forkservers(self):
        """Return the process ids of the processes that start the workers' renderers."""
        return [child for pid in self.workers() for child in children(pid)]

    def renderers(self):
        """Return the process ids of the workers' renderers."""
        return [renderer for pid in self.forkservers() for renderer in forks(pid)]

    def processes(self):
        """Return the process ids of all processes that belong to this server, and run."""
        return processes_of(self.process.pid)

    def orphans(self):
        """Return the process ids of those that outlived the process that started them."""
        main = str(self.process.pid)
        return set(self.processes()) - {main, *descendants(main)}

    def hung(self):
        return stopped(*self.workers())

    def can_render(self):
        """Return whether all renderers have started, and their forkservers sleep again.

        Until then a worker waits for its forkserver's word, and serves nobody.
        """
        all_renderers = self.count * max(1, CORES // self.count)
        asleep = [stat(pid)[0] == "S" for pid in self.forkservers()]
        return len(self.renderers()) == all_renderers and all(asleep)

    @contextmanager
    def rendering_held_back(self):
        """Stop all renderers in their tracks, and the forkservers, which would replace them."""
        wait_for(self.can_render)
        with stopped(*self.forkservers()), stopped(*self.renderers()):
            yield

    @contextmanager
    def limited(self, size):
        """Let the workers and their renderers write no file beyond so many bytes."""
        soft, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        self.limit_files(size, hard)
        try:
            yield
        finally:
            self.limit_files(soft, hard)

    def limit_files(self, *limits):
        """Limit the forkservers, too, from which new renderers have it."""
        for worker in self.workers():
            for pid in (worker, *descendants(worker)):
                resource.prlimit(int(pid), resource.RLIMIT_FSIZE, limits)

    def signal_workers(self, number):
        for pid in self.workers():
            os.kill(int(pid), number)

    def memory(self, field):
        """Return VmRSS or VmHWM, the present or the highest memory, in bytes.

        It is that of the workers and of their renderers, taken together.
        """
        processes = (*self.workers(), *self.renderers())
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in processes]
        return sum(1024 * int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) for text in statuses)


class Instance(Granian):
    """A server on a socket that a test holds, as systemd does, and that servers may share.

    It has started when it says so: clients can always connect to the socket.
    """

    def __init__(self, service, listener, log=subprocess.DEVNULL, **environment):
        super().__init__(service, log, **environment)
        self.command = ["sh", "-c", PASS_SOCKET, "sh", *self.command]
        self.options["stdin"] = listener

    def __enter__(self):
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind("")  # to an abstract address, which the kernel chooses
        self.notices.setblocking(False)
        address = self.notices.getsockname().decode().replace("\0", "@")
        self.options["env"]["NOTIFY_SOCKET"] = address
        return super().__enter__()

    def __exit__(self, *exc_info):
        super().__exit__(*exc_info)
        self.notices.close()

    def begin(self):
        """Start the process, and do not wait until it serves."""
        while self.is_ready():
            continue  # Forget what earlier workers have said.
        Program.start(self)

    def start(self):
        self.begin()
        try:
            wait_for(self.is_ready)
        except BaseException:
            self.stop()
            raise

    def is_ready(self):
        """Return whether a worker has said that it serves since this was last asked."""
        with suppress(BlockingIOError):
            return self.notices.recv(100) == b"READY=1"


@contextmanager
def listening(path):
    """Yield a socket that listens on a path, as one of systemd's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4096)
        yield listener
