import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from itertools import pairwise
from struct import pack
from threading import BoundedSemaphore, Event, Lock
from unittest.mock import patch
from warnings import catch_warnings
from zlib import compress, crc32

from django.core.exceptions import ValidationError
from django.test import SimpleTestCase
from PIL import ExifTags, Image, PngImagePlugin

from uploads import images

from . import icc
from .base import FoldersMixin, upload_file
from .photos import encoded, noise, photo

Base = ExifTags.Base
CORNERS = {"red": (0, 0), "lime": (1, 0), "blue": (0, 1), "white": (1, 1)}

# Where the picture's own left top, right top and left bottom are seen in each EXIF orientation.
SEEN = {
    1: ("red", "lime", "blue"),
    2: ("lime", "red", "white"),
    3: ("white", "blue", "lime"),
    4: ("blue", "white", "red"),
    5: ("red", "blue", "lime"),
    6: ("blue", "red", "white"),
    7: ("white", "lime", "blue"),
    8: ("lime", "white", "red"),
}


def four_colours(width=96, height=64):
    image = Image.new("RGB", (width, height))
    for colour, (x, y) in CORNERS.items():
        left, top = x * width // 2, y * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def nearest_colour(pixel):
    colours = {
        "red": (255, 0, 0),
        "lime": (0, 255, 0),
        "blue": (0, 0, 255),
        "white": (255, 255, 255),
    }
    return min(
        colours,
        key=lambda name: sum((a - b) ** 2 for a, b in zip(colours[name], pixel, strict=True)),
    )


def exif(**tags):
    data = Image.Exif()
    for name, value in tags.items():
        data[Base[name]] = value
    return data.tobytes()


def opened(file):
    with Image.open(file.temporary_file_path()) as image:
        image.load()
    return image


def png(width, height, *chunks):
    """Return a PNG that declares this size, with these chunks (pairs of a name and bytes)."""
    header = pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        pack(">I", len(data)) + name + data + pack(">I", crc32(name + data)) for name, data in parts
    )


def tiff(tile, data, width=64, height=64, tile_height=None):
    """Return a grey TIFF with one tile, that is so many pixels wide (TIFF 6.0)."""
    long, start = 4, 8 + 2 + 12 * 10 + 4
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: tile, 323: tile_height or tile, 324: start, 325: len(data)}
    entries = b"".join(pack("<HHLL", tag, long, 1, value) for tag, value in tags.items())
    return pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data


