"""Pictures that cost far more than their pixels: walks over each format before Pillow does."""

import re
from io import SEEK_CUR, SEEK_END
from struct import Struct, unpack_from

# A camera's JPEG comes in one scan or in ten, and in a few dozen segments with nothing between.
JPEG_MAX_SCANS = 50
JPEG_MAX_SEGMENTS = 1000
JPEG_MAX_BETWEEN = 2**16  # bytes
# The code of a marker; not what stands for a byte of data, nor those that have no segment.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xda", b"\xd9"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_MAX_CHUNKS = 50_000  # two for each of ten thousand frames, and more
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")  # Pillow's
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


def is_bomb(file):
    """Tell whether a file has far more parts than its pixels need; raise where it is odd."""
    file.seek(0)
    signature = file.read(len(PNG_SIGNATURE))
    return any(signature.startswith(start) and walk(file) for start, walk in WALKS)


def is_jpeg_bomb(file):
    """Walk over the segments of a JPEG file's first picture (ITU-T T.81, B.1.1).

    Pillow takes each segment and each byte between them one by one, and goes over the whole
    picture for each scan.
    """
    file.seek(len(START_OF_IMAGE))
    scans = between = 0
    for _ in range(JPEG_MAX_SEGMENTS):
        marker, skipped = next_marker(file)
        if not scans:  # else the bytes were those of a scan
            between += skipped
        scans += marker == START_OF_SCAN
        if between > JPEG_MAX_BETWEEN or scans > JPEG_MAX_SCANS:
            return True
        if marker in {None, END_OF_IMAGE}:
            return False
        file.seek(max(0, int.from_bytes(file.read(2), "big") - 2), SEEK_CUR)
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


WALKS = (
    (START_OF_IMAGE, is_jpeg_bomb),
    (PNG_SIGNATURE, is_png_bomb),
    (TIFF_SIGNATURES, is_tiff_bomb),
)
