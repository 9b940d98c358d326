"""The settings of the app, with an upload that stores the file, of any size, and does no more."""

from .settings_size import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.urls"
