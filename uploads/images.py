"""Pixels: open a picture, and make the two renditions that the pages show.

A file can make its decoder work for hours, take gigabytes, or crash. Therefore only the processes
of renderer.py decode pictures, one at a time in each.
"""

import errno
import re
import warnings
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple

from PIL import AvifImagePlugin, ExifTags, Image, ImageCms
from pillow_heif import options as heif_options
from pillow_heif import register_heif_opener


class Format(NamedTuple):
    """A format that is accepted.

    Its decoder can hold `max_pixels` in 1 GiB, in the variants that cameras write. A variant that
    needs more memory, such as a progressive JPEG without subsampling, is refused at fewer pixels.
    """

    name: str  # Pillow's
    label: str  # for sentences
    suffix: str
    media_types: str
    max_pixels: int


FORMATS = (
    Format("JPEG", "JPEG", ".jpg", "image/jpeg", 250_000_000),
    Format("PNG", "PNG", ".png", "image/png", 100_000_000),
    Format("WEBP", "WebP", ".webp", "image/webp", 50_000_000),
    Format("AVIF", "AVIF", ".avif", "image/avif", 70_000_000),
    Format("GIF", "GIF", ".gif", "image/gif", 100_000_000),
    Format("TIFF", "TIFF", ".tif", "image/tiff", 100_000_000),
    Format("HEIF", "HEIC", ".heic", "image/heic,image/heif", 100_000_000),
)
NAMES = tuple(image_format.name for image_format in FORMATS)
BY_NAME = {image_format.name: image_format for image_format in FORMATS}
# Pillow's name for a JPEG with more pictures behind it, which phones write.
BY_NAME["MPO"] = BY_NAME["JPEG"]
# The suffixes as well: not every system knows every media type.
ACCEPT = ",".join(f"{image_format.media_types},{image_format.suffix}" for image_format in FORMATS)
LABELS = " and ".join(
    [", ".join(image_format.label for image_format in FORMATS[:-1]), FORMATS[-1].label]
)

# A picture of more than ANY_DENSITY_PIXELS must have this many bytes for each pixel, as photos do.
MIN_DENSITY = 1 / 2000
ANY_DENSITY_PIXELS = 24_000_000

# Bytes at the beginning of a file that tell Pillow which format it has.
SIGNATURE_LENGTH = 16

# The longest side of a rendition, in pixels. DISPLAY_SIZE fits a phone with three device pixels for
# each CSS pixel. THUMBNAIL_SIZE fits the narrowest column of the grid, on a screen with two.
DISPLAY_SIZE = 1600
THUMBNAIL_SIZE = 480

STRIP_HEIGHT = 64  # pixels of a strip, after it was shrunk

# Pillow's default of 75 shows blocks in smooth sauces; above 85 a file grows more than it improves.
# A progressive JPEG is a tenth smaller, and is seen at once on a slow connection.
JPEG_OPTIONS = {"format": "JPEG", "quality": 82, "progressive": True}

# How to turn a picture upright, by the orientation in its EXIF data.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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
LACK_OF_MEMORY = re.compile("out of memory|decoder error -9|memory allocation", re.IGNORECASE)

Image.init()
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
Image.MAX_IMAGE_PIXELS = None  # open_image() has a limit for each format.
# With a thread for each core, the threads' stacks alone would fill a renderer's memory on a machine
# with many cores.
AvifImagePlugin.DEFAULT_MAX_THREADS = heif_options.DECODE_THREADS = 4


class PictureError(Exception):
    """A picture cannot be rendered: a code of refusals.py, and values for its sentence."""

    def __init__(self, code, **values):
        super().__init__(code)
        self.code = code
        self.values = values


class Original(NamedTuple):
    """The suffix of an original's format, and its size when it is turned upright, in pixels."""

    suffix: str
    width: int
    height: int


def may_be_picture(signature):
    """Return whether a file that begins with these bytes can have one of the accepted formats."""
    return any(Image.OPEN[name][1](signature) is True for name in NAMES)


def open_image(path):
    """Read the header of a picture, and no pixels.

    Raise PictureError, code not_an_image or too_many_pixels; OSError if the file cannot be read.
    """
    with decoding():
        image = Image.open(path, formats=NAMES)
    limit = get_max_pixels(image.format, path.stat().st_size)
    if image.width * image.height > limit:
        image.close()
        label = BY_NAME[image.format].label
        raise PictureError("too_many_pixels", millions=f"{limit / 1e6:g}", format=label)
    return image


