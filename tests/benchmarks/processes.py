"""The memory and the CPU time of running processes, as Linux tells them."""

import re
import time
from contextlib import suppress
from pathlib import Path

from tests.processes import descendants


def family(pid):
    """Return the ids of a process and of all that it started, at any remove."""
    return [pid, *map(int, descendants(pid))]


def cpu_times(pids):
    """Return the CPU time that each process has used, in seconds, by its id."""
    times = {}
    for pid in pids:
        with suppress(OSError):  # It has just ended.
            times[pid] = time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid() has it
    return times


def cpu_since(before, pids):
    """Return the CPU time that processes have used since they had these times."""
    return sum(seconds - before.get(pid, 0) for pid, seconds in cpu_times(pids).items())


def shared_fairly(pids):
    """Return the memory of processes in bytes; shared pages are divided among them (PSS)."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # It has just ended.
            total += in_bytes("Pss", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return total


def resident(pid):
    return in_bytes("VmRSS", Path(f"/proc/{pid}/status").read_text())


def peak(pid):
    """Return the most that was resident since reset_peak(), in bytes."""
    return in_bytes("VmHWM", Path(f"/proc/{pid}/status").read_text())


def reset_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def in_bytes(field, text):
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1])
