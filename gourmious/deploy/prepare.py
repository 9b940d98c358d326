"""Prepare a release, and print its files of systemd and nginx as JSON.

A deployment pipes this script to the Python of the release, in the folder of the release. An older
release may lack this file, so it calls only what each release has.
"""

import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO

import gourmious.deploy.__main__  # noqa: F401 - The next command will be that of this release.

# Static files and migrations only add: they do not disturb the release that runs.
STEPS = (
    "manage.py collectstatic --no-input --verbosity 0",
    "manage.py migrate --no-input --verbosity 0",
    "gourmious.serve check",
)


def run(step):
    """Run a program in this process: processes of their own would each import Django."""
    sys.argv = step.split()
    program = sys.argv[0]
    run_program = runpy.run_path if program.endswith(".py") else runpy.run_module
    try:
        run_program(program, run_name="__main__")
    except SystemExit as end:
        if end.code:
            tell_failure(step)
            raise
    except Exception:
        tell_failure(step)
        raise


def tell_failure(step):
    print(f"This step failed: {step}", file=sys.stderr)


if __name__ == "__main__":
    run("manage.py deployconf files")
    # A migration may print, too.
    with redirect_stdout(StringIO()):
        for step in STEPS:
            run(step)
