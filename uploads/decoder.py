"""Decoders: a file in, pixels out.

A file can make its decoder work for hours, take gigabytes, or crash. Therefore only renderers
decode pictures, one at a time in each; see rendering.py.
"""

import errno
import re
import warnings
from contextlib import ExitStack, contextmanager
from io import BytesIO
from mmap import ACCESS_COPY, ACCESS_READ, mmap
from random import Random

import pillow_heif
from PIL import AvifImagePlugin, Image
from PIL.ExifTags import Base as Tag

from .colours import SRGB, Colours, from_nclx
from .extradata import MAX_EXTRA, has_much_extra_data
from .formats import BY_NAME, FORMATS, LABELS, NAMES, SIGNATURE_LENGTH, identify
from .sidedata import clean_png, has_all_scans, hide_side_data

# A picture of more than ANY_DENSITY_PIXELS must have this many bytes for each pixel, as photos do.
MIN_DENSITY = 1 / 2000
ANY_DENSITY_PIXELS = 24_000_000

# Paddings for a JPEG that lacks its end. They hold no 0xFF, which would begin a marker. With most
# others, some of the tiny pictures that were cut would look the same by chance.
NOISE = bytes(Random(1).choices(range(0xFF), k=4096))  # noqa: S311
PADDINGS = [bytes(4096), b"\xaa" * 4096, NOISE]
RESTARTS = range(0xD0, 0xD8)

# Errors of the machine, not of the file.
MACHINE_ERRORS = {
    errno.EACCES,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOENT,
    errno.ENOSPC,
}
# How Pillow, its TIFF decoder and libheif report a lack of memory, as an OSError, a RuntimeError
# or a ValueError.
LACK_OF_MEMORY = re.compile(
    "out of memory|decoder error -9|memory allocation|allocate memory", re.IGNORECASE
)

Image.init()
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
Image.MAX_IMAGE_PIXELS = None  # open_image() has a limit for each format.
# With a thread for each core, the threads' stacks alone would fill a renderer's memory on a machine
# with many cores.
AvifImagePlugin.DEFAULT_MAX_THREADS = pillow_heif.options.DECODE_THREADS = 4


class PictureError(Exception):
    """A picture cannot be rendered: a code of refusals.py, and values for its sentence."""

    def __init__(self, code, **values):
        super().__init__(code)
        self.code = code
        self.values = values


def open_image(path):
    """Open a picture without decoding its pixels, and put its Colours into its info.

    Raise PictureError, code not_an_image, other_format, damaged, too_many_pixels, extra_data or
    too_complex; OSError if the file cannot be read.
    """
    with ExitStack() as stack, decoding():
        image, colours = read_header(path)
        stack.enter_context(image)
        image.info["colours"] = colours or find_colours(image, path)
        # Pillow would turn a picture by its XMP, too; browsers do not.
        image.info.pop("xmp", None)
        if image.format == "TIFF":
            refuse_odd_tiff(image.tag_v2)
        refuse_too_many_pixels(image, path)
        refuse_extra_data(image, path)
        stack.pop_all()  # It stays open.
        return image


def read_header(path):
    """Return an image, and the Colours of a PNG."""
    source, colours = path, None
    with path.open("rb") as file:
        kind = identify(file.read(SIGNATURE_LENGTH))
        if kind not in FORMATS:
            raise PictureError("not_an_image", formats=LABELS)
        if kind.label == "JPEG":
            # A private copy, of which only the changed pages take memory.
            source = mmap(file.fileno(), 0, access=ACCESS_COPY)
            hide_side_data(source)
        if kind.label == "PNG":
            content, colours = clean_png(mmap(file.fileno(), 0, access=ACCESS_READ))
            source = BytesIO(content)
    return Image.open(source, formats=NAMES), colours


def find_colours(image, path):
    profile = image.info.get("icc_profile")
    if profile and isinstance(profile, bytes):  # In a TIFF it may be anything.
        return Colours(profile)
    info = read_avif_info(path) if image.format == "AVIF" else image.info
    if nclx := info.get("nclx_profile"):
        return from_nclx(nclx["color_primaries"], nclx["transfer_characteristics"])
    return SRGB


def read_avif_info(path):
    """Return libheif's info of an AVIF: Pillow tells no nclx."""
    try:
        return pillow_heif.open_heif(path).info
    except (OSError, RuntimeError, SyntaxError, ValueError):
        return {}  # libheif is stricter than Pillow's libavif.


