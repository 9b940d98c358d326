"""The settings of an app that cannot be loaded."""

from gourmious.settings import *  # noqa: F403

ROOT_URLCONF = "tests.missing"
