"""The settings of a site whose environment is another than that of the tests."""

import os
import runpy
import sys
from contextlib import contextmanager
from io import StringIO
from unittest.mock import patch

import django
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings


def read_settings(**environment):
    """Return the settings as they are with this environment and no other."""
    with patch.dict(os.environ, environment, clear=True), patch.dict(sys.modules):
        # Other settings than gourmious.settings import all of those.
        sys.modules.pop("gourmious.settings", None)
        return runpy.run_module(environment.get("DJANGO_SETTINGS_MODULE", "gourmious.settings"))


@contextmanager
def settings_of(**environment):
    """Let Django use the settings of this environment, except its databases, during the block.

    Django cannot change its databases: what needs others runs in a process of its own.
    """
    new = read_settings(**environment)
    names = {name for name in new if name.isupper()} - {"DATABASES"}
    changed = {name: new[name] for name in names if new[name] != getattr(settings, name, None)}
    with override_settings(**changed):
        yield


def deployconf(*arguments, **environment):
    """Return what the command prints, without the second that a process of its own would take."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    if not apps.ready:  # Some benchmarks need no Django otherwise.
        django.setup()
    output = StringIO()
    with settings_of(**{**os.environ, **environment}):
        call_command("deployconf", *arguments, stdout=output)
    return output.getvalue()