def refuse_odd_tiff(tags):
    """Raise PictureError for a camera's raw file, and for values that Pillow would show wrongly."""
    if Tag.DNGVersion in tags:
        raise PictureError("other_format", kind="DNG", formats=LABELS)
    if tags.get(Tag.NewSubfileType, 0) & 1:  # a preview; the picture follows
        raise PictureError("other_format", kind="Camera raw", formats=LABELS)
    bits = tags.get(Tag.BitsPerSample, (1,))[0]
    is_signed_or_float = tags.get(Tag.SampleFormat, (1,))[0] != 1
    is_planar = tags.get(Tag.PlanarConfiguration) == 2
    is_inverted = tags.get(Tag.PhotometricInterpretation) == 0
    is_unsupported_16_bit = bits == 16 and (is_planar or is_inverted)
    if is_signed_or_float or bits not in {1, 2, 4, 8, 16} or is_unsupported_16_bit:
        raise PictureError("damaged")


def refuse_too_many_pixels(image, path):
    limit = get_max_pixels(image.format, path.stat().st_size)
    if image.width * image.height > limit:
        label = BY_NAME[image.format].label
        raise PictureError("too_many_pixels", millions=limit // 10**6, format=label)


def get_max_pixels(name, size):
    """Return how many pixels a file of this format and size, in bytes, may have."""
    return min(BY_NAME[name].max_pixels, max(ANY_DENSITY_PIXELS, int(size / MIN_DENSITY)))


def refuse_extra_data(image, path):
    if path.stat().st_size <= MAX_EXTRA:
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if has_much_extra_data(content, image.format):
            raise PictureError("extra_data", megabytes=MAX_EXTRA // 2**20)


@contextmanager
def decoding():
    """Raise PictureError for the exceptions of a bad file, and ignore its warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:
        # A damaged file makes Pillow raise nearly anything.
        if isinstance(error, PictureError) or getattr(error, "errno", None) in MACHINE_ERRORS:
            raise
        if isinstance(error, MemoryError) or LACK_OF_MEMORY.search(str(error)):
            raise PictureError("too_complex") from error
        raise PictureError("damaged") from error


def decode(image, size):
    """Return the image with its pixels, at this size or above. Repair a damaged JPEG or PNG.

    A JPEG that lacks its end marker is kept if none of its pixels depends on what would follow.
    """
    width, height = image.size  # draft() changes it.
    source = image.fp  # Pillow forgets it at the end.
    try:
        return load_pixels(image, size)
    except OSError:
        if image.format not in REPAIRS:
            raise
    source.seek(0)
    # Smaller sizes use fewer coefficients, and would hide faults in the rest.
    size = max(size, (width // 4, height // 4))
    versions = (
        load_pixels(Image.open(BytesIO(content), formats=[image.format]), size)
        for content in REPAIRS[image.format](source.read())
    )
    repaired = next(versions, None)
    if repaired is None or any(version != repaired for version in versions):
        raise PictureError("damaged")
    repaired.info = image.info
    return repaired


def complete_jpeg(content):
    """Generate versions of a JPEG that lacks its end marker, each completed with other bytes.

    If pixels are missing, the versions differ. The restart markers are for a decoder that
    waits for one; the next one comes first. Generate none if whole scans are missing.
    """
    if not has_all_scans(content):
        return
    whole = content.rstrip(b"\xff")  # the first half of a marker
    scan = whole.rindex(b"\xff\xda")  # the last
    last = max(whole.rfind(bytes((0xFF, marker)), scan) for marker in RESTARTS)
    expected = whole[last + 1] + 1 if last > 0 else 0
    markers = [*(RESTARTS[(expected + number) % 8] for number in range(8)), 0xD9]  # and the end
    for padding in PADDINGS:
        yield whole + b"".join(padding + bytes((0xFF, marker)) for marker in markers)


def cut_checksum(content):
    """Return a cleaned PNG without the end of its pixels' Adler-32, so that none is checked."""
    return [content.removesuffix(b"\0\0\0\0IEND\xaeB`\x82")[:-5]]


REPAIRS = {"JPEG": complete_jpeg, "PNG": cut_checksum}


def load_pixels(image, size):
    if image.format == "JPEG":
        # This takes half the time or less: the decoder works at a fraction of the size.
        image.draft(None, size)
    drawn_box = image.tile[0][1] if image.format == "GIF" else None
    if image.format == "GIF" and image.mode == "L":
        image.palette = None  # Pillow sets the global palette, though the local one is grey.
    image.load()
    if image.format == "TIFF" and image.mode == "P":
        mend_palette(image)
    if drawn_box and "transparency" not in image.info:
        image = erase_around(image, drawn_box)
    return image


def erase_around(image, box):
    """Return an image that is transparent outside of a box: browsers ignore a GIF's background."""
    if box == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.crop(box).convert("RGB"), box)
    canvas.info = image.info
    return canvas


def mend_palette(image):
    """Repair the palette of a TIFF that has 8-bit values in its 16-bit entries."""
    entries = image.tag_v2[Tag.ColorMap]
    if max(entries) < 256:
        count = len(entries) // 3
        image.putpalette(
            bytes(entries[channel * count + n] for n in range(count) for channel in range(3))
        )
