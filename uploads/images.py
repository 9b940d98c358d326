"""What is a picture, and its renditions, which the pages show. Only this module knows Pillow."""

import errno
import os
import time
import warnings
from contextlib import contextmanager, suppress
from io import BytesIO
from math import ceil
from pathlib import Path
from threading import BoundedSemaphore
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files import locks
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.utils.text import get_text_list
from PIL import ExifTags, Image, ImageCms
from pillow_heif import register_heif_opener

from . import bombs


class Format(NamedTuple):
    """A format that is taken: Pillow's name for it, people's, its suffix, its media types."""

    name: str
    label: str
    suffix: str
    media_types: str


FORMATS = (
    Format("JPEG", "JPEG", ".jpg", "image/jpeg"),
    Format("PNG", "PNG", ".png", "image/png"),
    Format("WEBP", "WebP", ".webp", "image/webp"),
    Format("AVIF", "AVIF", ".avif", "image/avif"),
    Format("GIF", "GIF", ".gif", "image/gif"),
    Format("TIFF", "TIFF", ".tif", "image/tiff"),
    Format("HEIF", "HEIC", ".heic", "image/heic,image/heif"),
)
NAMES = tuple(image_format.name for image_format in FORMATS)
# The suffixes as well: not every system knows every media type.
ACCEPT = ",".join(f"{image_format.media_types},{image_format.suffix}" for image_format in FORMATS)
LABELS = get_text_list([image_format.label for image_format in FORMATS], "and")
SUFFIXES = {image_format.name: image_format.suffix for image_format in FORMATS}
# Pillow finds MPO, a JPEG with more pictures behind it, by itself among the JPEGs.
SUFFIXES["MPO"] = SUFFIXES["JPEG"]

# Bytes at the beginning of a file, by which Pillow tells whether it can be of a format.
SIGNATURE_LENGTH = 16

# The longest side of a rendition, in pixels: a phone's screen held upright at three pixels a
# point, and a column of the grid at two.
DISPLAY_SIZE = 1600
THUMBNAIL_SIZE = 480

# Pillow's default of 75 shows blocks in smooth sauces; above 85 bytes grow faster than looks.
# Progressive, a tenth smaller, a picture on a slow line is there at once and then sharpens.
JPEG_OPTIONS = {"format": "JPEG", "quality": 82, "progressive": True}

# What turns a picture upright, by the orientation that its EXIF data tells.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What the machine, and not the file, is to blame for.
MACHINE_ERRORS = {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC}

MAX_SIDE = 65_535  # pixels; a JPEG cannot have more
TILE_SLACK = 2**22  # pixels; a small picture may lie in a corner of a tile

# So many pictures are processed at once: by one process, and by all of them.
CORES = os.cpu_count() or 1
SLOTS = BoundedSemaphore(CORES)
SLOT_INTERVAL = 0.02  # seconds between two looks for a free slot

Image.init()
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)

# Pillow checks the pixels that a file declares before it decodes any: over the limit it warns, over
# twice the limit it raises. Both are a refusal here.
Image.MAX_IMAGE_PIXELS = settings.PICTURE_MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
# A file can be made to draw thousands of other warnings, which would fill the log.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")


class Renditions(NamedTuple):
    """What the pages show of an original, as temporary files; the other fields are its own."""

    suffix: str
    width: int
    height: int
    display: TemporaryUploadedFile
    thumbnail: TemporaryUploadedFile


def not_an_image():
    return ValidationError(
        f"This file is not a picture, or not a whole one; {LABELS} files are allowed.",
        code="not_an_image",
    )


def too_many_pixels():
    return ValidationError(
        f"This picture has too many pixels; {settings.PICTURE_MAX_PIXELS / 1e6:g} million are "
        "allowed.",
        code="too_many_pixels",
    )


def may_be_picture(signature):
    """Tell whether a file that begins with these bytes can be of a format that is taken."""
    return any(Image.OPEN[name][1](signature) is True for name in NAMES)


@contextmanager
def render(original):
    """Make the renditions of a file; they are deleted after the block, unless it moved them.

    Raise ValidationError, code not_an_image or too_many_pixels, where there is nothing to render,
    and OSError where the disk fails.
    """
    with rendition_file() as display, rendition_file() as thumbnail:
        with processing_slot():
            suffix, (width, height), image = decode(original)
            write_jpeg(image, display)
            size = fit((width, height), THUMBNAIL_SIZE)
            write_jpeg(image.resize(size, Image.Resampling.HAMMING), thumbnail)
        yield Renditions(suffix, width, height, display, thumbnail)


@contextmanager
def processing_slot():
    """Wait until fewer pictures are being processed than there are cores, in all processes."""
    with SLOTS:
        while not (slot := free_slot()):
            time.sleep(SLOT_INTERVAL)
        with slot:
            yield


def free_slot():
    """Return a file with a lock that nobody else holds, or None; the lock goes as it is closed.

    A lock holds between processes, and a process that is killed holds none.
    """
    folder = Path(settings.LOCKS_ROOT)
    folder.mkdir(exist_ok=True)
    for number in range(CORES):
        slot = open(folder / f"processing-{number}", "rb", opener=created)  # noqa: SIM115
        if locks.lock(slot, locks.LOCK_EX | locks.LOCK_NB):
            return slot
        slot.close()
    return None


