"""Hostile pictures: files that cost a decoder far more than a photo of their size does.

BOMBS has a function for each kind. It returns the bytes of one that an upload has room for.
"""

import random
from functools import cache
from struct import pack
from zlib import compress, compressobj, crc32

from PIL import Image

from .photos import encoded, noise

SIZE = 20_000_000  # bytes; an upload's file may have a few more
ENOUGH = 60_000  # bytes, more than the least that a picture of 100 megapixels may have
RANDOM = random.Random(1)


def fill(part, size=SIZE):
    return part * (size // len(part))


def pad(content):
    """Make a file as large as a photo of its pixels; these bytes are ignored in any format."""
    return content + pack(">L4s", 8 + ENOUGH, b"free") + bytes(ENOUGH)


@cache
def deflated_zeros(size=400_010_000):
    """Return compressed zeros, by default for 100 megapixels of four bytes each."""
    deflate = compressobj(1)
    parts = [deflate.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join([*parts, deflate.compress(bytes(size % 2**20)), deflate.flush()])


def insert(content, data, place=33):
    """Return a file with these bytes inserted, by default behind a PNG's header."""
    return content[:place] + data + content[place:]


# JPEG (ITU-T T.81, annex B): segments of a marker, a length and data.


def segment(marker, data):
    return pack(">BBH", 0xFF, marker, 2 + len(data)) + data


def jpeg_with(data, place=2):
    """Return a JPEG with this behind its first marker, or at another place."""
    return insert(encoded(noise(60, 40)), data, place)


def jpeg_of_scans(count=5000, side=4096):
    """Return a JPEG whose last scan comes again and again; each goes over the whole picture."""
    content = encoded(Image.new("L", (side, side)), progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * count + content[-2:]


def jpeg_of_exif_values(size=2**23):
    entry = pack(">HHLL", X_RESOLUTION, RATIONAL, size // 8, 26)
    exif = b"MM\0*" + pack(">LH", 8, 1) + entry + bytes(4) + RANDOM.randbytes(size)
    parts = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    return jpeg_with(b"".join(segment(0xE1, b"Exif\0\0" + part) for part in parts))


# PNG: chunks of a length, a name, data and a checksum.

GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6


def chunk(name, data=b""):
    return pack(">I", len(data)) + name + data + pack(">I", crc32(name + data))


def png(width, height, *chunks, depth=8, colours=RGB):
    """Return a PNG that declares this size, with these chunks (pairs of a name and bytes)."""
    header = pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def png_with(data, place=33):
    """Return a PNG with this behind its header, or at another place."""
    return insert(encoded(noise(60, 40), "PNG"), data, place)


def png_of_zeros(width, height, pixels, **options):
    return png(width, height, (b"PLTE", bytes(3)), (b"IDAT", pixels), **options)


def png_of_single_bytes(side=200):
    """Return a PNG of noise that has a chunk for each byte of its data."""
    data = compress(b"".join(b"\0" + RANDOM.randbytes(3 * side) for _ in range(side)), 0)
    return png(side, side, *[(b"IDAT", data[at : at + 1]) for at in range(len(data))])


# GIF (GIF89a): blocks of up to 255 bytes in chains, each of which ends with an empty one.


def gif_with(data):
    """Return a GIF with this before its picture."""
    content = encoded(noise(60, 40).quantize(4), "GIF")
    place = content.index(b",", 13 + 3 * 4)
    return content[:place] + data + content[place:]


def gif_with_chain(start, size=SIZE):
    return gif_with(start + fill(b"\1,", size) + b"\0")


def gif_of_one_colour(width, height):
    return encoded(Image.new("P", (width, height)), "GIF")


# TIFF (6.0): a directory of tags, each with a kind, a count, and values or their place.

X_RESOLUTION, EXIF = 282, 34665
SHORT, LONG, RATIONAL = 3, 4, 5
CODES = {SHORT: "H", LONG: "L", RATIONAL: "Q"}
NONE, FAX, DEFLATE = 1, 3, 8  # compressions
START = 8  # the place of the data


def tiff(tags, data=b""):
    """Return a TIFF with one directory, whose tags have numbers, or pairs of a kind and them."""
    entries, values = b"", bytearray(data)
    for tag, value in sorted(tags.items()):
        kind, numbers = value if isinstance(value, tuple) else (LONG, [value])
        field = pack(f"<{len(numbers)}{CODES[kind]}", *numbers).ljust(4, b"\0")
        if len(field) > 4:
            place = START + len(values)
            values += field
            field = pack("<L", place)
        entries += pack("<HHL", tag, kind, len(numbers)) + field
    start = b"II*\0" + pack("<L", START + len(values))
    return start + values + pack("<H", len(tags)) + entries + bytes(4)


def grey_tiff(width, height, data, compression=NONE, tags=()):
    common = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1}
    return tiff({**common, **dict(tags)}, data)


def small_tiff(tags=()):
    return grey_tiff(8, 8, bytes(64), tags={273: START, 278: 8, 279: 64, **dict(tags)})


def tiff_of_strips(width, height, data, compression=NONE, tags=()):
    """Return a TIFF with a strip for each line; all of them are the same bytes."""
    strips = {273: (LONG, [START] * height), 278: 1, 279: (LONG, [len(data)] * height)}
    return grey_tiff(width, height, data, compression, {**strips, **dict(tags)})


def tiff_of_backward_bits(height):
    """Return a TIFF whose strips each have far more bytes to be turned than they need."""
    data = compress(bytes(16)).ljust(4000, b"\0")
    backwards = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return tiff_of_strips(16, height, backwards, DEFLATE, {266: 2})


def tiff_of_tiles(side, data, compression=NONE):
    """Return a TIFF of tiles of 16 by 16 pixels; all of them are the same bytes."""
    count = (side // 16) ** 2
    tiles = {324: (LONG, [START] * count), 325: (LONG, [len(data)] * count)}
    return grey_tiff(side, side, data, compression, {322: 16, 323: 16, **tiles})


def tiff_of_one_tile(width, height, tile_width, tile_height):
    data = deflated_zeros()
    tile = {322: tile_width, 323: tile_height, 324: START, 325: len(data)}
    return grey_tiff(width, height, data, DEFLATE, tile)


def tiff_in_a_circle():
    """Return a TIFF that names its only directory as the next one."""
    content = small_tiff()
    return content[:-4] + content[4:8]


def tiff_of_values():
    return small_tiff({X_RESOLUTION: (RATIONAL, range(1, SIZE // 8))})


def tiff_of_fax_noise(width=4, height=65_000):
    """Return a TIFF that has a fault in each of its lines."""
    data = RANDOM.randbytes(130_000)
    strip = {273: START, 278: height, 279: len(data)}
    return tiff({256: width, 257: height, 258: 1, 259: FAX, 262: 0, 277: 1, **strip}, data)


# BMP: a header, a palette, and runs of a length and a colour.


def bmp_of_runs(side=4096):
    """Return a BMP of compressed runs of single pixels."""
    content = encoded(Image.new("P", (8, 8)), "BMP")
    header = content[:18] + pack("<LLHHL", side, side, 1, 8, 1) + content[34:54]
    return header + content[54:1078] + fill(b"\1\0")


# HEIC and AVIF (ISO/IEC 14496-12 and 23008-12): boxes of a length, a name, and data or boxes.

PIXI = b"\0\0\0\x10pixi\0\0\0\0\3\x08\x08\x08"
CODECS = {"HEIF": (b"heic", b"hvc1", b"hvcC"), "AVIF": (b"avif", b"av01", b"av1C")}
MUST_KNOW = 0x80  # of a property


def box(name, data, version=None):
    head = b"" if version is None else pack(">L", version << 24)
    return pack(">L4s", 8 + len(head) + len(data), name) + head + data


def find_box(content, name):
    """Return the first box of this name, at whatever depth."""
    start = content.index(name) - 4
    return content[start : start + int.from_bytes(content[start : start + 4], "big")]


def heif(name, items, parts, properties, references=()):
    """Return a file whose items have a kind, a part of the data, and properties, by their numbers.

    A reference has the number of a grid and those of its tiles.
    """
    brand = CODECS[name][0]
    start = box(b"ftyp", brand + bytes(4) + b"mif1" + brand)
    place = len(start) + 8
    places = [place + sum(map(len, parts[:index])) for index in range(len(parts))]
    meta = (
        box(b"hdlr", bytes(4) + b"pict" + bytes(13), version=0),
        box(b"pitm", pack(">H", 1), version=0),
        iloc([(places[part], len(parts[part])) for _, part, _ in items]),
        iinf([kind for kind, _, _ in items]),
        box(b"iprp", box(b"ipco", b"".join(properties)) + ipma([used for _, _, used in items])),
        iref(references) if references else b"",
    )
    return start + box(b"mdat", b"".join(parts)) + box(b"meta", b"".join(meta), version=0)


def iloc(places):
    """Return the box of the items' places and lengths."""
    entries = [pack(">HHHLL", number, 0, 1, *place) for number, place in enumerate(places, 1)]
    return box(b"iloc", b"\x44\0" + pack(">H", len(places)) + b"".join(entries), version=0)


def iinf(kinds):
    """Return the box of the items' kinds."""
    entries = [
        box(b"infe", pack(">HH4sx", number, 0, kind), version=2)
        for number, kind in enumerate(kinds, 1)
    ]
    return box(b"iinf", pack(">H", len(kinds)) + b"".join(entries), version=0)


def ipma(uses):
    """Return the box of the numbers of the items' properties."""
    entries = [pack(">HB", number, len(used)) + bytes(used) for number, used in enumerate(uses, 1)]
    return box(b"ipma", pack(">L", len(uses)) + b"".join(entries), version=0)


def iref(references):
    """Return the box of the grids' tiles."""
    grids = [
        box(b"dimg", pack(f">HH{len(tiles)}H", number, len(tiles), *tiles))
        for number, *tiles in references
    ]
    return box(b"iref", b"".join(grids), version=0)


def red_square(name, side):
    """Return the bytes of a square without those of its file, and its properties."""
    content = encoded(Image.new("RGB", (side, side), "red"), name, quality=50)
    return find_box(content, b"mdat")[8:], [find_box(content, CODECS[name][2]), ispe(side), PIXI]


def ispe(side):
    return box(b"ispe", pack(">LL", side, side), version=0)


def grid(name, side, tile_side, count, levels=1):
    """Return a square picture that is a grid of so many tiles in each direction.

    All of them are the same bytes. An AVIF has an item for each, a HEIC names one again and again;
    with more levels that is a grid of such tiles in turn.
    """
    pixels, properties = red_square(name, tile_side)
    parts = pack(">4B2H", 0, 0, count - 1, count - 1, side, side), pixels
    tiles = count**2 if name == "AVIF" else 1
    items = [(b"grid", 0, [4, 3])] * levels
    items += [(CODECS[name][1], 1, [MUST_KNOW + 1, 2, 3])] * tiles
    references = [
        [level, *(level + 1 + place % tiles for place in range(count**2))]
        for level in range(1, levels + 1)
    ]
    return heif(name, items, parts, [*properties, ispe(side)], references)


def avif_of_frames(count, side):
    """Return an AVIF of one picture, whose data are many: all are decoded, the first is shown."""
    pixels, properties = red_square("AVIF", side)
    items = [(b"av01", 0, [MUST_KNOW + 1, 2, 3])]
    return heif("AVIF", items, [pixels * count], properties)


# WebP (RFC 9649): 36 bytes are enough for any size.


def webp_of_one_colour(side):
    data = b"/" + pack("<L", side - 1 | side - 1 << 14) + bytes.fromhex("0710fd8ffe0722a2ff0100")
    head = pack("<L4s4sL", 12 + len(data), b"WEBP", b"VP8L", len(data) - 1)
    return b"RIFF" + head + data


BOMBS = {
    "JPEG of thousands of scans": lambda: jpeg_of_scans(side=2048),
    "JPEG of millions of segments": lambda: jpeg_with(fill(segment(0xFE, b""))),
    "JPEG of EXIF data in thousands of segments": lambda: jpeg_with(
        fill(segment(0xE1, b"Exif\0\0" + bytes(100)), 2**20)
    ),
    "JPEG of a million EXIF values": jpeg_of_exif_values,
    "JPEG with megabytes between its markers": lambda: jpeg_with(b"x" * SIZE, 20),
    "JPEG with megabytes of fill bytes": lambda: jpeg_with(b"\xff" * 2**20),
    "JPEG with many restart markers": lambda: jpeg_with(b"\xff\xd0" * 2**19),
    "PNG of millions of chunks": lambda: png_with(fill(chunk(b"prIv"))),
    "PNG of many chunks at its end": lambda: png_with(fill(chunk(b"prIv"), 2**21), -12),
    "PNG of data in single bytes": png_of_single_bytes,
    "PNG of a text of 80 megabytes": lambda: png_with(
        chunk(b"zTXt", b"Comment\0\0" + deflated_zeros(80_000_000))
    ),
    "PNG of 100 megapixels in few bytes": lambda: png_of_zeros(
        10_000, 10_000, compress(bytes(12_510_000)), depth=1, colours=PALETTE
    ),
    "PNG of 100 megapixels": lambda: pad(
        png_of_zeros(10_000, 10_000, deflated_zeros(), colours=RGBA)
    ),
    "PNG of one endless line": lambda: pad(
        png_of_zeros(100_000_000, 1, deflated_zeros(), colours=RGBA)
    ),
    "PNG of one endless column": lambda: pad(
        png_of_zeros(1, 10_000_000, deflated_zeros(), depth=1, colours=GREY)
    ),
    "GIF of a comment in millions of blocks": lambda: gif_with_chain(b"!\xfe"),
    "GIF of another chain": lambda: gif_with_chain(b"!\xff\x0bNETSCAPE2.0", 2**21),
    "GIF of a chain behind an empty block": lambda: gif_with_chain(b"!\x01\0\x01", 2**21),
    "GIF of a million comments": lambda: gif_with(fill(b"!\xfe\1x\0", 2**22)),
    "GIF with megabytes before its picture": lambda: gif_with(b"x" * 2**22),
    "GIF of 100 megapixels": lambda: pad(gif_of_one_colour(10_000, 10_000)),
    "TIFF of millions of strips": lambda: tiff_of_strips(16, 2_000_000, bytes(16)),
    "TIFF of millions of compressed strips": lambda: tiff_of_strips(
        16, 2_000_000, compress(bytes(16)), DEFLATE
    ),
    "TIFF of bits that run backwards": lambda: tiff_of_backward_bits(300_000),
    "TIFF of many tiles": lambda: tiff_of_tiles(2048, bytes(256)),
    "TIFF of many compressed tiles": lambda: tiff_of_tiles(9600, compress(bytes(256)), DEFLATE),
    "TIFF of one huge tile": lambda: tiff_of_one_tile(64, 64, 20_000, 20_000),
    "TIFF of one endless tile": lambda: tiff_of_one_tile(16_000, 1, 16, 2**18),
    "TIFF of millions of values": tiff_of_values,
    "TIFF of directories in a circle": tiff_in_a_circle,
    "TIFF of EXIF data in a circle": lambda: small_tiff({EXIF: START + 64}),
    "TIFF of a fax's noise": tiff_of_fax_noise,
    "BMP of millions of runs": bmp_of_runs,
    "HEIC that names a tile a thousand times": lambda: grid("HEIF", 64, 1024, 31),
    "HEIC of grids of grids": lambda: grid("HEIF", 64, 64, 8, levels=3),
    "HEIC of 67 megapixels": lambda: pad(grid("HEIF", 8192, 512, 16)),
    "AVIF of a thousand frames": lambda: avif_of_frames(1000, 2048),
    "AVIF of thousands of tiles": lambda: pad(grid("AVIF", 4096, 64, 64)),
    "AVIF of 67 megapixels in few bytes": lambda: grid("AVIF", 8192, 512, 16),
    "AVIF of 67 megapixels": lambda: pad(grid("AVIF", 8192, 512, 16)),
    "WebP of 100 megapixels in few bytes": lambda: webp_of_one_colour(10_000),
    "WebP of 49 megapixels": lambda: pad(webp_of_one_colour(7000)),
}
