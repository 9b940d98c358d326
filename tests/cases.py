"""The test cases of several modules: with a memcached, a renderer, Granian, or the whole stack."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.signals import request_finished, request_started
from django.test import SimpleTestCase, override_settings
from PIL import Image

from uploads import decoder, images, refusals, renderer
from uploads.renderer import FairQueue

from . import buckets
from .base import PRODUCTION, FoldersMixin, use_own_buckets
from .bombs import jpeg_of_scans
from .client import Upload, add_dish, get, poll
from .environment import read_settings
from .photos import photo, photo_of_megabytes
from .processes import has_mapped
from .servers import Granian, Instance, Memcached, Nginx, free_port, prepare_data, requires
from .stack import PROGRAMS, Stack, print_nginx
from .waiting import wait_for

PHOTO = photo(64, 48)
PIECE = 200_000  # bytes
WRITER = "progress writer"  # the thread


def read_sizes(paths):
    """Yield the sizes of the files that still exist: an upload may have moved or deleted one."""
    for path in paths:
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            yield size


def is_writing():
    return WRITER in {thread.name for thread in threading.enumerate()}


@contextmanager
def threads_come_to_their_end():
    """Wait, when the block ends, for the writer and the server: it answers before it lets go."""
    running = set()

    def note_start(**kwargs):
        running.add(threading.get_ident())

    def note_end(**kwargs):
        running.discard(threading.get_ident())

    request_started.connect(note_start)
    request_finished.connect(note_end)
    yield
    wait_for(lambda: not running and not is_writing())


@contextmanager
def pages_requested(test, address, clients=4, pause=0, **options):
    """Request a page again and again while the block runs; assert that each is answered."""
    ended = threading.Event()

    def request():
        statuses = Counter()
        while True:
            statuses[get(address, "/", **options).status] += 1
            if ended.wait(pause):
                return statuses

    with ThreadPoolExecutor(clients) as pool:
        jobs = [pool.submit(request) for _ in range(clients)]
        try:
            yield
        finally:
            ended.set()
    for job in jobs:
        test.assertEqual([*job.result()], [200], job.result())


class MemcachedMixin:
    """Keep the progress in a memcached of the test's own, as in production."""

    def setUp(self):
        self.memcached = self.enterContext(Memcached())
        environment = {**PRODUCTION, "GOURMIOUS_MEMCACHED": self.memcached.address}
        caches = read_settings(**environment)["CACHES"]
        self.enterContext(override_settings(CACHES=caches))
        # Their connections to memcached would be forgotten with the settings, and stay open.
        self.enterContext(threads_come_to_their_end())
        super().setUp()


class RendererTestCase(FoldersMixin, SimpleTestCase):
    """Each test has a renderer of its own, and takes it along."""

    def setUp(self):
        super().setUp()
        self.queue = FairQueue(1)
        self.enterContext(patch.object(renderer, "renderers", self.queue))
        [self.renderer] = self.queue.idle
        self.addCleanup(self.end)

    def end(self):
        if self.renderer.process:
            self.renderer.process.kill()
            self.renderer.process.join()
            self.renderer.process.close()
            self.renderer.connection.close()

    def write(self, content, name="original"):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def render(self, content=PHOTO):
        """Return the size that the picture of a file is found to have."""
        with renderer.render(self.write(content)) as renditions:
            return renditions.width, renditions.height

    def assert_refused(self, code, content):
        with self.assertRaises(ValidationError) as caught:
            self.render(content)
        self.assertEqual(caught.exception.code, code)
        self.assertRegex(caught.exception.messages[0], r"^[A-Z].*\.$")

    def assert_next_is_rendered(self):
        self.assertEqual(self.render(), (64, 48))
        self.assertEqual([path.name for path in self.files()], ["original"])

    def pid(self):
        return self.renderer.process.pid

    def renders(self):
        """Tell whether the renderer works on a JPEG: it has none in its memory while it waits."""
        return has_mapped(self.pid(), self.folder / "original")


