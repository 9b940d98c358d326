from io import BytesIO
from struct import pack
from zlib import crc32

from django.test import SimpleTestCase
from PIL import Image

from uploads.bombs import is_bomb

from .photos import encoded, noise, photo

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
STRIP_OFFSETS, TILE_OFFSETS, X_RESOLUTION, XMP, EXIF, GPS = 273, 324, 282, 700, 34665, 34853


def exif():
    """Return EXIF data with directories of its own."""
    data = Image.Exif()
    data.get_ifd(EXIF)[0x9003] = "2026:11:24 12:00:00"
    data.get_ifd(GPS)[2] = (48.0, 51.0, 24.0)
    return data


def directory(*entries, order="<", big=False):
    """Return a TIFF's directory; an entry is a tag, a type, a count, and a value or its place."""
    number, entry = ("Q", "HHQQ") if big else ("H", "HHLL")
    return pack(order + number, len(entries)) + b"".join(
        pack(order + entry, *values) for values in entries
    )


def tiff(*entries, within=b"", **layout):
    """Return a TIFF of ten million bytes, with these entries, and with a directory at 1000."""
    order, big = layout.get("order", "<"), layout.get("big")
    start = pack(order + "HHHQ", 43, 8, 0, 16) if big else pack(order + "HL", 42, 8)
    content = (b"II" if order == "<" else b"MM") + start + directory(*entries, **layout)
    return (content.ljust(1000, b"\0") + within).ljust(10_000_000, b"\0")


class BombTestCase(SimpleTestCase):
    def assert_bomb(self, content):
        self.assertTrue(is_bomb(BytesIO(content)))

    def assert_honest(self, content):
        self.assertFalse(is_bomb(BytesIO(content)))


class JPEGTests(BombTestCase):
    def test_a_thousand_scans_are_a_bomb(self):
        content = encoded(Image.new("L", (64, 64)), progressive=True)
        scan = content.rindex(b"\xff\xda")

        self.assert_honest(content)
        self.assert_bomb(content[:-2] + content[scan:-2] * 1000 + content[-2:])

    def test_so_are_a_million_segments(self):
        content = encoded(Image.new("L", (64, 64)))

        self.assert_bomb(content[:2] + b"\xff\xfe\0\x02" * 1_000_000 + content[2:])

    def test_scans_cannot_hide_behind_a_marker_without_a_segment(self):
        content = encoded(Image.new("L", (64, 64)), progressive=True)
        scan = content[content.rindex(b"\xff\xda") : -2]

        self.assert_bomb(content[:-2] + (b"\xff\x01" + scan) * 100 + content[-2:])

    def test_megabytes_between_the_segments_are_a_bomb(self):
        content = photo(60, 40)
        for fill in (b"\xff", b"\xff\xd0", b"x"):
            with self.subTest(fill):
                self.assert_bomb(content[:2] + fill * 100_000 + content[2:])
                self.assert_honest(content[:2] + b"\xff" * 100 + content[2:])

    def test_exif_data_in_ten_thousand_segments_is_a_bomb(self):
        segment = b"\xff\xe1" + pack(">H", 108) + b"Exif\0\0" + bytes(100)
        content = photo(60, 40)

        self.assert_bomb(content[:2] + segment * 10_000 + content[2:])

    def test_so_is_exif_data_of_megabytes_but_no_other_data_of_an_application(self):
        content = photo(60, 40)
        for start in (b"Exif\0\0", b"http://ns.adobe.com/xmp/extension/\0", b"MPF\0"):
            segment = b"\xff\xe1" + pack(">H", 65_002) + start.ljust(65_000, b"\0")
            with self.subTest(start):
                self.assert_honest(content[:2] + segment + content[2:])
                many = BytesIO(content[:2] + segment * 10 + content[2:])
                self.assertEqual(is_bomb(many), start == b"Exif\0\0")

    def test_what_encoders_write_is_none(self):
        image = noise(200, 100)
        for options in (
            {"progressive": True, "optimize": True},
            {"restart_marker_blocks": 1},
            {"restart_marker_rows": 1},
            {"subsampling": "4:4:4", "quality": 100},
            {"quality": 1},
            {"icc_profile": bytes(2_000_000)},
            {"comment": b"\xff\xda" * 20_000},
        ):
            with self.subTest(options):
                self.assert_honest(encoded(image, **options))

    def test_what_follows_the_picture_is_not_counted(self):
        film = b"\xff\xda" * 1000

        self.assert_honest(photo(60, 40) + film)


