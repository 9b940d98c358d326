"""The promises of the app, written out: the tests compare the app with them."""

# The codes of refusals: the status, and whether trying again may help.
REFUSALS = {
    "no_picture": (400, False),
    "bad_progress_id": (400, False),
    "too_many": (400, False),
    "bad_caption": (400, False),
    "bad_request": (400, False),
    "interrupted": (400, True),
    "csrf": (403, False),
    "over_quota": (403, False),
    "hidden": (403, False),
    "unknown_dish": (404, False),
    "too_slow": (408, True),
    "cancelled": (409, False),
    "no_length": (411, False),
    "too_large": (413, False),
    "empty_file": (415, False),
    "not_an_image": (415, False),
    "other_format": (415, False),
    "damaged": (415, False),
    "too_many_pixels": (415, False),
    "extra_data": (415, False),
    "too_complex": (415, False),
    "busy": (429, True),
    "server_error": (500, True),
    "storage_full": (507, True),
}

# The formats that are accepted, by Pillow's names: the suffix of an original, and its most pixels.
FORMATS = {
    "JPEG": (".jpg", 250_000_000),
    "PNG": (".png", 100_000_000),
    "WEBP": (".webp", 50_000_000),
    "AVIF": (".avif", 70_000_000),
    "GIF": (".gif", 100_000_000),
    "TIFF": (".tif", 100_000_000),
    "BMP": (".bmp", 100_000_000),
    "HEIF": (".heic", 100_000_000),
}

RECORD_LIFETIME = 120  # seconds that the record of an upload may outlive a process that was killed
