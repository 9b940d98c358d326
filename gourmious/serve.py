"""Serve the app with Granian: `python -m gourmious.serve pages`, or `… uploads`.

Two services, so that pages need not wait behind thousands of uploads.

The kernel may hand a signal to any thread of a process. Python only takes note of it there, and
calls the handler once the main thread wakes up, which Granian's (2.8) does for the handler alone.
On a busy machine every third SIGTERM was lost so, and a worker that should end went on for ever.
Here no thread takes a signal but one, which waits for them and calls the handlers.

Each renderer runs this module once more, as multiprocessing does. So Granian, which takes 0.2 s, is
imported where it is needed.
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
from importlib import import_module
from multiprocessing import resource_tracker
from wsgiref.util import setup_testing_defaults

RESPAWN_PAUSE = 0.5  # seconds, for a worker that dies at its start
STOP_TIMEOUT = 60  # seconds that running uploads have when the main process fails
RELOAD_TIMEOUT = 600  # seconds that running uploads have before a new release replaces their worker

# How long a thread computes before another one may, in seconds. Each thread that waits for its turn
# wakes up after this time: at Python's 5 ms, 10,000 uploads do little else.
SWITCH_INTERVALS = {"pages": 0.005, "uploads": 0.05}


class NoRecord(dict):
    """Granian (2.8) notes here when it replaces a worker, and ends if one dies again within 5.5 s.

    Then nobody would answer until the uploads of the other workers are through. Nothing is noted,
    so that a worker is replaced however often it dies.
    """

    def __setitem__(self, key, value):
        time.sleep(RESPAWN_PAUSE)


def wait_for_signals(*signals, once=False):
    """Call the handlers that these signals will have, when one comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    at_start = {number: signal.getsignal(number) for number in signals}
    threading.Thread(target=deliver, args=(at_start, once), daemon=True).start()


def deliver(at_start, once):
    while True:
        number = signal.sigwait(at_start)
        # One that comes while the process starts waits for its handler.
        while (handler := signal.getsignal(number)) == at_start[number]:
            time.sleep(0.05)
        handler(number, None)
        if once:
            return


def read_options(service):
    """Return the options of Granian that the settings decide."""
    settings = import_module("django.conf").settings
    threads = settings.THREADS[service]
    port = settings.METRICS_PORT
    return {
        "uds": settings.SOCKETS[service],
        "workers": settings.WORKERS,
        "blocking_threads": threads,
        "backpressure": 4 * threads,  # connections; nginx's idle ones count, too
        "metrics_enabled": port is not None,
        "metrics_port": port and port + list(settings.SOCKETS).index(service),
    }


def make_server(options):
    from granian import Granian  # noqa: PLC0415
    from granian.constants import HTTPModes, Interfaces  # noqa: PLC0415
    from granian.http import HTTP1Settings  # noqa: PLC0415

    options["uds"].parent.mkdir(parents=True, exist_ok=True)
    options["uds"].unlink(missing_ok=True)  # A process that was killed leaves it.
    server = Granian(
        "gourmious.wsgi:application",
        uds_permissions=0o660,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(max_buffer_size=2**17),
        websockets=False,
        backlog=4096,
        respawn_failed_workers=True,
        workers_kill_timeout=RELOAD_TIMEOUT,
        **options,
    )
    server.respawned_wrks = NoRecord()
    return server


def load_application(service):
    """Return the application, in a worker, when all that a request needs has been imported.

    What is imported later could be that of a newer release.
    """
    # Once: the third call of Granian's handler would wait for ever, and all of Python with it.
    wait_for_signals(signal.SIGINT, signal.SIGTERM, once=True)
    sys.setswitchinterval(SWITCH_INTERVALS[service])
    application = import_module("gourmious.wsgi").application
    ask_for_a_page(application)
    if service == "uploads":
        import_module("uploads.renderer").renderers.start()
    return application


def ask_for_a_page(application):
    [host, *_] = import_module("django.conf").settings.ALLOWED_HOSTS
    environ = {"HTTP_HOST": host.lstrip(".").replace("*", "localhost"), "REMOTE_ADDR": ""}
    setup_testing_defaults(environ)
    application(environ, lambda *args: None).close()


def main():
    parser = argparse.ArgumentParser(prog="python -m gourmious.serve")
    parser.add_argument("service", choices=SWITCH_INTERVALS)
    service = parser.parse_args().service

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    multiprocessing.set_start_method("fork")
    # The main process imports no settings, or workers of a newer release would find them there.
    with multiprocessing.Pool(1) as pool:
        options = pool.apply(read_options, [service])
    # The renderers need it. Where it does not run, multiprocessing (3.11) starts it, and unblocks
    # SIGTERM in the thread that does so.
    resource_tracker.ensure_running()
    wait_for_signals(signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    try:
        make_server(options).serve(
            target_loader=lambda: load_application(service), wrap_loader=False
        )
    finally:
        stop_workers()


def stop_workers():
    """End the workers that are left when the main process fails: nobody would replace them."""
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + STOP_TIMEOUT
    for worker in workers:
        worker.join(max(0, deadline - time.monotonic()))
        worker.kill()


if __name__ == "__main__":
    main()
