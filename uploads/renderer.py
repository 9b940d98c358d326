"""Render pictures in child processes that the kernel limits, as many at once as there are cores.

A file that makes its decoder work without end, take gigabytes or crash ends one such process, which
is replaced at once. Uploads wait for one in a queue in which client networks take turns.
"""

import errno
import fcntl
import json
import multiprocessing
import os
import resource
import signal
from collections import Counter, deque
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import NamedTuple

from django.conf import settings
from django.core.files import locks
from django.core.files.uploadedfile import TemporaryUploadedFile

from . import images, refusals

# CPU time that a picture may take, in seconds: for its header, and for its pixels.
HEADER_CPU = 2
PIXELS_CPU = 2
PIXELS_CPU_PER_MEGAPIXEL = 0.1
# After this many seconds without an answer a renderer counts as hung. One that works reaches its
# CPU limit earlier, even if it gets only a quarter of a core.
HUNG_AFTER = 120
# A renderer is replaced after this many pictures: a decoder may leak.
MAX_PICTURES = 500

# The signals that end a renderer whose picture needs too much: its CPU timer sends SIGPROF; its
# parent sends SIGKILL when it is hung, and so does a kernel that has no memory left.
LIMIT_SIGNALS = {-signal.SIGPROF, -signal.SIGKILL}

# glibc's malloc keeps the memory of a picture for the next one: to map and zero it again would take
# an eighth of the rendering time. The forkserver inherits this environment.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}

# A forkserver, since a process with threads cannot fork safely.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
# Process.start() also collects exit codes of ended children, and could take one that another thread
# waits for in join().
starting_or_ending = Lock()


class Renditions(NamedTuple):
    """The renditions of an original, as temporary files. The other fields describe the original."""

    suffix: str
    width: int
    height: int
    display: TemporaryUploadedFile
    thumbnail: TemporaryUploadedFile


@contextmanager
def render(path, client=""):
    """Make the renditions of a file; they are deleted after the block, unless it moved them.

    `client` is the network that the file comes from. Each network has a queue of its own. Raise
    ValidationError, code not_an_image, too_many_pixels or too_complex, if the file cannot be
    rendered, and OSError if the disk fails.
    """
    with ExitStack() as files:
        with renderers.turn(client) as renderer:
            display, thumbnail = (files.enter_context(rendition_file()) for _ in range(2))
            outputs = [file.temporary_file_path() for file in (display, thumbnail)]
            picture = renderer.render(str(path), *outputs)
        for file, output in zip((display, thumbnail), outputs, strict=True):
            file.size = Path(output).stat().st_size
        yield Renditions(*picture, display, thumbnail)


@contextmanager
def rendition_file():
    file = TemporaryUploadedFile("rendition.jpg", "image/jpeg", 0, None)
    try:
        # Tells prune_uploads that the file is in use until it has its row.
        locks.lock(file, locks.LOCK_SH)
        yield file
    finally:
        with suppress(OSError):  # On a disk that just failed; the picture may be stored by then.
            file.close()


class FairQueue:
    """Renderers, and the queue for them, in which clients take turns.

    The next turn goes to the client with the fewest pictures being rendered. Among equals it goes
    to the one that has waited longest. Within one client it is first come, first served.
    """

    def __init__(self, count):
        self.lock = Lock()
        self.idle = [Renderer() for _ in range(count)]
        self.working = Counter()  # pictures by client
        self.waiting = {}  # by client: a queue for each waiting turn(), which gets a renderer

    def start(self):
        """Start all renderers before the first picture comes."""
        for renderer in self.idle:
            renderer.start()

    @contextmanager
    def turn(self, client):
        """Wait for a renderer, and have it to oneself during the block."""
        mine = SimpleQueue()
        with self.lock:
            self.waiting.setdefault(client, deque()).append(mine)
            self._hand_out()
        renderer = mine.get()
        try:
            yield renderer
        finally:
            with self.lock:
                self.idle.append(renderer)
                self.working[client] -= 1
                if client in self.waiting:  # Move it to the end: min() takes the first of equals.
                    self.waiting[client] = self.waiting.pop(client)
                self._hand_out()

    def _hand_out(self):
        self.working = +self.working  # only those above zero
        while self.idle and self.waiting:
            client = min(self.waiting, key=self.working.__getitem__)
            self.working[client] += 1
            self.waiting[client].popleft().put(self.idle.pop())
            if not self.waiting[client]:
                del self.waiting[client]


