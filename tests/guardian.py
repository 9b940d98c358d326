"""The guardian of a process of the tests: it ends what that process leaves behind.

The guardian is a child process. A pipe tells it which programs and folders to watch. When the
process and its forks have ended, even by SIGKILL, the kernel closes the pipe. Then the guardian
kills the programs and removes the folders that are still on its list.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from multiprocessing import util
from pathlib import Path

from .waiting import wait_for

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def watch(what):
    """Watch over a process group by its number, or over a folder by its absolute path."""
    tell(f"+{what}")


def forget(what):
    tell(f"-{what}")


def tell(line):
    os.write(start_guardian().stdin.fileno(), f"{line}\n".encode())


@cache
def start_guardian():
    """Start the guardian once, and return it. Forks of this process share the pipe to it."""
    command = [sys.executable, "-m", __name__]
    # In a session of its own: no signal of a terminal reaches it.
    options = {"cwd": Path(__file__).parent.parent, "stdin": subprocess.PIPE}
    guardian = subprocess.Popen(command, start_new_session=True, **options)
    # At exit, but after multiprocessing has removed its own folder, with priority -100.
    util.Finalize(None, dismiss, [guardian], exitpriority=-200)
    return guardian


def dismiss(guardian):
    guardian.stdin.close()
    guardian.wait()


def end_with_parent():
    """Have the kernel kill this process when the one that forked it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def unmount_below(folder):
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if (place := line.split()[1]).startswith(folder):
            subprocess.run(["umount", "--lazy", place], check=False)


def remove(folder):
    """Remove a folder, to which killed processes may still write for a moment.

    A file below /run/netns is a network namespace.
    """
    if folder.startswith("/run/netns/"):
        subprocess.run(["ip", "netns", "delete", Path(folder).name], check=False)
        return
    unmount_below(f"{folder}/")

    def is_removed():
        shutil.rmtree(folder, ignore_errors=True)
        return not Path(folder).exists()

    with suppress(TimeoutError):
        wait_for(is_removed)


def main():
    watched = set()
    for line in sys.stdin:
        sign, what = line[0], line[1:-1]
        (watched.add if sign == "+" else watched.discard)(what)
    folders = {what for what in watched if what.startswith("/")}
    for group in watched - folders:
        with suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    for folder in folders:
        remove(folder)


if __name__ == "__main__":
    main()
