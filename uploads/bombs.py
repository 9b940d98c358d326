"""Pictures that cost far more than their pixels: walks over each format before Pillow does."""

import re
from collections import defaultdict
from functools import cache
from io import SEEK_CUR, SEEK_END, BytesIO
from itertools import islice
from struct import Struct, calcsize, unpack, unpack_from

from django.conf import settings

EXIF_MAX_SIZE = 2**18  # bytes; a camera's has at most 64 KiB, or twice that as a text
# A camera's JPEG comes in one scan or in ten, and in a few dozen segments with nothing between.
JPEG_MAX_SCANS = 50
JPEG_MAX_SEGMENTS = 1000
JPEG_MAX_BETWEEN = 2**16  # bytes
# The code of a marker; not what stands for a byte of data, nor those that have no segment.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xda", b"\xd9"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_MAX_CHUNKS = 50_000  # two for each of ten thousand frames, and more
GIF_MAX_BLOCKS = 2**16  # before the first picture; a megabyte of metadata has 4,000
# The number of entries of a directory, an entry, and the place of a directory.
TIFF_LAYOUT, BIGTIFF_LAYOUT = ("H", "HHL4s", "L"), ("Q", "HHQ8s", "Q")
TIFF_MAX_ENTRIES = 2**16  # of a directory; a TIFF that is no BigTIFF cannot have more
TIFF_MAX_DIRECTORIES = 8
TIFF_MAX_VALUES = 2**19  # an offset and a length for each of 2**18 strips
TIFF_MAX_TURNED = 4096  # strips
# Tags, and types of values, by their numbers.
FILL_ORDER, TIFF_OFFSETS, TIFF_DIRECTORIES = 266, {273, 324}, {34665, 34853, 40965}
BYTE, ASCII, LONG, UNDEFINED, IFD, LONG8, IFD8 = 1, 2, 4, 7, 13, 16, 18
TIFF_PLACES = {(LONG, 1): "L", (IFD, 1): "L", (LONG8, 1): "Q"}
HEIF_MAX_BOXES = 1000  # of the file itself, which has a few
HEIF_MAX_SIZE = 2**20  # bytes of a box about pictures; a grid of 1,000 tiles needs 60,000
AV1_MAX_UNITS = 1000
AV1_MAX_FRAMES = 8  # a picture and its alpha, in four layers each
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6


def is_bomb(file):
    """Tell whether a file has far more parts than its pixels need; raise where it is odd."""
    file.seek(0)
    signature = file.read(8)
    return any(pattern.match(signature) and walk(file) for pattern, walk in WALKS)


def is_jpeg_bomb(file):
    """Walk over the segments of a JPEG file's first picture (ITU-T T.81, B.1.1).

    Pillow takes each segment, each byte between them and each value of the EXIF data one by one,
    and goes over the whole picture for each scan.
    """
    file.seek(len(START_OF_IMAGE))
    scans = between = exif = 0
    for _ in range(JPEG_MAX_SEGMENTS):
        marker, skipped = next_marker(file)
        if not scans:  # else the bytes were those of a scan
            between += skipped
        scans += marker == START_OF_SCAN
        if between > JPEG_MAX_BETWEEN or scans > JPEG_MAX_SCANS or exif > EXIF_MAX_SIZE:
            return True
        if marker in {None, END_OF_IMAGE}:
            return False
        size = max(2, int.from_bytes(file.read(2), "big"))
        end = file.tell() + size - 2
        exif += size if file.read(4) == b"Exif" else 0
        file.seek(end)
    return True


def next_marker(file):
    """Return the next marker, or None, and how many bytes come before it; read on behind it."""
    start = file.tell()
    size = 2  # enough for one that follows at once
    while data := file.read(size):
        if marker := JPEG_MARKER.search(data):
            file.seek(marker.end() - len(data), SEEK_CUR)
            return marker[1], file.tell() - start - 2
        if len(data) > 1 and data.endswith(b"\xff"):
            file.seek(-1, SEEK_CUR)
        size = 2**16
    return None, file.tell() - start


