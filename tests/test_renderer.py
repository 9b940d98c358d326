"""Renderers as they are: child processes that real signals and limits end."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from unittest.mock import patch

from django.conf import settings
from django.test import SimpleTestCase
from PIL import Image

from uploads import renderer, rendering
from uploads.renderer import FairQueue, Renderer

from .bombs import jpeg_of_scans, tiff_of_fax_noise
from .cases import PHOTO, RendererTestCase
from .photos import encoded, huge_photo, photo
from .processes import has_ended, has_mapped, parent_of, stopped
from .servers import ROOT
from .waiting import wait_for


class OutcomeTests(RendererTestCase):
    def test_a_picture_is_rendered_and_the_files_are_gone_after_the_block(self):
        with renderer.render(self.write(PHOTO)) as renditions:
            for file, size in ((renditions.display, (64, 48)), (renditions.thumbnail, (64, 48))):
                with Image.open(file.temporary_file_path()) as image:
                    self.assertEqual(image.size, size)
                self.assertEqual(file.size, Path(file.temporary_file_path()).stat().st_size)

        self.assert_next_is_rendered()

    def test_one_process_renders_many_pictures(self):
        self.render()
        pid = self.pid()

        for _ in range(5):
            self.render()

        self.assertEqual(self.pid(), pid)

    def test_a_refusal_leaves_the_process_alone(self):
        self.render()
        pid = self.pid()

        self.assert_refused("not_an_image", b"A text.")

        self.assertEqual(self.pid(), pid)
        self.assert_next_is_rendered()

    def test_more_cpu_time_than_is_allowed_is_too_complex(self):
        self.assert_refused("too_complex", jpeg_of_scans(side=1024))

        self.assert_next_is_rendered()

    def test_more_memory_than_is_allowed_is_too_complex(self):
        content = encoded(Image.new("RGB", (5000, 4000)), "PNG")
        with self.settings(RENDERER_MAX_MEMORY=100 * 2**20):
            self.assert_refused("too_complex", content)
            self.assert_next_is_rendered()

    def test_a_phones_photo_of_200_megapixels_is_rendered(self):
        content = huge_photo(16_320, 12_240)

        self.assertGreater(len(content), 30_000_000)
        self.assertLess(len(content), settings.PICTURE_MAX_SIZE)
        self.assertEqual(self.render(content), (16_320, 12_240))

    def test_a_disk_that_fails_is_no_refusal(self):
        self.render()
        for limit, number in ((1000, errno.EFBIG), (None, errno.ENOENT)):
            with self.subTest(errno.errorcode[number]), self.assertRaises(OSError) as caught:
                if limit:
                    resource.prlimit(self.pid(), resource.RLIMIT_FSIZE, (limit, -1))
                    self.render(photo())
                resource.prlimit(self.pid(), resource.RLIMIT_FSIZE, (-1, -1))
                with renderer.render(self.folder / "missing"):
                    self.fail("It was rendered.")
            self.assertEqual(caught.exception.errno, number)
        self.assertEqual([path.name for path in self.files()], ["original"])

    def test_nor_is_one_that_is_full(self):
        with self.assertRaises(OSError) as caught:
            self.renderer.render(str(self.write(PHOTO)), "/dev/full", "/dev/full")

        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assert_next_is_rendered()


class EndTests(RendererTestCase):
    """A renderer ends in the middle of a picture, or between two."""

    def setUp(self):
        super().setUp()
        self.slow = jpeg_of_scans(side=2048)

    def end_in_mid_picture(self, number, code):
        self.render()
        pid = self.pid()
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(self.assert_refused, code, self.slow)
            wait_for(self.renders)
            os.kill(pid, number)
            job.result()
        self.assertNotEqual(self.pid(), pid)
        self.assert_next_is_rendered()

    def test_a_crash_costs_its_one_picture(self):
        for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT):
            with self.subTest(number):
                self.end_in_mid_picture(number, "damaged")

    def test_so_does_the_kernel_when_it_runs_out_of_memory(self):
        self.end_in_mid_picture(signal.SIGKILL, "too_complex")

    def test_one_that_is_hung_is_killed(self):
        self.render()
        with patch.object(renderer, "HUNG_AFTER", 0.1), stopped(self.pid()):
            self.assert_refused("too_complex", PHOTO)

        self.assert_next_is_rendered()

    def test_one_that_ended_while_it_waited_costs_nothing(self):
        self.render()
        for _ in range(10):  # The forkserver may hear of it later than the next picture comes.
            os.kill(self.pid(), signal.SIGKILL)
            wait_for(lambda: has_ended(self.pid()))

            self.assert_next_is_rendered()

    def test_a_forkserver_that_ended_costs_nothing(self):
        self.render()
        os.kill(parent_of(self.pid()), signal.SIGKILL)
        self.assert_next_is_rendered()

        os.kill(self.pid(), signal.SIGKILL)
        wait_for(lambda: has_ended(self.pid()))
        self.assert_next_is_rendered()

    def test_one_is_replaced_after_many_pictures(self):
        self.render()
        pid = self.pid()
        for _ in range(rendering.MAX_PICTURES - 1):
            self.assertEqual(self.pid(), pid)
            self.renderer.render(str(self.folder / "original"), "/dev/null", "/dev/null")

        self.assertNotEqual(self.pid(), pid)
        self.assert_next_is_rendered()

    def test_one_that_has_grown_is_replaced(self):
        with self.settings(RENDERER_MAX_MEMORY=200 * 2**20):
            self.render()
            pid = self.pid()
            self.render(encoded(Image.new("RGB", (6000, 4000)), "PNG"))

            self.assertNotEqual(self.pid(), pid)
            self.assert_next_is_rendered()

    def test_ctrl_c_in_a_terminal_does_not_end_it(self):
        self.render()
        pid = self.pid()

        os.kill(pid, signal.SIGINT)

        self.assert_next_is_rendered()
        self.assertEqual(self.pid(), pid)

    def test_a_renderer_that_cannot_be_started_fails_one_picture(self):
        with (
            patch.object(renderer.CONTEXT, "Pipe", side_effect=OSError(errno.EMFILE, "")),
            self.assertRaises(OSError),
        ):
            self.render()

        self.assert_next_is_rendered()


PARENT = """
import sys, django
django.setup()
from pathlib import Path
from uploads import renderer
if __name__ == "__main__":
    with renderer.render(Path(sys.argv[1])):
        print(renderer.renderers.idle[0].process.pid, flush=True)
    renderer.renderers.idle[0].render(sys.argv[2], "/dev/null", "/dev/null")
