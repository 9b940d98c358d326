"""Settings for the tests of the disk. Uploads may fill all of it.

In the suite, the app waits less long for the database.
"""

import os

from tests.settings_small import *  # noqa: F403

UPLOAD_STALL_TIMEOUT = 60
MIN_FREE_SPACE = 1
if os.environ.get("TIMES", "1") == "1":
    DATABASES["default"]["OPTIONS"] = {"timeout": 3}  # noqa: F405
