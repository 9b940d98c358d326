"""ICC profiles for the tests: red, green and blue as a matrix, and one curve for all three."""

from struct import pack

# Red, green and blue as XYZ, adapted to the white of profiles, D50.
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
D50 = (0.9642, 1.0, 0.8249)

SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
ADOBE_CURVE = (563 / 256,)


def fixed(*numbers):
    return b"".join(pack(">i", round(number * 65536)) for number in numbers)


def xyz(*numbers):
    return b"XYZ \0\0\0\0" + fixed(*numbers)


def curve(parameters):
    """Return a gamma, or with five parameters a gamma with a straight foot."""
    kind = 3 if len(parameters) == 5 else 0
    return b"para\0\0\0\0" + pack(">HH", kind, 0) + fixed(*parameters)


def profile(colorants, parameters):
    """Return the bytes of a profile for RGB (ICC.1:2010)."""
    tags = {}
    for name, colorant in zip((b"r", b"g", b"b"), colorants, strict=True):
        tags[name + b"XYZ"] = xyz(*colorant)
        tags[name + b"TRC"] = curve(parameters)
    return build(b"RGB ", tags)


def grey_profile(parameters):
    return build(b"GRAY", {b"kTRC": curve(parameters)})


def build(space, tags):
    description = b"mluc\0\0\0\0" + pack(">II2s2sII", 1, 12, b"en", b"US", 8, 28)
    description += "Test".encode("utf-16-be")
    tags = {b"desc": description, b"cprt": description, b"wtpt": xyz(*D50), **tags}

    table, data = pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += pack(">4sII", name, start + len(data), len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")

    header = pack(
        ">I4xI4s4s4s12x4s", start + len(data), 0x04300000, b"mntr", space, b"XYZ ", b"acsp"
    )
    header = header.ljust(68, b"\0") + fixed(*D50)
    return header.ljust(128, b"\0") + table + data
