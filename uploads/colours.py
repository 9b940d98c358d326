"""Colours: convert a picture to sRGB, by what its file tells of its colours.

That is an ICC profile, or primaries, a white point and a transfer curve. Files name these by
numbers (ITU-T H.273), and PNGs also by their gAMA and cHRM chunks.
"""

import struct
from collections.abc import Callable
from functools import cache
from io import BytesIO
from math import exp, log, sqrt
from operator import mul
from typing import NamedTuple

from PIL import ImageCms, ImageFilter

SDR_WHITE = 203  # nits (ITU-R BT.2408)
MAX_PEAK = 1000  # nits; brighter light is white, as in browsers

UNSPECIFIED = 2  # primaries or transfer, in H.273
# The x and y of white, red, green and blue, by their numbers in H.273.
D65 = (0.3127, 0.329)
ILLUMINANT_C = (0.31, 0.316)
BT_709 = (*D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
SMPTE_170M = (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)
PRIMARIES = {
    1: BT_709,
    4: (*ILLUMINANT_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: SMPTE_170M,
    7: SMPTE_170M,
    8: (*ILLUMINANT_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    10: (1 / 3, 1 / 3, 1, 0, 0, 1, 0, 0),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}

# A curve is a gamma g, or g, a, b, c and d of ICC's parametric curve of type 3:
# light = (a * code + b) ** g, but c * code below d.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SMPTE_240M_CURVE = (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 0.25, 0.0912)
# In a PNG browsers show video's curve as the gamma of a display (ITU-R BT.1886).
VIDEO_CURVE = (2.4,)
VIDEO_TRANSFERS = {1, 6, 11, 14, 15}
CURVES = {
    4: (2.2,),
    5: (2.8,),
    7: SMPTE_240M_CURVE,
    8: (1.0,),
    13: SRGB_CURVE,
    17: (2.6,),
    **dict.fromkeys(VIDEO_TRANSFERS, VIDEO_CURVE),
}

# From XYZ to the responses of the eye's cones (Bradford), and the white of ICC profiles.
BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
D50 = (0.9642, 1.0, 0.8249)

TABLE_SIZE = 33  # entries along each axis of the lookup table for HDR


class Hdr(NamedTuple):
    """A curve that goes beyond SDR white, in two steps."""

    decode: Callable  # returns the light of a code from 0 to 1
    display: Callable  # returns the light of a pixel on the screen; SDR white is 1


class Colours(NamedTuple):
    """The meaning of the codes in a picture's channels."""

    profile: bytes  # ICC; empty for sRGB
    hdr: Hdr | None = None


SRGB = Colours(b"")


def from_code_points(primaries, transfer):
    """Return the Colours of two numbers of H.273, or None if one of them is not supported."""
    if primaries not in PRIMARIES or transfer not in {*CURVES, *HDR_CURVES}:
        return None
    if (primaries, transfer) == (1, 13):
        return SRGB
    curve = CURVES.get(transfer, SRGB_CURVE)
    return Colours(build_profile(PRIMARIES[primaries], curve), HDR_CURVES.get(transfer))


def from_nclx(primaries, transfer):
    """Return the Colours of two such numbers in a HEIC or AVIF."""
    # In these formats browsers show video's curve as sRGB's. They take sRGB's for UNSPECIFIED.
    primaries = 1 if primaries == UNSPECIFIED else primaries
    transfer = 13 if transfer in {*VIDEO_TRANSFERS, UNSPECIFIED} else transfer
    return from_code_points(primaries, transfer) or SRGB


def from_gamma(gamma, chromaticities):
    """Return the Colours of PNG's chunks gAMA and cHRM, in units of 1 / 100,000.

    There may be no chromaticities. Then a gamma within 5 % of 1 / 2.2 counts as sRGB. Invalid
    values count as sRGB, too.
    """
    if not chromaticities and abs(gamma * 2.2 / 100_000 - 1) < 0.05:
        return SRGB
    primaries = [number / 100_000 for number in chromaticities] or BT_709
    try:
        return Colours(build_profile(primaries, (100_000 / gamma,)))
    except (ZeroDivisionError, struct.error):
        return SRGB


def to_srgb(image, colours):
    """Return an image in sRGB; its codes stay if its Colours cannot be used."""
    if image.mode == "LAB":
        return apply_profile(image, ImageCms.createProfile("LAB"))
    if not colours.profile:
        return image if image.mode == "RGB" else image.convert("RGB")  # convert() copies even RGB.
    if colours.hdr:
        image = tone_map(image.convert("RGB"), colours.hdr)
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(colours.profile))
        if image.mode in {"L", "LA"} and profile.profile.xcolor_space == "GRAY":
            image = image.convert("L")
        elif image.mode != "CMYK":
            image = image.convert("RGB")
        return apply_profile(image, profile)
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")  # The profile is damaged, or is for another kind of colours.


def apply_profile(image, profile):
    return ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )


def tone_map(image, hdr):
    """Return an HDR image as SDR, with sRGB's curve; SDR white stays white if nothing is brighter.

    Otherwise darken it, by half at most, to make room for the highlights. The curve is that of
    browsers, the reference white tone mapping operator of SMPTE ST 2094-50. They take the peak from
    the file, or 1000 nits; here it is that of the brightest channel.
    """
    brightest = max(high for _, high in image.getextrema())
    top = hdr.decode(brightest / 255) or 1
    peak = min(max(hdr.display([top] * 3)), MAX_PEAK / SDR_WHITE)
    decode = hdr.decode
    if top < 1.2 * peak:  # Brighter channels would be clipped, and change their hue.
        image, decode = recode(image, decode, min(top, peak))

    def map_codes(*codes):
        light = hdr.display([decode(code) for code in codes])
        gain = get_gain(max(light), peak)
        return tuple(encode_srgb(gain * value) for value in light)

    return image.filter(ImageFilter.Color3DLUT.generate(TABLE_SIZE, map_codes))


def recode(image, decode, top):
    """Return an image with sRGB's curve, for which a table is more exact, and its new decode()."""
    curve = [round(255 * encode_srgb(decode(code / 255) / top)) for code in range(256)]
    return image.point(curve * 3), lambda code: top * decode_srgb(code)


def get_gain(light, peak):
    """Return the factor with which a light is mapped to 1 or less."""
    if peak <= 1:
        return 1
    white = 1 - 0.5 * log(peak) / log(MAX_PEAK / SDR_WHITE)
    if light <= 1:
        return white
    if light >= peak:
        return 1 / light
    # A quadratic Bézier curve from (1, white) to (peak, 1). Its control point lies 65 % of the way
    # from (1, white) to (1 / white, 1).
    middle = 0.35 + 0.65 / white, 0.35 * white + 0.65
    a, b = 1 - 2 * middle[0] + peak, 2 * (middle[0] - 1)
    t = 2 * (light - 1) / (b + sqrt(b * b + 4 * a * (light - 1)))
    mapped = (1 - t) ** 2 * white + 2 * t * (1 - t) * middle[1] + t * t
    return mapped / light


def encode_srgb(light):
    light = min(light, 1)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


@cache
def decode_srgb(code):
    return code / 12.92 if code <= 0.04045 else ((code + 0.055) / 1.055) ** 2.4


@cache
def decode_pq(code):
    power = code ** (1 / 78.84375)
    nits = 10_000 * (max(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.15930176)
    return nits / SDR_WHITE


@cache
def decode_hlg(code):
    return code**2 / 3 if code <= 0.5 else (exp((code - 0.55991) / 0.17883) + 0.28467) / 12


def display_hlg(scene):
    """Return the light of a screen of 1000 nits that shows the light of a scene."""
    luminance = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2]
    return [value * luminance**0.2 * 1000 / SDR_WHITE for value in scene]


# By their numbers in H.273: PQ (SMPTE ST 2084) and HLG (ITU-R BT.2100).
HDR_CURVES = {16: Hdr(decode_pq, list), 18: Hdr(decode_hlg, display_hlg)}


def build_profile(primaries, curve):
    """Return the bytes of an ICC profile (ICC.1:2010).

    Raise ZeroDivisionError or struct.error for impossible primaries.
    """
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3 if len(curve) == 5 else 0, 0) + pack_fixed(curve)
    name = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 2, 28) + b"\0-"
    tags = {b"desc": name, b"cprt": name, b"wtpt": b"XYZ \0\0\0\0" + pack_fixed(D50)}
    for channel, colorant in zip((b"r", b"g", b"b"), get_colorants(primaries), strict=True):
        tags[channel + b"XYZ"] = b"XYZ \0\0\0\0" + pack_fixed(colorant)
        tags[channel + b"TRC"] = curve

    table, data = struct.pack(">I", len(tags)), b""
    start = 128 + len(table) + 12 * len(tags)
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, start + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    header = struct.pack(
        ">I4xI4s4s4s12x4s", start + len(data), 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    return (header.ljust(68, b"\0") + pack_fixed(D50)).ljust(128, b"\0") + table + data


def pack_fixed(numbers):
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def get_colorants(primaries):
    """Return the XYZ of full red, green and blue, adapted to D50."""
    white, *colours = (
        (x, y, 1 - x - y) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    white = [value / white[1] for value in white]
    # Together the three must give white.
    brightness = solve(colours, white)
    cones = [to_cones(D50)[cone] / to_cones(white)[cone] for cone in range(3)]
    for colour, factor in zip(colours, brightness, strict=True):
        adapted = [a * b * factor for a, b in zip(to_cones(colour), cones, strict=True)]
        yield solve(zip(*BRADFORD, strict=True), adapted)


def to_cones(xyz):
    return [sum(map(mul, row, xyz)) for row in BRADFORD]


def solve(vectors, total):
    """Return the factors of three vectors that sum to the total (Cramer's rule)."""
    a, b, c = vectors
    replaced = determinant(total, b, c), determinant(a, total, c), determinant(a, b, total)
    return [one / determinant(a, b, c) for one in replaced]


def determinant(a, b, c):
    cross = (b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0])
    return sum(map(mul, a, cross))
