"""Start Granian with its own options, so that no signal is lost: `python -m gourmious.serve …`.

The kernel may hand a signal to any thread of a process. Python only takes note of it there, and
calls the handler once the main thread wakes up, which Granian's (2.8) does for the handler alone.
On a busy machine every third SIGTERM was lost so: a worker that should end went on for ever. Here
no thread takes a signal but one, which waits for them and calls the handlers.

A worker that dies is replaced, however often. Where one died twice in 5.5 seconds Granian ended:
nobody answered until the uploads of the other workers were through, for ten minutes at most.
"""

import multiprocessing
import os
import signal
import threading
import time

from granian.cli import entrypoint
from granian.server.common import AbstractServer

RESPAWN_PAUSE = 0.5  # seconds, for a worker that dies at its start


def wait_for_signals(*signals, once=False):
    """Call the handlers that are to be set for these signals when one comes."""
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


def wait_in_worker():
    # Once: the third call of Granian's handler would wait for ever, and all of Python with it.
    wait_for_signals(signal.SIGINT, signal.SIGTERM, once=True)


def replace_for_ever(respawn_workers):
    def respawn(server, *args, **kwargs):
        respawn_workers(server, *args, **kwargs)
        server.respawned_wrks.clear()  # when each was replaced, by which Granian judges
        time.sleep(RESPAWN_PAUSE)

    return respawn


if __name__ == "__main__":
    AbstractServer._respawn_workers = replace_for_ever(AbstractServer._respawn_workers)
    multiprocessing.set_start_method("fork")
    os.register_at_fork(after_in_child=wait_in_worker)
    wait_for_signals(signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    entrypoint()
