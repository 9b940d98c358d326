"""Side data: what a JPEG or a PNG carries beside its pixels. A fault in it refuses no picture.

Pillow gets only the side data that affects how the pixels look. Browsers, too, ignore the rest.
"""

import re
import zlib
from struct import iter_unpack, pack, unpack

from .colours import SRGB, Colours, from_code_points, from_gamma

# JPEG (ITU-T T.81, annex B): segments of a marker, a length and data.
FILL, TEM, SOS, COM = 0xFF, 0x01, 0xDA, 0xFE
SOF, APP = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}, range(0xE0, 0xF0)
SEGMENT = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])(..)", re.DOTALL)
# The APP segments that are kept: how their data begins, and its least length in bytes.
KEPT_APPS = (
    (0xE0, b"JFIF\0", 14),
    (0xE1, b"Exif\0\0", 14),
    (0xE2, b"ICC_PROFILE\0", 14),
    (0xEE, b"Adobe", 12),
)

# PNG (W3C, third edition): chunks of a length, a name, data and a checksum.
PNG_START = 8  # bytes before the first chunk
# The side data that is read, if it comes before the pixels, and its least length in bytes.
SIDE_CHUNKS = {b"tRNS": 1, b"eXIf": 14, b"cICP": 4, b"iCCP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
# The lengths of tRNS by the colour type: grey, RGB and palette.
TRANSPARENCY_LENGTHS = {0: range(2, 257), 2: range(6, 257), 3: range(1, 257)}
CHANNELS = {0: 1, 2: 3}  # by the colour type, where tRNS is a colour
MAX_PROFILE = 4 * 2**20  # bytes


def hide_side_data(content):
    """In a JPEG, turn the APP segments that are too short or not needed into comments, in place.

    Turn segments with an invalid length into fill bytes.
    """
    for place, marker, length in read_segments(content):
        if marker == SOS:
            return
        if length < 2:  # It includes the two bytes that tell it; TEM has none.
            content[place + 1] = FILL
        elif marker in APP and not is_kept_app(marker, length - 2, content[place + 4 : place + 18]):
            content[place + 1] = COM


def read_segments(content, start=0):
    """Generate the place, the marker and the length of each segment of a JPEG.

    Pixels, fill bytes and restart markers are passed over.
    """
    place = start + 2
    while found := SEGMENT.search(content, place):
        place, marker = found.start(), found[1][0]
        length = 0 if marker == TEM else int.from_bytes(found[2])
        yield place, marker, length
        place += 2 + max(2, length)


def has_all_scans(content):
    """Return whether the scans of a JPEG hold each bit of each coefficient."""
    missing_bits = {}  # by the component: how many bits each coefficient lacks
    for place, marker, length in read_segments(content):
        data = content[place + 4 : place + 2 + length]
        if marker in SOF:
            missing_bits = {component: [1] * 64 for component in data[6::3]}
        elif marker == SOS:
            first, last, approximation = data[-3:]
            for component in data[1 : 1 + 2 * data[0] : 2]:
                bits = missing_bits[component]
                bits[first : last + 1] = [approximation & 15] * (last + 1 - first)
    return not any(map(any, missing_bits.values()))


def is_kept_app(marker, length, start):
    return any(
        marker == kept and length >= minimum and start.startswith(name)
        for kept, name, minimum in KEPT_APPS
    )


def clean_png(content):
    """Return a PNG with the chunks that its pixels need, and its Colours."""
    head, sides, pixels = [], {}, []
    for chunk in read_chunks(content):
        name = chunk[4:8]
        if name in {b"IHDR", b"PLTE"}:
            head.append(chunk)
            sides.pop(b"tRNS", None)  # It must come behind PLTE.
        elif name == b"IEND" or (name == b"IDAT" and len(chunk) > 12):  # not an empty one
            pixels.append(chunk)
        elif not pixels and is_usable(chunk):
            sides.setdefault(name, chunk)

    depth, colour_type = head[0][16:18]
    transparency = get_data(sides, b"tRNS")
    if len(transparency) in TRANSPARENCY_LENGTHS.get(colour_type, ()):
        if colour_type in CHANNELS:
            transparency = scale(transparency[: 2 * CHANNELS[colour_type]], depth)
        head.append(make_chunk(b"tRNS", transparency))
    if get_data(sides, b"eXIf")[:2] in {b"II", b"MM"}:
        head.append(sides[b"eXIf"])
    return b"".join([content[:PNG_START], *head, *pixels]), read_colours(sides)


def read_chunks(content):
    """Generate the chunks of a PNG; the last one may be cut short."""
    place = PNG_START
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4])
        yield content[place:end]
        place = end


def is_usable(chunk):
    """Return whether a chunk holds side data that is read, is long enough, and has no fault."""
    minimum = SIDE_CHUNKS.get(chunk[4:8])
    if minimum is None or len(chunk) < 12 + minimum:
        return False
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def get_data(sides, name):
    return sides.get(name, b"")[8:-4]


def scale(transparency, depth):
    """Return the values of tRNS, for a picture of this depth, as the 8-bit values of Pillow."""
    return b"".join(
        pack(">H", value >> 8 if depth == 16 else value * 255 // (2**depth - 1))
        for (value,) in iter_unpack(">H", transparency)
    )


def make_chunk(name, data):
    return pack(">L", len(data)) + name + data + pack(">L", zlib.crc32(name + data))


def read_colours(sides):
    """Return the Colours of a PNG's chunks, in the order of precedence of the standard."""
    if colours := read_code_points(get_data(sides, b"cICP")):
        return colours
    if profile := read_profile(get_data(sides, b"iCCP")):
        return Colours(profile)
    if b"sRGB" in sides or b"gAMA" not in sides:
        return SRGB
    gamma = int.from_bytes(get_data(sides, b"gAMA")[:4])
    chromaticities = unpack(">8I", get_data(sides, b"cHRM")[:32]) if b"cHRM" in sides else ()
    return from_gamma(gamma, chromaticities)


def read_code_points(data):
    """Return the Colours of a cICP chunk, or None if it is of no use, as YCbCr would be."""
    primaries, transfer, matrix, full_range = data[:4] or (0, 0, 0, 0)
    return from_code_points(primaries, transfer) if (matrix, full_range) == (0, 1) else None


def read_profile(data):
    """Return the ICC profile of an iCCP chunk, or None if it is damaged or larger than allowed."""
    name, _, rest = data.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(rest[1:], MAX_PROFILE)
    except zlib.error:
        return None
    return profile if unpacker.eof and rest[0] == 0 and 1 <= len(name) <= 79 else None
