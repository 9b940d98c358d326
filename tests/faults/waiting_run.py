"""Tests that wait until they are killed: test_runner.py runs them."""

import signal

from django.test import SimpleTestCase

from tests.browser import BrowserTestCase
from tests.stack import Stack


def wait_for_signal():
    print("ready", flush=True)
    signal.pause()


class StackTests(SimpleTestCase):
    def test_a_stack_runs(self):
        with Stack():
            wait_for_signal()


class BrowserTests(BrowserTestCase):
    def test_a_browser_runs(self):
        wait_for_signal()
