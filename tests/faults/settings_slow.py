"""Settings for the tests of slow uploads: they are given up soon."""

from gourmious.settings import *  # noqa: F403

UPLOAD_SPEED_PERIOD = 2
