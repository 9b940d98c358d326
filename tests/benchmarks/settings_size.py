"""The settings of the app, for photos of any size."""

from gourmious.settings import *  # noqa: F403

PICTURE_MAX_SIZE = UPLOAD_MAX_SIZE = 2**40
