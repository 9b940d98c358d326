"""Start the whole of a production server, and stop it on Ctrl-C: memcached, both of Granian's
services, and nginx over HTTP/1.1 and over TLS with HTTP/2, as deployconf sets it up, with an empty
database.

    python -m tests.stack

It prints where each listens. The servers log to the standard error.
"""

import argparse
import re
import resource
import secrets
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from .environment import deployconf
from .servers import (
    ADDRESS,
    HERE,
    Granian,
    HAProxy,
    Instance,
    Memcached,
    Nginx,
    free_port,
    listening,
    missing_packages,
    prepare_data,
)

PROGRAMS = ("memcached", "nginx", "openssl")
SERVERS = ("http", "https", "memcached")  # on ports
SPARE_DESCRIPTORS = 500  # that HAProxy needs beside those of its connections


class Servers(ExitStack):
    """Several servers, while the block runs. If one does not start, the others are stopped."""

    def __enter__(self):
        super().__enter__()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self


class Stack(Servers):
    """The servers, while the block runs; further variables of the environment are arguments."""

    place = HERE

    def __init__(self, *, ports=None, log=subprocess.DEVNULL, **variables):
        super().__init__()
        self.ports = {name: (ports or {}).get(name) or free_port() for name in SERVERS}
        self.log = log
        self.variables = variables

    def _start(self):
        self.folder = Path(self.enter_context(TemporaryDirectory(prefix="gourmious-")))
        self.data = Path(self.variables.get("GOURMIOUS_DATA_DIR", self.folder / "data"))
        self.memcached = self.enter_context(Memcached(self.ports["memcached"], self.place))
        self.environment = {
            "GOURMIOUS_SECRET_KEY": secrets.token_urlsafe(48),
            "GOURMIOUS_ALLOWED_HOSTS": f"localhost,{ADDRESS},[::1]",
            "GOURMIOUS_MEMCACHED": self.memcached.address,
            "GOURMIOUS_DATA_DIR": str(self.data),
            "GOURMIOUS_RUN_DIR": str(self.folder / "run"),
            "GOURMIOUS_WORKERS": "2",
            # All clients of a test may come from one address.
            "GOURMIOUS_MAX_MB_PER_DAY": "999999",
            "GOURMIOUS_UPLOADS_PER_MINUTE": "999999",
            "GOURMIOUS_POSTS_PER_MINUTE": "999999",
            **prepare_data(self.data),
            **self.variables,
        }
        self.pages, self.uploads = map(self._serve, ("pages", "uploads"))
        self.http = self._nginx("http")

    @cached_property
    def https(self):
        """nginx over TLS; it starts when it is first asked for."""
        return self._nginx("https", **make_certificate(self.folder))

    def _serve(self, service):
        return self.enter_context(Granian(service, self.log, **self.environment))

    def _nginx(self, name, **variables):
        folder = self.folder / name
        folder.mkdir()
        port = self.ports[name]
        environment = {**self.environment, **variables}
        texts = print_nginx(port, environment, self.list_addresses())
        return self.enter_context(Nginx(folder, port, *texts, self.place))

    def list_addresses(self):
        """Return the addresses that nginx listens on."""
        return loopback_hosts()

    def addresses(self):
        """Yield a line for each server, and for the folder with the database and the photos."""
        yield f"http: http://{self.http.address}"
        yield f"https: https://{self.https.address}"
        yield f"pages: {self.pages.address}"
        yield f"uploads: {self.uploads.address}"
        yield f"memcached: {self.memcached.address}"
        yield f"data: {self.data}"


class InstanceStack(Stack):
    """A stack that holds the sockets, as systemd does: a service may have several servers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.listeners = {}

    def _serve(self, service):
        path = self.folder / "run" / service / "socket"
        self.listeners[service] = self.enter_context(listening(path))
        return self.start_instance(service)

    def start_instance(self, service):
        """Start one more server of a service, and return it when it serves."""
        listener = self.listeners[service]
        return self.enter_context(Instance(service, listener, self.log, **self.environment))


class Balancer(HAProxy):
    """HAProxy over TLS, with the redirect from HTTP, on free ports of all loopback addresses."""

    secure = True

    def __init__(self, folder, hosts, environment):
        environment = {"GOURMIOUS_MAX_UPLOADS": "500", **environment}  # for a few descriptors
        certificate = folder / "both.pem"
        files = make_certificate(folder).values()
        certificate.write_text("".join(Path(file).read_text() for file in files))
        config = deployconf("balancer", f"--certificate={certificate}", *hosts, **environment)
        self.plain_port, port = free_port(), free_port()
        for standard, free in ((80, self.plain_port), (443, port)):
            config = config.replace(f" :{standard}", f" {ADDRESS}:{free}")
            config = config.replace(f" :::{standard}", f" {loopback_hosts()[-1]}:{free}")
        super().__init__(folder, port, config)

    @property
    def plain_address(self):
        return f"{ADDRESS}:{self.plain_port}"


class PlainBalancer(HAProxy):
    """HAProxy over plain HTTP, on a free port, with as many connections as this user may have."""

    secure = False

    def __init__(self, folder, hosts, environment):
        port = free_port()
        listen = f"--listen={ADDRESS}:{port}"
        config = deployconf("balancer", listen, *hosts, **environment)
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connections = (descriptors - SPARE_DESCRIPTORS) // 2
        config = re.sub(
            r"^    maxconn \d+$", f"    maxconn {connections}", config, flags=re.MULTILINE
        )
        super().__init__(folder, port, config)


def print_nginx(port, environment, hosts=()):
    """Return nginx's main file and the site, as deployconf prints them for a port.

    Without `hosts`, it is a port of loopback.
    """
    listen = [f"{host}:{port}" for host in hosts or loopback_hosts()]
    options = (f"--listen={address}" for address in listen)
    return deployconf("nginx-main", **environment), deployconf("nginx", *options, **environment)


def loopback_hosts():
    """Return the loopback addresses of this machine; not every one speaks IPv6."""
    hosts = [ADDRESS]
    with suppress(OSError), closing(socket.create_server(("::1", 0), family=socket.AF_INET6)):
        hosts.append("[::1]")
    return hosts


def make_certificate(folder):
    """Make a certificate that nobody vouches for, and return its settings."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = f"subjectAltName=DNS:localhost,IP:{ADDRESS},IP:::1"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30"
    arguments = ["-subj", "/CN=localhost", "-addext", names, "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *arguments], check=True, stderr=subprocess.DEVNULL)
    return {"GOURMIOUS_TLS_CERTIFICATE": str(certificate), "GOURMIOUS_TLS_KEY": str(key)}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__)
    for name in SERVERS:
        parser.add_argument(f"--{name}", type=int, metavar="PORT", help="Default: a free one.")
    arguments = parser.parse_args()
    if missing := missing_packages(*PROGRAMS):
        parser.error(f"To be installed from Debian: {' '.join(missing)}.")

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt), Stack(ports=vars(arguments), log=sys.stderr) as stack:
        print(*stack.addresses(), sep="\n", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
