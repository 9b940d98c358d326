#!/usr/bin/env python
import os
import sys


def main():
    # Imported here: multiprocessing runs this file once more in each renderer.
    from django.core.exceptions import ImproperlyConfigured  # noqa: PLC0415
    from django.core.management import execute_from_command_line  # noqa: PLC0415
    from django.db import OperationalError  # noqa: PLC0415

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    try:
        execute_from_command_line(sys.argv)
    except (ImproperlyConfigured, OperationalError, OSError) as error:
        if "--traceback" in sys.argv:
            raise
        if isinstance(error, OperationalError):
            sys.exit(f"The database cannot be used: {error}.")
        if isinstance(error, OSError):
            sys.exit(f"A file or the store cannot be used: {error}.")
        sys.exit(str(error))


if __name__ == "__main__":
    main()
