from itertools import pairwise

from PIL import Image

from . import icc
from .bombs import chunk, insert
from .cases import RenderTestCase
from .photos import encoded
from .samples import (
    COLOUR,
    P3_CHRM,
    P3_PROFILE,
    avif_with_nclx,
    avifenc,
    cicp,
    gama,
    heic_with_nclx,
    iccp,
    png_of,
)
from .servers import requires

PLAIN = Image.new("RGB", (40, 40), COLOUR)
GREY = Image.new("L", (40, 40), 100)
PQ_WHITE = 148  # the code of 203 nits, SDR white


class ProfileTests(RenderTestCase):
    def test_display_p3_is_converted_to_srgb(self):
        for name in ("PNG", "JPEG", "WEBP", "HEIF", "AVIF", "TIFF"):
            with self.subTest(name):
                quality = {"chroma": 444} if name == "HEIF" else {}
                content = encoded(PLAIN, name, icc_profile=P3_PROFILE, quality=95, **quality)
                self.assert_shown(content, (215, 93, 31))

    def test_adobe_rgb_is_converted_to_srgb(self):
        profile = icc.profile(icc.ADOBE_RGB, icc.ADOBE_CURVE)
        image = Image.new("RGB", (40, 40), (150, 100, 50))

        self.assert_shown(encoded(image, "PNG", icc_profile=profile), (167, 100, 42))

    def test_white_stays_white_and_grey_stays_grey(self):
        for grey in (255, 128):
            image = Image.new("RGB", (40, 40), (grey,) * 3)
            self.assert_shown(encoded(image, "PNG", icc_profile=P3_PROFILE), (grey,) * 3)

    def test_an_unusable_profile_is_ignored(self):
        self.assert_shown(encoded(PLAIN, "PNG", icc_profile=b"no profile"), COLOUR)
        cmyk = encoded(Image.new("CMYK", (40, 40), (0, 0, 0, 0)), icc_profile=P3_PROFILE)
        self.assert_shown(cmyk, (255, 255, 255))

    def test_a_profile_for_grey_is_for_grey(self):
        profile = icc.grey_profile((1.0,))
        for image in (GREY, GREY.convert("LA")):
            self.assert_shown(encoded(image, "PNG", icc_profile=profile), (168, 168, 168))

    def test_a_profile_for_grey_is_not_for_colours(self):
        profile = icc.grey_profile((1.0,))
        for name in ("PNG", "JPEG", "WEBP"):
            with self.subTest(name):
                content = encoded(PLAIN, name, icc_profile=profile, quality=95)
                self.assert_shown(content, COLOUR)

    def test_a_tiff_in_lab_is_converted(self):
        image = Image.new("LAB", (40, 40), (128, 168, 88))

        self.assert_shown(encoded(image, "TIFF"), (159, 93, 189))


class CodePointTests(RenderTestCase):
    codes = (
        (1, 13, COLOUR),
        (12, 13, (215, 93, 31)),  # Display P3
        (12, 4, (216, 93, 24)),
        (9, 13, (241, 76, 29)),  # BT.2020
        (5, 5, (192, 76, 27)),
        (1, 7, (206, 115, 68)),
        (1, 8, (229, 168, 122)),  # linear
        (22, 13, (202, 102, 49)),
        (2, 13, COLOUR),  # unspecified
    )

    def test_a_png_tells_its_colours_by_cicp(self):
        for primaries, transfer, colour in self.codes:
            with self.subTest(f"{primaries} {transfer}"):
                self.assert_shown(png_of(PLAIN, cicp(primaries, transfer)), colour)

    def test_an_avif_or_heic_tells_them_by_nclx(self):
        for primaries, transfer, colour in self.codes:
            for make in (avif_with_nclx, heic_with_nclx):
                with self.subTest(f"{make.__name__} {primaries} {transfer}"):
                    self.assert_shown(make(PLAIN, primaries, transfer), colour)

    def test_the_curve_of_video_is_srgbs_in_an_avif_or_heic_and_a_screens_in_a_png(self):
        for transfer in (1, 6, 14, 15):
            with self.subTest(transfer):
                self.assert_shown(avif_with_nclx(PLAIN, 1, transfer), COLOUR)
                self.assert_shown(heic_with_nclx(PLAIN, 1, transfer), COLOUR)
                self.assert_shown(png_of(PLAIN, cicp(1, transfer)), (197, 91, 39))

    def test_what_is_unspecified_in_an_avif_or_heic_is_srgbs(self):
        for primaries, transfer, colour in (
            (2, 2, COLOUR),
            (9, 2, (241, 76, 29)),
            (12, 2, (215, 93, 31)),
            (2, 8, (229, 168, 122)),
        ):
            for make in (avif_with_nclx, heic_with_nclx):
                with self.subTest(f"{make.__name__} {primaries} {transfer}"):
                    self.assert_shown(make(PLAIN, primaries, transfer), colour)

    def test_a_profile_wins_over_nclx(self):
        self.assert_shown(avif_with_nclx(PLAIN, 9, 14, icc_profile=P3_PROFILE), (215, 93, 31))

    def test_cicp_wins_over_a_profile_as_in_browsers(self):
        self.assert_shown(png_of(PLAIN, cicp(1, 13), iccp(P3_PROFILE)), COLOUR)
        self.assert_shown(png_of(PLAIN, cicp(2, 2), iccp(P3_PROFILE)), (215, 93, 31))

    def test_unusable_code_points_are_ignored(self):
        self.assert_shown(avif_with_nclx(PLAIN, 12, 99), COLOUR)
        for data in (b"\x0c\x0d", b"\x0c\x63\0\1", b"\x0c\x0d\0\0", b"\x0c\x0d\1\1"):
            with self.subTest(data):
                self.assert_shown(png_of(PLAIN, (b"cICP", data)), COLOUR)

    @requires("avifenc")
    def test_an_avif_of_10_or_12_bits_is_converted_as_well(self):
        for depth in ("10", "12"):
            content = avifenc(PLAIN, "--depth", depth, "--cicp", "12/13/6")
            self.assert_shown(content, (215, 93, 31))


