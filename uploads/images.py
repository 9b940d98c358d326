"""Renditions: make the two JPEGs of a picture that the pages show."""

from io import BytesIO
from typing import NamedTuple

from PIL import Image
from PIL.ExifTags import Base as Tag

from .colours import to_srgb
from .decoder import decode, decoding
from .formats import BY_NAME
from .sizes import DISPLAY_SIZE, THUMBNAIL_SIZE, fit

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


class Original(NamedTuple):
    """The suffix of an original's format, and its size when it is turned upright, in pixels."""

    suffix: str
    width: int
    height: int


def render(image, display, thumbnail):
    """Write the renditions of an opened image to two paths, and return its Original.

    They are upright, opaque, in sRGB, and without metadata. Raise PictureError, code damaged or
    too_complex, and OSError if the disk fails.
    """
    with decoding():
        size, picture = load(image)
    write_jpeg(picture, display)
    # Shrink by a whole factor first: it takes half the time, and nobody sees a difference.
    small = picture.resize(fit(size, THUMBNAIL_SIZE), Image.Resampling.HAMMING, reducing_gap=1.5)
    write_jpeg(small, thumbnail)
    return Original(BY_NAME[image.format].suffix, *size)


def load(image):
    """Return the upright size of an image, and the image, upright and at DISPLAY_SIZE."""
    size = image.size
    image = decode(image, fit(size, DISPLAY_SIZE))
    picture = flatten(image, fit(size, DISPLAY_SIZE))

    orientation = get_orientation(image)
    if orientation > 1:
        picture = picture.transpose(TRANSPOSES[orientation])
    if orientation >= 5:  # on its side
        size = size[::-1]
    return size, picture


def get_orientation(image):
    """Return the orientation that must still be applied to a loaded image, or 1 for none.

    HEIC and TIFF need none: their decoders turn them upright.
    """
    try:
        orientation = image.getexif().get(Tag.Orientation)
    except Exception:  # noqa: BLE001
        return 1  # The EXIF data of a good picture may be damaged.
    return orientation if orientation in TRANSPOSES else 1


def flatten(image, size):
    """Return an image at this size, in sRGB, on white, and without the metadata of its file."""
    # HAMMING shrinks as smoothly as BICUBIC, in half the time.
    small = shrink(image).resize(size, Image.Resampling.HAMMING)
    alpha = small.convert("RGBA").getchannel("A") if small.has_transparency_data else None
    canvas = Image.new("RGB", small.size, "white")
    canvas.paste(to_srgb(small, image.info["colours"]), mask=alpha)
    return canvas


def shrink(image):
    """Return a large image at two or three times DISPLAY_SIZE, in a mode that can be interpolated.

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
    if image.mode in {"1", "La"} and "transparency" not in image.info:
        return image.convert("L" if image.mode == "1" else "LA")
    if image.mode in {"1", "P", "PA", "RGBa"} or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def write_jpeg(image, path):
    # Encode into memory first: on a full disk Pillow would write a truncated file, and not raise.
    content = BytesIO()
    image.save(content, **JPEG_OPTIONS)
    with path.open("wb") as file:
        file.write(content.getbuffer())
