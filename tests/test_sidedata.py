import re
from random import Random
from zlib import compress

from PIL import Image

from . import icc
from .bombs import GREY, PALETTE, RGB, chunk, insert, png, segment
from .cases import RenderTestCase
from .photos import encoded, noise
from .samples import (
    COLOUR,
    P3_PROFILE,
    exif,
    gama,
    iccp,
    jpeg_with_apps,
    pack_rows,
    png_of,
    ramps,
    with_wrong_adler,
    with_wrong_checksum,
)

PLAIN = Image.new("RGB", (40, 30), COLOUR)
MEGABYTES = compress(bytes(3 * 2**20))
SIDE_CHUNKS = (
    b"bKGD cHRM cICP eXIf gAMA hIST iCCP iTXt pHYs sBIT sPLT sRGB tEXt tIME tRNS zTXt "
    b"acTL fcTL fdAT cLLI mDCV oFFs pCAL sCAL sTER prIv"
).split()


class PNGTests(RenderTestCase):
    def test_no_ancillary_chunk_refuses_a_picture(self):
        for name in SIDE_CHUNKS:
            for data in (
                b"",
                b"\0",
                b"x",
                b"x\0\1" + MEGABYTES,
                b"x\0\0" + MEGABYTES,
                b"\xff" * 40,
            ):
                for place in (33, -12):
                    with self.subTest(name=name, data=data[:8], place=place):
                        for bad in (chunk(name, data), with_wrong_checksum(name, data)):
                            _, display, _ = self.render(insert(png_of(PLAIN), bad, place))
                            self.assertEqual(display.size, (40, 30))

    def test_a_text_of_many_megabytes_is_not_unpacked(self):
        for name, start in (
            (b"zTXt", b"Comment\0\0"),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
            (b"tEXt", b"Comment\0"),
        ):
            with self.subTest(name):
                self.assert_shown(
                    insert(png_of(PLAIN), chunk(name, start + MEGABYTES)), COLOUR, (40, 30)
                )

    def test_what_has_a_wrong_checksum_does_not_count(self):
        for name, data in (
            gama(100_000),
            iccp(P3_PROFILE),
            (b"cICP", bytes((12, 13, 0, 1))),
            (b"tRNS", b"\0\xc8\0\x64\0\x32"),
            (b"eXIf", exif(6)[6:]),
        ):
            with self.subTest(name):
                self.assert_shown(
                    insert(png_of(PLAIN), with_wrong_checksum(name, data)), COLOUR, (40, 30)
                )

    def test_a_profile_that_is_damaged_or_huge_does_not_count(self):
        packed = compress(P3_PROFILE)
        for data in (
            b"name\0\1" + packed,
            b"name\0\0" + packed[:-1],
            b"name\0\0" + packed[:-1] + b"x",
            b"\0\0" + packed,
            b"n" * 80 + b"\0\0" + packed,
            b"name\0\0" + compress(P3_PROFILE + bytes(5 * 2**20)),
            b"name",
        ):
            with self.subTest(data[:12]):
                self.assert_shown(png_of(PLAIN, (b"iCCP", data)), COLOUR, (40, 30))

    def test_a_profile_of_megabytes_counts(self):
        large = icc.profile(icc.DISPLAY_P3, icc.SRGB_CURVE) + bytes(2 * 2**20)

        self.assert_shown(png_of(PLAIN, iccp(large)), (215, 93, 31))

    def test_transparency_is_kept_if_it_is_long_enough(self):
        for data, colour in (
            (b"\0\xc8\0\x64\0\x32", (255, 255, 255)),
            (b"\0\xc8\0\x64\0\x32\0", (255, 255, 255)),
            (b"\0\xc8\0\x64\0", COLOUR),
            (b"", COLOUR),
        ):
            with self.subTest(data):
                self.assert_shown(png_of(PLAIN, (b"tRNS", data)), colour)

    def test_a_grey_of_few_bits_may_be_transparent(self):
        for depth, row in (
            (1, b"\xff" * 5),
            (2, b"\xaa" * 10),
            (4, b"\x77" * 20),
            (8, b"\x77" * 40),
        ):
            grey = row[0] >> 8 - depth
            pixels = b"IDAT", compress((b"\0" + row) * 30)
            for transparent, colour in (
                (grey, (255, 255, 255)),
                (grey ^ 1, (255 * grey // (2**depth - 1),) * 3),
            ):
                with self.subTest(depth=depth, transparent=transparent):
                    trns = b"tRNS", bytes((0, transparent))
                    content = png(40, 30, trns, pixels, depth=depth, colours=GREY)
                    self.assert_shown(content, colour)

    def test_16_bits_may_be_transparent(self):
        for row, colours, transparent, colour in (
            (b"\x80\0" * 40, GREY, b"\x80\0", (255, 255, 255)),
            (b"\x80\0" * 40, GREY, b"\0\x80", (128, 128, 128)),
            (b"\0\0" * 40, GREY, b"\x80\0", (0, 0, 0)),
            (b"\xc8\xc8\x64\x64\x32\x32" * 40, RGB, b"\xc8\xc8\x64\x64\x32\x32", (255,) * 3),
            (b"\xc8\xc8\x64\x64\x32\x32" * 40, RGB, b"\0\xc8\0\x64\0\x32", COLOUR),
        ):
            with self.subTest(row=row[:6], transparent=transparent):
                pixels = b"IDAT", compress((b"\0" + row) * 30)
                content = png(40, 30, (b"tRNS", transparent), pixels, depth=16, colours=colours)
                self.assert_shown(content, colour)

    def test_transparency_of_a_palette_comes_behind_it_and_has_no_more_entries(self):
        index = Image.new("P", (40, 30), 1)
        palette, pixels = (b"PLTE", bytes(3) + bytes(COLOUR)), (b"IDAT", compress(pack_rows(index)))
        for chunks, colour in (
            ([palette, (b"tRNS", b"\xff\0"), pixels], (255, 255, 255)),
            ([palette, (b"tRNS", b"\xff\0" + bytes(100)), pixels], (255, 255, 255)),
            ([(b"tRNS", b"\xff\0"), palette, pixels], COLOUR),
            ([palette, (b"tRNS", bytes(300)), pixels], COLOUR),
        ):
            with self.subTest(chunks):
                self.assert_shown(png(40, 30, *chunks, colours=PALETTE), colour)

    def test_the_orientation_is_that_of_an_exif_chunk_before_the_pixels(self):
        on_its_side, upright = (b"eXIf", exif(6)[6:]), (b"eXIf", exif(1)[6:])
        for content, size in (
            (png_of(PLAIN, on_its_side), (30, 40)),
            (png_of(PLAIN, on_its_side, upright), (30, 40)),
            (png_of(PLAIN, upright, on_its_side), (40, 30)),
            (png_of(PLAIN, behind=[on_its_side]), (40, 30)),
            (png_of(PLAIN, (b"eXIf", exif(6))), (40, 30)),
        ):
            self.assert_shown(content, COLOUR, size)

    def test_a_wrong_checksum_of_the_pixels_refuses_nothing(self):
        for image in (PLAIN, noise(300, 200), noise(2000, 1500)):
            _, display, _ = self.render(with_wrong_adler(image))
            self.assertEqual(display.width, min(image.width, 1600))
        self.assert_shown(insert(with_wrong_adler(PLAIN), chunk(b"IDAT"), -12), COLOUR)
        self.assert_shown(with_wrong_adler(PLAIN), COLOUR, (40, 30))

    def test_a_png_that_lacks_only_its_end_is_kept(self):
        content = png_of(PLAIN)
        for cut in (1, 4, 11, 12, 15, 16, 19):
            with self.subTest(cut):
                self.assert_shown(content[:-cut], COLOUR, (40, 30))

    def test_one_that_is_cut_short_is_refused(self):
        for image in (ramps(), noise(300, 200), noise(2000, 1500)):
            content = png_of(image)
            for cut in (40, len(content) // 4, len(content) // 2):
                with self.subTest(size=image.size, cut=cut):
                    self.assert_refused(content[:-cut])

    def test_damaged_pixels_are_refused(self):
        content = bytearray(png_of(noise(300, 200)))
        content[41:45] = b"\xff" * 4

        self.assert_refused(bytes(content))

    def test_a_file_without_a_header_is_refused(self):
        pixels = (b"IDAT", compress(pack_rows(PLAIN)))
        self.assert_refused(png(40, 30, pixels).replace(b"IHDR", b"IHDr"))
        self.assert_refused(b"\x89PNG\r\n\x1a\n" + bytes(40))


class JPEGTests(RenderTestCase):
    def test_no_app_segment_refuses_a_picture(self):
        bodies = (
            *(b"", b"J", b"JFIF", b"JFIF\0", b"JFIF\0\1", b"Exif\0\0", b"Exif\0\0II*\0"),
            *(b"ICC_PROFILE\0", b"ICC_PROFILE\0\1", b"ICC_PROFILE\0\1\2xx", b"Adobe", b"MPF\0"),
            *(
                b"Photoshop 3.0\0",
                b"Photoshop 3.0\x008BIM",
                b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0",
            ),
            *(b"MPF\0II*\0\x08\0\0\0\1\0", b"MPF\0" + b"\xff" * 40),
        )
        for marker in range(0xE0, 0xF0):
            for body in bodies:
                with self.subTest(marker=hex(marker), body=body):
                    _, display, _ = self.render(jpeg_with_apps(PLAIN, (marker, body)))
                    self.assertEqual(display.size, (40, 30))
                    self.assert_colour(display, COLOUR)

    def test_odd_bytes_between_the_segments_refuse_nothing(self):
        content = encoded(PLAIN, quality=95)
        for odd in (
            b"\xff",
            b"\xff" * 9,
            b"\xff\x01",
            segment(0xFE, b""),
            segment(0xFE, b"\xff" * 9),
            b"\xff\xe5\0\0",
            b"\xff\xe5\0\1",
        ):
            with self.subTest(odd):
                self.assert_shown(insert(content, odd, 2), COLOUR)

    def test_an_odd_segment_behind_odd_bytes_refuses_nothing(self):
        content = encoded(PLAIN, quality=95)

        self.assert_shown(insert(content, b"\0" + segment(0xE0, b"JFIF\0"), 20), COLOUR)

    def test_exif_data_and_a_profile_are_kept(self):
        content = encoded(PLAIN, quality=95, icc_profile=P3_PROFILE, exif=exif(6))

        _, display, _ = self.render(content)

        self.assertEqual(display.size, (30, 40))
        self.assert_colour(display, (215, 93, 31))

    def test_a_profile_in_several_segments_is_kept(self):
        profile = P3_PROFILE + bytes(100_000)

        self.assert_colour(
            self.render(encoded(PLAIN, quality=95, icc_profile=profile))[1], (215, 93, 31)
        )


class EndTests(RenderTestCase):
    """A JPEG that lacks its end marker is kept if no pixel depends on what would follow."""

    options = (
        {},
        {"progressive": True},
        {"subsampling": 0, "quality": 95},
        {"restart_marker_blocks": 1},
        {"optimize": True, "quality": 30},
    )
    sizes = (
        *((width, height) for width in (1, 7, 8, 9, 16, 17, 31) for height in (1, 8, 15, 16, 33)),
        *((640, 480), (1601, 401), (3300, 205)),
    )

    def coarse_noise(self, width, height, seed=1):
        """Return a noise of few details, the same in each run."""
        randbytes = Random(seed).randbytes
        return noise(-(-width // 8), -(-height // 8), randbytes).resize((width, height))

    def make(self):
        """Generate JPEGs of every kind and size."""
        for width, height in self.sizes:
            image = self.coarse_noise(width, height)
            for options in self.options:
                yield encoded(image, **options)
            for mode in ("L", "CMYK"):
                yield encoded(image.convert(mode))

    def test_one_that_lacks_only_its_end_marker_is_kept(self):
        for content in self.make():
            expected = self.render(content)[1].tobytes()
            for cut in (1, 2):
                self.assertEqual(self.render(content[:-cut])[1].tobytes(), expected)

    def test_one_that_is_cut_between_two_scans_is_refused(self):
        content = encoded(self.coarse_noise(240, 160), progressive=True)
        tables = [match.start() for match in re.finditer(rb"\xff\xc4", content)]

        for place in tables[2:]:  # behind the first scan
            with self.subTest(place):
                self.assert_refused(content[:place])

    def test_one_that_is_cut_at_a_restart_marker_is_refused(self):
        content = encoded(self.coarse_noise(40, 40).convert("L"), restart_marker_blocks=1)

        for marker in re.finditer(rb"\xff[\xd0-\xd7]", content):
            for place in marker.span():
                self.assert_refused(content[:place])

    def test_a_large_one_that_is_cut_is_refused_though_it_is_shown_at_an_eighth(self):
        content = encoded(self.coarse_noise(12_864, 160), progressive=True)

        for share in (0.5, 0.9, 0.999):
            with self.subTest(share):
                self.assert_refused(content[: int(share * len(content))])
        self.render(content[:-2])

    def test_one_that_is_cut_earlier_is_refused(self):
        for content in self.make():
            pixels = len(content) - content.rindex(b"\xff\xda") - 16  # bytes of the last scan
            for cut in {5, 9, pixels // 4, pixels // 2}:
                if 5 <= cut < pixels:
                    self.assert_refused(content[: -2 - cut])

    def test_a_tiny_one_that_is_cut_is_refused(self):
        """It has few pixels, so that different paddings may give the same ones by chance."""
        for seed in range(500):
            content = encoded(self.coarse_noise(9, 15, seed), optimize=True, quality=30)
            self.assert_refused(content[:-7])
