"""The settings of the app, with an upload that stores the file and does no more."""

from gourmious.settings import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.urls"