def get_max_pixels(name, size):
    """Return how many pixels a file of this format and size, in bytes, may have."""
    return min(BY_NAME[name].max_pixels, max(ANY_DENSITY_PIXELS, int(size / MIN_DENSITY)))


def render(image, display, thumbnail):
    """Write the renditions of an opened image to two paths, and return its Original.

    They are upright, opaque, in sRGB, and without metadata. Raise PictureError, code not_an_image
    or too_complex, and OSError if the disk fails.
    """
    with decoding():
        size, picture = load(image)
    write_jpeg(picture, display)
    # Shrink by a whole factor first: it takes half the time, and nobody sees a difference.
    small = picture.resize(fit(size, THUMBNAIL_SIZE), Image.Resampling.HAMMING, reducing_gap=1.5)
    write_jpeg(small, thumbnail)
    return Original(BY_NAME[image.format].suffix, *size)


@contextmanager
def decoding():
    """Raise PictureError for the exceptions of a bad file, and ignore its warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:
        # A file that has none of the formats, or is damaged, makes Pillow raise nearly anything.
        if getattr(error, "errno", None) in MACHINE_ERRORS:
            raise
        if isinstance(error, MemoryError) or LACK_OF_MEMORY.search(str(error)):
            raise PictureError("too_complex") from error
        raise PictureError("not_an_image", formats=LABELS) from error


def load(image):
    """Return the upright size of an image, and the image, upright and at DISPLAY_SIZE."""
    size = image.size
    if image.format in {"JPEG", "MPO"}:
        # This takes half the time or less: the decoder works at a fraction of the size.
        image.draft(None, fit(size, DISPLAY_SIZE))
    image.load()
    picture = flatten(image, fit(size, DISPLAY_SIZE))

    orientation = get_orientation(image)
    if orientation > 1:
        picture = picture.transpose(TRANSPOSES[orientation])
    if orientation >= 5:  # on its side
        size = size[::-1]
    return size, picture


def get_orientation(image):
    """Return the orientation that must still be applied to a loaded image, or 1 for none.

    HEIC and TIFF need none: Pillow turns them upright while it loads them.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001
        return 1  # The EXIF data of a good picture may be damaged.
    return orientation if orientation in TRANSPOSES else 1


def flatten(image, size):
    """Return an image at this size, in sRGB, on white, and without the metadata of its file."""
    profile = image.info.get("icc_profile")
    # HAMMING shrinks as smoothly as BICUBIC, in half the time.
    small = shrink(image).resize(size, Image.Resampling.HAMMING)
    alpha = small.convert("RGBA").getchannel("A") if small.has_transparency_data else None
    canvas = Image.new("RGB", small.size, "white")
    canvas.paste(to_srgb(small, profile), mask=alpha)
    return canvas


def shrink(image):
    """Return a large image at a few times DISPLAY_SIZE, in a mode that can be interpolated.

    Work in strips, since a second copy of 100 megapixels costs another 400 MB.
    """
    factor = max(image.size) // (2 * DISPLAY_SIZE)
    if factor < 2:
        return to_8_bit(image)
    width, height = image.size
    step = factor * STRIP_HEIGHT
    strips = [
        to_8_bit(image.crop((0, top, width, min(top + step, height)))).reduce(factor)
        for top in range(0, height, step)
    ]
    canvas = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    for index, strip in enumerate(strips):
        canvas.paste(strip, (0, index * STRIP_HEIGHT))
    return canvas


def to_8_bit(image):
    """Return an image in a mode whose pixels can be averaged: no palette, 8 bits a channel."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in {"1", "P", "PA"} or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def to_srgb(image, profile):
    """Return an image with its colours converted from its ICC profile, if that can be used."""
    colours = image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")
    if not profile:
        return colours
    try:
        return ImageCms.profileToProfile(
            colours,
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError):
        return colours  # The profile is damaged, or is for another colour mode.


def fit(size, longest_side):
    """Return a size in the same proportion whose longest side is at most this, in pixels."""
    scale = min(1, longest_side / max(size))
    return tuple(max(1, round(side * scale)) for side in size)


def write_jpeg(image, path):
    # Encode into memory first: on a full disk Pillow would write a truncated file, and not raise.
    content = BytesIO()
    image.save(content, **JPEG_OPTIONS)
    with path.open("wb") as file:
        file.write(content.getbuffer())
