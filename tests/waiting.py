"""Waiting for a condition; the tests never wait for time."""

import time

LONGEST_PAUSE = 0.05  # seconds; each look at a page takes a browser 10 ms


def wait_for(condition, seconds=60):
    """Return what the condition gives once that is true; raise after so many seconds."""
    deadline, pause = time.monotonic() + seconds, 0.01
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {seconds} seconds: {condition}")
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)
    return result
