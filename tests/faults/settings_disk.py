"""The settings of the app for a small disk; in the suite it waits less long for the database."""

import os

from tests.settings_small import *  # noqa: F403

UPLOAD_STALL_TIMEOUT = 60
if os.environ.get("TIMES", "1") == "1":
    DATABASES["default"]["OPTIONS"]["timeout"] = 3  # noqa: F405
