#!/usr/bin/env python
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    try:
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, OperationalError, OSError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(describe(error))


def describe(error):
    """Return an operator's error as a sentence."""
    if isinstance(error, OperationalError):
        return f"The database cannot be used: {error}."
    if isinstance(error, OSError):
        return f"A file or the store cannot be used: {error}."
    return str(error)


if __name__ == "__main__":
    main()
