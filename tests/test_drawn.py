"""Compare the thumbnails with what Chromium draws of the same files."""

import base64
from math import dist

from PIL import Image, ImageCms

from .browser import BrowserTestCase
from .cases import RenderTestCase
from .samples import SAMPLES
from .servers import requires

SIDE = 24  # pixels of the pictures that are compared
# How much the colours may differ on average, in CIE76 Delta E.
SDR, HDR = 2, 6

DRAW = """
    const [content, side, done] = arguments;
    const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
    createImageBitmap(new Blob([bytes])).then(bitmap => {
        const canvas = new OffscreenCanvas(side, side).getContext('2d');
        canvas.fillStyle = 'white';
        canvas.fillRect(0, 0, side, side);
        canvas.imageSmoothingQuality = 'high';
        canvas.drawImage(bitmap, 0, 0, side, side);
        const {data} = canvas.getImageData(0, 0, side, side);
        done([bitmap.width, bitmap.height, [...data]]);
    }, () => done(null));
"""


def to_lab(image):
    """Return the L, a and b of each pixel of an image in sRGB."""
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    data = ImageCms.profileToProfile(image, *profiles, outputMode="LAB").tobytes()
    return [
        (lightness * 100 / 255, (a ^ 128) - 128, (b ^ 128) - 128)
        for lightness, a, b in zip(data[::3], data[1::3], data[2::3], strict=True)
    ]


def delta_e(image, other):
    """Return the mean distance of two images' colours."""
    distances = [dist(one, two) for one, two in zip(to_lab(image), to_lab(other), strict=True)]
    return sum(distances) / len(distances)


@requires("avifenc")
class DrawnTests(RenderTestCase, BrowserTestCase):
    def draw(self, content):
        """Return the size of a file's picture, and the picture on a small canvas, as drawn."""
        content = base64.b64encode(content).decode()
        *size, data = self.browser.execute_async_script(DRAW, content, SIDE)
        return tuple(size), Image.frombytes("RGBA", (SIDE, SIDE), bytes(data)).convert("RGB")

    def test_a_thumbnail_looks_as_the_browser_draws_the_file(self):
        for name, make in SAMPLES.items():
            with self.subTest(name):
                content = make()
                size, drawn = self.draw(content)
                original, _, thumbnail = self.render(content)
                shown = thumbnail.resize((SIDE, SIDE), Image.Resampling.BOX)
                self.assertEqual((original.width, original.height), size)
                self.assertLess(delta_e(drawn, shown), HDR if name.endswith("HDR") else SDR)
