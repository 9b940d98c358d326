"""The settings of the app, with the limit on a file's size raised."""

from gourmious.settings import *  # noqa: F403

PICTURE_MAX_SIZE = 2**40
