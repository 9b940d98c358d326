from contextlib import nullcontext
from io import BytesIO
from struct import pack
from zlib import crc32

from django.core.exceptions import ValidationError
from django.test import SimpleTestCase
from PIL import ExifTags, Image

from uploads import images

from .base import FoldersMixin, uploaded
from .photos import encoded, noise, photo


def opened(file):
    with Image.open(file.temporary_file_path()) as image:
        image.load()
    return image


class RenderTests(FoldersMixin, SimpleTestCase):
    def render(self, content):
        with images.render(uploaded(content)) as renditions:
            return renditions, opened(renditions.display), opened(renditions.thumbnail)

    def assert_refused(self, content, code):
        with self.assertRaises(ValidationError) as caught, images.render(uploaded(content)):
            self.fail("It was rendered.")
        self.assertEqual(caught.exception.code, code)
        self.assertEqual(self.files(), [])

    def test_the_renditions_are_jpegs_of_at_most_1600_and_480_pixels(self):
        renditions, display, thumbnail = self.render(photo(2000, 1500))

        self.assertEqual((renditions.width, renditions.height), (2000, 1500))
        self.assertEqual((display.format, display.size), ("JPEG", (1600, 1200)))
        self.assertEqual((thumbnail.format, thumbnail.size), ("JPEG", (480, 360)))

    def test_a_small_picture_is_not_enlarged(self):
        _, display, thumbnail = self.render(photo(30, 20))

        self.assertEqual((display.size, thumbnail.size), ((30, 20), (30, 20)))

    def test_a_picture_of_one_line_has_renditions(self):
        _, display, thumbnail = self.render(photo(5000, 1))

        self.assertEqual((display.size, thumbnail.size), ((1600, 1), (480, 1)))

    def test_a_large_jpeg_is_not_decoded_at_its_full_size(self):
        with Image.open(BytesIO(photo(4000, 3000))) as image:
            images.scaled_down(image)

            self.assertEqual(image.decoderconfig[0], 2)

    def test_every_format_of_the_list_is_taken(self):
        for image_format, suffix in images.FORMATS.items():
            with self.subTest(image_format):
                renditions, display, _ = self.render(photo(60, 40, image_format))
                self.assertEqual(renditions.suffix, suffix)
                self.assertEqual(display.size, (60, 40))

    def test_a_phones_picture_with_more_pictures_behind_it_is_taken(self):
        renditions, display, _ = self.render(
            photo(60, 40, "MPO", save_all=True, append_images=[noise(60, 40)])
        )

        self.assertEqual((renditions.suffix, display.size), (".jpg", (60, 40)))

    def test_a_format_that_is_not_in_the_list_is_refused(self):
        for image_format in ("BMP", "ICO", "PPM", "PDF", "EPS"):
            with self.subTest(image_format):
                self.assert_refused(photo(60, 40, image_format), "not_an_image")

    def test_what_is_no_picture_is_refused(self):
        for content in (b"", b"\xff\xd8\xff\xe0", b"A text.\n" * 1000, b"<svg></svg>"):
            with self.subTest(content[:8]):
                self.assert_refused(content, "not_an_image")

    def test_a_picture_that_is_cut_short_is_refused(self):
        for image_format in ("JPEG", "PNG", "WEBP", "TIFF"):
            with self.subTest(image_format):
                content = photo(600, 400, image_format)
                self.assert_refused(content[: len(content) // 2], "not_an_image")

    def test_too_many_pixels_are_refused_before_they_are_decoded(self):
        header = b"IHDR" + pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
        content = photo(60, 40, "PNG")

        bomb = content[:12] + header + pack(">I", crc32(header)) + content[33:]

        self.assert_refused(bomb, "too_many_pixels")

    def test_a_picture_is_shown_upright(self):
        image = noise(60, 40)
        image.putpixel((0, 0), (0, 0, 0))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6

        renditions, display, _ = self.render(encoded(image, exif=exif))

        self.assertEqual((renditions.width, renditions.height), (40, 60))
        self.assertEqual(display.size, (40, 60))

    def test_what_is_transparent_is_shown_on_white(self):
        _, display, _ = self.render(encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)), "PNG"))

        self.assertEqual(display.getpixel((4, 4)), (255, 255, 255))

    def test_renditions_carry_no_metadata(self):
        exif = Image.Exif()
        exif[ExifTags.Base.Make] = "Camera"
        exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
        content = encoded(noise(60, 40), exif=exif, comment=b"secret", icc_profile=b"profile")

        _, display, thumbnail = self.render(content)

        for rendition in (display, thumbnail):
            self.assertFalse(rendition.getexif())
            self.assertLessEqual(
                set(rendition.info),
                {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progression", "progressive"},
            )

    def test_the_temporary_files_are_gone_afterwards(self):
        for outcome in (nullcontext(), self.assertRaises(KeyError)):
            with outcome as raises, images.render(uploaded(photo())):
                self.assertEqual(len(self.files("incoming")), 2)
                if raises:
                    raise KeyError
            self.assertEqual(self.files(), [])