class RenderTestCase(FoldersMixin, SimpleTestCase):
    """Render in the process of the tests; that renderers do it elsewhere changes no pixel."""

    def setUp(self):
        super().setUp()
        self.path, self.display, self.thumbnail = (
            self.folder / name for name in ("original", "display", "thumbnail")
        )

    def open_image(self, content):
        self.path.write_bytes(content)
        return decoder.open_image(self.path)

    def render(self, content):
        """Return an images.Original of a file, and its renditions."""
        with self.open_image(content) as image:
            picture = images.render(image, self.display, self.thumbnail)
        return picture, *map(self.load, (self.display, self.thumbnail))

    def load(self, path):
        with Image.open(path) as image:
            image.load()
        return image

    def assert_refused(self, content, code="damaged"):
        """Assert that a file is refused with this code, and return the sentence."""
        with self.assertRaises(decoder.PictureError) as caught:
            self.render(content)
        self.assertEqual(caught.exception.code, code)
        self.assertEqual(self.files(), [self.path])
        return refusals.BY_CODE[code].error(**caught.exception.values).messages[0]

    def assert_shown(self, content, colour, size=None):
        """Assert that a file is rendered, in this colour and, if it is told, this size."""
        _, display, _ = self.render(content)
        self.assertEqual(display.size, size or display.size)
        self.assert_colour(display, colour)

    def assert_colour(self, image, expected, tolerance=3):
        pixel = image.getpixel((image.width // 2, image.height // 2))
        for value, wanted in zip(pixel, expected, strict=True):
            self.assertAlmostEqual(value, wanted, delta=tolerance, msg=f"{pixel}, not {expected}")


@requires("memcached")
class GranianTestCase(FoldersMixin, SimpleTestCase):
    """Servers of one worker each, with a memcached and folders of the test's own."""

    def setUp(self):
        super().setUp()
        self.memcached = self.enterContext(Memcached())
        self.environment = {
            "GOURMIOUS_SECRET_KEY": "a secret of production",
            "GOURMIOUS_ALLOWED_HOSTS": "127.0.0.1",
            "GOURMIOUS_MEMCACHED": self.memcached.address,
            "GOURMIOUS_DATA_DIR": str(self.folder),
            "GOURMIOUS_RUN_DIR": str(self.folder / "run"),
            "GOURMIOUS_WORKERS": "1",
        }

    def prepare(self):
        """Make the data of a site, with a database of its own unless the test has one."""
        self.environment = {**prepare_data(self.folder), **self.environment}

    def serve(self, service="uploads", **environment):
        """Start a server, and return it when it answers."""
        server = self.enterContext(Granian(service, **{**self.environment, **environment}))
        self.assert_answers(server)
        return server

    def instance(self, service, listener, **environment):
        """Return a server on a socket that is held, which the block starts."""
        return Instance(service, listener, **{**self.environment, **environment})

    def serve_a_dish(self, service="uploads", **environment):
        """Serve the app, and add its first dish."""
        self.prepare()
        server = self.serve(service, **environment)
        return server, add_dish(server.address)

    def assert_answers(self, server):
        self.assertIsNone(poll(server.address, "none"))

    def assert_gone(self, server, pids, seconds=20):
        wait_for(lambda: not set(pids) & set(server.processes()), seconds)

    def assert_nothing_left(self, server):
        wait_for(lambda: not server.processes())

    def send(self, server, dish, content):
        """Send all of an upload, and return it without its answer."""
        upload = self.enterContext(Upload(server.address, dish, content))
        upload.send()
        return upload

    def incoming(self):
        """Return the sizes of the files that arrive, or have arrived and are not stored yet."""
        return set(read_sizes(self.files("incoming")))

    def send_slow_photo(self, server, dish):
        """Send a photo that is rendered for seconds, and return its upload when that has begun."""
        upload = self.send(server, dish, jpeg_of_scans())
        incoming = self.folder / "incoming"
        wait_for(lambda: any(has_mapped(pid, incoming) for pid in server.renderers()))
        return upload


@requires(*PROGRAMS)
class StackTestCase(SimpleTestCase):
    """One stack for all tests of a class, each with a dish of its own."""

    stack_class = Stack
    variables = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.enterClassContext(use_own_buckets())
        cls.log = Path(cls.enterClassContext(TemporaryDirectory()), "log")
        log = cls.enterClassContext(cls.log.open("w"))
        cls.stack = cls.enterClassContext(cls.stack_class(log=log, **cls.variables))
        cls.http = cls.stack.http.address

    def setUp(self):
        super().setUp()
        self.dish = add_dish(self.http, self.id()[-100:])
        self.progress_id = self.id().split(".")[-1][:64]

    @cached_property
    def https(self):
        return self.stack.https.address

    @contextmanager
    def another_nginx(self, **variables):
        """Start another nginx in front of the app, with these variables; yield its address."""
        port, environment = free_port(), {**self.stack.environment, **variables}
        with (
            TemporaryDirectory(prefix="gourmious-") as folder,
            Nginx(folder, port, *print_nginx(port, environment)) as nginx,
        ):
            yield nginx.address

    def upload(self, address=None, **options):
        """Begin an upload of megabytes, and return it when its record is there."""
        address = address or self.http
        content = photo_of_megabytes()
        upload = Upload(address, self.dish, content, self.progress_id, **options)
        self.enterContext(upload)
        upload.send(PIECE)
        wait_for(lambda: poll(address, self.progress_id, **options))
        return upload

    def uploads(self, number):
        """Begin so many uploads, and return them when their records are there."""
        ids = [f"{self.progress_id}-{name}"[-64:] for name in range(number)]
        uploads = [Upload(self.http, self.dish, photo(800, 600), name) for name in ids]
        for upload in uploads:
            self.enterContext(upload).send(PIECE)
        wait_for(lambda: all(poll(self.http, progress_id) for progress_id in ids))
        return uploads

    def poll(self, **options):
        return poll(self.http, self.progress_id, **options)

    def watch(self, send, polled=None):
        """Send on, little by little, until ten different counts were seen; return all records."""
        seen = []
        while len({record["uploaded"] for record in seen}) < 10:
            record = wait_for(lambda: send() or (polled or self.poll)())
            seen.append(record)
        return seen

    def assert_rising(self, records):
        counts = [record["uploaded"] for record in records]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(len({record["length"] for record in records}), 1)
        self.assertLessEqual(counts[-1], records[0]["length"])

    def assert_deleted(self):
        """Assert that there is no record, or soon is none."""
        wait_for(lambda: self.poll() is None)

    def assert_kept(self, upload):
        answer = upload.answer()
        self.assertEqual(answer.status, 200, answer.text)
        self.assertIn("<status>ok</status>", answer.text)

    def files(self, folder):
        """Return the paths of the files of a folder, or of the bucket that replaces it."""
        path = self.stack.data / folder
        if settings.S3 and folder != "incoming":
            kind = "originals" if folder == "originals" else "renditions"
            return [path / key for found, key in buckets.list_all(settings.S3) if found == kind]
        return [path for path in path.iterdir() if path.is_file()]

    def count_incoming(self, length):
        """Return how many files of this length have arrived, and are not stored yet."""
        return [*read_sizes(self.files("incoming"))].count(length)

    def processing_held_back(self):
        """Stop the processes that render photos, until the block ends."""
        return self.stack.uploads.rendering_held_back()
