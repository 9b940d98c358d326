"""The work of a renderer: pictures, one after another, within limits that the kernel keeps.

A renderer imports no Django, and its parent imports no Pillow: both start sooner, and take less
memory.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
from pathlib import Path

# CPU time that a picture may take, in seconds: for its header, and for its pixels.
HEADER_CPU = 2
PIXELS_CPU = 2
PIXELS_CPU_PER_MEGAPIXEL = 0.1
# A renderer is replaced after this many pictures: a decoder may leak.
MAX_PICTURES = 500


def run_renderer(connection, max_memory):
    """Render the pictures whose paths come through the connection."""
    limit_process(max_memory)
    for count in range(1, MAX_PICTURES + 1):
        try:
            paths = json.loads(connection.recv_bytes())
        except EOFError:
            return
        answer = render_picture(*map(Path, paths))
        answer["ends"] = count == MAX_PICTURES or has_grown(max_memory)
        connection.send_bytes(json.dumps(answer).encode())
        if answer["ends"]:
            return


def limit_process(max_memory):
    """Limit the memory of this process, silence its stderr, and let it end with its parent."""
    set_limit(resource.RLIMIT_DATA, max_memory)
    set_limit(resource.RLIMIT_CORE, 0)
    # libtiff, for one, writes a line for each fault of a file.
    with open(os.devnull, "wb") as null:  # noqa: PTH123
        os.dup2(null.fileno(), 2)
    # A terminal sends Ctrl-C to this process, too, but the parent ends it. Unblock the signals that
    # the parent had blocked.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The parent holds the other end of this pipe. When it ends, even by SIGKILL, the kernel sends
    # SIGIO, which ends this process even while a decoder works.
    sentinel = multiprocessing.parent_process().sentinel
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def set_limit(kind, value):
    """Set a soft limit of this process, but no higher than the hard limit, which stays."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def allow_cpu(seconds):
    """Let this process use this much more CPU time, in seconds; then SIGPROF ends it.

    RLIMIT_CPU is no use: it counts from the start of the process, and getrusage() tells the time
    used so far only roughly. After a minute it is two seconds off.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


def has_grown(max_memory):
    """Return whether this process ever used half of its memory: it may not have given it back."""
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak > max_memory / 2


def render_picture(original, display, thumbnail):
    """Return the answer to the parent: an Original, a code with its values, or an errno."""
    try:
        from . import decoder, images  # noqa: PLC0415

        allow_cpu(HEADER_CPU)
        with decoder.open_image(original) as image:
            megapixels = image.width * image.height / 1e6
            allow_cpu(PIXELS_CPU + PIXELS_CPU_PER_MEGAPIXEL * megapixels)
            return {"original": images.render(image, display, thumbnail)}
    except ImportError:  # It is no fault of the picture.
        return {"errno": errno.EIO}
    except decoder.PictureError as error:
        return {"code": error.code, "values": error.values}
    except MemoryError:
        return {"code": "too_complex", "values": {}}
    except OSError as error:
        return {"errno": error.errno or errno.EIO}
