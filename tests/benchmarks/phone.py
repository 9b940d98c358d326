"""Photos that are reduced before they are sent, and the same as originals.

One of 8 MB goes over a phone's line of 400 kbit/s, with 400 ms for a round trip. Ten of 12
megapixels show the bytes and the servers' CPU time. Chromium runs on this machine's processor.

    python -m tests.benchmarks.phone
"""

import os
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import ImageChops
from selenium.webdriver.common.by import By

from tests.client import add_dish
from tests.engines import start_chromium
from tests.photos import encoded
from tests.proxy import Proxy
from tests.stack import Stack
from tests.waiting import wait_for

from .lifelike import lifelike_photo
from .processes import cpu_since, cpu_times, family
from .rounds import print_table

LINE = {"upload": 50_000, "latency": 0.2}  # bytes a second, and seconds in each direction
SIZE = 5000, 3750  # pixels of the one photo
SIZE_OF_MANY = 4000, 3000
MANY = 10
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
    if browser.find_element(By.ID, "originals").is_selected() != is_original:
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


def write_photos(folder):
    image = lifelike_photo(*SIZE_OF_MANY)
    paths = [Path(folder, f"dish{number}.jpg") for number in range(MANY)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded(ImageChops.offset(image, 40 * number), quality=90))
    return paths


def measure_many(browser, stack, paths, is_original):
    """Return the bytes of the originals that the server keeps, and its CPU seconds."""
    dish = add_dish(stack.http.address, f"{time.time()}")
    before, times = kept_bytes(stack), cpu_times(family(os.getpid()))
    browser.get(f"http://localhost:{stack.http.port}{dish.get_absolute_url()}")
    browser.find_element(By.ID, "picture").send_keys("\n".join(map(str, paths)))
    if browser.find_element(By.ID, "originals").is_selected() != is_original:
        browser.find_element(By.CSS_SELECTOR, "label.option").click()
    wait_for(
        lambda: len(browser.find_elements(By.CSS_SELECTOR, '[data-state="ready"]')) == MANY, 99
    )
    browser.find_element(By.ID, "form_submit_button").click()
    added = f"return document.querySelector('.added-link')?.innerText === '{MANY} photos added'"
    wait_for(lambda: browser.execute_script(added), DEADLINE)
    return kept_bytes(stack) - before, cpu_since(times, family(stack.uploads.process.pid))


def kept_bytes(stack):
    return sum(path.stat().st_size for path in (stack.data / "originals").iterdir())


def print_many(browser, stack, paths):
    rows = []
    measure_many(browser, stack, paths, is_original=False)  # warms up
    for is_original in (False, True):
        size, seconds = measure_many(browser, stack, paths, is_original)
        name = "as the originals" if is_original else "reduced"
        rows.append((name, f"{size / 1e6:.1f} MB", f"{1000 * seconds / MANY:.0f} ms"))
    print_table((f"{MANY} photos of 12 megapixels", "sent", "CPU for a photo"), rows)


def main():
    with TemporaryDirectory() as folder, Stack() as stack, start_chromium() as browser:
        print_many(browser, stack, write_photos(folder))
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
