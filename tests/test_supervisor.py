"""The stand-in for systemd and nginx, and the repository of releases."""

import os
import shlex
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from .base import PRODUCTION
from .client import get
from .environment import deployconf
from .processes import has_ended
from .servers import requires
from .supervisor import Supervisor
from .upstream import Upstream
from .waiting import wait_for

PYTHON = shlex.quote(sys.executable)
SOCKET = """
[Socket]
ListenStream=/run/site/socket
SocketMode=0660
Backlog=4096
"""
# It says that it is ready, then answers each connection with its process id and its words, and
# ends when it is told to.
SERVER = """
import os, signal, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "1"
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
    notices.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
server = socket.socket(fileno=3)
while True:
    client, _ = server.accept()
    client.sendall(" ".join([str(os.getpid()), *sys.argv[1:], os.environ["COLOUR"]]).encode())
    order = client.recv(9)
    client.close()
    if order:
        sys.exit(int(order))
"""
SERVICE = """
[Service]
Type=notify
NotifyAccess=all
Sockets=site.socket
EnvironmentFile=/srv/site/%i.env
RuntimeDirectory=site-%i
RuntimeDirectoryMode=0750
WorkingDirectory=/srv/site
ExecStart={python} server.py %i
Restart=on-failure
RestartSec=1
TimeoutStartSec={start_time}
TimeoutStopSec=1min
ProtectSystem=strict
"""


@requires("memcached", "nginx")
class SupervisorTestCase(SimpleTestCase):
    scale = 1

    def setUp(self):
        super().setUp()
        self.root = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        for folder in ("etc/systemd/system", "etc/nginx/sites-enabled", "srv/site"):
            (self.root / folder).mkdir(parents=True)
        self.supervisor = self.enterContext(Supervisor(self.root, self.scale))

    def write(self, path, text):
        (self.root / path).write_text(text)

    def write_unit(self, name, text):
        self.write(f"etc/systemd/system/{name}", text)

    def systemctl(self, *arguments, status=0):
        done = self.supervisor.run("systemctl", *arguments)
        self.assertEqual(done.returncode, status, done.stderr + done.stdout)
        return done.stdout + done.stderr


class ServiceTests(SupervisorTestCase):
    scale = 0.02

    def setUp(self):
        super().setUp()
        self.write_unit("site.socket", SOCKET)
        self.write_unit("site@.service", SERVICE.format(python=PYTHON, start_time="60min"))
        self.write("srv/site/server.py", SERVER)
        self.write("srv/site/1.env", "# Settings\nCOLOUR='light red'\n")
        self.write("srv/site/2.env", "COLOUR=blue\n")

    def connect(self):
        client = self.enterContext(closing(socket.socket(socket.AF_UNIX)))
        client.settimeout(20)
        client.connect(str(self.root / "run/site/socket"))
        return client

    def ask(self, order=b""):
        """Return the process id and the words of the service that takes a connection."""
        client = self.connect()
        pid, words = client.recv(99).decode().split(" ", 1)
        client.sendall(order)
        client.shutdown(socket.SHUT_WR)
        return int(pid), words

    def wait_until(self, active):
        wait_for(lambda: self.supervisor.unit("site@1").active == active)

    def test_a_service_has_started_when_it_is_ready(self):
        self.systemctl("start", "site@1")

        pid, words = self.ask()

        self.assertEqual(words, "1 light red")
        self.assertEqual(self.supervisor.unit("site@1").main_pid, pid)
        for state, names in (("active,activating", ["site@1.service"]), ("failed", [])):
            lines = self.systemctl("list-units", "--plain", f"--state={state}", "site@*")
            self.assertEqual([line.split()[0] for line in lines.splitlines()], names)

    def test_connections_wait_while_nobody_takes_them(self):
        self.systemctl("start", "site.socket")
        client = self.connect()

        self.systemctl("start", "site@2")

        self.assertIn(b"2 blue", client.recv(99))

    def test_a_service_that_fails_starts_again(self):
        self.systemctl("start", "site@1")

        pid, _ = self.ask(b"3")

        self.assertNotEqual(self.ask()[0], pid)

    def test_a_service_that_ends_in_order_stays_ended(self):
        self.systemctl("start", "site@1", "site@2")

        self.systemctl("kill", "--signal=SIGTERM", "--kill-whom=main", "site@1")

        self.wait_until("inactive")
        self.assertEqual(self.ask()[1], "2 blue")
        self.assertFalse((self.root / "run/site-1").exists())

    def test_a_start_that_fails_is_told_and_tried_again(self):
        self.write("srv/site/server.py", "raise SystemExit(1)")

        self.systemctl("start", "site@1", status=1)
        self.wait_until("activating")
        self.systemctl("stop", "site@1")

        unit = self.supervisor.unit("site@1")
        self.assertEqual((unit.active, unit.main_pid), ("failed", 0))

    def test_a_service_that_is_never_ready_fails_in_time(self):
        self.write_unit("site@.service", SERVICE.format(python=PYTHON, start_time="1min"))
        self.write("srv/site/server.py", "import signal\nsignal.pause()")

        self.systemctl("start", "site@1", status=1)

    def test_a_service_that_does_not_end_is_killed(self):
        self.write("srv/site/server.py", f"import signal\nsignal.signal(15, id)\n{SERVER}")
        self.systemctl("start", "site@1")
        pid, _ = self.ask()

        self.systemctl("stop", "site@1")

        self.assertTrue(has_ended(pid))
        self.wait_until("failed")

    def test_changed_units_count_after_a_reload(self):
        self.systemctl("start", "site@1")
        self.write_unit("site@.service", SERVICE.format(python=f"{PYTHON} -B", start_time="60min"))
        self.write("srv/site/server.py", SERVER.replace("sys.argv[1:]", "sys.orig_argv[1:2]"))

        self.systemctl("restart", "site@1")
        self.assertEqual(self.ask()[1], "server.py light red")
        self.systemctl("daemon-reload")
        self.systemctl("restart", "site@1")
        self.assertEqual(self.ask()[1], "-B light red")

    def test_enabled_units_start_with_the_machine(self):
        self.systemctl("enable", "--now", "site@1", "site.socket")
        pid, _ = self.ask()

        self.supervisor.reboot()

        self.assertTrue(has_ended(pid))
        self.assertNotEqual(self.ask()[0], pid)


