"""Running processes, as Linux tells of them in /proc, and ways to stop them."""

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

from .waiting import wait_for


def stat(pid):
    """Return what proc_pid_stat(5) tells of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def parent_of(pid):
    return int(stat(pid)[1])


def has_ended(pid):
    try:
        return stat(pid)[0] in "XZ"
    except (FileNotFoundError, ProcessLookupError):
        return True


def is_stopped(pid):
    """Tell whether all threads of a process have stopped; the signal does not wait for that."""
    with suppress(FileNotFoundError, ProcessLookupError):  # A thread has just ended.
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)
    return False


@contextmanager
def stopped(*pids):
    """Stop processes in their tracks."""
    try:
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)
        wait_for(lambda: all(map(is_stopped, pids)))
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGCONT)


def has_opened(pid, folder):
    """Tell whether a process has a file of this folder open."""
    with suppress(FileNotFoundError):  # It ends just now.
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if path.readlink().parent == folder:
                    return True
    return False


def has_mapped(pid, path):
    """Tell whether a process has mapped this file, or a file of this folder, into its memory."""
    with suppress(FileNotFoundError, ProcessLookupError):  # It ends just now.
        return str(path) in Path(f"/proc/{pid}/maps").read_text()
    return False


def children(pid):
    """Return the process ids of the children of all threads of a process, as texts."""
    with suppress(FileNotFoundError):  # It ends just now.
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return " ".join(lists).split()
    return []


def descendants(pid):
    """Return the process ids of the children of a process, and of theirs, at any remove."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def command(pid):
    """Return the command line of a process, or nothing where it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def forks(pid):
    """Return the process ids of the children of a process that run the same program."""
    return [child for child in children(pid) if command(child) == command(pid)]


def processes_of(group):
    """Return the process ids of the processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group, *_ = path.read_text().rpartition(") ")[2].split()
            if int(its_group) == group and state not in "XZ":
                found.append(path.parent.name)
    return found
