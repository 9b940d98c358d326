"""Render pictures in child processes, the renderers, which the kernel limits; see rendering.py.

A file may make its decoder work without end, take gigabytes or crash. That ends only one renderer,
which is replaced at once. Uploads wait for a renderer in a queue in which networks take turns.
"""

import errno
import json
import multiprocessing
import os
import signal
from collections import Counter, deque
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import NamedTuple

from django.conf import settings
from django.core.files import locks
from django.core.files.uploadedfile import TemporaryUploadedFile

from . import refusals, rendering

# After this many seconds without an answer a renderer counts as hung. One that works reaches its
# CPU limit earlier, even if it gets only a quarter of a core.
HUNG_AFTER = 120

# The signals that end a renderer whose picture needs too much: its CPU timer sends SIGPROF; its
# parent sends SIGKILL when it is hung, and so does a kernel that has no memory left.
LIMIT_SIGNALS = {-signal.SIGPROF, -signal.SIGKILL}

# glibc's malloc keeps the memory of a picture for the next one: to map and zero it again would take
# an eighth of the rendering time. The forkserver inherits this environment.
RENDERER_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}

# A forkserver, since a process with threads cannot fork safely.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["uploads.rendering", "uploads.images"])
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
def render(path, network=""):
    """Make the renditions of a file; they are deleted after the block, unless it moved them.

    `network` is the client's: each network has a queue of its own. Raise ValidationError, code
    not_an_image, other_format, damaged, too_many_pixels, extra_data or too_complex, if the file
    cannot be rendered, and OSError if the disk fails.
    """
    with ExitStack() as files:
        with renderers.turn(network) as renderer:
            display, thumbnail = (files.enter_context(rendition_file()) for _ in range(2))
            outputs = [file.temporary_file_path() for file in (display, thumbnail)]
            original = renderer.render(str(path), *outputs)
        for file, output in zip((display, thumbnail), outputs, strict=True):
            file.size = Path(output).stat().st_size
        yield Renditions(*original, display, thumbnail)


@contextmanager
def rendition_file():
    file = TemporaryUploadedFile("rendition.jpg", "image/jpeg", 0, None)
    try:
        # This tells prune_uploads that the file is in use, even before a row names it.
        locks.lock(file, locks.LOCK_SH)
        yield file
    finally:
        with suppress(OSError):  # If the disk fails now, the picture may be stored already.
            file.close()


class FairQueue:
    """Renderers, and the queue for them, in which networks take turns.

    The next turn goes to the network with the fewest pictures being rendered. If several have as
    few, the one that has waited longest since its last turn comes first. Within one network it is
    first come, first served.
    """

    track_waiting = nullcontext  # A metric replaces it.

    def __init__(self, count):
        self.lock = Lock()
        self.idle = [Renderer() for _ in range(count)]
        self.working = Counter()  # by network: how many pictures are being rendered
        self.waiting = {}  # by network: a SimpleQueue for each turn that waits for a renderer

    def start(self):
        """Start all renderers before the first picture comes."""
        for renderer in self.idle:
            renderer.start()

    @contextmanager
    def turn(self, network):
        """Wait for a renderer; nobody else uses it during the block."""
        mine = SimpleQueue()
        with self.lock:
            self.waiting.setdefault(network, deque()).append(mine)
            self._hand_out()
        with self.track_waiting():
            renderer = mine.get()
        try:
            yield renderer
        finally:
            with self.lock:
                self.idle.append(renderer)
                self.working[network] -= 1
                if network in self.waiting:  # Move it to the end: min() takes the first of equals.
                    self.waiting[network] = self.waiting.pop(network)
                self._hand_out()

    def _hand_out(self):
        self.working = +self.working  # Drop the zeros.
        while self.idle and self.waiting:
            network = min(self.waiting, key=self.working.__getitem__)
            self.working[network] += 1
            self.waiting[network].popleft().put(self.idle.pop())
            if not self.waiting[network]:
                del self.waiting[network]


class Renderer:
    """A child process that renders one picture at a time.

    It starts with start(), or else with its first picture.
    """

    process = None

    def render(self, *paths):
        """Return the fields of images.Original. The paths are the original's and its renditions'.

        Raise ValidationError if the original cannot be rendered, and OSError if the disk fails or
        no process can be started.
        """
        if not self.process or self.connection.poll():  # It died while idle.
            self.start()
        answer = self._ask(paths)
        if answer["ends"]:
            self._replace()
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        if "code" in answer:
            raise refusals.BY_CODE[answer["code"]].error(**answer["values"])
        return answer["original"]

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
            return {"code": "too_complex", "values": {}, "ends": True}
        return {"code": "damaged", "values": {}, "ends": True}

    def _replace(self):
        with suppress(OSError):  # If it cannot start now, the next picture starts it.
            self.start()

    def start(self):
        if self.process:
            self.process.join()
            self.process.close()
            self.connection.close()
            self.process = None
        os.environ.update(RENDERER_MALLOC)
        self.connection, theirs = CONTEXT.Pipe()
        arguments = (theirs, settings.RENDERER_MAX_MEMORY)
        process = CONTEXT.Process(target=rendering.run_renderer, args=arguments, daemon=True)
        with theirs, starting_or_ending:
            try:
                process.start()
            except ConnectionError as error:  # It would mean that the store of the files is away.
                raise OSError(errno.EIO, "The forkserver has ended.") from error
        self.process = process


renderers = FairQueue(settings.RENDERERS)
