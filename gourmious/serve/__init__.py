"""Serve the app with Granian: `python -m gourmious.serve pages`, or `… uploads`.

Two services, so that pages need not wait behind thousands of uploads. `… check` requests pages from
the app, without a server, and runs Django's checks for deployments.

systemd listens on the sockets. Connections wait there while a service starts again, and a new
release takes over from an old one on the same sockets. By hand each service listens on its own.

The kernel may deliver a signal to any thread of a process. Python then waits for the main thread to
call the handler, but Granian's main thread (2.8) sleeps until a handler wakes it. On a busy machine
every third SIGTERM was lost, and workers never ended. Here one thread waits for the signals and
calls the handlers; the others block them.
"""

import argparse
import ctypes
import fcntl
import gc
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from itertools import count
from multiprocessing import resource_tracker
from wsgiref.util import setup_testing_defaults

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, SystemCheckError
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.net import SocketHolder

BACKLOG = 4096  # connections that wait
RESPAWN_PAUSE = 0.5  # seconds, for a worker that dies at its start
STOP_TIMEOUT = 60  # seconds that running uploads have when the main process fails
END_TIMEOUT = 600  # seconds that running uploads have when their server is asked to end

# Seconds that a thread may hold the GIL while others wait. Each waiting thread wakes up after this
# time: at Python's 5 ms, the threads of 10,000 uploads did little else. Hardly any thread holds it
# for a millisecond, since each read and write releases it.
SWITCH_INTERVALS = {"pages": 0.005, "uploads": 5}

# After how many new objects Python looks for garbage in the youngest generation, and after how many
# such looks in each older one. With Python's own 700 a worker spent 7 % of its time on the garbage
# collection of 10,000 uploads.
GC_THRESHOLDS = 10_000, 10, 50

PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS = 78, 1  # from <linux/prctl.h>


class ForgetfulDict(dict):
    """A dictionary that keeps nothing. In it Granian (2.8) notes when it replaces a worker.

    With these notes, Granian would end if a worker died twice in 5.5 s, and nobody would answer
    until the uploads of the other workers are finished. Without them it replaces a worker however
    often it dies, after a pause.
    """

    def __setitem__(self, key, value):
        time.sleep(RESPAWN_PAUSE)


def wait_for_signals(*signals, once=False):
    """Block these signals, and start a thread that waits for them and calls their handlers.

    The handlers may be set later. If `once`, the thread ends after the first signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    at_start = {number: signal.getsignal(number) for number in signals}
    threading.Thread(target=deliver, args=(at_start, once), daemon=True).start()


def deliver(at_start, once):
    while True:
        number = signal.sigwait(at_start)
        # A signal that comes before its handler is set waits for it.
        while (handler := signal.getsignal(number)) == at_start[number]:
            time.sleep(0.05)
        handler(number, None)
        if once:
            return


def open_socket(path):
    """Return the socket that systemd passes, as in sd_listen_fds(3), or a new one."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return socket.socket(fileno=3)
    free_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o660)
    listener.listen(BACKLOG)
    return listener


