"""Granian as it is started in production: its sockets, its signals, and what it leaves: nothing."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from secrets import token_urlsafe

import granian
import PIL
from django.test import SimpleTestCase

from .cases import GranianTestCase
from .client import add_dish, get
from .photos import photo
from .processes import has_mapped
from .servers import ROOT, Granian, Server, free_port, listening
from .stack import make_certificate
from .waiting import wait_for

SERVICES = ("pages", "uploads")
PATHS = (
    "/",
    "/admin/login/",
    "/dishes/new",
    "/get_upload_progress?X-Progress-ID=none",
    "/healthz",
    "/menu",
)
# Print the number of buckets for futexes, or -1 where the kernel has one table for all processes.
COUNT_BUCKETS = """
import ctypes
from gourmious.serve import spread_futexes
spread_futexes(5000)
print(ctypes.CDLL(None).prctl(78, 2, 0, 0, 0))
"""
# The line that Python writes for each import of a module of the app or its framework.
OURS = re.compile(r"^import '((?:csp|django|gourmious|uploads)\b.*?)' #", re.MULTILINE)


def run_serve(mode, **environment):
    """Return the status of a run of gourmious.serve that ends, and what it prints."""
    command = [sys.executable, "-m", "gourmious.serve", mode]
    options = {"env": {**os.environ, **environment}, "stdout": subprocess.PIPE, "text": True}
    done = subprocess.run(command, check=False, cwd=ROOT, stderr=subprocess.STDOUT, **options)
    return done.returncode, done.stdout


class FutexTests(SimpleTestCase):
    def test_the_kernel_has_a_bucket_for_each_thread(self):
        command = [sys.executable, "-c", COUNT_BUCKETS]
        output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        self.assertIn(int(output), {8192, -1})


class SocketTests(GranianTestCase):
    def test_two_services_run_beside_each_other(self):
        for server in [self.serve(service) for service in SERVICES]:
            self.assert_answers(server)

    def test_only_a_user_and_a_group_may_connect(self):
        server = self.serve("pages")

        self.assertEqual(stat.S_IMODE(server.socket.stat().st_mode), 0o660)

    def test_a_server_leaves_a_socket_on_which_others_may_listen(self):
        listener = self.enterContext(listening(self.folder / "run" / "pages" / "socket"))
        old, server = (self.enterContext(self.instance("pages", listener)) for _ in range(2))

        old.process.terminate()

        self.assertEqual(old.process.wait(60), 0)
        self.assert_answers(server)

    def test_a_second_server_of_the_same_service_is_refused(self):
        self.serve("pages")
        status, text = run_serve("pages", **self.environment)

        self.assertEqual(status, 1)
        self.assertRegex(text, r"Another server listens on .*/pages/socket\.$")

    def test_the_socket_that_a_killed_server_left_is_replaced(self):
        server = self.serve("pages")
        Server.stop(server)
        wait_for(lambda: not server.listens())  # Its worker takes a moment longer.
        self.assertTrue(server.socket.exists())

        server.start()

        self.assert_answers(server)


class ReadyTests(GranianTestCase):
    def begin(self, **environment):
        """Begin to start a server of pages on a socket that is held, and return it."""
        listener = self.enterContext(listening(self.folder / "run" / "pages" / "socket"))
        server = self.instance("pages", listener, **environment)
        server.start = server.begin
        return self.enterContext(server)

    def test_a_server_is_ready_when_a_worker_has_loaded_the_app(self):
        server = self.begin()
        self.assertFalse(server.is_ready())

        self.assert_answers(server)

        self.assertTrue(server.is_ready())

    def test_a_server_whose_workers_cannot_load_the_app_is_never_ready(self):
        server = self.begin(DJANGO_SETTINGS_MODULE="tests.settings_broken")
        old = set(wait_for(server.workers))
        wait_for(lambda: set(server.workers()) - old)

        self.assertFalse(server.is_ready())


class CheckTests(GranianTestCase):
    def setUp(self):
        super().setUp()
        self.environment |= {
            "GOURMIOUS_SECRET_KEY": token_urlsafe(48),
            **make_certificate(self.folder),
        }

    def test_an_app_that_works_passes_in_silence(self):
        self.prepare()

        self.assertEqual(run_serve("check", **self.environment), (0, ""))

    def test_each_page_that_does_not_work_is_told(self):
        self.prepare()
        [manifest] = (self.folder / "static").glob("staticfiles.*.json")
        manifest.unlink()

        status, text = run_serve("check", **self.environment)

        self.assertEqual(status, 1)
        for path in ("/", "/admin/login/"):
            self.assertRegex(text, rf"(?m)^{path} answers: \d+ .*\.$")
        self.assertNotIn("/get_upload_progress answers", text)

    def test_a_warning_of_the_checks_for_a_deployment_is_told(self):
        self.prepare()
        self.environment["GOURMIOUS_MEMCACHED"] = f"127.0.0.1:{free_port()}"

        status, text = run_serve("check", **self.environment)

        self.assertEqual(status, 0)
        self.assertIn("(uploads.W004) memcached does not answer", text)

    def test_an_error_of_the_checks_for_a_deployment_is_a_failure(self):
        self.prepare()
        self.environment["DJANGO_SETTINGS_MODULE"] = "tests.settings_unsafe"

        status, text = run_serve("check", **self.environment)

        self.assertEqual(status, 1)
        self.assertRegex(text, r"^SystemCheckError(?s:.)*\(security\.E023\)")

    def test_packages_that_the_renderers_cannot_import_are_a_failure(self):
        (self.folder / "pillow_heif.py").write_text("raise ImportError('broken')\n")

        status, text = run_serve("check", **self.environment, PYTHONPATH=str(self.folder))

        self.assertEqual(status, 1)
        self.assertIn("ImportError: broken", text)

    def test_improper_settings_are_told_in_a_sentence(self):
        for mode in (*SERVICES, "check"):
            status, text = run_serve(mode, **self.environment, GOURMIOUS_MAX_UPLOADS="many")

            self.assertEqual(status, 1)
            self.assertRegex(text, r"^GOURMIOUS_MAX_UPLOADS holds 'many'; .*\.\n$")


class FiguresTests(GranianTestCase):
    def setUp(self):
        super().setUp()
        self.environment["GOURMIOUS_METRICS_PORT"] = str(free_port())
        self.metrics = self.folder / "run" / "metrics"

    def list_names(self):
        return {path.name for path in self.metrics.iterdir()}

    def test_a_worker_takes_over_the_files_of_one_that_was_killed(self):
        server = self.serve()
        names = self.list_names()
        for _ in range(3):
            [old] = server.workers()
            server.signal_workers(signal.SIGKILL)
            wait_for(lambda old=old: set(server.workers()) - {old})
            self.assert_answers(server)

        self.assertEqual(self.list_names(), names)

    def test_workers_beside_each_other_have_files_of_their_own(self):
        server = self.serve(GOURMIOUS_WORKERS="2")

        wait_for(lambda: {"1.lock", "2.lock"} <= self.list_names())
        self.assertEqual(len(server.workers()), 2)

    def test_a_server_whose_folder_for_figures_cannot_be_made_works_without(self):
        self.prepare()
        self.metrics.parent.mkdir(parents=True)
        self.metrics.touch()
        server = self.serve()

        dish = add_dish(server.address)
        self.assertEqual(self.send(server, dish, photo()).answer().status, 200)

    def test_renderers_keep_no_figures(self):
        server = self.serve()
        wait_for(server.renderers)

        self.assertEqual({name for name in self.list_names() if name.endswith(".lock")}, {"1.lock"})
        for pid in (*server.forkservers(), *server.renderers()):
            self.assertFalse(has_mapped(pid, self.metrics))

    def test_pages_keep_no_figures(self):
        self.serve("pages")

        self.assertFalse(self.metrics.exists())


class ImportTests(GranianTestCase):
    def test_all_modules_that_requests_need_are_imported_before_the_first_request(self):
        self.prepare()
        for service in SERVICES:
            log = self.folder / f"{service}.log"
            variables = {**self.environment, "PYTHONVERBOSE": "1"}
            with log.open("w") as file, Granian(service, file, **variables) as server:
                wait_for(lambda server=server, log=log: self.has_started(server, log))
                before = OURS.findall(log.read_text())
                self.assertIn("django.urls.resolvers", before)

                self.ask_for_everything(server, service)

                self.assertEqual(OURS.findall(log.read_text())[len(before) :], [])

    def has_started(self, server, log):
        """Tell whether the worker serves, and its renderers are through with what they import."""
        logs = [Path(f"/proc/{pid}/fd/2").readlink() for pid in server.renderers()]
        return "Started worker-1" in log.read_text() and set(logs) <= {Path("/dev/null")}

    def test_renderers_import_no_django(self):
        script = "import sys, uploads.rendering, uploads.images; print('django' in sys.modules)"
        command = [sys.executable, "-c", script]

        self.assertEqual(subprocess.check_output(command, cwd=ROOT), b"False\n")

    def test_workers_have_no_decoders_and_renderers_nothing_of_the_server(self):
        server = self.serve()
        decoders, other = (Path(package.__file__).parent for package in (PIL, granian))
        wait_for(server.can_render)

        for pid in server.workers():
            self.assertTrue(has_mapped(pid, other))
            self.assertFalse(has_mapped(pid, decoders))
        for pid in (*server.forkservers(), *server.renderers()):
            self.assertTrue(has_mapped(pid, decoders))
            self.assertFalse(has_mapped(pid, other))

    def ask_for_everything(self, server, service):
        dish = add_dish(server.address, service)
        for path in (*PATHS, dish.get_absolute_url()):
            self.assertLess(get(server.address, path).status, 500)
        if service == "uploads":
            for content in (photo(), b"A text."):
                self.send(server, dish, content).answer()
