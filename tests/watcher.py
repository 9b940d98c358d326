"""Somebody who uses a site all the time, and notes how it answers."""

import threading
import time
from contextlib import suppress
from http.client import HTTPException

from .client import Upload, get
from .photos import photo

PAUSE = 0.1  # seconds


class PageWatcher:
    """Request a page again and again while the block runs, and upload to a dish if there is one.

    The other options are those of client.get().
    """

    def __init__(self, address, path="/", dish=None, **options):
        self.address, self.path, self.dish, self.options = address, path, dish, options
        self.answers = []

    def __enter__(self):
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        self.ended.set()
        self.thread.join()

    def watch(self):
        content = photo(64, 48)
        while not self.ended.wait(PAUSE):
            self.note(lambda: get(self.address, self.path, **self.options))
            if self.dish:
                self.note(lambda: self.upload(content))

    def upload(self, content):
        with Upload(self.address, self.dish, content, **self.options) as upload:
            return upload.answer()

    def note(self, ask):
        """Note the status, or None where no answer came, and the seconds that it took."""
        begun, answer = time.monotonic(), None
        with suppress(OSError, HTTPException):
            answer = ask()
        self.answers.append((answer and answer.status, time.monotonic() - begun))

    def failures(self):
        return [status for status, _ in self.answers if status != 200]

    def longest(self):
        """Return the longest wait for an answer, in seconds."""
        return max(seconds for _, seconds in self.answers)
