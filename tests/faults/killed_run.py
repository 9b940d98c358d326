"""Run a command of manage.py, and kill it before one of its operations on the files of a folder.

    python -m tests.faults.killed_run FOLDER NUMBER COMMAND ...

NUMBER says which of the operations it is.
"""

import os
import runpy
import signal
import sys
from itertools import count

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


if __name__ == "__main__":
    folder, number, *arguments = sys.argv[1:]
    kill_before(folder, int(number))
    sys.argv = ["manage.py", *arguments]
    runpy.run_path("manage.py", run_name="__main__")