class RenderTestCase(FoldersMixin, SimpleTestCase):
    def render(self, content):
        """Return the renditions, and the pictures in their files."""
        with images.render(upload_file(content)) as renditions:
            return renditions, opened(renditions.display), opened(renditions.thumbnail)

    def assert_refused(self, content, code="not_an_image"):
        with self.assertRaises(ValidationError) as caught, images.render(upload_file(content)):
            self.fail("It was rendered.")
        self.assertEqual(caught.exception.code, code)
        self.assertEqual(self.files(), [])

    def assert_colour(self, image, expected, tolerance=4):
        pixel = image.getpixel((image.width // 2, image.height // 2))
        for value, wanted in zip(pixel, expected, strict=True):
            self.assertAlmostEqual(value, wanted, delta=tolerance, msg=f"{pixel}, not {expected}")


class RenditionTests(RenderTestCase):
    def test_the_renditions_are_progressive_jpegs_of_at_most_1600_and_480_pixels(self):
        renditions, display, thumbnail = self.render(photo(2000, 1500))

        self.assertEqual((renditions.width, renditions.height), (2000, 1500))
        self.assertEqual((display.format, display.size), ("JPEG", (1600, 1200)))
        self.assertEqual((thumbnail.format, thumbnail.size), ("JPEG", (480, 360)))
        self.assertTrue(display.info["progressive"])

    def test_a_small_picture_is_not_enlarged(self):
        _, display, thumbnail = self.render(photo(30, 20))

        self.assertEqual((display.size, thumbnail.size), ((30, 20), (30, 20)))

    def test_a_picture_of_one_line_has_renditions(self):
        _, display, thumbnail = self.render(photo(5000, 1))

        self.assertEqual((display.size, thumbnail.size), ((1600, 1), (480, 1)))

    def test_the_sizes_can_be_told_without_the_files(self):
        for size in ((2000, 1501), (1501, 2000), (4032, 3024), (33, 5000), (481, 480)):
            _, display, thumbnail = self.render(encoded(Image.new("RGB", size)))
            self.assertEqual(display.size, images.fit(size, images.DISPLAY_SIZE))
            self.assertEqual(thumbnail.size, images.fit(size, images.THUMBNAIL_SIZE))

    def test_what_is_transparent_is_shown_on_white(self):
        for mode in ("RGBA", "LA", "PA"):
            with self.subTest(mode):
                image = Image.new("RGBA", (8, 8), (200, 0, 0, 0)).convert(mode)
                _, display, _ = self.render(encoded(image, "TIFF" if mode == "PA" else "PNG"))
                self.assert_colour(display, (255, 255, 255))

    def test_the_temporary_files_are_gone_afterwards(self):
        for outcome in (nullcontext(), self.assertRaises(KeyError)):
            with outcome as raises, images.render(upload_file(photo())):
                self.assertEqual(len(self.files("incoming")), 2)
                if raises:
                    raise KeyError
            self.assertEqual(self.files(), [])


class FormatTests(RenderTestCase):
    def test_every_format_of_the_list_is_taken(self):
        for name, _, suffix, _ in images.FORMATS:
            with self.subTest(name):
                content = photo(60, 40, name)
                self.assertTrue(images.may_be_picture(content[: images.SIGNATURE_LENGTH]))
                renditions, display, _ = self.render(content)
                self.assertEqual(renditions.suffix, suffix)
                self.assertEqual(display.size, (60, 40))

    def test_a_phones_picture_with_more_pictures_behind_it_is_taken(self):
        content = photo(60, 40, "MPO", save_all=True, append_images=[noise(60, 40)])

        renditions, display, _ = self.render(content)

        self.assertEqual((renditions.suffix, display.size), (".jpg", (60, 40)))

    def test_every_kind_of_jpeg_is_taken(self):
        red = Image.new("RGB", (40, 40), (220, 30, 40))
        for kind, content, colour in (
            ("progressive", encoded(red, progressive=True), (220, 30, 40)),
            ("CMYK", encoded(red.convert("CMYK")), (220, 30, 40)),
            ("greyscale", encoded(Image.new("L", (40, 40), 90)), (90, 90, 90)),
        ):
            with self.subTest(kind):
                self.assert_colour(self.render(content)[1], colour)

    def test_every_kind_of_png_is_taken(self):
        red = Image.new("RGB", (40, 40), (220, 30, 40))
        green = Image.new("RGB", (40, 40), (0, 200, 0))
        frames = {"save_all": True, "append_images": [green]}
        for kind, content, colour in (
            ("with alpha", encoded(red.convert("RGBA"), "PNG"), (220, 30, 40)),
            ("with a palette", encoded(red.quantize(4), "PNG"), (220, 30, 40)),
            ("black and white", encoded(Image.new("1", (40, 40), 1), "PNG"), (255, 255, 255)),
            ("of 16 bits", encoded(Image.new("I;16", (40, 40), 0x5A5A), "PNG"), (0x5A,) * 3),
            ("animated", encoded(red, "PNG", **frames), (220, 30, 40)),
        ):
            with self.subTest(kind):
                self.assert_colour(self.render(content)[1], colour)

    def test_a_tiff_of_16_bits_is_taken_in_either_order_of_bytes(self):
        for mode in ("I;16", "I;16B"):
            with self.subTest(mode):
                content = encoded(Image.new(mode, (40, 40), 0x5A5A), "TIFF")
                self.assert_colour(self.render(content)[1], (0x5A,) * 3)

    def test_of_an_animation_the_first_frame_is_shown(self):
        red = Image.new("RGB", (40, 40), (220, 30, 40))
        green = [Image.new("RGB", (40, 40), (0, shade, 0)) for shade in (200, 100)]
        for name in ("GIF", "WEBP", "TIFF"):
            with self.subTest(name):
                content = encoded(red, name, save_all=True, append_images=green)
                self.assert_colour(self.render(content)[1], (220, 30, 40), tolerance=8)

    def test_an_animation_of_ten_thousand_frames_is_taken(self):
        frames = [Image.new("L", (2, 2), number % 256) for number in range(10_000)]

        content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])

        self.assertEqual(self.render(content)[1].size, (2, 2))

    def test_a_format_that_is_not_in_the_list_is_refused(self):
        for name in ("BMP", "ICO", "PPM", "PDF", "EPS"):
            with self.subTest(name):
                content = photo(60, 40, name)
                self.assertFalse(images.may_be_picture(content[: images.SIGNATURE_LENGTH]))
                self.assert_refused(content)

    def test_what_is_no_picture_is_refused(self):
        for content in (
            b"",
            b"\xff\xd8\xff\xe0",
            b"A text.\n" * 1000,
            b"<svg></svg>" * 9,
            b"GIF89a",
        ):
            with self.subTest(content[:8]):
                self.assert_refused(content)

    def test_a_picture_that_is_cut_short_is_refused(self):
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
            with self.subTest(name):
                content = photo(600, 400, name)
                self.assert_refused(content[: len(content) // 2])

    def test_the_renditions_of_a_polyglot_are_clean(self):
        script = b"<script>alert(1)</script>"
        for content in (photo(60, 40) + script, encoded(noise(60, 40), comment=script)):
            with images.render(upload_file(content)) as renditions:
                for file in (renditions.display, renditions.thumbnail):
                    with open(file.temporary_file_path(), "rb") as rendition:  # noqa: PTH123
                        self.assertNotIn(b"script", rendition.read())


class BoundTests(RenderTestCase):
    def test_too_many_pixels_are_refused_before_they_are_decoded(self):
        for side in (10_001, 65_535):
            self.assert_refused(png(side, side, (b"IDAT", compress(b""))), "too_many_pixels")

    def test_as_many_pixels_as_are_allowed_are_taken(self):
        content = encoded(Image.new("1", (10_000, 10_000)), "PNG")

        self.assertEqual(self.render(content)[1].size, (1600, 1600))

    def test_a_large_picture_is_reduced_without_a_seam(self):
        for mode in ("RGB", "RGBA", "P", "L"):
            with self.subTest(mode):
                image = Image.linear_gradient("L").resize((7001, 6999)).convert(mode)
                _, display, _ = self.render(encoded(image, "PNG", compress_level=1))
                column = [display.getpixel((800, y))[0] for y in range(display.height)]
                self.assertEqual(display.size, (1600, 1600))
                self.assertLess(max(b - a for a, b in pairwise(column)), 6)
                self.assertGreater(min(b - a for a, b in pairwise(column)), -6)

    def test_what_costs_far_more_than_its_pixels_is_refused(self):
        content = photo(60, 40)

        self.assert_refused(content[:2] + b"\xff\xfe\0\x02" * 1000 + content[2:], "too_many_pixels")

    def test_a_picture_of_one_endless_line_is_refused(self):
        line = Image.new("1", (65_536, 1))

        self.assert_refused(encoded(line, "PNG"), "too_many_pixels")
        self.assert_refused(
            tiff(16, compress(bytes(16 * 2**18)), 16_000, 1, 2**18), "too_many_pixels"
        )

    def test_a_small_tiff_of_one_huge_tile_is_refused(self):
        self.assertEqual(self.render(tiff(64, compress(bytes(64**2))))[1].size, (64, 64))
        self.assert_refused(tiff(26_000, compress(bytes(26_000**2))), "too_many_pixels")

    def test_a_text_that_unpacks_to_megabytes_is_refused(self):
        text = (b"zTXt", b"Comment\0\0" + compress(b"x" * 80_000_000))

        self.assert_refused(png(8, 8, text, (b"IDAT", compress(b"\0" * 8 * 25))))

    def test_a_tiff_whose_directories_run_in_a_circle_has_an_end(self):
        content = bytearray(encoded(Image.new("RGB", (8, 8), "red"), "TIFF"))
        start = int.from_bytes(content[4:8], "little")
        entries = int.from_bytes(content[start : start + 2], "little")
        link = start + 2 + 12 * entries
        content[link : link + 4] = content[4:8]

        self.assert_colour(self.render(bytes(content))[1], (255, 0, 0))

    def test_what_the_machine_is_to_blame_for_is_no_refusal(self):
        for number in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC):
            with (
                self.subTest(errno.errorcode[number]),
                patch.object(images.Image, "open", side_effect=OSError(number, "")),
                self.assertRaises(OSError),
            ):
                images.decode(BytesIO(photo()))


class DecodingSlotTests(FoldersMixin, SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(patch.object(images, "CORES", 2))

    def most_at_once(self):
        """Let six threads decode, and return how many did so at once."""
        lock, third, at_once, most = Lock(), Event(), 0, 0

        def decode(number):
            nonlocal at_once, most
            with images.processing_slot():
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                if most > 2:
                    third.set()
                third.wait(0.1)
                with lock:
                    at_once -= 1

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(decode, range(6)))
        return most

    def test_one_process_decodes_no_more_pictures_at_once_than_there_are_cores(self):
        with (
            patch.object(images, "SLOTS", BoundedSemaphore(2)),
            patch.object(images, "free_slot", nullcontext),
        ):
            self.assertEqual(self.most_at_once(), 2)

    def test_nor_do_all_processes_together(self):
        with patch.object(images, "SLOTS", BoundedSemaphore(6)):
            self.assertEqual(self.most_at_once(), 2)

    def test_a_slot_is_free_again_after_an_error(self):
        with patch.object(images, "CORES", 1):
            for _ in range(3):
                with self.assertRaises(KeyError), images.processing_slot():
                    raise KeyError


class UprightTests(RenderTestCase):
    def test_a_picture_is_shown_upright_exactly_once(self):
        for name in ("JPEG", "PNG", "WEBP", "HEIF", "TIFF", "AVIF"):
            for orientation, seen in SEEN.items():
                with self.subTest(f"{name} {orientation}"):
                    content = encoded(four_colours(), name, exif=exif(Orientation=orientation))
                    renditions, display, thumbnail = self.render(content)
                    size = (64, 96) if orientation >= 5 else (96, 64)
                    self.assertEqual((renditions.width, renditions.height), size)
                    for image in (display, thumbnail):
                        self.assertEqual(image.size, size)
                        right, bottom = image.width - 9, image.height - 9
                        corners = ((8, 8), (right, 8), (8, bottom))
                        colours = [nearest_colour(image.getpixel(corner)) for corner in corners]
                        self.assertEqual(tuple(colours), seen)

    def test_a_photo_with_damaged_exif_data_is_taken_as_it_is(self):
        damaged = b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 60

        # A number with the type of a text.
        odd = exif(Orientation=6, ResolutionUnit=2).replace(b"\x28\x01\x03", b"\x28\x01\x02")

        for name in ("JPEG", "PNG", "WEBP"):
            for data, size in ((damaged, (96, 64)), (odd, (64, 96))):
                with self.subTest(name), catch_warnings(action="ignore"):
                    _, display, _ = self.render(encoded(four_colours(), name, exif=data))
                    self.assertEqual(display.size, size)

    def test_exif_data_of_megabytes_is_not_looked_at(self):
        text = PngImagePlugin.PngInfo()
        profile = "\nexif\n9\n" + exif(Orientation=6, Make="x" * 300_000)[6:].hex()
        text.add_text("Raw profile type exif", profile)
        contents = [encoded(four_colours(), "PNG", pnginfo=text)]
        contents += [
            encoded(four_colours(), name, exif=exif(Orientation=6, Make="x" * 300_000))
            for name in ("PNG", "WEBP")
        ]
        for content in contents:
            with self.subTest(content[:8]):
                self.assertEqual(self.render(content)[1].size, (96, 64))


class ColourTests(RenderTestCase):
    def rendered(self, pixel, profile, name="PNG"):
        image = Image.new("RGB", (40, 40), pixel)
        return self.render(encoded(image, name, icc_profile=profile))[1]

    def test_display_p3_is_converted_to_srgb(self):
        profile = icc.profile(icc.DISPLAY_P3, icc.SRGB_CURVE)

        for name in ("PNG", "JPEG", "WEBP", "HEIF"):
            with self.subTest(name):
                quality = {} if name == "PNG" else {"quality": 95}
                image = Image.new("RGB", (40, 40), (200, 100, 50))
                content = encoded(image, name, icc_profile=profile, **quality)
                self.assert_colour(self.render(content)[1], (215, 95, 29), tolerance=6)

    def test_adobe_rgb_is_converted_to_srgb(self):
        profile = icc.profile(icc.ADOBE_RGB, icc.ADOBE_CURVE)

        self.assert_colour(self.rendered((150, 100, 50), profile), (171, 99, 44), tolerance=6)

    def test_white_stays_white_and_grey_stays_grey(self):
        profile = icc.profile(icc.DISPLAY_P3, icc.SRGB_CURVE)

        for pixel in ((255, 255, 255), (128, 128, 128)):
            self.assert_colour(self.rendered(pixel, profile), pixel)

    def test_a_profile_that_cannot_be_used_is_left_alone(self):
        self.assert_colour(self.rendered((200, 100, 50), b"no profile"), (200, 100, 50))


class PrivacyTests(RenderTestCase):
    def test_renditions_carry_nothing_but_pixels(self):
        data = Image.Exif()
        data[Base.Make] = "Camera"
        data.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "secret")
        kept = {"exif": data.tobytes(), "xmp": b"<x:xmpmeta>secret</x:xmpmeta>"}
        profile = icc.profile(icc.DISPLAY_P3, icc.SRGB_CURVE)
        image = noise(60, 40)
        for content in (
            encoded(image, comment=b"secret", icc_profile=profile, **kept),
            encoded(image, "PNG", pnginfo=text, icc_profile=profile, exif=kept["exif"]),
            encoded(image, "WEBP", icc_profile=profile, **kept),
            encoded(image, "HEIF", icc_profile=profile, **kept),
        ):
            for rendition in self.render(content)[1:]:
                self.assertFalse(rendition.getexif())
                jfif = {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
                self.assertLessEqual(set(rendition.info), {*jfif, "progressive", "progression"})
