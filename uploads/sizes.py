"""The sizes of the renditions. Pages need them, but not Pillow."""

# The longest side of a rendition, in pixels. DISPLAY_SIZE fits a phone with three device pixels for
# each CSS pixel. THUMBNAIL_SIZE fits the narrowest column of the grid, on a screen with two.
DISPLAY_SIZE = 1600
THUMBNAIL_SIZE = 480


def fit(size, longest_side):
    """Return a size in the same proportion whose longest side is at most this, in pixels."""
    scale = min(1, longest_side / max(size))
    return tuple(max(1, round(side * scale)) for side in size)
