"""Run a command of manage.py again and again, and kill it before one of its operations on a folder.

    python -m tests.faults.killed_run FOLDER COMMAND ...

Each line of the standard input is the number of an operation on the folder's files. For each, the
command is run once, and its exit status is printed. A run is a fork that has Django already, since
loading it takes most of a second.
"""

import os
import runpy
import signal
import sys
from itertools import count

import django
from django.core import checks
from django.core.management import get_commands, load_command_class

# rmtree gives these two no path of the folder.
REMOVALS = {"os.remove", "os.rmdir"}
OPERATIONS = {
    *("open", "sqlite3.connect", "os.chmod", "os.link", "os.mkdir", "os.rename", "shutil.rmtree"),
    *REMOVALS,
}


def kill_before(folder, number):
    numbers = count(1)

    def watch(event, arguments):
        if event not in OPERATIONS:
            return
        below = event in REMOVALS or any(folder in str(argument) for argument in arguments)
        if below and next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_forked(folder, number, arguments):
    """Run the command in a fork, and return its exit status, or the negative number of a signal."""
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    with open(os.devnull, "wb") as null:  # noqa: PTH123
        os.dup2(null.fileno(), sys.stdout.fileno())  # It is for statuses.
    kill_before(folder, number)
    sys.argv = ["manage.py", *arguments]
    runpy.run_path("manage.py", run_name="__main__")
    sys.exit()


def load(command):
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    django.setup()
    load_command_class(get_commands()[command], command)
    checks.run_checks()  # It imports the URLs and views, as each run would.


if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    load(arguments[0])
    for line in sys.stdin:
        print(run_forked(folder, int(line), arguments), flush=True)
