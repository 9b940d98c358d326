"""Tests of what only SQLite and local files have. The first of the two runs has them."""

import os
import unittest

LOCAL = "It is tested with SQLite and local files."

local_only = unittest.skipIf(
    os.environ.keys() & {"GOURMIOUS_DATABASE_URL", "GOURMIOUS_S3_ENDPOINT"}, LOCAL
)
