"""Tests that only one run has: that with SQLite and local files, or that with PostgreSQL and S3."""

import os
import unittest

LOCAL = "It is tested with SQLite and local files."
POSTGRESQL = "It is tested with PostgreSQL."

local_only = unittest.skipIf(
    os.environ.keys() & {"GOURMIOUS_DATABASE_URL", "GOURMIOUS_S3_ENDPOINT"}, LOCAL
)
postgresql_only = unittest.skipUnless("GOURMIOUS_DATABASE_URL" in os.environ, POSTGRESQL)
