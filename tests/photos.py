"""Photos for the tests. Noise does not compress, so that they are as large as a phone's."""

from io import BytesIO
from os import urandom

from PIL import Image


def photo(width=640, height=480, image_format="JPEG", randbytes=urandom, **options):
    """Return the bytes of a noisy picture: about a byte a pixel as a JPEG of quality 90."""
    return encoded(noise(width, height, randbytes), image_format, **{"quality": 90, **options})


def noise(width, height, randbytes=urandom):
    return Image.frombytes("RGB", (width, height), randbytes(width * height * 3))


def encoded(image, image_format="JPEG", **options):
    content = BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()
