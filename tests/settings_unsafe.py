"""The settings of an app that the checks for a deployment refuse."""

from gourmious.settings import *  # noqa: F403

SECURE_REFERRER_POLICY = "anything"