def created(path, flags):
    # Without writing, whoever made the file: a lock needs only a file that is open.
    return os.open(path, flags | os.O_CREAT, 0o644)


def decode(original):
    """Return the suffix, the size, and the picture of a file, these two as a person sees them.

    The picture is at most DISPLAY_SIZE long, upright, opaque, in sRGB, and without metadata.
    """
    with refusals(), opened(original) as image:
        size = image.size
        if image.format in {"JPEG", "MPO"}:
            # A JPEG decodes in half the time or less if it is told the size that will do.
            image.draft(None, fit(size, DISPLAY_SIZE))
        image.load()
        orientation = get_orientation(image)
        picture = prepared(image, fit(size, DISPLAY_SIZE))
        suffix = SUFFIXES[image.format]

    if orientation > 1:
        picture = picture.transpose(TRANSPOSES[orientation])
    if orientation >= 5:  # on its side
        size = size[::-1]
    return suffix, size, picture


@contextmanager
def refusals():
    """Make a refusal of whatever Pillow raises because of the file."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels() from error
    except Exception as error:
        # A file that is none of the formats, or is damaged, makes Pillow raise nearly anything.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in MACHINE_ERRORS:
            raise
        raise not_an_image() from error


def opened(file):
    """Open a picture; raise DecompressionBombError where it costs far more than its pixels."""
    if bombs.is_bomb(file):
        raise Image.DecompressionBombError("Its parts cost more than its pixels.")
    file.seek(0)
    image = Image.open(file, formats=NAMES)
    if max(image.size) > MAX_SIDE or (image.format == "TIFF" and is_tile_bomb(image)):
        image.close()
        raise Image.DecompressionBombError("Its rows or its tiles cost more than its pixels.")
    return image


def is_tile_bomb(image):
    """Tell whether a TIFF's tiles, each of which is decoded whole, are far larger than it is."""
    width, height = image.tag_v2[256], image.tag_v2[257]
    tile_width, tile_height = image.tag_v2.get(322, width), image.tag_v2.get(323, height)
    padded = ceil(width / tile_width) * tile_width * ceil(height / tile_height) * tile_height
    return padded > 2 * width * height + TILE_SLACK


def get_orientation(image):
    """Return the orientation that is still to be applied to a loaded picture, 1 for none.

    For HEIC and TIFF that is none: those are turned upright while they are loaded.
    """
    # Pillow would take each value of it one by one, even where the orientation has millions.
    told = image.info.get("exif") or image.info.get("Raw profile type exif") or b""
    if len(told) > bombs.EXIF_MAX_SIZE:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001
        return 1  # The EXIF data of a good picture may be damaged.
    return orientation if orientation in TRANSPOSES else 1


def prepared(image, size):
    """Return a picture at this size, in sRGB and on white, and nothing else of its file."""
    profile = image.info.get("icc_profile")
    # HAMMING scales down as well as BICUBIC, in half the time.
    small = reduced(image).resize(size, Image.Resampling.HAMMING)
    alpha = small.convert("RGBA").getchannel("A") if small.has_transparency_data else None
    canvas = Image.new("RGB", small.size, "white")
    canvas.paste(in_srgb(small, profile), mask=alpha)
    return canvas


def reduced(image):
    """Return a large picture at a few times DISPLAY_SIZE, in a mode that can be interpolated.

    It goes in strips, since a second copy of 100 megapixels costs another 400 MB.
    """
    factor = max(image.size) // (2 * DISPLAY_SIZE)
    if factor < 2:
        return interpolable(image)
    width, height = image.size
    strips = [
        interpolable(image.crop((0, top, width, min(top + 64 * factor, height)))).reduce(factor)
        for top in range(0, height, 64 * factor)
    ]
    canvas = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    for number, strip in enumerate(strips):
        canvas.paste(strip, (0, 64 * number))
    return canvas


def interpolable(image):
    """Return a picture in a mode whose pixels can be averaged: no palettes, 8 bits a channel."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in {"1", "P", "PA"} or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def in_srgb(image, profile):
    """Return the colours of a picture as its ICC profile means them, where that can be used."""
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
        return colours  # The profile is damaged, or is not one of this picture's colours.


def fit(size, longest_side):
    """Return a size in the same proportion whose longest side is at most this, in pixels."""
    scale = min(1, longest_side / max(size))
    return tuple(max(1, round(side * scale)) for side in size)


@contextmanager
def rendition_file():
    file = TemporaryUploadedFile("rendition.jpg", "image/jpeg", 0, None)
    try:
        # Tells prune_uploads that the file is in use until it has its row.
        locks.lock(file, locks.LOCK_SH)
        yield file
    finally:
        with suppress(OSError):  # On a disk that just failed; the picture may be kept by then.
            file.close()


def write_jpeg(image, file):
    # By way of memory: on a full disk Pillow would leave a file cut short, and raise nothing.
    content = BytesIO()
    image.save(content, **JPEG_OPTIONS)
    file.write(content.getbuffer())
    file.flush()
    file.size = content.tell()
