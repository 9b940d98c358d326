"""Photos like a camera's: noise, as the tests have it, is no natural work for a decoder."""

import random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

# How strong the noise is, by the size of its grains in pixels: light and shade, textures, and what
# a sensor leaves.
CONTRASTS = {256: 40, 64: 30, 16: 20, 4: 10, 1: 7}
SHAPES = 60


def lifelike_photo(width, height):
    """Return an image of coloured shapes with textures: as a JPEG of quality 90, 2 bits a pixel."""
    textures = draw_textures((width, height))
    return ImageChops.overlay(draw_shapes((width, height)), Image.merge("RGB", 3 * [textures]))


def draw_shapes(size):
    """Return overlapping ellipses before a gradient; their edges are as sharp as a lens is."""
    gradients = [Image.linear_gradient("L").rotate(angle).resize(size) for angle in (0, 90, 180)]
    image = Image.merge("RGB", gradients)
    draw, numbers, (width, height) = ImageDraw.Draw(image), random.Random(1), size
    for _ in range(SHAPES):
        x, y = numbers.randrange(width), numbers.randrange(height)
        radius = numbers.randrange(width // 100, width // 8)
        box = x - radius, y - radius // 2, x + radius, y + radius // 2
        draw.ellipse(box, tuple(numbers.randrange(40, 230) for _ in range(3)))
    return image.filter(ImageFilter.GaussianBlur(1))


def draw_textures(size):
    """Return a grey image with noise of several sizes, as nature has it."""
    image = Image.new("L", size, 128)
    for grain, contrast in CONTRASTS.items():
        small = tuple(side // grain for side in size)
        noise = Image.effect_noise(small, contrast).resize(size, Image.Resampling.BICUBIC)
        image = ImageChops.add(image, noise, 1, -128)
    return image