def free_socket(path):
    """Remove the socket of a server that has ended; exit if another server answers there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(str(path)) == 0:
            sys.exit(f"Another server listens on {path}.")
    path.unlink(missing_ok=True)


class Server(Granian):
    """A Granian that listens on a socket that others may share."""

    def __init__(self, listener, **options):
        super().__init__("gourmious.wsgi:application", **options)
        self.listener = listener
        self.respawned_wrks = ForgetfulDict()

    def _init_shared_socket(self):
        self._sso = self.listener
        self._shd = SocketHolder(self.listener.fileno(), True, BACKLOG)

    def _unlink_pidfile(self):
        """Leave the socket, which Granian would remove: other servers may listen there."""

    def shutdown(self, exit_code=0):
        # Granian would fail if a worker has just died, and systemd would start it again.
        self.interrupt_children.clear()
        super().shutdown(exit_code)


def make_server(service, listener):
    return Server(
        listener,
        uds=settings.SOCKETS[service],
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=2**17),
        websockets=False,
        workers=settings.WORKERS,
        blocking_threads=settings.THREADS[service],
        backpressure=4 * settings.THREADS[service],  # connections; nginx's idle ones count, too
        respawn_failed_workers=True,
        workers_kill_timeout=END_TIMEOUT,
    )


def load_application(service):
    """In a worker, import all that requests need, tell systemd, and return the application."""
    # Only once: repeated calls of Granian's handler would block, and hold the GIL for ever.
    wait_for_signals(signal.SIGINT, signal.SIGTERM, once=True)
    sys.setswitchinterval(SWITCH_INTERVALS[service])
    spread_futexes(settings.THREADS[service])
    if service == "uploads" and settings.METRICS_PORT:
        with suppress(OSError):  # Uploads need no figures.
            keep_figures(settings.METRICS_DIR)
    application = import_module("gourmious.wsgi").application
    request_pages(application)
    if service == "uploads":
        # A full disk may have no room for their socket. In that case the first picture starts them.
        with suppress(OSError):
            import_module("uploads.renderer").renderers.start()
    gc.freeze()  # Imported objects are never garbage.
    tell_ready()
    return application


def keep_figures(folder):
    """Let prometheus_client keep the figures of this worker in files, for gourmious.exporter.

    The worker takes over the files of one that has ended, and counts on. With files of its own for
    each process, workers that die again and again would fill the folder.
    """
    from prometheus_client import values  # noqa: PLC0415

    folder.mkdir(exist_ok=True)
    number = next(number for number in count(1) if lock_until_end(folder / f"{number}.lock"))
    for path in folder.glob(f"gauge_*_{number}.db"):
        path.unlink()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)


def lock_until_end(path):
    """Lock a file until this process ends, and return whether no other process had locked it."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def spread_futexes(threads):
    """Ask the kernel for as many futex buckets as there are threads: a wake-up searches a bucket.

    Since Linux 6.16 a process has four buckets for each core. With 10,000 uploads on two cores each
    wake-up searched hundreds of futexes, which took a fifth of both cores. Older kernels have one
    large table for all processes, and refuse the call.
    """
    slots = 1 << threads.bit_length()  # a power of two
    ctypes.CDLL(None).prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, slots, 0, 0)


def request_pages(application):
    """Request some pages, so that Django imports what they need, such as the admin's forms.

    Return their paths, with the status of each.
    """
    [host, *_] = settings.ALLOWED_HOSTS or ["localhost"]
    statuses = {}
    for view in ("dish_list", "admin:login", "get_upload_progress"):
        path = import_module("django.urls").reverse(view)
        environ = {
            "HTTP_HOST": host.lstrip(".").replace("*", "localhost"),
            "HTTP_X_PROGRESS_ID": "none",
            "PATH_INFO": path,
            "REMOTE_ADDR": "",
        }
        setup_testing_defaults(environ)
        application(
            environ, lambda status, *args, path=path: statuses.update({path: status})
        ).close()
    return statuses


def tell_ready():
    """Tell systemd, if it waits for that, that the service has started, as in sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"READY=1", re.sub("^@", "\0", address))


def check():
    """Request pages in this process, and run the checks of `check --deploy`, which warn on stderr.

    Exit with a sentence for each page that does not work, or with the errors of the checks. Raise
    ImportError if Pillow cannot be imported: elsewhere only renderers do that.
    """
    import_module("uploads.images")
    statuses = request_pages(import_module("gourmious.wsgi").application)
    faults = {path: status for path, status in statuses.items() if status != "200 OK"}
    if faults:
        sys.exit("\n".join(f"{path} answers: {status}." for path, status in faults.items()))
    try:
        BaseCommand().check(include_deployment_checks=True)
    except SystemCheckError as error:
        sys.exit(str(error))


def serve(service):
    gc.set_threshold(*GC_THRESHOLDS)
    multiprocessing.set_start_method("fork")
    import_module("gourmious.wsgi")  # once, before the workers are forked
    # The renderers need the tracker. Start it before signals are blocked: Python (3.11) unblocks
    # SIGTERM in the thread that starts it.
    resource_tracker.ensure_running()
    wait_for_signals(signal.SIGINT, signal.SIGTERM)
    listener = open_socket(settings.SOCKETS[service])
    try:
        make_server(service, listener).serve(
            target_loader=lambda: load_application(service), wrap_loader=False
        )
    finally:
        stop_workers()


def stop_workers():
    """End the workers when the main process fails: nobody would replace or end them."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT
    for worker in workers:
        worker.join(max(0, deadline - time.monotonic()))
        worker.kill()


def main():
    parser = argparse.ArgumentParser(prog="python -m gourmious.serve")
    parser.add_argument("service", choices=[*SWITCH_INTERVALS, "check"])
    service = parser.parse_args().service

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    try:
        check() if service == "check" else serve(service)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