"""


class ProcessTests(RendererTestCase):
    def test_a_parent_that_is_killed_leaves_no_renderer_even_in_mid_picture(self):
        small, slow = self.write(PHOTO, "small"), self.write(jpeg_of_scans(side=2048), "slow")
        script = self.write(PARENT.encode(), "parent.py")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)}
        command = [sys.executable, script, small, slow]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as parent:
            pid = int(parent.stdout.readline())
            forkserver = parent_of(pid)
            wait_for(lambda: has_mapped(pid, slow))
            parent.kill()

        wait_for(lambda: not Path(f"/proc/{pid}").exists())
        wait_for(lambda: not Path(f"/proc/{forkserver}").exists())

    def test_it_has_the_limits_of_the_settings(self):
        self.render()

        soft, _ = resource.prlimit(self.pid(), resource.RLIMIT_DATA)
        self.assertEqual(soft, 2**30)
        self.assertEqual(resource.prlimit(self.pid(), resource.RLIMIT_CORE)[0], 0)

    def test_it_prints_nothing(self):
        photo, noise = self.write(PHOTO, "photo"), self.write(tiff_of_fax_noise(), "noise")

        printed = subprocess.check_output(
            [sys.executable, "-c", PARENT, photo, noise],
            cwd=ROOT,
            stderr=subprocess.STDOUT,
            text=True,
        )

        self.assertRegex(printed, r"\A\d+\n\Z")

    def test_packages_that_it_cannot_import_are_no_fault_of_the_picture(self):
        self.write(b"raise ImportError", "pillow_heif.py")
        photo = self.write(PHOTO, "photo")

        done = subprocess.run(
            [sys.executable, "-c", PARENT, photo, photo],
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            stderr=subprocess.PIPE,
            text=True,
        )

        self.assertIn(f"OSError: [Errno {errno.EIO}]", done.stderr)

    def test_no_signal_is_blocked(self):
        self.render()

        status = Path(f"/proc/{self.pid()}/status").read_text()
        self.assertRegex(status, r"SigBlk:\s+0+\n")

    def test_its_forkserver_has_one_thread(self):
        self.render()

        tasks = Path(f"/proc/{parent_of(self.pid())}/task")
        self.assertEqual(len(list(tasks.iterdir())), 1)


class FairQueueTests(SimpleTestCase):
    """The queue alone; nothing is rendered."""

    def setUp(self):
        super().setUp()
        self.order = []
        self.threads = []

    def hold(self, queue, client="first"):
        """Take a renderer, and return an event that gives it back."""
        taken, give_back = Event(), Event()

        def run():
            with queue.turn(client):
                taken.set()
                give_back.wait(20)

        self.threads.append(Thread(target=run))
        self.threads[-1].start()
        self.assertTrue(taken.wait(20))
        return give_back

    def line_up(self, queue, *clients):
        """Let clients wait in this order; each notes when it has its turn."""

        def run(client):
            with queue.turn(client):
                self.order.append(client)

        for client in clients:
            before = self.count_waiting(queue)
            self.threads.append(Thread(target=run, args=[client]))
            self.threads[-1].start()
            wait_for(lambda before=before: self.count_waiting(queue) > before)

    def count_waiting(self, queue):
        with queue.lock:
            return sum(map(len, queue.waiting.values()))

    def finish(self, *events):
        for event in events:
            event.set()
        for thread in self.threads:
            thread.join()

    def test_clients_take_turns(self):
        queue = FairQueue(1)
        held = self.hold(queue)
        self.line_up(queue, *"AAABBC")

        self.finish(held)

        self.assertEqual("".join(self.order), "ABCABA")

    def test_within_a_client_it_is_first_come_first_served(self):
        queue = FairQueue(1)
        held = self.hold(queue)
        numbers = []

        def run(number):
            with queue.turn("A"):
                numbers.append(number)

        for number in range(5):
            self.threads.append(Thread(target=run, args=[number]))
            self.threads[-1].start()
            wait_for(lambda number=number: self.count_waiting(queue) == number + 1)
        self.finish(held)

        self.assertEqual(numbers, list(range(5)))

    def test_a_newcomer_comes_before_all_others_of_a_busy_client(self):
        queue = FairQueue(2)
        held = [self.hold(queue, "busy"), self.hold(queue, "busy")]
        self.line_up(queue, *["busy"] * 5, "new")

        held[0].set()
        wait_for(lambda: self.order)
        self.finish(*held)

        self.assertEqual(self.order[0], "new")

    def test_no_more_work_at_once_than_there_are_renderers(self):
        queue, most, working = FairQueue(2), [], Counter()

        def run(number):
            with queue.turn(number % 3):
                working["now"] += 1
                most.append(working["now"])
                working["now"] -= 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(run, range(200)))

        self.assertLessEqual(max(most), 2)
        self.assertEqual((len(queue.idle), queue.waiting, +queue.working), (2, {}, Counter()))

    def test_a_renderer_is_handed_on_after_an_error(self):
        queue = FairQueue(1)
        for _ in range(3):
            with self.assertRaises(KeyError), queue.turn("A"):
                raise KeyError

        self.assertEqual(len(queue.idle), 1)

    def test_renderers_are_started_before_the_first_picture_where_that_is_asked_for(self):
        queue = FairQueue(2)
        self.assertFalse(any(one.process for one in queue.idle))

        queue.start()

        for one in queue.idle:
            self.assertIsInstance(one, Renderer)
            self.assertTrue(one.process.is_alive())
            one.process.kill()
            one.process.join()
            one.process.close()
            one.connection.close()
