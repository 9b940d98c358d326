"""The real servers that the tests talk to, on loopback ports: how each is started and stopped."""

import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import unittest
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .waiting import wait_for

os.environ["PATH"] += ":/usr/sbin"  # Debian's nginx is there, where ordinary users do not look.
ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "127.0.0.1"


def missing_packages(*programs):
    """Return the Debian packages of those programs that are not installed."""
    packages = {
        "chromedriver": "chromium-driver",
        "java": "default-jdk-headless",
        "node": "nodejs",
        "systemd-analyze": "systemd",
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


def free_port():
    """Return a port that is free, and that the system gives to nobody else for a minute.

    It keeps that for those who ask for it when a connection to it was closed there first.
    """
    with (
        closing(socket.create_server((ADDRESS, 0))) as server,
        closing(socket.create_connection(server.getsockname())),
        closing(server.accept()[0]),
    ):
        return server.getsockname()[1]


def listens(port):
    with closing(socket.socket()) as client:
        return client.connect_ex((ADDRESS, port)) == 0


def is_stopped(pid):
    """Tell whether all threads of a process have stopped; the signal does not wait for that."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)


class Server:
    """A program that listens on a port; it is stopped when the block ends, however that ends."""

    def __init__(self, port, command, **options):
        self.port = port
        self.command = command
        self.options = options

    @property
    def address(self):
        return f"{ADDRESS}:{self.port}"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc_info):
        self.stop()

    def start(self):
        if listens(self.port):
            raise RuntimeError(f"Port {self.port} is taken.")
        # In a group of its own: Ctrl-C in a terminal does not reach it, and it is stopped in turn.
        self.process = subprocess.Popen(self.command, process_group=0, **self.options)
        try:
            wait_for(lambda: self.process.poll() is not None or listens(self.port))
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} stopped at once.")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @contextmanager
    def hung(self):
        """Stop the process in its tracks: it accepts connections, and never answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: is_stopped(self.process.pid))
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


class ServerWithWorkers(Server):
    """One that ends its workers when it is asked to end; killed, it would leave them behind."""

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            super().stop()

    def reload(self):
        """Begin to replace the workers by new ones."""
        self.process.send_signal(signal.SIGHUP)

    def workers(self):
        """Return the process ids of the workers, old ones that are still at work among them."""
        pid = self.process.pid
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


class Memcached(Server):
    def __init__(self, port=None):
        port = port or free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__(port, ["memcached", "-l", ADDRESS, "-p", str(port), "-U", "0", *user])

    def ask(self, command):
        """Return the answer to a command of memcached's text protocol."""
        with closing(socket.create_connection((ADDRESS, self.port))) as client:
            client.sendall(f"{command}\r\nquit\r\n".encode())
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()


# As Debian sets nginx up, but with room for a crowd.
NGINX = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes auto;
worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{
    sendfile on;
    tcp_nopush on;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    {site}
}}
"""


class Nginx(ServerWithWorkers):
    """nginx with one site; it keeps its files in a folder that is empty before."""

    def __init__(self, folder, port, site):
        self.folder = Path(folder)
        user = "user root;" if os.geteuid() == 0 else ""
        config = self.folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, user=user, site=site))
        super().__init__(port, ["nginx", "-e", f"{folder}/error.log", "-c", str(config)])


BROKEN_PROXY = """
server {{
    listen {listen};
    client_max_body_size 300m;
    default_type text/html;
    location / {{
        if (-f {folder}/down$uri) {{ return 502; }}
        if (-f {folder}/captive$uri) {{ return 200 "<!DOCTYPE html><p style='x'>Log in."; }}
        proxy_pass http://{upstream};
        proxy_http_version 1.1;
        proxy_request_buffering off;
        proxy_set_header Host $http_host;
    }}
}}
"""


class BrokenProxy(Nginx):
    """Somebody's proxy, which can be told to answer with HTML pages of its own instead."""

    def __init__(self, folder, upstream):
        port = free_port()
        listen = f"{ADDRESS}:{port}"
        site = BROKEN_PROXY.format(listen=listen, folder=folder, upstream=upstream)
        super().__init__(folder, port, site)

    @contextmanager
    def broken(self, path, how="down"):
        """Answer requests to a path with status 502, or with another page ("captive")."""
        flag = self.folder / how / path.lstrip("/")
        flag.parent.mkdir(exist_ok=True)
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()


class Runserver(Server):
    """Django's development server, with a database and files of its own in a folder."""

    def __init__(self, folder):
        port = free_port()
        command = [sys.executable, "manage.py", "runserver", "--noreload", f"{ADDRESS}:{port}"]
        options = {
            "env": {**os.environ, "GOURMIOUS_DATA_DIR": str(folder)},
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        super().__init__(port, command, cwd=ROOT, **options)


class Granian(ServerWithWorkers):
    """The app as deployconf's unit starts it; its environment comes as keyword arguments."""

    def __init__(self, port=None, log=subprocess.DEVNULL, **environment):
        port = port or free_port()
        environment["GOURMIOUS_LISTEN"] = f"{ADDRESS}:{port}"
        unit = manage("deployconf", "systemd", **environment).replace("\\\n", "")
        command = re.search(r"^ExecStart=(.* -m gourmious.serve .*)$", unit, re.MULTILINE)[1]
        own = re.search("^Environment=(.*)$", unit, re.MULTILINE)[1].split()
        options = {
            "env": {**os.environ, **dict(word.split("=") for word in own), **environment},
            "stdout": log,
            "stderr": log,
        }
        super().__init__(port, shlex.split(command), cwd=ROOT, **options)

    @contextmanager
    def hung(self):
        """Stop the workers in their tracks, too."""
        self.signal_workers(signal.SIGSTOP)
        try:
            wait_for(lambda: all(is_stopped(pid) for pid in self.workers()))
            yield
        finally:
            self.signal_workers(signal.SIGCONT)

    @contextmanager
    def limited(self, size):
        """Let the workers write no file beyond so many bytes."""
        workers = [int(pid) for pid in self.workers()]
        before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in workers]
        for pid, (_, hard) in zip(workers, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            for pid, limits in zip(workers, before, strict=True):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    def signal_workers(self, number):
        for pid in self.workers():
            os.kill(int(pid), number)

    def memory(self, field):
        """Return VmRSS or VmHWM, the present or the highest memory of the workers, in bytes."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.workers()]
        return sum(1024 * int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) for text in statuses)
