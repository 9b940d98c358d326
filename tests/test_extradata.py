from random import Random
from struct import pack

from PIL import Image

from uploads.extradata import MAX_EXTRA

from .bombs import box, chunk, gif_with, insert, png_with, segment, tiff
from .cases import RenderTestCase
from .contract import FORMATS
from .photos import encoded, noise
from .samples import with_oppo_blocks, with_samsung_blocks, with_video

SLACK = 10_000  # bytes: a measure of a small file may be off by this much
MEGABYTES = 3 * 2**20
DATA = b"A text.\n" * (MEGABYTES // 8)
# The same in each run: other random bytes may hold the name of a box.
RANDOM = Random(1).randbytes(MEGABYTES)
XMP = b"<x:xmpmeta>" + b" " * MEGABYTES + b"</x:xmpmeta>"
SMALL = noise(60, 40)
LARGE = noise(1300, 1000)
FRAMES = [noise(200, 200).convert("L") for _ in range(60)]  # fast to encode as a GIF
FAST = {"AVIF": {"speed": 10}, "HEIF": {"enc_params": {"preset": "ultrafast"}}}
PICTURE = encoded(SMALL)


def segments(marker, data, start=b""):
    """Return data in as many JPEG segments as they need; each begins with `start`."""
    size = 65_000
    places = range(0, len(data), size)
    return b"".join(segment(marker, start + data[place : place + size]) for place in places)


def webp_with(name, data):
    """Return a WebP with this chunk at its end."""
    content = encoded(SMALL, "WEBP") + name + pack("<L", len(data)) + data
    return b"RIFF" + pack("<L", len(content) - 8) + content[8:]


class ExtraDataTestCase(RenderTestCase):
    def assert_taken(self, content):
        self.assertGreater(len(content), MAX_EXTRA)
        self.open_image(content).close()


class BehindTests(ExtraDataTestCase):
    def test_a_megabyte_behind_a_picture_is_taken_but_not_more(self):
        for name in FORMATS:
            content = encoded(SMALL, name)
            for extra in (bytes(MAX_EXTRA), RANDOM[:MAX_EXTRA]):
                with self.subTest(name, extra=extra[:4]):
                    self.open_image(content + extra[SLACK:]).close()
                    self.assert_refused(content + extra + extra[:SLACK], "extra_data")

    def test_the_sentence_names_the_limit(self):
        self.assertEqual(
            self.assert_refused(PICTURE + DATA, "extra_data"),
            "Besides its picture, this file holds more than the 1 MB of other data that are "
            "allowed.",
        )

    def test_megabytes_behind_a_jpeg_without_an_end_marker_are_refused(self):
        for data in (bytes(MEGABYTES), DATA):
            self.assert_refused(PICTURE[:-2] + data, "extra_data")

    def test_a_file_that_does_not_begin_with_a_picture_stays_no_picture(self):
        self.assert_refused(DATA + PICTURE, "not_an_image")


class PhoneTests(ExtraDataTestCase):
    def test_more_pictures_behind_a_picture_are_taken(self):
        content = encoded(LARGE, "MPO", save_all=True, append_images=[LARGE, SMALL])

        self.assert_taken(content)
        self.assert_taken(content + bytes(1000) + content)

    def test_a_video_behind_a_picture_is_taken(self):
        for name in FORMATS.keys() - {"TIFF", "BMP"}:
            with self.subTest(name):
                self.assert_taken(with_video(encoded(SMALL, name), MEGABYTES))

    def test_what_follows_a_video_counts(self):
        content = with_video(PICTURE, MEGABYTES)

        self.assert_taken(content + DATA[: MAX_EXTRA - SLACK])
        self.assert_refused(content + DATA, "extra_data")

    def test_a_video_with_a_64_bit_length_or_up_to_the_end_is_taken(self):
        start = PICTURE + box(b"ftyp", b"qt  ")
        for length in (pack(">L4sQ", 1, b"mdat", 16 + MEGABYTES), pack(">L4s", 0, b"mdat")):
            self.assert_taken(start + length + DATA)

    def test_the_blocks_of_a_phone_are_taken(self):
        depth, video = DATA, with_video(b"", MEGABYTES)
        for with_blocks in (with_samsung_blocks, with_oppo_blocks):
            with self.subTest(with_blocks):
                self.assert_taken(with_blocks(PICTURE, b"a name", depth, video))
                self.assert_refused(with_blocks(PICTURE + DATA, b"a name"), "extra_data")

    def test_a_video_in_a_heic_is_taken(self):
        for name in ("HEIF", "AVIF"):
            content = encoded(SMALL, name)
            with self.subTest(name):
                self.assert_taken(content + box(b"mpvd", with_video(b"", MEGABYTES)))
                self.assert_taken(content + box(b"sefd", with_samsung_blocks(b"", DATA)))


class LargeTests(ExtraDataTestCase):
    """No part of a picture itself is extra data."""

    def test_noise_of_the_best_quality_is_taken_in_every_format(self):
        for name in FORMATS:
            options = {"quality": 100, **FAST.get(name, {})}
            with self.subTest(name):
                self.assert_taken(encoded(LARGE, name, **options))

    def test_every_kind_of_jpeg_is_taken(self):
        for image, options in (
            (LARGE, {"subsampling": 0}),
            (LARGE, {"restart_marker_blocks": 1, "subsampling": 0}),
            (LARGE, {"progressive": True, "quality": 95}),
            (Image.frombytes("CMYK", (800, 600), RANDOM[: 4 * 800 * 600]), {}),
        ):
            with self.subTest(options):
                content = encoded(image, **{"quality": 100, **options})
                self.assert_taken(content)
                self.assert_taken(content[:-2])

    def test_every_kind_of_tiff_is_taken(self):
        for options in (
            {"compression": "tiff_lzw"},
            {"compression": "jpeg", "quality": 100},
            {"big_tiff": True},
            {"save_all": True, "append_images": [LARGE, LARGE]},
            {"strip_size": 1000},
        ):
            with self.subTest(options):
                self.assert_taken(encoded(LARGE, "TIFF", **options))

    def test_an_animation_is_taken(self):
        for name in ("GIF", "WEBP", "PNG", "AVIF"):
            with self.subTest(name):
                options = {"save_all": True, "append_images": FRAMES, **FAST.get(name, {})}
                self.assert_taken(encoded(FRAMES[0], name, **options))

    def test_an_animation_that_is_cut_short_is_taken(self):
        content = encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES)

        for cut in (1, 2, 100_000, 100_001):
            with self.subTest(cut):
                self.assert_taken(content[:-cut])

    def test_megabytes_of_metadata_are_taken(self):
        for kind, content in {
            "XMP in a JPEG": insert(PICTURE, segments(0xE1, XMP, b"http://ns.adobe.com/"), 2),
            "a thermal picture in a JPEG": insert(PICTURE, segments(0xE3, RANDOM), 2),
            "a text in a PNG": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
            "XMP in a WebP": encoded(SMALL, "WEBP", xmp=XMP),
            "XMP in a TIFF": encoded(SMALL, "TIFF", tiffinfo={700: XMP}),
            "XMP in a HEIC": encoded(SMALL, "HEIF", xmp=XMP),
            "XMP in an AVIF": encoded(SMALL, "AVIF", xmp=XMP),
        }.items():
            with self.subTest(kind):
                self.assert_taken(content)


