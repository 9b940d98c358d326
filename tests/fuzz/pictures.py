"""Upload thousands of damaged pictures, and check each answer and the files that stay.

    INPUTS=20000 SEED=1 python manage.py test tests.fuzz.pictures

Each input is a picture in one of the formats. Some of its bytes are changed, cut out, doubled or
replaced by bytes of another picture. The answer must keep the contract, and a refusal must leave no
file.
"""

import os
import random
import time
from collections import Counter, defaultdict
from xml.etree import ElementTree

from PIL import Image

from tests.base import UploadTestCase, upload_file
from tests.bombs import SHORT
from tests.contract import REFUSALS
from tests.photos import encoded, noise
from tests.samples import P3_PROFILE, SAMPLES, exif, heic_with_nclx
from tests.test_tiff import EXTRA, PALETTE, SUBFILE_TYPE, tiff_of
from uploads.formats import NAMES, identify

INPUTS = int(os.environ.get("INPUTS", "2000"))
SEED = int(os.environ.get("SEED", time.time_ns() % 2**32))


def make_pictures(rng):
    """Return pictures in each format, as pairs of a format and bytes."""
    image = noise(48, 32, rng.randbytes)
    kept = {"exif": exif(6), "icc_profile": P3_PROFILE}
    contents = (
        *(encoded(image, name) for name in NAMES),
        *(encoded(image, name, **kept) for name in NAMES if name not in {"GIF", "BMP"}),
        *(make() for make in SAMPLES.values()),
        heic_with_nclx(image, 12, 13),
        heic_with_nclx(image, 9, 16),
        encoded(image)[:-2],
        encoded(Image.new("I;16", (48, 32), 999), "PNG"),
        *make_tiffs(image),
    )
    return [(identify(content).name, content) for content in contents]


def make_tiffs(image):
    """Generate TIFFs of the kinds that are decoded in ways of their own."""
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        yield encoded(image, "TIFF", compression=compression)
    yield encoded(Image.new("LAB", image.size), "TIFF")
    yield tiff_of(b"\x32\x80", [8, 8], tags={EXTRA: (SHORT, [1])})
    yield tiff_of(b"\x01", [8], 3, tags={PALETTE: (SHORT, range(768))})
    yield tiff_of(b"\x64\x64", [16], tags={SUBFILE_TYPE: 0})


def change(content, other, rng):
    """Return the content with one random change."""
    content = bytearray(content)
    # Half the changes are in the headers.
    end = len(content) if rng.random() < 0.5 else min(len(content), 256)
    start = rng.randrange(max(1, end))
    length = rng.choice((1, 1, 1, 2, 4, 16, 200))
    match rng.randrange(6):
        case 0:
            content[start : start + length] = rng.randbytes(length)
        case 1:
            content[start : start + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        case 2:
            del content[start : start + length]
        case 3:
            content[start:start] = content[start : start + length]
        case 4:
            place = rng.randrange(max(1, len(other)))
            content[start : start + length] = other[place : place + length]
        case 5:
            del content[rng.randrange(len(content) + 1) :]
    return bytes(content)


class PictureFuzz(UploadTestCase):
    def test_damaged_pictures_are_kept_or_refused(self):
        print(f"\n{INPUTS} inputs, SEED={SEED}")
        rng = random.Random(SEED)
        seeds = make_pictures(rng)
        outcomes, slowest = defaultdict(Counter), 0

        for number in range(INPUTS):
            name, content = seeds[number % len(seeds)]
            for _ in range(rng.randrange(1, 5)):
                content = change(content, rng.choice(seeds)[1], rng)
            started = time.perf_counter()
            outcomes[name][self.check_outcome(number, content)] += 1
            slowest = max(slowest, time.perf_counter() - started)

        for name, counter in sorted(outcomes.items()):
            print(f"{name}: {dict(counter.most_common())}")
        print(f"The slowest took {1000 * slowest:.0f} ms.")

    def check_outcome(self, number, content):
        """Upload the content, check the answer and the files, and return its status or code."""
        response = self.post(upload_file(content, f"{number}.jpg"))
        upload = ElementTree.fromstring(response.content)
        self.assertEqual(response["Content-Type"], "application/xml")
        if response.status_code == 200:
            self.assertEqual(upload.findtext("status"), "ok")
            self.assertEqual(len(self.files()), 3)
            with self.captureOnCommitCallbacks(execute=True):
                self.dish.pictures.all().delete()
            return "ok"
        code = upload.find("error").get("code")
        self.assertNotEqual(code, "server_error", f"Input {number} of SEED={SEED}")
        self.assertEqual(response.status_code, REFUSALS[code][0])
        self.assertEqual(self.files(), [])
        return code
