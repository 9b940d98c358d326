"""The formats of pictures that are accepted, and other kinds of files that a refusal can name."""

import re
from typing import NamedTuple

# How many of a file's first bytes tell its format.
SIGNATURE_LENGTH = 16

# Files that may be animated, by as many of their first bytes: GIF, WebP with the flag of animations
# in VP8X, PNG with an acTL chunk, and sequences of AVIF and HEIC.
ANIMATED_LENGTH = 2**16
ANIMATED = (
    r"GIF8|RIFF.{4}WEBPVP8X.{4}[\x02\x06\n\x0e\x12\x16\x1a\x1e\x22&*.26:>]"
    r"|\x89PNG.*acTL|.{4}ftyp(?:avis|msf1|hev[cx])"
)


class Format(NamedTuple):
    """A format that is accepted.

    Its decoder can hold `max_pixels` in 1 GiB, in the variants that cameras write. A variant that
    needs more memory, such as a progressive JPEG without subsampling, is refused at fewer pixels.

    A signature is a regular expression for a file's first bytes, decoded as Latin-1. The page uses
    the same expressions, so Python and JavaScript must read them alike.
    """

    label: str  # for sentences
    signature: str
    name: str  # Pillow's
    suffix: str
    media_types: str
    max_pixels: int


class OtherKind(NamedTuple):
    """A kind of file that is not accepted."""

    label: str
    signature: str


# fmt: off
FORMATS = (
    Format("JPEG", r"\xff\xd8\xff", "JPEG", ".jpg", "image/jpeg", 250_000_000),
    Format("PNG", r"\x89PNG\r\n\x1a\n", "PNG", ".png", "image/png", 100_000_000),
    Format("WebP", r"RIFF.{4}WEBP", "WEBP", ".webp", "image/webp", 50_000_000),
    # HEIC shares the brands mif1 and msf1; Pillow tells them apart.
    Format("AVIF", r".{4}ftyp(?:avi[fs]|m[is]f1)", "AVIF", ".avif", "image/avif", 70_000_000),
    Format("GIF", r"GIF8[79]a", "GIF", ".gif", "image/gif", 100_000_000),
    Format("TIFF", r"II[*+]\x00|MM\x00[*+]", "TIFF", ".tif", "image/tiff", 100_000_000),
    Format("BMP", r"BM.{12}[\x0c(48@l|]\x00", "BMP", ".bmp", "image/bmp", 100_000_000),
    Format("HEIC", r".{4}ftyphe[iv][cmsx]", "HEIF", ".heic", "image/heic,image/heif", 100_000_000),
)
OTHER_KINDS = (
    OtherKind("Camera raw", r"II\*\x00.{4}CR|.{4}ftypcrx |FUJIFILM|IIR[OS]|MMOR|IIU\x00"),
    OtherKind("JPEG XL", r"\xff\x0a|\x00{3}\x0cJXL "),
    OtherKind("JPEG 2000", r"\xff\x4f\xff\x51|\x00{3}\x0cjP  "),
    OtherKind("PSD", r"8BPS"),
    OtherKind("PDF", r"%PDF-"),
    OtherKind("SVG", r"(?:\xef\xbb\xbf)?[\t\n\r ]*<(?:svg|!DOCTYPE svg)"),
    OtherKind("XML", r"(?:\xef\xbb\xbf)?[\t\n\r ]*<\?xml"),
    OtherKind(
        "Video",
        r".{4}(?:ftyp(?:iso|mp4|avc1|qt  |M4V|3g|MSNV|dash|f4v)|moov|mdat|wide)"
        r"|\x1aE\xdf\xa3|RIFF.{4}AVI |\x00{2}\x01[\xb3\xba]|FLV\x01",
    ),
)
# fmt: on
# A camera's raw file may begin like a TIFF.
KINDS = (*OTHER_KINDS, *FORMATS)

NAMES = tuple(image_format.name for image_format in FORMATS)
BY_NAME = {image_format.name: image_format for image_format in FORMATS}
# The suffixes as well: not every system knows every media type.
ACCEPT = ",".join(f"{image_format.media_types},{image_format.suffix}" for image_format in FORMATS)
LABELS = " and ".join(
    [", ".join(image_format.label for image_format in FORMATS[:-1]), FORMATS[-1].label]
)


def identify(first_bytes):
    """Return the Format or the OtherKind of a file that begins with these bytes, or None."""
    text = first_bytes[:SIGNATURE_LENGTH].decode("latin-1")
    for kind in KINDS:
        if re.match(kind.signature, text, re.DOTALL):
            return kind
    return None