class PNGTests(BombTestCase):
    def test_a_million_chunks_are_a_bomb(self):
        chunk = b"\0\0\0\0prIv" + pack(">I", crc32(b"prIv"))
        content = photo(60, 40, "PNG")

        self.assert_bomb(content[:33] + chunk * 1_000_000 + content[33:])
        self.assert_bomb(content[:-12] + chunk * 1_000_000 + content[-12:])
        self.assert_honest(content[:33] + chunk * 1000 + content[33:])

    def test_what_follows_the_picture_is_not_counted(self):
        self.assert_honest(photo(60, 40, "PNG") + bytes(1_000_000))


class GIFTests(BombTestCase):
    def with_extra(self, extra):
        """Return a GIF with this before its picture."""
        content = encoded(noise(60, 40).quantize(4), "GIF")
        place = content.index(b",", 13 + 3 * 4)
        return content[:place] + extra + content[place:]

    def test_megabytes_before_the_picture_are_a_bomb(self):
        self.assert_bomb(self.with_extra(b"x" * 100_000))
        self.assert_honest(self.with_extra(b"x" * 1000))

    def test_so_are_a_hundred_thousand_blocks_however_they_are_hidden(self):
        for start in (
            b"!\xfe",
            b"!\xff\x0bNETSCAPE2.0",
            b"!\x01\0\x01",  # Pillow takes the end of what is empty for its beginning.
            b"!\xff\x0bNETSCAPE2.0\0\x01",
            b"!\xfe\0!\xf9",
        ):
            with self.subTest(start):
                self.assert_bomb(self.with_extra(start + b"\1," * 100_000 + b"\0"))

    def test_a_megabyte_of_metadata_is_none(self):
        self.assert_honest(encoded(noise(60, 40), "GIF", comment=bytes(1_000_000)))


class TIFFTests(BombTestCase):
    def test_a_million_strips_or_tiles_are_a_bomb(self):
        for tag in (STRIP_OFFSETS, TILE_OFFSETS):
            for kind in (BYTE, ASCII, SHORT, LONG, UNDEFINED):
                with self.subTest(tag=tag, kind=kind):
                    self.assert_bomb(tiff((tag, kind, 1_000_000, 0)))

    def test_so_they_are_in_a_bigtiff_and_in_the_other_order_of_bytes(self):
        for layout in ({"order": ">"}, {"big": True}):
            with self.subTest(layout):
                self.assert_bomb(tiff((STRIP_OFFSETS, LONG, 1_000_000, 0), **layout))
                self.assert_honest(tiff((STRIP_OFFSETS, LONG, 200_000, 0), **layout))

    def test_a_million_values_are_a_bomb_wherever_they_are(self):
        within = directory((2, RATIONAL, 1_000_000, 0))

        self.assert_bomb(tiff((X_RESOLUTION, RATIONAL, 1_000_000, 0)))
        self.assert_bomb(tiff((EXIF, LONG, 1, 1000), within=within))

    def test_a_directory_whose_place_cannot_be_told_is_refused(self):
        for entry in ((GPS, SHORT, 1, 1000), (GPS, LONG, 2, 1000)):
            with self.subTest(entry), self.assertRaises(KeyError):
                self.assert_honest(tiff(entry))

    def test_a_megabyte_of_a_text_is_none(self):
        self.assert_honest(tiff((XMP, BYTE, 1_000_000, 0)))

    def test_nor_is_what_pillow_skips_as_it_cannot_be_in_the_file(self):
        self.assert_honest(
            tiff((EXIF, LONG, 1, 1000), within=directory((2, RATIONAL, 2**32 - 1, 0)))
        )
        self.assert_honest(tiff((EXIF, LONG, 1, 2**31)))

    def test_ten_thousand_strips_whose_bits_run_backwards_are_a_bomb(self):
        strips = (STRIP_OFFSETS, LONG, 10_000, 0)

        self.assert_honest(tiff(strips, (266, SHORT, 1, 1)))
        self.assert_bomb(tiff((266, SHORT, 1, 2), strips))
        self.assert_bomb(tiff((266, SHORT, 1, 2 << 16), strips, order=">"))

    def test_more_directories_or_entries_than_pillow_looks_at_are_refused(self):
        circle = tiff((EXIF, LONG, 1, 8))
        for content in (circle, b"II+\0" + pack("<HHQQ", 8, 0, 16, 2**60)):
            with self.subTest(content[:2]), self.assertRaises(ValueError):
                self.assert_honest(content)

    def test_what_encoders_write_is_none(self):
        for options in ({}, {"compression": "tiff_lzw"}, {"big_tiff": True}, {"exif": exif()}):
            with self.subTest(options):
                self.assert_honest(encoded(noise(200, 100), "TIFF", **options))