def is_png_bomb(file):
    """Walk over the chunks of a PNG (5.3 of its specification), which Pillow takes one by one."""
    file.seek(len(PNG_SIGNATURE))
    for _ in range(PNG_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header.endswith(b"IEND"):
            return False
        file.seek(int.from_bytes(header[:4], "big") + 4, SEEK_CUR)
    return True


def is_gif_bomb(file):
    """Tell whether a GIF has too much before its first picture (GIF89a, 17 to 26)."""
    file.seek(10)
    flags = number(file, 1)
    file.seek(13 + (6 << (flags & 7) if flags & 0x80 else 0))  # behind the colours
    return any(True for _ in islice(gif_blocks(file), GIF_MAX_BLOCKS, None))


def gif_blocks(file):
    """Yield what Pillow takes one by one before the first picture: blocks, and bytes between."""
    while (start := file.read(1)) not in {b"", b",", b";"}:
        yield start
        if start == b"!":
            label, block = file.read(1), gif_block(file)
            if label != b"\xfe":  # a comment. Of others it reads on behind a first that is empty.
                if label == b"\xff" and block.startswith(b"NETSCAPE2.0"):
                    gif_block(file)
                block = gif_block(file)
            while block:
                yield block
                block = gif_block(file)


def gif_block(file):
    return file.read(number(file, 1))


def is_tiff_bomb(file):
    """Walk over the directories of a TIFF's first picture (TIFF 6.0, section 2).

    Pillow makes an object of each strip or tile, and of each value that is no text. libtiff turns
    up to a megabyte for each strip whose bits run backwards, though all strips be the same one.
    """
    length = file.seek(0, SEEK_END)
    values = strips = 0
    turned = False
    for tag, kind, count, value in tiff_entries(file):
        many = tag in TIFF_OFFSETS or kind not in {BYTE, ASCII, UNDEFINED}
        values += 1 + (count if many and count <= length else 0)  # What is longer, Pillow skips.
        strips += count if tag in TIFF_OFFSETS else 0
        turned |= tag == FILL_ORDER and value.strip(b"\0") == b"\2"
        if values > TIFF_MAX_VALUES or (turned and strips > TIFF_MAX_TURNED):
            return True
    return False


def tiff_entries(file):
    """Yield the tag, type, count, and value or its place of each entry Pillow looks at."""
    file.seek(0)
    header = file.read(16)
    order = "<" if header.startswith(b"II") else ">"
    layout, first = (BIGTIFF_LAYOUT, 8) if header[2] == 43 else (TIFF_LAYOUT, 4)
    number, entry, place = (Struct(order + codes) for codes in layout)
    places = [place.unpack_from(header, first)]
    for (start,) in places:
        file.seek(start)
        (entries,) = number.unpack(file.read(number.size).ljust(number.size, b"\0"))
        if entries > TIFF_MAX_ENTRIES or len(places) > TIFF_MAX_DIRECTORIES:
            raise ValueError("There are more directories or entries than Pillow can look at.")
        data = file.read(entries * entry.size)
        whole = len(data) - len(data) % entry.size
        for tag, kind, count, value in entry.iter_unpack(data[:whole]):
            yield tag, kind, count, value
            if tag in TIFF_DIRECTORIES and kind != IFD8:  # which Pillow does not know
                places.append(unpack_from(order + TIFF_PLACES[kind, count], value))


def is_heif_bomb(file):
    """Walk over the boxes of a HEIC or AVIF file (ISO/IEC 14496-12 and 23008-12)."""
    file.seek(0)
    found = contents(file, b"meta", b"moov")
    meta, film = found.get(b"meta", b""), found.get(b"moov", b"")
    if decoded_pixels(meta) > 2 * settings.PICTURE_MAX_PIXELS:
        return True
    return b"av01" in meta + film and is_av1_bomb(file, meta, film)


def contents(file, *names):
    """Return the contents of the boxes of these names, of each of which there may be one."""
    found = {}
    for name, size in boxes(file):
        if name in names:
            if name in found or size > HEIF_MAX_SIZE:
                raise ValueError(f"There are two {name} boxes, or one that is too large.")
            found[name] = file.read(size)
    return found


def boxes(file):
    """Yield the name of each box, and the size of its content, at which the file stands then.

    ISO/IEC 14496-12, 4.2.
    """
    start, end = file.tell(), file.seek(0, SEEK_END)
    for _ in range(HEIF_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        size, name = unpack(">L4s", file.read(8))
        if size == 1:
            (size,) = unpack(">Q", file.read(8))
        start = start + size if size else end
        if start < file.tell():
            raise ValueError(f"A {name} box is shorter than its header.")
        yield name, start - file.tell()
    raise ValueError("There are too many boxes.")


def decoded_pixels(meta):
    """Return how many pixels libheif decodes at most for a picture that is composed of others.

    It decodes a tile each time that a grid names it, though none that is larger than it says.
    """
    inside = contents(BytesIO(meta[4:]), b"iref", b"iprp")
    parts = derivations(inside.get(b"iref", bytes(4)))
    if not parts:
        return 0
    properties = contents(BytesIO(inside[b"iprp"]), b"ipco", b"ipma")
    areas = item_areas(properties[b"ipco"], properties[b"ipma"])

    @cache
    def pixels(item):
        return sum(map(pixels, parts[item])) if item in parts else areas[item]

    return max(map(pixels, parts))


def derivations(iref):
    """Return of which other items each one is made (ISO/IEC 14496-12, 8.11.12)."""
    code = "L" if iref[0] else "H"
    stream, parts = BytesIO(iref[4:]), defaultdict(list)
    for name, size in boxes(stream):
        if name == b"dimg":
            reference = stream.read(size)
            item, count = unpack_from(f">{code}H", reference)
            parts[item] += unpack_from(f">{count}{code}", reference, calcsize(f">{code}H"))
    return parts


def item_areas(ipco, ipma):
    """Return the largest size in pixels that each item says it has (ISO/IEC 23008-12, 9.3)."""
    properties = BytesIO(ipco)
    sizes = [0]  # The index 0 stands for no property.
    for name, size in boxes(properties):
        width, height = unpack(">4xLL", properties.read(size)) if name == b"ispe" else (0, 0)
        sizes.append(width * height)
    areas = {}
    for item, index in associations(ipma):
        if sizes[index]:
            areas[item] = max(areas.get(item, 0), sizes[index])
    return areas


def associations(ipma):
    """Yield each pair of an item and the index of one of its properties (ISO/IEC 23008-12, 9.3)."""
    stream = BytesIO(ipma)
    item_size = 4 if number(stream, 1) else 2
    index_size = 1 + (number(stream, 3) & 1)
    for _ in range(number(stream, 4)):
        item = number(stream, item_size)
        for _ in range(number(stream, 1)):
            # Its highest bit tells whether a reader must know the property.
            yield item, number(stream, index_size) % 2 ** (8 * index_size - 1)


def number(stream, size):
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("It ends too early.")
    return int.from_bytes(data, "big")


def is_av1_bomb(file, meta, film):
    """Walk over the frames of an AVIF.

    libavif decodes each as large as it is, whatever size the file says it has, and all that stand
    where one is expected.
    """
    if any(kind in meta for kind in (b"grid", b"iovl", b"sato")):
        return True
    units = frames = 0
    for place in [*av1_places(meta), *first_samples(film)]:
        for kind in av1_units(file, *place):
            units += 1
            frames += kind in {FRAME_HEADER, FRAME}
            too_large = (
                kind == SEQUENCE_HEADER and largest_frame(file) > settings.PICTURE_MAX_PIXELS
            )
            if too_large or units > AV1_MAX_UNITS or frames > AV1_MAX_FRAMES:
                return True
    return False


def av1_places(meta):
    """Return where each part of a frame of AV1 begins, and its length."""
    if b"av01" not in meta:
        return []
    inside = contents(BytesIO(meta[4:]), b"iinf", b"iloc")
    items, places = items_by_type(inside[b"iinf"]), []
    for item, method, extents in locations(inside[b"iloc"]):
        if item in items[b"av01"]:
            if method:
                raise ValueError("A frame is not plainly in the file.")
            places += extents
        if item in items[b"Exif"] and sum(length for _, length in extents) > EXIF_MAX_SIZE:
            raise ValueError("The EXIF data is too large.")
    return places


def items_by_type(iinf):
    """Return the numbers of the items of each type (ISO/IEC 14496-12, 8.11.6)."""
    stream, items = BytesIO(iinf), defaultdict(set)
    stream.seek(8 if number(stream, 1) else 6)
    for _, size in boxes(stream):
        entry = stream.read(size)
        item, kind = unpack_from(">4xL2x4s" if entry[0] == 3 else ">4xH2x4s", entry)
        items[kind].add(item)
    return items


def locations(iloc):
    """Yield each item, its construction method and its extents (ISO/IEC 14496-12, 8.11.3)."""
    stream = BytesIO(iloc)
    version, _, sizes = number(stream, 1), number(stream, 3), number(stream, 2)
    offset_size, length_size, base_size, index_size = (sizes >> bits & 15 for bits in (12, 8, 4, 0))
    if not length_size:
        raise ValueError("No item tells its length.")
    item_size = 4 if version == 2 else 2
    for _ in range(number(stream, item_size)):
        item, method = number(stream, item_size), number(stream, 2 if version else 0) & 15
        number(stream, 2)  # the file it is in, which is this
        base = number(stream, base_size)
        extents = []
        for _ in range(number(stream, 2)):
            number(stream, index_size if version else 0)
            extents.append((base + number(stream, offset_size), number(stream, length_size)))
        yield item, method, extents


def first_samples(film):
    """Yield where each track's first frame of AV1 begins, and its length (14496-12, 8.7)."""
    stream = BytesIO(film)
    for name, size in boxes(stream):
        track = stream.read(size)
        if name == b"trak" and b"av01" in track:
            for inner in (b"mdia", b"minf", b"stbl"):
                track = contents(BytesIO(track), inner)[inner]
            tables = contents(BytesIO(track), b"stco", b"co64", b"stsz")
            sizes = tables.pop(b"stsz")
            ((kind, chunks),) = tables.items()
            (start,) = unpack_from(">8xQ" if kind == b"co64" else ">8xL", chunks)
            yield start, unpack_from(">4xL", sizes)[0] or unpack_from(">12xL", sizes)[0]


def av1_units(file, start, length):
    """Yield the type of each unit (OBU), the file being at its content (AV1, 5.3)."""
    end = start + length
    while start < end:
        file.seek(start)
        header = number(file, 1)
        number(file, 1 if header & 4 else 0)  # its layer
        size = leb128(file)
        start = file.tell() + size
        if start > end or not header & 2:
            raise ValueError("A unit does not tell its size, or is not whole.")
        yield header >> 3 & 15


def leb128(file):
    """Read a number of seven bits in each byte (AV1, 4.10.5)."""
    value = 0
    for place in range(8):
        byte = number(file, 1)
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return value


def largest_frame(file):
    """Return how many pixels a frame may have by the sequence header that begins (AV1, 5.5)."""
    bits = iter("".join(f"{byte:08b}" for byte in file.read(64)))

    def take(count):
        return int("".join(islice(bits, count)), 2)

    take(4)  # profile, still_picture
    if take(1):  # reduced_still_picture_header
        take(5)
    else:
        if take(1):
            raise ValueError("A picture has no timing.")
        has_delays = take(1)
        for _ in range(take(5) + 1):  # operating points
            take(12)
            if take(5) > 7:
                take(1)
            if has_delays and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return (take(width_bits) + 1) * (take(height_bits) + 1)


WALKS = (
    (re.compile(START_OF_IMAGE), is_jpeg_bomb),
    (re.compile(PNG_SIGNATURE), is_png_bomb),
    (re.compile(rb"GIF8[79]a"), is_gif_bomb),
    # Pillow takes the number that tells a TIFF in the wrong order of bytes, too.
    (re.compile(rb"II(\*\0|\0\*|\+\0)|MM(\0\*|\*\0|\0\+)"), is_tiff_bomb),
    (re.compile(rb".{4}ftyp", re.DOTALL), is_heif_bomb),
)
