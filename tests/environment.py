"""The settings, and deployconf's output, in another environment than that of the tests."""

import os
import re
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

SETTINGS = re.compile(r"(gourmious|tests)\.(.+\.)?settings")


def read_settings(**environment):
    """Return the settings as they are with this environment and no other."""
    module = environment.get("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    with patch.dict(os.environ, environment, clear=True), without_settings():
        return runpy.run_module(module)


@contextmanager
def without_settings():
    """Forget the imported settings during the block: an import reads them again."""
    imported = pop_settings()
    try:
        yield
    finally:
        pop_settings()
        sys.modules.update(imported)


def pop_settings():
    return {name: sys.modules.pop(name) for name in [*filter(SETTINGS.match, sys.modules)]}


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
    """Return what the command prints. A process of its own would take a second of a core."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    if not apps.ready:  # Some benchmarks need no Django otherwise.
        django.setup()
    output = StringIO()
    with settings_of(**{**os.environ, **environment}):
        call_command("deployconf", *arguments, stdout=output)
    return output.getvalue()