class StrictnessTests(SupervisorTestCase):
    def test_a_unit_that_is_missing_does_not_start(self):
        self.assertIn("No such file", self.systemctl("start", "site", status=1))

    def test_what_it_does_not_know_fails(self):
        self.write_unit("site.service", "[Service]\nDynamicUser=yes\nExecStart=/bin/true\n")
        self.systemctl("start", "site", status=1)
        self.systemctl("try-restart", "site", status=1)

        self.assertRegex("".join(self.supervisor.misunderstood), "(?s)DynamicUser.*try-restart")
        self.supervisor.misunderstood.clear()


class NginxTests(SupervisorTestCase):
    def setUp(self):
        super().setUp()
        self.write("etc/nginx/nginx.conf", deployconf("nginx-main", **PRODUCTION))
        self.write_site("root /srv/site;")
        self.write("srv/site/dish", "Bouillabaisse")

    def write_site(self, directives):
        site = f"server {{ listen 80; listen [::]:80; {directives} }}"
        self.write("etc/nginx/sites-enabled/site", site)

    def test_a_site_answers_on_a_port_of_loopback(self):
        self.systemctl("start", "nginx")

        self.assertEqual(get(self.supervisor.http, "/dish").text, "Bouillabaisse")

    def test_a_site_changes_with_a_reload(self):
        self.systemctl("start", "nginx")
        self.write_site("return 200 changed;")

        self.assertEqual(get(self.supervisor.http, "/dish").text, "Bouillabaisse")
        self.systemctl("reload-or-restart", "nginx")

        wait_for(lambda: get(self.supervisor.http, "/dish").text == "changed")

    def test_a_site_that_nginx_does_not_understand_changes_nothing(self):
        self.systemctl("start", "nginx")
        self.write_site("rot /srv/site;")

        self.assertIn('"rot"', self.supervisor.run("nginx", "-t").stderr)
        self.assertIn('"rot"', self.systemctl("reload-or-restart", "nginx", status=1))
        self.assertEqual(get(self.supervisor.http, "/dish").status, 200)


@requires("git")
class UpstreamTests(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.upstream = Upstream(self.folder)

    def test_its_packages_are_installed_without_a_network(self):
        python = self.folder / ".venv/bin/python"
        environment = {**os.environ, **self.upstream.environment}
        pip = "-m pip install --quiet --require-hashes --requirement requirements.lock"
        venv = [sys.executable, "-m", "venv", self.folder / ".venv"]
        for command in (venv, [python, *pip.split()], [python, "manage.py", "check"]):
            options = {"cwd": self.upstream.path, "env": environment}
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)

    def test_each_change_is_a_commit(self):
        before = self.upstream.revision()
        for change in (
            self.upstream.break_views,
            self.upstream.break_wsgi,
            self.upstream.break_migration,
            self.upstream.add_static_file,
            self.upstream.lose_wheel,
            lambda: self.upstream.change_title("Gourmet"),
        ):
            revision = change()
            self.assertEqual(self.upstream.git("rev-parse", f"{revision}^").strip(), before)
            self.assertEqual(self.upstream.git("status", "--short"), "")
            before = revision
