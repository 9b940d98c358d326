"""The memory of running processes, as Linux tells it in /proc."""

import re
from pathlib import Path


def family(pid):
    """Return the ids of a process and of all that it started, at any remove."""
    lists = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(pid)] + [one for children in lists for child in children for one in family(child)]


def shared_fairly(pids):
    """Return the memory of processes in bytes; what several share is divided among them (PSS)."""
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(in_bytes("Pss", text) for text in texts)


def resident(pid):
    return in_bytes("VmRSS", Path(f"/proc/{pid}/status").read_text())


def peak(pid):
    """Return the most that was resident since reset_peak(), in bytes."""
    return in_bytes("VmHWM", Path(f"/proc/{pid}/status").read_text())


def reset_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def in_bytes(field, text):
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)[1])