class Renderer:
    """A child process that renders one picture at a time. It starts with the first."""

    process = None

    def render(self, *paths):
        """Return the fields of images.Picture. The paths are the original's and its renditions'.

        Raise ValidationError where the original cannot be rendered, and OSError where the disk
        fails, or no process can be started.
        """
        if not self.process or self.connection.poll():  # It died while idle.
            self.start()
        answer = self._ask(paths)
        if answer["last"]:
            self._replace()
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "code" in answer:
            raise refusals.BY_CODE[answer["code"]].error(**answer["values"])
        return answer["picture"]

    def _ask(self, paths):
        """Return the answer of the process, or a refusal if it dies or hangs."""
        with suppress(EOFError, ConnectionError):
            self.connection.send_bytes(json.dumps(paths).encode())
            if self.connection.poll(HUNG_AFTER):
                return json.loads(self.connection.recv_bytes())
            self.process.kill()
        with starting_or_ending:
            self.process.join()
        if self.process.exitcode in LIMIT_SIGNALS:
            return {"code": "too_complex", "values": {}, "last": True}
        return {"code": "not_an_image", "values": {"formats": images.LABELS}, "last": True}

    def _replace(self):
        with suppress(OSError):  # Then the next picture starts it.
            self.start()

    def start(self):
        if self.process:
            self.process.join()
            self.process.close()
            self.connection.close()
            self.process = None
        os.environ.update(MALLOC)
        self.connection, theirs = CONTEXT.Pipe()
        arguments = (theirs, settings.RENDERER_MAX_MEMORY)
        process = CONTEXT.Process(target=serve, args=arguments, daemon=True)
        with theirs, starting_or_ending:
            process.start()
        self.process = process


renderers = FairQueue(settings.RENDERERS)


def serve(connection, max_memory):
    """Run in the child process: render the pictures whose paths come through the connection."""
    limit_process(max_memory)
    for count in range(1, MAX_PICTURES + 1):
        try:
            paths = json.loads(connection.recv_bytes())
        except EOFError:
            return
        answer = render_picture(*map(Path, paths))
        answer["last"] = count == MAX_PICTURES or has_grown(max_memory)
        connection.send_bytes(json.dumps(answer).encode())
        if answer["last"]:
            return


def limit_process(max_memory):
    """Limit the memory of this process, silence its stderr, and let it end with its parent."""
    set_limit(resource.RLIMIT_DATA, max_memory)
    set_limit(resource.RLIMIT_CORE, 0)
    # libtiff, for one, writes a line for each fault of a file.
    with open(os.devnull, "wb") as null:  # noqa: PTH123
        os.dup2(null.fileno(), 2)
    # A terminal sends Ctrl-C to this process, too, but the parent ends it. The signal mask was
    # inherited from the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The parent holds the other end of this pipe. When it ends, even by SIGKILL, the kernel sends
    # SIGIO, which ends this process in the midst of a decoder's work.
    sentinel = multiprocessing.parent_process().sentinel
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def set_limit(kind, value):
    """Set a soft limit of this process, at most the hard limit, which stays."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def allow_cpu(seconds):
    """Let this process use so many seconds of CPU time from now on; then SIGPROF ends it.

    RLIMIT_CPU counts from the start of the process, so each picture would need the time used so
    far, from getrusage(). The two clocks drift apart by two seconds in a minute: a small picture
    would have no time left.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


def has_grown(max_memory):
    """Return whether this process has ever used half of its memory: it may still have it."""
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak > max_memory / 2


def render_picture(original, display, thumbnail):
    """Return the answer to the parent: a picture, a code with its values, or an errno."""
    try:
        allow_cpu(HEADER_CPU)
        with images.open_image(original) as image:
            megapixels = image.width * image.height / 1e6
            allow_cpu(PIXELS_CPU + PIXELS_CPU_PER_MEGAPIXEL * megapixels)
            return {"picture": images.render(image, display, thumbnail)}
    except images.PictureError as error:
        return {"code": error.code, "values": error.values}
    except MemoryError:
        return {"code": "too_complex", "values": {}}
    except OSError as error:
        return {"errno": error.errno or errno.EIO}
