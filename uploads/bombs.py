"""Pictures that cost far more than their pixels: walks over each format before Pillow does."""

import re
from io import SEEK_CUR

# A camera's JPEG comes in one scan or in ten, and in a few dozen segments with nothing between.
JPEG_MAX_SCANS = 50
JPEG_MAX_SEGMENTS = 1000
JPEG_MAX_BETWEEN = 2**16  # bytes
# The code of a marker; not what stands for a byte of data, nor those that have no segment.
JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd7])")
START_OF_IMAGE, START_OF_SCAN, END_OF_IMAGE = b"\xff\xd8", b"\xda", b"\xd9"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_MAX_CHUNKS = 50_000  # two for each of ten thousand frames, and more


def is_bomb(file):
    """Tell whether a file has far more parts than its pixels need."""
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


WALKS = ((START_OF_IMAGE, is_jpeg_bomb), (PNG_SIGNATURE, is_png_bomb))