def box(name, content):
    return pack(">L4s", 8 + len(content), name) + content


def heif(items, *references, wide=False, extra=b""):
    """Return a HEIC file's boxes about its items, by number, which are so many pixels long.

    A reference is the number of a grid and those of its tiles. A wide file has larger numbers.
    """
    version, code = (b"\1\0\0\1", "L") if wide else (bytes(4), "H")
    sides = sorted(set(items.values()))
    sizes = b"".join(box(b"ispe", pack(">LLL", 0, side, side)) for side in sides)
    index_code, must_know = ("H", 0x8001) if wide else ("B", 0x81)
    properties = b"".join(
        pack(f">{code}B{index_code}", item, 1, must_know + sides.index(side))
        for item, side in items.items()
    )
    grids = b"".join(
        box(b"dimg", pack(f">{code}H{len(tiles)}{code}", grid, len(tiles), *tiles))
        for grid, *tiles in references
    )
    ipma = box(b"ipma", version + pack(">L", len(items)) + properties)
    iprp = box(b"iprp", box(b"ipco", sizes) + ipma)
    meta = bytes(4) + box(b"iref", version + grids) + iprp + extra
    return box(b"ftyp", b"heic" + bytes(4)) + box(b"meta", meta)


class HEIFTests(BombTestCase):
    def test_a_grid_that_names_a_large_tile_a_thousand_times_is_a_bomb(self):
        for wide in (False, True):
            with self.subTest(wide=wide):
                tiles = [2] * 1000
                self.assert_bomb(heif({1: 64, 2: 4096}, (1, *tiles), wide=wide))
                self.assert_honest(heif({1: 64, 2: 256}, (1, *tiles), wide=wide))

    def test_a_grid_of_grids_is_counted_with_all_its_tiles(self):
        grids = (1, *[2] * 50), (2, *[3] * 50)

        self.assert_bomb(heif({1: 64, 2: 64, 3: 512}, *grids))
        self.assert_honest(heif({1: 64, 2: 64, 3: 64}, *grids))

    def test_a_phones_grids_are_none(self):
        tiles, map_tiles = range(10, 202), range(300, 348)
        items = {1: 6998, 2: 3499, 3: 6998} | dict.fromkeys((*tiles, *map_tiles), 512)

        self.assert_honest(heif(items, (1, *tiles), (2, *map_tiles), (3, 1, 2)))

    def test_tiles_that_cannot_be_told_plainly_are_refused(self):
        sides = {1: 64, 2: 64}
        for content in (
            heif({1: 64}, (1, 2)),  # a tile without a size
            heif(sides, (1, 2), (2, 1)),
            heif(sides, (1, 2), extra=box(b"iprp", b"")),
            heif(sides, (1, 2), extra=box(b"iref", bytes(4))),
        ):
            with self.subTest(content), self.assertRaises((KeyError, RecursionError, ValueError)):
                is_bomb(BytesIO(content))

    def test_boxes_that_cannot_be_told_plainly_are_refused(self):
        grid = heif({1: 64, 2: 64}, (1, 2))
        for content in (
            grid + box(b"meta", bytes(4)),
            grid + pack(">L4sQ", 1, b"mdat", 20) + bytes(4) + box(b"meta", bytes(4)),
            grid + box(b"free", b"") * 1000,
            grid + box(b"mdat", b"")[:3] + b"\2name",
            grid.replace(b"iref", b"IREF", 1) + box(b"meta", bytes(2**20 + 1)),
        ):
            with self.subTest(content[-30:]), self.assertRaises(ValueError):
                is_bomb(BytesIO(content))

    def test_what_encoders_write_is_none(self):
        for name in ("HEIF", "AVIF"):
            with self.subTest(name):
                content = photo(200, 100, name)
                for end in (b"", b"x", bytes(100), pack(">L4s", 0, b"mdat") + b"xyz"):
                    self.assert_honest(content + end)

    def test_what_names_itself_an_avif_is_counted_all_the_same(self):
        self.assert_bomb(heif({1: 64, 2: 4096}, (1, *[2] * 50), extra=box(b"av01", b"")))

    def test_an_avif_that_is_composed_of_others_is_a_bomb(self):
        content = photo(200, 100, "AVIF")
        for kind in (b"grid", b"iovl", b"sato"):
            with self.subTest(kind):
                self.assert_bomb(content.replace(b"av01Color", b"av01" + kind + b"\0"))


