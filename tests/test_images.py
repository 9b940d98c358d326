import errno
from itertools import pairwise
from math import isqrt
from struct import pack
from unittest.mock import patch
from warnings import catch_warnings
from zlib import compress

from PIL import ExifTags, Image, PngImagePlugin

from uploads import decoder, sizes
from uploads.formats import NAMES

from . import icc
from .bombs import BOMBS, DEFLATE, grey_tiff, grid, pad, png, webp_of_one_colour
from .cases import RenderTestCase
from .contract import FORMATS
from .photos import encoded, noise, photo
from .samples import XMP_ON_ITS_SIDE, gif_that_draws_a_part

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


def declare(name, side):
    """Return a file of a format that declares a square of this side, and has enough bytes for it.

    It has no pixels, or those of one tile.
    """
    match name:
        case "JPEG":
            content = encoded(Image.new("L", (8, 8)))
            content = content.replace(b"\0\x0b\x08\0\x08\0\x08", pack(">HBHH", 11, 8, side, side))
        case "PNG":
            content = png(side, side, (b"IDAT", b""))
        case "WEBP":
            content = webp_of_one_colour(side)
        case "GIF":
            content = encoded(Image.new("P", (8, 8)), "GIF").replace(
                b"GIF87a\x08\0\x08\0", b"GIF87a" + pack("<HH", side, side)
            )
        case "TIFF":
            content = grey_tiff(side, side, compress(b""), DEFLATE, {273: 8, 278: side, 279: 8})
        case "BMP":
            content = encoded(Image.new("L", (8, 8)), "BMP")
            content = content[:18] + pack("<LL", side, side) + content[26:]
        case "AVIF" | "HEIF":
            content = grid(name, side, 512, -(-side // 512))
    return pad(content).ljust(-(-(side**2) // 2000), b"\0")


class RenditionTests(RenderTestCase):
    def test_the_renditions_are_progressive_jpegs_of_at_most_1600_and_480_pixels(self):
        picture, display, thumbnail = self.render(photo(2000, 1500))

        self.assertEqual((picture.width, picture.height), (2000, 1500))
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
            self.assertEqual(display.size, sizes.fit(size, sizes.DISPLAY_SIZE))
            self.assertEqual(thumbnail.size, sizes.fit(size, sizes.THUMBNAIL_SIZE))

    def test_what_is_transparent_is_shown_on_white(self):
        for mode in ("RGBA", "LA", "PA"):
            with self.subTest(mode):
                image = Image.new("RGBA", (8, 8), (200, 0, 0, 0)).convert(mode)
                _, display, _ = self.render(encoded(image, "TIFF" if mode == "PA" else "PNG"))
                self.assert_colour(display, (255, 255, 255))


class FormatTests(RenderTestCase):
    def test_every_format_of_the_list_is_taken(self):
        self.assertEqual(set(NAMES), set(FORMATS))
        for name, (suffix, _) in FORMATS.items():
            with self.subTest(name):
                content = photo(60, 40, name)
                picture, display, _ = self.render(content)
                self.assertEqual(picture.suffix, suffix)
                self.assertEqual(display.size, (60, 40))

    def test_a_phones_picture_with_more_pictures_behind_it_is_taken(self):
        content = photo(60, 40, "MPO", save_all=True, append_images=[noise(60, 40)])

        picture, display, _ = self.render(content)

        self.assertEqual((picture.suffix, display.size), (".jpg", (60, 40)))

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

    def test_the_first_frame_of_an_animation_is_shown(self):
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

    def test_a_picture_in_tiles_is_taken(self):
        for name in ("HEIF", "AVIF"):
            with self.subTest(name):
                picture, display, _ = self.render(grid(name, 1000, 512, 2))
                self.assertEqual((picture.width, picture.height), (1000, 1000))
                self.assert_colour(display, (255, 0, 0), tolerance=8)

    def test_a_format_that_is_not_in_the_list_is_refused(self):
        for name in ("ICO", "PPM", "PDF", "EPS"):
            with self.subTest(name):
                self.assert_refused(photo(60, 40, name), "not_an_image")

    def test_what_is_no_picture_is_refused(self):
        for content in (b"", b"A text.\n" * 1000, b"<svg></svg>" * 9):
            with self.subTest(content[:8]):
                self.assert_refused(content, "not_an_image")
        for content in (b"\xff\xd8\xff\xe0", b"GIF89a"):
            with self.subTest(content):
                self.assert_refused(content)

    def test_a_picture_that_is_cut_short_is_refused(self):
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
            with self.subTest(name):
                content = photo(600, 400, name)
                self.assert_refused(content[: len(content) // 2])

    def test_the_renditions_of_a_polyglot_are_clean(self):
        script = b"<script>alert(1)</script>"
        for content in (photo(60, 40) + script, encoded(noise(60, 40), comment=script)):
            self.render(content)
            for rendition in (self.display, self.thumbnail):
                self.assertNotIn(b"script", rendition.read_bytes())

    def test_the_sentence_names_the_formats(self):
        self.assertEqual(
            self.assert_refused(b"A text.", "not_an_image"),
            "This file is not a picture; "
            "JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP and HEIC files are allowed.",
        )


class BoundTests(RenderTestCase):
    def test_each_format_has_its_most_pixels(self):
        for name, (_, most) in FORMATS.items():
            side = isqrt(most) // 2 * 2
            with self.subTest(name):
                with self.open_image(declare(name, side)) as image:
                    self.assertEqual(image.size, (side, side))
                self.assert_refused(declare(name, side + 2), "too_many_pixels")

    def test_the_sentence_names_the_limit(self):
        self.assertEqual(
            self.assert_refused(declare("WEBP", 7100), "too_many_pixels"),
            "This picture has too many pixels; 50 million are allowed in WebP files of its size.",
        )

    def test_a_large_picture_has_a_byte_for_every_two_thousand_pixels_at_least(self):
        content = png(5000, 5000, (b"IDAT", b"")).ljust(12_500, b"\0")

        self.open_image(content).close()
        self.assert_refused(content[:-1], "too_many_pixels")

    def test_too_many_pixels_in_few_bytes_are_refused(self):
        for name in filter(lambda name: name.endswith("in few bytes"), BOMBS):
            with self.subTest(name):
                self.assert_refused(BOMBS[name](), "too_many_pixels")

    def test_twelve_megapixels_of_one_colour_are_taken_in_every_format(self):
        image = Image.new("RGB", (4000, 3000), "white")
        fast = {"AVIF": {"speed": 10}, "HEIF": {"enc_params": {"preset": "ultrafast"}}}
        for name in FORMATS:
            content = encoded(image, name, **fast.get(name, {}))
            with self.subTest(name), self.open_image(content) as opened:
                self.assertEqual(opened.size, (4000, 3000))

    def test_as_many_pixels_as_are_allowed_are_taken(self):
        content = pad(encoded(Image.new("1", (10_000, 10_000)), "PNG"))

        self.assertEqual(self.render(content)[1].size, (1600, 1600))

    def test_a_large_picture_is_reduced_without_a_seam(self):
        for mode in ("RGB", "RGBA", "P", "L"):
            with self.subTest(mode):
                image = Image.linear_gradient("L").resize((2001, 6999)).convert(mode)
                _, display, _ = self.render(encoded(image, "PNG", compress_level=1))
                column = [display.getpixel((200, y))[0] for y in range(display.height)]
                self.assertEqual(display.size, (457, 1600))
                self.assertLess(max(b - a for a, b in pairwise(column)), 6)
                self.assertGreater(min(b - a for a, b in pairwise(column)), -6)

    def test_errors_of_the_machine_are_no_refusals(self):
        self.path.write_bytes(photo(8, 8))
        for name in ("EACCES", "EIO", "EMFILE", "ENFILE", "ENOENT", "ENOSPC"):
            error = OSError(getattr(errno, name), "")
            with (
                self.subTest(name),
                patch.object(decoder.Image, "open", side_effect=error),
                self.assertRaises(OSError),
            ):
                decoder.open_image(self.path)

    def test_a_file_that_is_missing_is_no_refusal(self):
        with self.assertRaises(FileNotFoundError):
            decoder.open_image(self.path)

    def test_a_lack_of_memory_is_too_complex_however_a_decoder_reports_it(self):
        for error in (
            MemoryError(),
            OSError("out of memory error when reading image file"),
            OSError("decoder error -9"),
            RuntimeError("Memory allocation error: Unspecified: Allocating 9 bytes failed"),
            ValueError("Failed to decode image: Out of memory"),
            OSError(errno.ENOMEM, "Cannot allocate memory"),
        ):
            with (
                self.subTest(error),
                patch.object(decoder.Image, "open", side_effect=error),
            ):
                self.assert_refused(photo(8, 8), "too_complex")


class UprightTests(RenderTestCase):
    def test_a_picture_is_shown_upright_exactly_once(self):
        for name in ("JPEG", "PNG", "WEBP", "HEIF", "TIFF", "AVIF"):
            for orientation, seen in SEEN.items():
                with self.subTest(f"{name} {orientation}"):
                    content = encoded(four_colours(), name, exif=exif(Orientation=orientation))
                    picture, display, thumbnail = self.render(content)
                    size = (64, 96) if orientation >= 5 else (96, 64)
                    self.assertEqual((picture.width, picture.height), size)
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

    def test_a_heic_or_avif_is_turned_by_its_boxes_not_by_its_exif_data(self):
        for name in ("HEIF", "AVIF"):
            with self.subTest(name):
                content = encoded(four_colours(), name, exif=exif(ResolutionUnit=6))
                turned = content.replace(b"\x01\x28\0\3", b"\x01\x12\0\3")
                self.assertNotEqual(turned, content)
                self.assertEqual(self.render(turned)[1].size, (96, 64))

    def test_an_orientation_in_xmp_alone_is_ignored(self):
        for name in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
            options = {"xmp": XMP_ON_ITS_SIDE}
            if name == "PNG":
                options = {"pnginfo": PngImagePlugin.PngInfo()}
                options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP_ON_ITS_SIDE.decode())
            if name == "TIFF":
                options = {"tiffinfo": {700: XMP_ON_ITS_SIDE}}
            with self.subTest(name):
                content = encoded(four_colours(), name, **options)
                self.assertIn(b"tiff:Orientation", content)
                self.assertEqual(self.render(content)[1].size, (96, 64))


class GIFTests(RenderTestCase):
    def test_where_nothing_is_drawn_there_is_white(self):
        for mode in ("P", "L"):
            image = Image.new("RGB", (40, 30), (200, 100, 50)).convert(mode)
            with self.subTest(mode):
                _, display, _ = self.render(gif_that_draws_a_part(image, 20, 10))
                self.assertEqual(display.size, (80, 50))
                for corner in ((5, 5), (75, 5), (5, 45), (75, 45)):
                    self.assertEqual(display.getpixel(corner), (255, 255, 255))
                self.assert_colour(display, image.convert("RGB").getpixel((0, 0)), tolerance=8)

    def test_a_local_palette_of_grey_wins_over_a_global_one_of_colours(self):
        content = encoded(Image.linear_gradient("L"), "GIF")
        head, palette, rest = content[:13], content[13:781], content[781:]
        place = rest.index(b",") + 9  # The flags of its picture lie there.
        local = rest[:place] + bytes((rest[place] | 0x87,)) + palette + rest[place + 1 :]

        _, display, _ = self.render(head + b"\xff\0\0" * 256 + local)

        self.assert_colour(display, (128, 128, 128))

    def test_what_is_transparent_is_white(self):
        image = Image.new("P", (40, 30))

        self.assert_colour(self.render(encoded(image, "GIF", transparency=0))[1], (255, 255, 255))


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
