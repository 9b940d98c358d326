"""Waiting for a condition; the tests never wait for time."""

import time


def wait_for(condition, seconds=20):
    """Return what the condition gives once that is true; raise after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not within {seconds} seconds: {condition}")
        time.sleep(0.01)
    return result
