"""What is a picture, and its renditions, which the pages show. Only this module knows Pillow."""

import warnings
from contextlib import closing, contextmanager
from math import ceil
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import TemporaryUploadedFile
from PIL import ExifTags, Image, ImageOps

# What Pillow may take a file for, and the suffix that such an original is stored under.
FORMATS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "GIF": ".gif",
    "TIFF": ".tif",
}
ACCEPT = "image/jpeg,image/png,image/webp,image/avif,image/gif,image/tiff"
FORMAT_NAMES = "JPEG, PNG, WebP, AVIF, GIF and TIFF"

# The longest side of a rendition, in pixels.
DISPLAY_SIZE = 1600
THUMBNAIL_SIZE = 480

# Pillow's default of 75 shows blocks in smooth sauces; above 85 bytes grow faster than looks.
JPEG_OPTIONS = {"format": "JPEG", "quality": 82, "progressive": True}

TRANSPOSED = {5, 6, 7, 8}  # the EXIF orientations that swap width and height

# Pillow checks the pixels that a file declares before it decodes any: over the limit it warns, over
# twice the limit it raises. Both are a refusal here.
Image.MAX_IMAGE_PIXELS = settings.PICTURE_MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)


class Renditions(NamedTuple):
    """What the pages show of an original, as temporary files; the other fields are its own."""

    suffix: str
    width: int
    height: int
    display: TemporaryUploadedFile
    thumbnail: TemporaryUploadedFile


@contextmanager
def render(original):
    """Make the renditions of an uploaded file; what the block moves nowhere is gone after it.

    Raise ValidationError, code not_an_image or too_many_pixels, where there is nothing to render,
    and OSError where the disk fails.
    """
    suffix, (width, height), image = decode(original)
    with closing(rendition_file()) as display, closing(rendition_file()) as thumbnail:
        for file, longest_side in ((display, DISPLAY_SIZE), (thumbnail, THUMBNAIL_SIZE)):
            image.thumbnail((longest_side, longest_side))
            image.save(file.file, **JPEG_OPTIONS)
        yield Renditions(suffix, width, height, display, thumbnail)


def decode(original):
    """Return the suffix and the size of a picture, upright, and the picture at DISPLAY_SIZE."""
    try:
        with Image.open(original, formats=tuple(FORMATS)) as image:
            # Pillow finds MPO, a JPEG with more pictures behind it, by itself among the JPEGs.
            image_format = "JPEG" if image.format == "MPO" else image.format
            return FORMATS[image_format], upright_size(image), scaled_down(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValidationError(
            f"This picture has too many pixels; {settings.PICTURE_MAX_PIXELS / 1e6:g} million "
            "are allowed.",
            code="too_many_pixels",
        ) from error
    except Exception as error:
        # A file that is none of the formats, or is damaged, makes Pillow raise nearly anything;
        # only what the disk could not do carries an error number.
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValidationError(
            f"This file is not a picture, or not a whole one; {FORMAT_NAMES} files are allowed.",
            code="not_an_image",
        ) from error


def upright_size(image):
    width, height = image.size
    if image.getexif().get(ExifTags.Base.Orientation) in TRANSPOSED:
        return height, width
    return width, height


def scaled_down(image):
    """Decode a picture whole, and return it upright, opaque, and at most DISPLAY_SIZE large."""
    scale = min(1, DISPLAY_SIZE / max(image.size))
    # A JPEG decodes in half the time or less if it is told the size that will do.
    image.draft("RGB", tuple(ceil(side * scale) for side in image.size))
    if image.mode in {"1", "P"}:
        image = image.convert("RGBA")  # these modes cannot be interpolated
    image.thumbnail((DISPLAY_SIZE, DISPLAY_SIZE))
    ImageOps.exif_transpose(image, in_place=True)
    return flattened(image)


def flattened(image):
    """Return a picture in RGB, on white where it is transparent, and without its metadata."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.convert("RGBA") if image.has_transparency_data else None)
    return canvas


def rendition_file():
    return TemporaryUploadedFile("rendition.jpg", "image/jpeg", 0, None)
