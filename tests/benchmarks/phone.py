"""A photo of 8 MB from a phone on a slow line: reduced before it is sent, and as the original.

The line takes 400 kbit/s, with 400 ms for a round trip. Chromium runs on this machine's processor.

    python -m tests.benchmarks.phone
"""

import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium.webdriver.common.by import By

from tests.client import add_dish
from tests.engines import start_chromium
from tests.photos import encoded
from tests.proxy import Proxy
from tests.stack import Stack
from tests.waiting import wait_for

from .lifelike import lifelike_photo
from .rounds import print_table

LINE = {"upload": 50_000, "latency": 0.2}  # bytes a second, and seconds in each direction
SIZE = 5000, 3750  # pixels
AFTER = 5  # seconds after which the time left is noted
DEADLINE = 600  # seconds


def write_photo(folder):
    """Write a photo of about 8 MB, and return its path."""
    path = Path(folder, "dish.jpg")
    path.write_bytes(encoded(lifelike_photo(*SIZE), quality=95))
    return path


def send(browser, path, is_original):
    """Upload a photo, and return seconds: of each part of its way, and of the time left."""
    chosen = time.monotonic()
    browser.find_element(By.ID, "picture").send_keys(str(path))
    wait_for(lambda: read_state(browser).startswith("Ready"))
    if is_original:
        browser.find_element(By.CSS_SELECTOR, "label.option").click()
    begun = time.monotonic()
    browser.find_element(By.ID, "form_submit_button").click()
    wait_for(lambda: read_state(browser).startswith("Uploading"), DEADLINE)
    news = time.monotonic() - begun
    wait_for(lambda: time.monotonic() - begun >= AFTER and read_left(browser), DEADLINE)
    told, at = read_left(browser), time.monotonic()
    wait_for(lambda: browser.find_elements(By.CSS_SELECTOR, ".added-link"), DEADLINE)
    done = time.monotonic()
    return begun - chosen, news, told, done - at, done - chosen


def read_state(browser):
    return browser.execute_script("return document.querySelector('.upload-state')?.innerText ?? ''")


def read_left(browser):
    """Return the time left that the page tells, in seconds, or None."""
    text = browser.execute_script("return document.querySelector('.upload-total').innerText")
    found = re.search(r"(\d+)\s(s|min)\sleft", text)
    return found and int(found[1]) * (60 if found[2] == "min" else 1)


def measure(browser, stack, path, is_original):
    dish = add_dish(stack.http.address, f"Sent as original: {is_original}")
    with Proxy(stack.http.address) as proxy:
        browser.get(f"http://localhost:{proxy.port}{dish.get_absolute_url()}")
        with proxy.throttle(**LINE):
            return send(browser, path, is_original)


def main():
    with TemporaryDirectory() as folder, Stack() as stack, start_chromium() as browser:
        path = write_photo(folder)
        rows = []
        for is_original in (False, True):
            seconds = measure(browser, stack, path, is_original)
            name = "as the original" if is_original else "reduced"
            rows.append((name, *(f"{number:.1f} s" for number in seconds)))
        left = f"time left told {AFTER} s after Upload", "time that was left"
        head = ("until it is ready", "Upload to first bytes", *left, "choice to answer")
        print_table((f"a photo of {path.stat().st_size / 1e6:.1f} MB", *head), rows)


if __name__ == "__main__":
    main()