class WithinTests(ExtraDataTestCase):
    """Fillers within a picture count, too."""

    def test_comments_and_unknown_parts_are_refused(self):
        heic, avif = encoded(SMALL, "HEIF"), encoded(SMALL, "AVIF")
        for kind, content in {
            "comments in a JPEG": insert(PICTURE, segments(0xFE, DATA), 2),
            "an unknown marker in a JPEG": insert(PICTURE, segments(0xF0, DATA), 2),
            "bytes between a JPEG's segments": insert(PICTURE, DATA, 20),
            "fill bytes in a JPEG": insert(PICTURE, b"\xff" * MEGABYTES, 2),
            "bytes behind the pixels of a JPEG": insert(PICTURE, bytes(MEGABYTES), -2),
            "a private chunk in a PNG": png_with(chunk(b"prIv", DATA)),
            "a nameless chunk in a PNG": png_with(chunk(bytes(4), DATA)),
            "an unknown chunk in a WebP": webp_with(b"DATA", DATA),
            "a free box in a HEIC": heic + box(b"free", DATA),
            "a skip box in an AVIF": avif + box(b"skip", DATA),
            "a comment in a GIF": gif_with(b"!\xfe" + b"\xff" * 4 * MEGABYTES + bytes(256)),
            "a gap in a TIFF": tiff({256: 8, 257: 8, 273: 8, 278: 8, 279: 64}, DATA),
        }.items():
            with self.subTest(kind):
                self.assert_refused(content, "extra_data")

    def test_a_part_that_only_looks_like_a_picture_is_refused(self):
        for start in (b"\xff\xd8\xff\xd8", b"\xff\xd8\xff\xdb\0\2", b"\xff\xd8\xff\xda\0\2"):
            for data in (bytes(MEGABYTES), DATA, RANDOM):
                with self.subTest(start, data=data[:4]):
                    self.assert_refused(PICTURE + start + data, "extra_data")

    def test_directories_of_a_tiff_that_lead_in_a_circle_or_nowhere_are_no_error(self):
        tags = {256: 1600, 257: 1200, 258: 8, 259: 1, 262: 1, 277: 1, 273: 8, 278: 1200}
        tags |= {279: 1600 * 1200}
        for place in (8, 2**31, 1600 * 1200 + 8):
            with self.subTest(place):
                content = tiff({**tags, 34665: place}, bytes(1600 * 1200))
                self.assert_taken(content)
                self.assert_refused(content + DATA, "extra_data")
