"""Hostile pictures: each costs its sender an answer, and nobody anything else."""

import os
import re
from pathlib import Path

from django.core.exceptions import ValidationError
from django.test import SimpleTestCase

from tests.bombs import BOMBS
from tests.cases import RendererTestCase
from tests.processes import parent_of, stat
from uploads.formats import FORMATS

TICKS = os.sysconf("SC_CLK_TCK")
# The most pixels of a file here that takes until its end to be refused.
REFUSED_PIXELS = 17_000_000
CODES = {"damaged", "other_format", "too_many_pixels", "extra_data", "too_complex"}
MAX_MEMORY = 2**30  # bytes
LIBRARIES = 32 * 2**20  # bytes of the libraries, which are no data


class BombTestCase(RendererTestCase):
    def assert_all_are_harmless(self, label):
        self.render()
        for name in filter(lambda name: name.startswith(label), BOMBS):
            with self.subTest(name):
                self.assert_is_bounded(BOMBS[name]())
                self.assertEqual([path.name for path in self.files()], ["original"])
                self.assertLess(self.peak(), MAX_MEMORY + LIBRARIES)
                self.assert_next_is_rendered()

    def assert_is_bounded(self, content):
        """Assert that a picture takes no more CPU time than its pixels may take."""
        before = self.cpu_time()
        pixels = self.count_pixels(content)
        allowed = 2 + 2 + 0.1 * pixels / 1e6  # seconds for the header, and for the pixels
        self.assertLess(self.cpu_time() - before, allowed + 1)

    def count_pixels(self, content):
        """Render a picture, or have it refused, and return how many pixels it may have had."""
        try:
            width, height = self.render(content)
        except ValidationError as error:
            self.assertIn(error.code, CODES)
            self.assertRegex(error.messages[0], r"^[A-Z].*\.$")
            return REFUSED_PIXELS
        return width * height

    def cpu_time(self):
        """Return the CPU time of all renderers so far, in seconds."""
        present, ended = stat(self.pid())[11:13], stat(parent_of(self.pid()))[13:15]
        return sum(map(int, present + ended)) / TICKS

    def peak(self):
        """Return the most memory that the present renderer ever had, in bytes."""
        status = Path(f"/proc/{self.pid()}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


class JPEGTests(BombTestCase):
    def test_a_hostile_jpeg_is_harmless(self):
        self.assert_all_are_harmless("JPEG")


class PNGTests(BombTestCase):
    def test_a_hostile_png_is_harmless(self):
        self.assert_all_are_harmless("PNG")


class GIFTests(BombTestCase):
    def test_a_hostile_gif_is_harmless(self):
        self.assert_all_are_harmless("GIF")


class TIFFTests(BombTestCase):
    def test_a_hostile_tiff_is_harmless(self):
        self.assert_all_are_harmless("TIFF")


class BMPTests(BombTestCase):
    def test_a_hostile_bmp_is_harmless(self):
        self.assert_all_are_harmless("BMP")


class HEIFTests(BombTestCase):
    def test_a_hostile_heic_or_avif_is_harmless(self):
        self.assert_all_are_harmless("HEIC")
        self.assert_all_are_harmless("AVIF")


class WebPTests(BombTestCase):
    def test_a_hostile_webp_is_harmless(self):
        self.assert_all_are_harmless("WebP")


class ListTests(SimpleTestCase):
    def test_each_hostile_picture_has_an_accepted_format(self):
        labels = {image_format.label for image_format in FORMATS}

        self.assertEqual({name.split()[0] for name in BOMBS}, labels)
