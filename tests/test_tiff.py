from contextlib import suppress
from os import urandom
from struct import pack

from PIL import Image, TiffImagePlugin

from uploads.decoder import PictureError

from .bombs import RATIONAL, SHORT, START, tiff
from .cases import RenderTestCase
from .photos import encoded

SIDE = 8
BITS, PHOTOMETRIC, SAMPLES, PLANAR, PALETTE, EXTRA, FORMAT = 258, 262, 277, 284, 320, 338, 339
SIGNED, FLOAT = 2, 3
SUBFILE_TYPE, DNG_VERSION = 254, 50706


def tiff_of(pixel, bits, photometric=1, tags=()):
    """Return an uncompressed TIFF of a square whose pixels all are these bytes."""
    data = pixel * SIDE**2
    tags = {
        **dict.fromkeys((256, 257, 278), SIDE),
        259: 1,
        273: START,
        279: len(data),
        BITS: (SHORT, bits),
        PHOTOMETRIC: photometric,
        SAMPLES: len(bits),
        **dict(tags),
    }
    return tiff(tags, data)


class TIFFTests(RenderTestCase):
    def test_every_kind_that_pillow_can_open_is_shown_or_refused(self):
        for key in TiffImagePlugin.OPEN_INFO:
            _, photometric, sample_format, fill_order, bits, extra = key
            tags = {FORMAT: (SHORT, sample_format * len(bits)), 266: fill_order}
            if extra:
                tags[EXTRA] = (SHORT, extra)
            if photometric == 3:
                tags[PALETTE] = (SHORT, range(3 << bits[0]))
            content = tiff_of(urandom(-(-sum(bits) // 8)), bits, photometric, tags=tags)
            with self.subTest(key), suppress(PictureError):
                self.render(content)

    def test_colours_are_right_in_every_common_kind(self):
        for pixel, bits, photometric, colour in (
            (b"\x64", [8], 1, (100, 100, 100)),
            (b"\x64", [8], 0, (155, 155, 155)),
            (pack("<H", 0x6464), [16], 1, (100, 100, 100)),
            (b"\xc8\x64\x32", [8, 8, 8], 2, (200, 100, 50)),
            (pack("<3H", 0xC8C8, 0x6464, 0x3232), [16, 16, 16], 2, (200, 100, 50)),
            (b"\0\0\0\x80", [8, 8, 8, 8], 5, (127, 127, 127)),
        ):
            with self.subTest(bits=bits, photometric=photometric):
                self.assert_shown(tiff_of(pixel, bits, photometric), colour)

    def test_what_is_transparent_is_shown_on_white(self):
        premultiplied, straight = (SHORT, [1]), (SHORT, [2])
        for pixel, photometric, extra, colour in (
            (b"\x32\x80", 1, premultiplied, (177, 177, 177)),
            (b"\x64\x80", 1, straight, (177, 177, 177)),
            (b"\x64\x32\x19\x80", 2, premultiplied, (227, 177, 152)),
            (b"\xc8\x64\x32\x80", 2, straight, (227, 177, 152)),
        ):
            content = tiff_of(pixel, [8] * len(pixel), photometric, tags={EXTRA: extra})
            with self.subTest(pixel):
                self.assert_shown(content, colour)

    def test_a_palette_may_have_values_of_8_bits_in_its_entries_of_16(self):
        for factor in (1, 257):
            channels = ([0] * 255 + [value * factor] for value in (200, 100, 50))
            palette = {PALETTE: (SHORT, [entry for channel in channels for entry in channel])}
            with self.subTest(factor):
                self.assert_shown(tiff_of(b"\xff", [8], 3, tags=palette), (200, 100, 50))

    def test_a_profile_of_an_odd_type_is_ignored(self):
        for kind, values in ((SHORT, range(9)), (RATIONAL, range(9))):
            with self.subTest(kind):
                content = tiff_of(b"\x64", [8], tags={34675: (kind, values)})
                self.assert_shown(content, (100, 100, 100))

    def test_a_palette_all_of_black_is_black(self):
        content = tiff_of(b"\xff", [8], 3, tags={PALETTE: (SHORT, [0] * 768)})

        self.assert_shown(content, (0, 0, 0))

    def test_values_that_would_be_shown_wrongly_are_refused(self):
        for bits, photometric, tags in (
            ([8], 1, {FORMAT: SIGNED}),
            ([16], 1, {FORMAT: SIGNED}),
            ([32], 1, {}),
            ([32], 1, {FORMAT: SIGNED}),
            ([32], 1, {FORMAT: FLOAT}),
            ([12], 1, {}),
            ([16], 0, {}),
            ([16, 16, 16], 2, {PLANAR: 2}),
        ):
            with self.subTest(bits=bits, photometric=photometric, tags=tags):
                content = tiff_of(bytes(-(-sum(bits) // 8)), bits, photometric, tags=tags)
                self.assertRegex(self.assert_refused(content), "rare variant that cannot be shown")

    def test_a_cameras_raw_file_is_refused_by_name_not_shown_as_its_preview(self):
        for tags, kind in (({DNG_VERSION: 0x0401}, "DNG"), ({SUBFILE_TYPE: 1}, "Camera raw")):
            content = tiff_of(b"\x64", [8], tags=tags)
            sentence = self.assert_refused(content, "other_format")
            self.assertRegex(sentence, f"^{kind} files are not allowed; JPEG, .* files are.$")

    def test_the_second_page_of_a_picture_may_be_a_preview(self):
        page = Image.new("L", (SIDE, SIDE), 200)
        content = encoded(
            Image.new("L", (SIDE, SIDE), 100), "TIFF", save_all=True, append_images=[page]
        )

        self.assert_shown(content, (100, 100, 100))