FRAME = b"\x32\1\x10"


def avif(*units, version=0, method=0, parts=1):
    """Return an AVIF of one picture, whose units of AV1 are in so many parts."""
    data = b"".join(units)
    size = len(data) // parts
    entry = box(b"infe", pack(">LHH4s", 2 << 24, 1, 0, b"av01"))
    places = pack(">HH", method, 0)[0 if version else 2 :] + pack(">H", parts)
    for part in range(parts):
        places += pack(">LL", 24 + size * part, size)
    iloc = box(b"iloc", pack(">B3xBBH", version, 0x44, 0, 1) + pack(">H", 1) + places)
    meta = bytes(4) + box(b"iinf", bytes(4) + pack(">H", 1) + entry) + iloc
    return box(b"ftyp", b"avif" + bytes(4)) + box(b"mdat", data) + box(b"meta", meta)


class AVIFTests(BombTestCase):
    def test_a_picture_of_many_frames_is_a_bomb(self):
        for shape in ({}, {"version": 1}, {"parts": 2}):
            with self.subTest(shape):
                self.assert_honest(avif(*[FRAME] * 4, **shape))
                self.assert_bomb(avif(*[FRAME] * 10, **shape))

    def test_so_is_one_of_a_thousand_units(self):
        self.assert_bomb(avif(b"\x12\0" * 1001))

    def test_frames_are_counted_where_their_size_takes_more_bytes_than_it_needs(self):
        self.assert_bomb(avif(*[b"\x36\0\x81\0\x10"] * 10))

    def test_frames_larger_than_a_picture_may_be_are_a_bomb_whatever_the_file_says(self):
        image, other = noise(200, 100), noise(200, 100)
        frames = {"save_all": True, "append_images": [other] * 3}
        for content in (
            encoded(image, "AVIF"),
            encoded(image.convert("RGBA"), "AVIF"),
            encoded(image, "AVIF", **frames),
        ):
            with self.settings(PICTURE_MAX_PIXELS=20_000):
                self.assert_honest(content)
            with self.settings(PICTURE_MAX_PIXELS=19_999):
                self.assert_bomb(content)

    def test_megabytes_of_exif_data_are_refused(self):
        image, data = noise(60, 40), exif()
        self.assert_honest(encoded(image, "AVIF", exif=data.tobytes()))

        data[0x010F] = "x" * 300_000
        with self.assertRaises(ValueError):
            self.assert_honest(encoded(image, "AVIF", exif=data.tobytes()))

    def test_a_film_is_one_by_its_first_frame(self):
        content = encoded(noise(64, 64), "AVIF", save_all=True, append_images=[noise(64, 64)])
        meta, film = content.index(b"meta"), content.index(b"moov")

        with self.settings(PICTURE_MAX_PIXELS=64):
            self.assert_bomb(content[:meta] + b"free" + content[meta + 4 :])
            self.assert_honest(content[:meta] + b"free" + content[meta + 4 : film] + b"free")

    def test_what_cannot_be_told_plainly_is_refused(self):
        for content in (
            avif(FRAME, method=1, version=1),
            avif(FRAME, parts=3),
            avif(b"\x30" + FRAME),  # without a size
            avif(FRAME[:-1]),
            avif(FRAME).replace(b"iloc", b"free", 1),
        ):
            with self.subTest(content[24:40]), self.assertRaises((KeyError, ValueError)):
                is_bomb(BytesIO(content))
