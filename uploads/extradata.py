"""Extra data: the bytes of a file that belong to no picture.

They would turn the site into storage for any data. Phones add more pictures, a video, or blocks
such as a depth map behind a picture. Those are not extra data, and neither is metadata.
"""

import re
from contextlib import suppress
from itertools import chain
from struct import calcsize, error, iter_unpack, unpack, unpack_from

from .sidedata import PNG_START, SOF, SOS, read_chunks, read_segments

MAX_EXTRA = 2**20  # bytes

# A JPEG or a video may follow a picture.
NEXT = re.compile(rb"\xff\xd8\xff|.{4}ftyp", re.DOTALL)
NEXT_LENGTH = 8  # bytes
# A phone's blocks are followed by a directory. It holds the distance from itself to each block.
# Samsung's also holds types and lengths; that of OPPO, OnePlus and realme is JSON.
SAMSUNG = re.compile(rb"SEFH.{8}(?:.{12})+", re.DOTALL)
OPPO = re.compile(rb'\[\{"[ -~]+\}\]\0*')
OPPO_DISTANCE = re.compile(rb'"offset":(\d{1,9})\b')

# JPEG. Other markers begin comments, or have no meaning.
PICTURE_MARKERS = {*range(0xC0, 0xD0), *range(0xDA, 0xF0)}
EOI = 0xD9
MAX_SCANNED = 8  # bytes a pixel, in all scans; noise in CMYK at the best quality has six

# PNG: the second letter of a standard chunk is a capital, except in an animation's chunks. caBX
# holds Content Credentials.
STANDARD_CHUNK = re.compile(rb"[A-Za-z][A-Z][A-Z][A-Za-z]|acTL|fcTL|fdAT|caBX")

# WebP
WEBP_START = 12  # bytes before the first chunk
WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "}
WEBP_CHUNKS.add(b"C2PA")  # Content Credentials

# HEIC, AVIF and videos (ISO/IEC 14496-12): boxes of a length, a name, and data. mpvd and sefd hold
# the video of a motion photo, and Samsung's blocks.
BOX = re.compile(rb"(.{4})([ -~]{4})", re.DOTALL)
BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"uuid", b"mpvd", b"sefd"}

# GIF: blocks that begin with one of these bytes.
GIF_START = 13  # bytes before the palette
IMAGE, EXTENSION, TRAILER = b",!;"
GIF_EXTENSIONS = {b"!\xf9", b"!\xff"}  # for animations, and for metadata

# TIFF and BigTIFF, as codes of struct: the number of a directory's tags, a tag, and an offset.
TIFF, BIG_TIFF = ("H", "HHL4s", "L"), ("Q", "HHQ8s", "Q")
# The sizes of the types, by their numbers, as codes of struct for unsigned integers.
TIFF_TYPES = dict(enumerate("BBHLQBBHLQLQL", 1)) | dict.fromkeys((16, 17, 18), "Q")
DIRECTORIES = {330, 34665, 34853}  # tags of further directories: SubIFDs, EXIF and GPS
LENGTHS = {279, 325, 514}  # tags of the lengths of strips, of tiles, and of a JPEG


def has_much_extra_data(content, name):
    """Return whether more than MAX_EXTRA bytes of a file, in Pillow's format `name`, are extra."""
    end = find_blocks(content)
    place, extra = MEASURES[name](content)
    while found := NEXT.search(content, place, min(end, place + MAX_EXTRA + NEXT_LENGTH)):
        measure = measure_boxes if found[0].endswith(b"ftyp") else measure_jpeg
        extra += found.start() - place
        place, more = measure(content, found.start())
        extra += more
    return extra + max(0, end - place) > MAX_EXTRA


def find_blocks(content):
    """Return where a phone's blocks begin, or the length of a file that does not end with them.

    Samsung's directory is followed by its length and SEFT. OPPO's is followed by a tag and a length
    that includes these eight bytes.
    """
    end = len(content) - 8
    start = max(0, end - int.from_bytes(content[end : end + 4], "little"))
    if content[end + 4 :] == b"SEFT" and SAMSUNG.fullmatch(content, start, end):
        return start - max(place for _, place, _ in iter_unpack("<LLL", content[start + 12 : end]))
    start = max(0, len(content) - int.from_bytes(content[end + 4 :], "little"))
    if OPPO.fullmatch(content, start, end):
        return start - max(map(int, OPPO_DISTANCE.findall(content, start, end)), default=0)
    return len(content)


# Each measure_…() returns where a picture or a video ends, and how many bytes of it are extra.


