from io import BytesIO
from struct import pack
from zlib import crc32

from django.test import SimpleTestCase
from PIL import Image

from uploads.bombs import is_bomb

from .photos import encoded, noise, photo


class BombTestCase(SimpleTestCase):
    def assert_bomb(self, content):
        self.assertTrue(is_bomb(BytesIO(content)))

    def assert_honest(self, content):
        self.assertFalse(is_bomb(BytesIO(content)))


class JPEGTests(BombTestCase):
    def test_a_thousand_scans_are_a_bomb(self):
        content = encoded(Image.new("L", (64, 64)), progressive=True)
        scan = content.rindex(b"\xff\xda")

        self.assert_honest(content)
        self.assert_bomb(content[:-2] + content[scan:-2] * 1000 + content[-2:])

    def test_so_are_a_million_segments(self):
        content = encoded(Image.new("L", (64, 64)))

        self.assert_bomb(content[:2] + b"\xff\xfe\0\x02" * 1_000_000 + content[2:])

    def test_scans_cannot_hide_behind_a_marker_without_a_segment(self):
        content = encoded(Image.new("L", (64, 64)), progressive=True)
        scan = content[content.rindex(b"\xff\xda") : -2]

        self.assert_bomb(content[:-2] + (b"\xff\x01" + scan) * 100 + content[-2:])

    def test_megabytes_between_the_segments_are_a_bomb(self):
        content = photo(60, 40)
        for fill in (b"\xff", b"\xff\xd0", b"x"):
            with self.subTest(fill):
                self.assert_bomb(content[:2] + fill * 100_000 + content[2:])
                self.assert_honest(content[:2] + b"\xff" * 100 + content[2:])

    def test_exif_data_in_ten_thousand_segments_is_a_bomb(self):
        segment = b"\xff\xe1" + pack(">H", 108) + b"Exif\0\0" + bytes(100)
        content = photo(60, 40)

        self.assert_bomb(content[:2] + segment * 10_000 + content[2:])

    def test_what_encoders_write_is_none(self):
        image = noise(200, 100)
        for options in (
            {"progressive": True, "optimize": True},
            {"restart_marker_blocks": 1},
            {"restart_marker_rows": 1},
            {"subsampling": "4:4:4", "quality": 100},
            {"quality": 1},
            {"icc_profile": bytes(2_000_000)},
            {"comment": b"\xff\xda" * 20_000},
        ):
            with self.subTest(options):
                self.assert_honest(encoded(image, **options))

    def test_what_follows_the_picture_is_not_counted(self):
        film = b"\xff\xda" * 1000

        self.assert_honest(photo(60, 40) + film)


class PNGTests(BombTestCase):
    def test_a_million_chunks_are_a_bomb(self):
        chunk = b"\0\0\0\0prIv" + pack(">I", crc32(b"prIv"))
        content = photo(60, 40, "PNG")

        self.assert_bomb(content[:33] + chunk * 1_000_000 + content[33:])
        self.assert_bomb(content[:-12] + chunk * 1_000_000 + content[-12:])
        self.assert_honest(content[:33] + chunk * 1000 + content[33:])

    def test_what_follows_the_picture_is_not_counted(self):
        self.assert_honest(photo(60, 40, "PNG") + bytes(1_000_000))
