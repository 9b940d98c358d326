"""Photos for the tests. Noise does not compress, so that they are as large as a phone's."""

from io import BytesIO
from operator import add
from os import urandom
from struct import pack

import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()


def photo(width=640, height=480, image_format="JPEG", randbytes=urandom, **options):
    """Return the bytes of a noisy picture: about a byte a pixel as a JPEG of quality 90."""
    return encoded(noise(width, height, randbytes), image_format, **{"quality": 90, **options})


def photo_of_megabytes():
    """Return a photo of four megabytes with few pixels: it is quickly made and rendered."""
    return photo(1200, 900, quality=100, subsampling=0)


def noise(width, height, randbytes=urandom):
    return Image.frombytes("RGB", (width, height), randbytes(width * height * 3))


def huge_photo(width, height):
    """Return a baseline JPEG in which each row of blocks is a copy of the first.

    The sides are multiples of 16. It is put together of bytes: an encoder needs all its pixels.
    """
    row = noise(width // 8, 2).resize((width, 16))
    content = encoded(row, quality=60, restart_marker_rows=1)
    start = content.rindex(b"\xff\xda") + 14
    head = content[:start].replace(pack(">HH", 16, width), pack(">HH", height, width))
    rows = [content[start:-2]] * (height // 16)
    restarts = [bytes((0xFF, 0xD0 + number % 8)) for number in range(len(rows) - 1)]
    return head + b"".join(map(add, rows, [*restarts, b"\xff\xd9"]))


def encoded(image, image_format="JPEG", **options):
    content = BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()
