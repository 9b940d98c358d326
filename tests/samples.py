"""Pictures of many kinds: each function returns the bytes of a file.

SAMPLES has those that Chromium can draw.
"""

import json
import subprocess
from itertools import pairwise
from pathlib import Path
from struct import pack
from tempfile import TemporaryDirectory
from zlib import compress

from PIL import Image

from . import icc
from .bombs import (
    CODECS,
    GREY,
    MUST_KNOW,
    RGB,
    box,
    chunk,
    heif,
    iinf,
    insert,
    ipma,
    png,
    red_square,
    segment,
)
from .photos import encoded

P3_PROFILE = icc.profile(icc.DISPLAY_P3, icc.SRGB_CURVE)
COLOUR = (200, 100, 50)
XMP_ON_ITS_SIDE = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def ramps(width=96, height=72):
    """Return a smooth picture with all hues, and with grey from black to white."""
    image = Image.new("RGB", (width, height))
    for x in range(width):
        for y in range(height):
            share, level = x / (width - 1), round(255 * y / (height - 1))
            colour = (round(255 * share), level, round(255 * (1 - share)))
            image.putpixel((x, y), colour if x < 2 * width // 3 else (level,) * 3)
    return image


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


# PNG: the chunks of its colours.


def cicp(primaries, transfer):
    return b"cICP", bytes((primaries, transfer, 0, 1))


def gama(value):
    return b"gAMA", pack(">L", value)


def chrm(*values):
    return b"cHRM", pack(">8L", *values)


def iccp(profile):
    return b"iCCP", b"name\0\0" + compress(profile)


P3_CHRM = chrm(31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def png_of(image, *chunks, behind=()):
    """Return a PNG of an image in RGB or L, with these chunks before and behind its pixels."""
    pixels = pack_rows(image)
    colours = RGB if image.mode == "RGB" else GREY
    parts = (*chunks, (b"IDAT", compress(pixels)), *behind)
    return png(*image.size, *parts, colours=colours)


def pack_rows(image):
    """Return the bytes of an image's rows, each behind the number of its filter."""
    length = image.width * len(image.getbands())
    pixels = image.tobytes()
    rows = (pixels[start : start + length] for start in range(0, len(pixels), length))
    return b"".join(b"\0" + row for row in rows)


def with_wrong_checksum(name, data):
    return chunk(name, data)[:-4] + b"oops"


def with_wrong_adler(image):
    """Return a PNG whose compressed pixels have a wrong checksum at their end."""
    pixels = compress(pack_rows(image))
    return png(*image.size, (b"IDAT", pixels[:-1] + bytes((pixels[-1] ^ 1,))))


# JPEG


def jpeg_with_apps(image, *segments):
    """Return a JPEG with these APP segments in the place of its JFIF segment."""
    content = encoded(image, quality=95)
    return content[:2] + b"".join(segment(*one) for one in segments) + content[20:]


# AVIF

FULL_COLOUR = {"subsampling": "4:4:4"}


def avif_with_nclx(image, primaries, transfer, **options):
    content = encoded(image, "AVIF", quality=95, **FULL_COLOUR, **options)
    return set_nclx(content, primaries, transfer)


def set_nclx(content, primaries, transfer):
    """Return a HEIC or AVIF with these code points instead of its own."""
    place = content.index(b"nclx") + 4
    return content[:place] + pack(">HH", primaries, transfer) + content[place + 4 :]


def avifenc(image, *options):
    """Return an AVIF that Debian's avifenc makes."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "source.png"), Path(folder, "target.avif")
        image.save(source)
        command = ["avifenc", "--min", "0", "--max", "10", "--speed", "8", *options, source, target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return target.read_bytes()


def avif_of_parts(count, in_meta):
    """Return an AVIF whose pixels lie in so many extents, in the box mdat or, of meta, in idat."""
    pixels, properties = red_square("AVIF", 64)
    start = box(b"ftyp", b"avif" + bytes(4) + b"mif1avif")
    place = 0 if in_meta else len(start) + 8
    cuts = [len(pixels) * cut // count for cut in range(count + 1)]
    extents = [pack(">LL", place + a, b - a) for a, b in pairwise(cuts)]
    item = pack(">HHHH", 1, 1 if in_meta else 0, 0, count) + b"".join(extents)
    meta = (
        box(b"hdlr", bytes(4) + b"pict" + bytes(13), version=0),
        box(b"pitm", pack(">H", 1), version=0),
        box(b"iloc", b"\x44\0\0\1" + item, version=1),
        iinf([b"av01"]),
        box(b"iprp", box(b"ipco", b"".join(properties)) + ipma([[MUST_KNOW + 1, 2, 3]])),
        box(b"idat", pixels) if in_meta else b"",
    )
    data = b"" if in_meta else box(b"mdat", pixels)
    return start + data + box(b"meta", b"".join(meta), version=0)


def avif_of_tiles(width, height, side, columns, rows):
    """Return an AVIF that is a grid of so many equal tiles; the last ones may stick out."""
    pixels, properties = red_square("AVIF", side)
    size = box(b"ispe", pack(">LL", width, height), version=0)
    items = [
        (b"grid", 0, [4, 3]),
        *[(CODECS["AVIF"][1], 1, [MUST_KNOW + 1, 2, 3])] * columns * rows,
    ]
    parts = pack(">4B2H", 0, 0, rows - 1, columns - 1, width, height), pixels
    tiles = range(2, 2 + columns * rows)
    return heif("AVIF", items, parts, [*properties, size], [[1, *tiles]])


def heic_with_nclx(image, primaries, transfer):
    content = encoded(image, "HEIF", quality=95, chroma=444)
    return set_nclx(content, primaries, transfer)


# Phones put more behind a picture.


def with_video(content, size):
    """Return a motion photo of this many bytes: a picture and, behind it, a video of zeros."""
    start = content + box(b"ftyp", b"isom")
    return (start + pack(">L4s", size - len(start), b"mdat")).ljust(size, b"\0")


def with_samsung_blocks(content, *blocks):
    """Return a picture with these blocks behind it, and their directory."""
    entries, distance = b"", sum(map(len, blocks))
    for block in blocks:
        entries += pack("<HHLL", 0, 0x0A30, distance, len(block))
        distance -= len(block)
    directory = pack("<4sLL", b"SEFH", 107, len(blocks)) + entries
    return b"".join([content, *blocks, directory, pack("<L4s", len(directory), b"SEFT")])


def with_oppo_blocks(content, *blocks):
    """Return a picture with these blocks behind it, and their directory."""
    sizes = list(map(len, blocks))
    entries = [
        {"length": size, "name": "rear.depth", "offset": sum(sizes[number:]), "version": 1}
        for number, size in enumerate(sizes)
    ]
    directory = json.dumps(entries, separators=(",", ":")).encode() + b"\0"
    return b"".join([content, *blocks, directory, b"jxrs", pack("<L", len(directory) + 8)])


# GIF


def gif_that_draws_a_part(image, left, top):
    """Return a GIF on a larger canvas, with a background of its own."""
    content = bytearray(encoded(image, "GIF"))
    size = pack("<HH", image.width + 2 * left, image.height + 2 * top)
    content[6:10] = size
    content[11] = 7  # the background's colour
    place = content.index(b",\0\0\0\0" + pack("<HH", *image.size))
    content[place + 1 : place + 5] = pack("<HH", left, top)
    return bytes(content)


PICTURE = ramps()
BRIGHT = PICTURE.point(lambda code: code * 192 // 255)  # up to 1000 nits in PQ
ANIMATED = {"save_all": True, "append_images": [Image.new("RGB", PICTURE.size, "blue")]}
GHOST = PICTURE.convert("RGBA")
GHOST.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
HALF = PICTURE.copy()
HALF.putalpha(128)  # Chromium (156) takes an AVIF's full range of alpha for a limited one.
TEXT = b"Comment\0a text"

SAMPLES = {
    "PNG": lambda: encoded(PICTURE, "PNG"),
    "PNG of grey": lambda: encoded(PICTURE.convert("L"), "PNG"),
    "PNG with a palette": lambda: encoded(PICTURE.quantize(64), "PNG"),
    "PNG with alpha": lambda: encoded(GHOST, "PNG"),
    "PNG, Display P3 by ICC": lambda: png_of(PICTURE, iccp(P3_PROFILE)),
    "PNG, Display P3 by cICP": lambda: png_of(PICTURE, cicp(12, 13)),
    "PNG, BT.2020 by cICP": lambda: png_of(PICTURE, cicp(9, 14)),
    "PNG, sRGB by cICP and Display P3 by ICC": lambda: png_of(
        PICTURE, cicp(1, 13), iccp(P3_PROFILE)
    ),
    "PNG, unknown by cICP and Display P3 by ICC": lambda: png_of(
        PICTURE, cicp(2, 2), iccp(P3_PROFILE)
    ),
    "PNG, PQ by cICP, HDR": lambda: png_of(BRIGHT, cicp(9, 16)),
    "PNG, HLG by cICP, HDR": lambda: png_of(PICTURE, cicp(9, 18)),
    "PNG with a gamma": lambda: png_of(PICTURE, gama(100_000)),
    "PNG of grey with a gamma": lambda: png_of(PICTURE.convert("L"), gama(55_556)),
    "PNG with sRGB's gamma": lambda: png_of(PICTURE, gama(45_455)),
    "PNG with a gamma and chromaticities": lambda: png_of(PICTURE, gama(45_455), P3_CHRM),
    "PNG with chromaticities alone": lambda: png_of(PICTURE, P3_CHRM),
    "PNG with a gamma, chromaticities and sRGB": lambda: png_of(
        PICTURE, gama(100_000), P3_CHRM, (b"sRGB", b"\0")
    ),
    "PNG with a gamma behind its pixels": lambda: png_of(PICTURE, behind=[gama(100_000)]),
    "PNG with a text that has a wrong checksum": lambda: insert(
        png_of(PICTURE), with_wrong_checksum(b"tEXt", TEXT)
    ),
    "PNG with a gamma that has a wrong checksum": lambda: insert(
        png_of(PICTURE), with_wrong_checksum(*gama(100_000))
    ),
    "PNG with an empty pHYs": lambda: png_of(PICTURE, (b"pHYs", b"")),
    "PNG whose pixels have a wrong checksum": lambda: with_wrong_adler(PICTURE),
    "PNG on its side by EXIF": lambda: png_of(PICTURE, (b"eXIf", exif(6)[6:])),
    "PNG on its side by EXIF with a wrong start": lambda: png_of(PICTURE, (b"eXIf", exif(6))),
    "PNG on its side by EXIF behind its pixels": lambda: png_of(
        PICTURE, behind=[(b"eXIf", exif(6)[6:])]
    ),
    "PNG on its side by XMP": lambda: png_of(
        PICTURE, (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_ON_ITS_SIDE)
    ),
    "JPEG": lambda: encoded(PICTURE, quality=95),
    "JPEG, progressive": lambda: encoded(PICTURE, quality=95, progressive=True),
    "JPEG, CMYK": lambda: encoded(PICTURE.convert("CMYK"), quality=95),
    "JPEG, Display P3 by ICC": lambda: encoded(PICTURE, quality=95, icc_profile=P3_PROFILE),
    "JPEG with an empty JFIF segment": lambda: jpeg_with_apps(PICTURE, (0xE0, b"JFIF\0")),
    "JPEG with odd segments": lambda: jpeg_with_apps(
        PICTURE, (0xE1, b"Exif\0\0"), (0xE2, b"ICC_PROFILE\0\1"), (0xEE, b"Adobe"), (0xED, b"P")
    ),
    "JPEG with a second picture": lambda: encoded(PICTURE, "MPO", quality=95, **ANIMATED),
    **{
        f"JPEG with orientation {number}": lambda number=number: encoded(
            PICTURE, quality=95, exif=exif(number)
        )
        for number in range(1, 9)
    },
    "JPEG on its side by XMP": lambda: encoded(PICTURE, quality=95, xmp=XMP_ON_ITS_SIDE),
    "WebP": lambda: encoded(PICTURE, "WEBP", lossless=True),
    "WebP with alpha": lambda: encoded(GHOST, "WEBP", lossless=True),
    "WebP, animated": lambda: encoded(PICTURE, "WEBP", lossless=True, **ANIMATED),
    "WebP, Display P3 by ICC": lambda: encoded(
        PICTURE, "WEBP", lossless=True, icc_profile=P3_PROFILE
    ),
    "WebP on its side by XMP": lambda: encoded(PICTURE, "WEBP", lossless=True, xmp=XMP_ON_ITS_SIDE),
    "GIF": lambda: encoded(PICTURE.quantize(64), "GIF"),
    "GIF, animated": lambda: encoded(PICTURE.quantize(64), "GIF", **ANIMATED),
    "GIF that draws a part": lambda: gif_that_draws_a_part(PICTURE.quantize(64), 24, 12),
    "BMP": lambda: encoded(PICTURE, "BMP"),
    "BMP of grey": lambda: encoded(PICTURE.convert("L"), "BMP"),
    "BMP with a palette": lambda: encoded(PICTURE.quantize(64), "BMP"),
    "BMP, black and white": lambda: encoded(PICTURE.convert("1", dither=0), "BMP"),
    "AVIF": lambda: avif_with_nclx(PICTURE, 1, 13),
    "AVIF of grey": lambda: encoded(PICTURE.convert("L"), "AVIF"),
    "AVIF with alpha": lambda: avifenc(HALF),
    "AVIF, animated": lambda: encoded(
        PICTURE, "AVIF", quality=95, range="limited", **FULL_COLOUR, **ANIMATED
    ),
    "AVIF, BT.709 by nclx": lambda: avif_with_nclx(PICTURE, 1, 1),
    "AVIF, Display P3 by nclx": lambda: avif_with_nclx(PICTURE, 12, 13),
    "AVIF, BT.2020 by nclx": lambda: avif_with_nclx(PICTURE, 9, 14),
    "AVIF, linear by nclx": lambda: avif_with_nclx(PICTURE, 1, 8),
    "AVIF, PQ by nclx, HDR": lambda: avif_with_nclx(BRIGHT, 9, 16),
    "AVIF, HLG by nclx, HDR": lambda: avif_with_nclx(PICTURE, 9, 18),
    "AVIF, Display P3 by ICC and BT.2020 by nclx": lambda: avif_with_nclx(
        PICTURE, 9, 14, icc_profile=P3_PROFILE
    ),
    "AVIF of 10 bits, PQ by nclx, HDR": lambda: avifenc(
        BRIGHT, "--depth", "10", "--cicp", "9/16/9"
    ),
    "AVIF of 12 bits, Display P3 by nclx": lambda: avifenc(
        PICTURE, "--depth", "12", "--cicp", "12/13/6"
    ),
    "AVIF of limited range": lambda: avifenc(PICTURE, "--range", "limited"),
    "AVIF, a quarter turned": lambda: avifenc(PICTURE, "--irot", "1"),
    "AVIF, mirrored": lambda: avifenc(PICTURE, "--imir", "1"),
    "AVIF of two tiles": lambda: avifenc(ramps(256, 128), "--grid", "2x1"),
    "AVIF of 800 x 600 pixels in tiles": lambda: avif_of_tiles(800, 600, 512, 2, 2),
    "AVIF in three extents": lambda: avif_of_parts(3, in_meta=False),
    "AVIF in idat": lambda: avif_of_parts(1, in_meta=True),
    "AVIF in three extents of idat": lambda: avif_of_parts(3, in_meta=True),
}
