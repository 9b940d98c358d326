"""The settings of the app, with limits that the tests soon reach."""

from gourmious.settings import *  # noqa: F403

PICTURE_MAX_SIZE = 2 * 2**20
UPLOAD_MAX_SIZE = 8 * 2**20
UPLOAD_STALL_TIMEOUT = 3
PROGRESS_POLL_INTERVAL = 100
