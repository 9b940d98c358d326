"""Start the real servers that the tests talk to, on free loopback ports, and stop them again."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import unittest
from contextlib import closing, contextmanager
from pathlib import Path

from .base import wait_for

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "127.0.0.1"


def requires(*programs):
    """Skip a test where a program is missing, and name the Debian packages that have it."""
    packages = {"chromedriver": "chromium-driver"}
    missing = [packages.get(name, name) for name in programs if not shutil.which(name)]
    return unittest.skipIf(missing, f"To be installed from Debian: {' '.join(missing)}.")


def manage(*arguments, **environment):
    """Run manage.py in a process of its own; its environment comes as keyword arguments."""
    subprocess.run(
        [sys.executable, "manage.py", *arguments, "--verbosity", "0"],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
    )


def free_port():
    with closing(socket.create_server((ADDRESS, 0))) as server:
        return server.getsockname()[1]


def listens(port):
    with closing(socket.socket()) as client:
        return client.connect_ex((ADDRESS, port)) == 0


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
        self.process = subprocess.Popen(self.command, **self.options)
        try:
            wait_for(lambda: self.process.poll() is not None or listens(self.port))
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} stopped at once.")
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self.process.kill()
        self.process.wait()

    @contextmanager
    def hung(self):
        """Stop the process in its tracks: it accepts connections, and never answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
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


class Memcached(Server):
    def __init__(self):
        port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        super().__init__(port, ["memcached", "-l", ADDRESS, "-p", str(port), "-U", "0", *user])

    def ask(self, command):
        """Return the answer to a command of memcached's text protocol."""
        with closing(socket.create_connection((ADDRESS, self.port))) as client:
            client.sendall(f"{command}\r\nquit\r\n".encode())
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()


NGINX = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    default_type text/html;
    client_body_temp_path {folder}/body;
    client_max_body_size 300m;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    server {{
        listen {listen};
        location / {{
            if (-f {folder}/down$uri) {{ return 502; }}
            if (-f {folder}/captive$uri) {{ return 200 "<!DOCTYPE html><p style='x'>Log in."; }}
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


class Nginx(ServerWithWorkers):
    """A proxy to a server, which can be told to answer with HTML pages of its own instead.

    It keeps its files in a folder that is empty before.
    """

    def __init__(self, folder, upstream):
        self.folder = Path(folder)
        port = free_port()
        config = self.folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        listen = f"{ADDRESS}:{port}"
        config.write_text(NGINX.format(folder=folder, user=user, listen=listen, upstream=upstream))
        super().__init__(port, ["nginx", "-e", f"{folder}/error.log", "-c", str(config)])

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
    """The app in one worker process of Granian; its environment comes as keyword arguments."""

    def __init__(self, **environment):
        port = free_port()
        command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", ADDRESS]
        command += ["--port", str(port), "--blocking-threads", "32", "--no-ws", "--no-log"]
        command += ["gourmious.wsgi:application"]
        options = {
            "env": {**os.environ, **environment},
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        super().__init__(port, command, cwd=ROOT, **options)

    def memory(self, field):
        """Return VmRSS or VmHWM, the present or the highest memory of the worker, in bytes."""
        pid = self.process.pid
        [worker] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        status = Path(f"/proc/{worker}/status").read_text()
        return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", status)[1])
