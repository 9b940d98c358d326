from django.test import SimpleTestCase

from uploads.formats import BY_NAME, LABELS, OTHER_KINDS, SIGNATURE_LENGTH, identify

from .contract import FORMATS
from .photos import photo

# How files of other kinds begin.
OTHERS = {
    "Camera raw": (b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx ", b"FUJIFILMCCD-RAW "),
    "JPEG XL": (b"\xff\x0a\xfa\x1f\x01\x91\x08\x06\x01", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "JPEG 2000": (b"\xff\x4f\xff\x51\0\x2f", b"\0\0\0\x0cjP  \r\n\x87\n"),
    "PSD": (b"8BPS\0\1\0\0\0\0\0\0\0\3\0\0",),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",),
    "SVG": (b"<svg xmlns='http", b"\xef\xbb\xbf\n <svg>", b"<!DOCTYPE svg PU"),
    "XML": (b"<?xml version='1",),
    "Video": (
        b"\0\0\0\x20ftypisom\0\0\2\0",
        b"\0\0\0\x14ftypqt  \0\0\0\0",
        b"\0\0\0\x20ftypmp42\0\0\0\0",
        b"\0\0\0\x08wide\0\x01\x02\x03mdat",
        b"\x1aE\xdf\xa3\x9fB\x86\x81",
        b"RIFF\0\0\1\0AVI LIST",
        b"\0\0\1\xba\x44\0\4\0",
        b"FLV\1\5\0\0\0\x09",
    ),
}


class IdentifyTests(SimpleTestCase):
    def test_every_format_is_told_from_its_first_bytes(self):
        for name in FORMATS:
            with self.subTest(name):
                kind = identify(photo(60, 40, name)[:SIGNATURE_LENGTH])
                self.assertEqual(kind, BY_NAME[name])

    def test_a_heic_or_avif_may_begin_with_the_brand_of_any_such_picture(self):
        for brand in (b"mif1", b"msf1", b"avis", b"heix", b"hevc", b"heim", b"heis"):
            with self.subTest(brand):
                kind = identify(b"\0\0\0\x1cftyp" + brand + bytes(4))
                self.assertIn(kind.label, {"AVIF", "HEIC"})

    def test_other_kinds_of_files_are_told_by_name(self):
        self.assertEqual({kind.label for kind in OTHER_KINDS}, set(OTHERS))
        for label, beginnings in OTHERS.items():
            for first_bytes in beginnings:
                with self.subTest(first_bytes):
                    self.assertEqual(identify(first_bytes).label, label)

    def test_anything_else_is_unknown(self):
        for first_bytes in (b"", b"A text of a few", b"BM is no picture", bytes(16), b"\xff\xd8"):
            with self.subTest(first_bytes):
                self.assertIsNone(identify(first_bytes))

    def test_the_formats_are_listed_for_sentences(self):
        self.assertEqual(LABELS, "JPEG, PNG, WebP, AVIF, GIF, TIFF, BMP and HEIC")