class GammaTests(RenderTestCase):
    def test_a_pngs_gamma_is_applied(self):
        for value, colour in (
            (100_000, (229, 168, 122)),
            (55_556, (210, 119, 65)),
            (45_455, COLOUR),
            (45_000, COLOUR),
            (0, COLOUR),
        ):
            with self.subTest(value):
                self.assert_shown(png_of(PLAIN, gama(value)), colour)

    def test_grey_has_a_gamma_too(self):
        self.assert_shown(png_of(GREY, gama(100_000)), (168, 168, 168))

    def test_chromaticities_count_only_beside_a_gamma(self):
        for chunks, colour in (
            ([gama(55_556), P3_CHRM], (225, 113, 49)),
            ([P3_CHRM], COLOUR),
            ([gama(100_000), P3_CHRM, (b"sRGB", b"\0")], COLOUR),
            ([gama(100_000), (b"cHRM", bytes(32))], COLOUR),
            ([gama(100_000), (b"cHRM", b"\xff" * 32)], COLOUR),
            ([gama(1), P3_CHRM], COLOUR),
        ):
            with self.subTest(chunks):
                self.assert_shown(png_of(PLAIN, *chunks), colour)

    def test_the_first_of_two_counts_and_none_behind_the_pixels(self):
        twice = insert(png_of(PLAIN, gama(45_455)), chunk(*gama(100_000)))

        self.assert_shown(twice, (229, 168, 122))
        self.assert_shown(png_of(PLAIN, behind=[gama(100_000)]), COLOUR)


class HDRTests(RenderTestCase):
    makers = (
        lambda image, transfer: png_of(image, cicp(9, transfer)),
        lambda image, transfer: avif_with_nclx(image, 9, transfer),
        lambda image, transfer: heic_with_nclx(image, 9, transfer),
    )

    def test_sdr_white_is_white_if_nothing_is_brighter(self):
        for transfer, white in ((16, PQ_WHITE), (18, 191)):
            for make in self.makers:
                image = Image.new("RGB", (64, 64), (white,) * 3)
                with self.subTest(transfer):
                    self.assert_shown(make(image, transfer), (255, 255, 255))

    def test_black_is_black(self):
        image = Image.new("RGB", (64, 64))
        for transfer in (16, 18):
            self.assert_shown(png_of(image, cicp(9, transfer)), (0, 0, 0))

    def test_highlights_are_tone_mapped_as_in_browsers(self):
        for transfer, codes, shown in (
            (16, (60, 105, 135, 150, 165, 180, 192), (26, 85, 150, 193, 221, 242, 255)),
            (18, (60, 105, 150, 195, 225, 255), (39, 79, 122, 194, 229, 255)),
        ):
            image = Image.new("RGB", (40 * len(codes), 40))
            for place, code in enumerate(codes):
                image.paste((code,) * 3, (40 * place, 0, 40 * place + 40, 40))
            display = self.render(png_of(image, cicp(1, transfer)))[1]
            for place, grey in enumerate(shown):
                with self.subTest(f"{transfer} {codes[place]}"):
                    self.assertAlmostEqual(
                        display.getpixel((40 * place + 20, 20))[0], grey, delta=3
                    )

    def test_the_curve_has_no_steps(self):
        image = Image.linear_gradient("L").rotate(90).convert("RGB")
        for transfer, brightest in ((16, 192), (18, 255)):
            ramp = image.point(lambda code, brightest=brightest: code * brightest // 255)
            display = self.render(png_of(ramp, cicp(9, transfer)))[1]
            row = [display.getpixel((x, 128))[0] for x in range(256)]
            self.assertGreater(min(b - a for a, b in pairwise(row)), -3)
            self.assertLess(max(b - a for a, b in pairwise(row)), 9)