def measure_jpeg(content, start=0):
    extra = scanned = pixels = 0
    end, last = start + 2, None
    # Without an end marker, the picture ends with the file.
    for place, marker, length in chain(read_segments(content, start), [(len(content), EOI, 0)]):
        if last == SOS:
            scanned += place - end
        elif start and content[end:place].strip(b"\xff"):  # It only begins like a JPEG.
            return start + 2, 2
        else:
            extra += place - end
        end, last = place + 2 + length, marker
        if marker == EOI:
            break
        if marker in SOF:
            size = content[place + 5 : place + 9]
            pixels += int.from_bytes(size[:2]) * int.from_bytes(size[2:])
        if marker not in PICTURE_MARKERS:
            extra += 2 + length
    return place + 2, extra + max(0, scanned - MAX_SCANNED * pixels)


def measure_png(content):
    end, extra = PNG_START, 0
    for chunk in read_chunks(content):
        end += len(chunk)
        if not STANDARD_CHUNK.fullmatch(chunk[4:8]):
            extra += len(chunk)
        if chunk[4:8] == b"IEND":
            break
    return end, extra


def measure_webp(content):
    place, extra = WEBP_START, 0
    end = min(8 + int.from_bytes(content[4:8], "little"), len(content))
    while place + 8 <= end:
        name, length = unpack_from("<4sL", content, place)
        length += 8 + length % 2
        if name not in WEBP_CHUNKS:
            extra += length
        place += length
    return place, extra


def measure_boxes(content, start=0):
    place, extra = start, 0
    while box := BOX.match(content, place):
        length, name, rest = int.from_bytes(box[1]), box[2], len(content) - place
        if length == 1:  # The length is in the eight bytes behind the name.
            length = int.from_bytes(content[place + 8 : place + 16])
        length = length or rest
        if length < 8 or (length > rest and name not in BOXES):
            break
        if name not in BOXES:
            extra += length
        place += length
    return place, extra


def measure_gif(content):
    place, extra = GIF_START + get_palette_length(content[10]), 0
    with suppress(IndexError):  # It may be cut short.
        while (kind := content[place]) != TRAILER:
            start = place
            if kind == IMAGE:
                place = skip_chain(content, place + 11 + get_palette_length(content[place + 9]))
            elif kind == EXTENSION:
                place = skip_chain(content, place + 2)
            else:  # Decoders skip it.
                place += 1
            if kind != IMAGE and content[start : start + 2] not in GIF_EXTENSIONS:
                extra += place - start
    return place + 1, extra


def get_palette_length(flags):
    """Return how many bytes the palette of a GIF or of its frame has, by the flags before it."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def skip_chain(content, place):
    """Return where a chain of a GIF's blocks ends. Each begins with its length; the last has 0."""
    while length := content[place]:
        place += 1 + length
    return place + 1


def measure_bmp(content):
    is_old = int.from_bytes(content[14:18], "little") == 12  # bytes of the header
    width, height = unpack_from("<HH" if is_old else "<ll", content, 18)
    return 4 * abs(width * height), 0


def measure_tiff(content):
    """Count the bytes that no directory names: a TIFF has its parts in any order."""
    named = 0
    with suppress(error, OverflowError):  # It may be cut short.
        for length in read_tiff_lengths(content):
            named += length
    return len(content), max(0, len(content) - named)


def read_tiff_lengths(content):
    """Generate the lengths of all values and pixels that the directories of a TIFF name."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = 43 in content[2:4]
    count, entry, offset = (order + code for code in (BIG_TIFF if is_big else TIFF))
    places, seen = [*unpack_from(offset, content, 8 if is_big else 4)], {0}
    while places:
        place = places.pop()
        if place in seen:
            continue
        seen.add(place)
        [number] = unpack_from(count, content, place)
        start = place + calcsize(count)
        end = start + number * calcsize(entry)
        for tag, kind, number, field in iter_unpack(entry, content[start:end]):
            code = order + TIFF_TYPES.get(kind, "B")
            length = number * calcsize(code)
            yield length
            if tag in LENGTHS:
                yield sum(read_values(content, field, offset, code, length))
            elif tag in DIRECTORIES:
                places += read_values(content, field, offset, code, length)
        places += unpack_from(offset, content, end)


def read_values(content, field, offset, code, length):
    """Return the values of a tag. If they do not fit into its field, that has their offset."""
    if length > len(field):
        [start] = unpack(offset, field)
        field = content[start : start + length]
    return [value for (value,) in iter_unpack(code, field[:length])]


MEASURES = {
    "JPEG": measure_jpeg,
    "PNG": measure_png,
    "WEBP": measure_webp,
    "AVIF": measure_boxes,
    "HEIF": measure_boxes,
    "GIF": measure_gif,
    "BMP": measure_bmp,
    "TIFF": measure_tiff,
}
