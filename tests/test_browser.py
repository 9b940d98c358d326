"""What a diner sees, in a real Chromium."""

import os
import shutil
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.cache import cache
from django.test import override_settings
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from .base import FoldersMixin, make_dish, wait_for
from .photos import encoded, photo
from .stack import requires

# Without these the browser looks for its maker's servers.
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
)

# Notes what passes by too fast to be asked for: the states and percentages of each row, and the
# intervals that run.
WITNESS = """
    window.witnessed = {};
    window.intervals = new Set();
    const setInterval = window.setInterval, clearInterval = window.clearInterval;
    window.setInterval = (...args) => {
        const id = setInterval(...args);
        intervals.add(id);
        return id;
    };
    window.clearInterval = id => { intervals.delete(id); clearInterval(id); };
    new MutationObserver(() => document.querySelectorAll('.upload').forEach(row => {
        const name = row.querySelector('.upload-name').textContent;
        const bar = row.querySelector('[role=progressbar]');
        const seen = witnessed[name] ??= {states: [], values: []};
        const note = (list, value) => value && list.at(-1) !== value && list.push(value);
        note(seen.states, row.dataset.state);
        note(seen.values, bar && row.dataset.state === 'uploading' && bar.ariaValueNow);
    })).observe(document, {subtree: true, childList: true, attributes: true});
"""


@requires("chromium", "chromedriver")
@override_settings(PROGRESS_POLL_INTERVAL=100)
class BrowserTests(FoldersMixin, StaticLiveServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        profile = cls.enterClassContext(TemporaryDirectory(ignore_cleanup_errors=True))
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        for argument in ("--headless", f"--user-data-dir={profile}", *QUIET, *sandbox):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        cls.browser = webdriver.Chrome(options, service)
        cls.addClassCleanup(cls.browser.quit)
        cls.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WITNESS})

    def setUp(self):
        super().setUp()
        self.dish = make_dish()
        self.photos = self.enterContext(TemporaryDirectory())
        self.throttle(None)
        self.open(self.dish.get_absolute_url())

    def open(self, path):
        self.browser.get(self.live_server_url + path)

    def throttle(self, upload, latency=0):
        """Let the line take so many bytes in a second, or all that it can; latency is in ms."""
        self.browser.set_network_conditions(
            latency=latency, download_throughput=-1, upload_throughput=upload or -1
        )

    def find(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def element(self, by, value):
        """Return an element once it is there: a click does not wait for the page it leads to."""
        return wait_for(lambda: self.browser.find_elements(by, value))[0]

    def find_text(self, selector):
        """Return the texts of elements, at one moment: between two calls the page may change."""
        return self.browser.execute_script(
            "return Array.from(document.querySelectorAll(arguments[0]), found => found.innerText)",
            selector,
        )

    def upload(self, **contents):
        """Choose files in the form, by their name and content, and submit it."""
        paths = []
        for name, content in contents.items():
            path = Path(self.photos, f"{name}.jpg")
            path.write_bytes(content)
            paths.append(str(path))
        self.element(By.ID, "picture").send_keys("\n".join(paths))
        self.element(By.ID, "form_submit_button").click()

    def wait_for_state(self, state, count=1):
        wait_for(lambda: len(self.find(f'.upload[data-state="{state}"]')) == count, 60)

    def witnessed(self, name):
        """Return the states and the percentages that a row went through."""
        row = self.browser.execute_script("return witnessed[arguments[0]]", f"{name}.jpg")
        return row["states"], [int(value) for value in row["values"]]

    def requests(self, path):
        """Return the addresses, beginnings and ends of the page's requests to a path."""
        return self.browser.execute_script(
            "return performance.getEntriesByType('resource')"
            ".filter(entry => new URL(entry.name).pathname === arguments[0])"
            ".map(entry => [entry.name, entry.startTime, entry.responseEnd])",
            path,
        )

    def assert_nothing_polls(self):
        self.assertEqual(self.browser.execute_script("return intervals.size"), 0)

    def shown_pictures(self):
        """Return the addresses of the pictures that the page shows, and that did load."""
        return self.browser.execute_script(
            "return Array.from(document.querySelectorAll('#pictures img'))"
            ".filter(image => image.naturalWidth).map(image => image.getAttribute('src'))"
        )

    def test_the_bar_rises_until_the_photo_appears_on_the_page(self):
        self.throttle(1_500_000)
        self.browser.execute_script("window.sameDocument = true")

        self.upload(dish=photo(2400, 1800))
        self.wait_for_state("done")

        states, values = self.witnessed("dish")
        self.assertEqual(states[:2], ["starting", "uploading"])
        self.assertEqual(values, sorted(values))
        self.assertGreaterEqual(len(set(values)), 5)
        self.assertLessEqual(values[-1], 100)
        picture = self.dish.pictures.get()
        self.assertEqual(wait_for(self.shown_pictures), [picture.thumbnail.url])
        self.assertEqual(self.find("#no_pictures"), [])
        self.assertTrue(self.browser.execute_script("return sameDocument"))
        self.assert_nothing_polls()

    def test_two_photos_at_once_have_a_request_and_a_bar_each(self):
        self.throttle(1_500_000)

        self.upload(one=photo(1500, 1200), two=photo(1200, 1500))
        bars = '.upload[data-state="uploading"] [role="progressbar"]'
        wait_for(lambda: len(self.find(bars)) == 2)
        self.assertEqual([form.is_displayed() for form in self.find("form")], [True, False, False])
        self.wait_for_state("done", 2)

        for name in ("one", "two"):
            self.assertGreaterEqual(len(set(self.witnessed(name)[1])), 3)
        self.assertEqual(len({address for address, *_ in self.requests("/upload")}), 2)
        self.assertEqual(
            len(wait_for(lambda: len(self.shown_pictures()) == 2 and self.find("#pictures img"))), 2
        )
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_a_first_null_means_that_the_upload_has_not_begun(self):
        self.throttle(60_000)

        self.upload(dish=photo(500, 400))
        wait_for(lambda: len(self.requests("/get_upload_progress")) >= 3)

        self.assertEqual(self.witnessed("dish"), (["starting"], []))
        self.wait_for_state("done")
        self.assertEqual(self.witnessed("dish")[0][:2], ["starting", "uploading"])

    def test_at_most_one_poll_is_in_flight(self):
        self.throttle(1_000_000, latency=300)

        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("done")

        polls = self.requests("/get_upload_progress")
        self.assertGreaterEqual(len(polls), 3)
        for (_, _, end), (_, beginning, _) in pairwise(polls):
            self.assertGreaterEqual(beginning, end)

    def test_after_the_last_byte_the_photo_is_being_processed(self):
        content = encoded(Image.new("RGB", (9000, 9000)), "PNG", compress_level=1)
        self.throttle(5_000_000)

        self.upload(dish=content.ljust(5_000_000, b"\0"))
        self.wait_for_state("processing")

        self.assertEqual(self.find_text(".upload-state"), ["Processing…"])
        [bar] = self.find('[role="progressbar"]')
        self.assertIsNone(bar.get_attribute("aria-valuenow"))
        self.wait_for_state("done")
        self.assertEqual(self.witnessed("dish")[0], ["starting", "uploading", "processing", "done"])

    def test_what_is_refused_is_told_beside_its_name_and_the_others_go_on(self):
        self.upload(menu=b"A text.", dish=photo())
        self.wait_for_state("refused")
        self.wait_for_state("done")

        [row] = self.find('.upload[data-state="refused"]')
        self.assertRegex(row.text, r"^menu\.jpg\nThis file is not a picture.*\.$")
        self.assertEqual(self.dish.pictures.count(), 1)
        self.assert_nothing_polls()

    def test_a_file_that_is_no_picture_is_refused_long_before_its_end(self):
        self.throttle(100_000)

        self.upload(menu=b"A text.\n" * 500_000)
        wait_for(lambda: self.find('.upload[data-state="refused"]'), 20)  # of 40 for the whole

        self.assertRegex(self.find_text(".upload-state")[0], r"^This file is not a picture.*\.$")
        self.assert_nothing_polls()
        self.assertEqual(self.files(), [])

    def test_no_news_in_the_middle_of_an_upload_changes_nothing(self):
        self.throttle(1_000_000)
        self.upload(dish=photo(2000, 1500))
        self.wait_for_state("uploading")

        cache.clear()
        self.wait_for_state("done")

        states = self.witnessed("dish")[0]
        self.assertEqual(
            [state for state in states if state != "processing"], [*states[:2], "done"]
        )

    def test_the_same_photo_twice_is_shown_once(self):
        content = photo()

        self.upload(one=content)
        self.wait_for_state("done")
        self.upload(two=content)
        wait_for(lambda: self.find_text(".upload-name") == ["two.jpg"])
        self.wait_for_state("done")

        self.assertEqual(len(self.find("#pictures img")), 1)

    def test_a_new_picture_is_shown_as_it_is_after_a_reload(self):
        self.upload(dish=photo(1000, 2000))
        self.wait_for_state("done")

        attributes = ("src", "srcset", "sizes", "width", "height")
        image = self.element(By.CSS_SELECTOR, "#pictures img")
        shown = [image.get_dom_attribute(name) for name in attributes]
        self.browser.refresh()
        image = self.element(By.CSS_SELECTOR, "#pictures img")
        self.assertEqual(shown, [image.get_dom_attribute(name) for name in attributes])

    def test_a_diner_takes_a_photo_back(self):
        self.upload(dish=photo())
        self.wait_for_state("done")

        self.element(By.LINK_TEXT, "Take it back").click()
        wait_for(lambda: "Take this photo back?" in self.find_text("h1"))
        self.element(By.XPATH, "//button[text()='Take it back']").click()

        wait_for(lambda: self.find("#no_pictures"))
        self.assertEqual(self.files(), [])

    def test_a_line_that_breaks_is_told_and_nothing_is_kept(self):
        self.throttle(500_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")

        self.browser.execute_script("window.stop()")
        self.wait_for_state("failed")

        self.assertRegex(self.find_text(".upload-state")[0], r"^The connection was lost.*\.$")
        self.assert_nothing_polls()
        wait_for(lambda: not self.files())

    def test_polling_ends_when_the_page_is_left(self):
        self.throttle(100_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")

        self.browser.execute_script("dispatchEvent(new PageTransitionEvent('pagehide'))")

        self.assert_nothing_polls()

    def test_further_photos_wait_until_three_are_through(self):
        self.throttle(1_000_000)

        self.upload(**{f"photo{number}": photo(600, 500) for number in range(5)})
        wait_for(lambda: len(self.find('.upload[data-state="waiting"]')) == 2)
        self.wait_for_state("done", 5)

        self.assertEqual(self.dish.pictures.count(), 5)

    def test_progress_and_end_are_announced(self):
        self.throttle(1_000_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("done")

        [news] = self.find('[role="log"]')
        text = news.get_property("textContent")
        self.assertRegex(text, r"^(dish\.jpg: (25|50|75) % uploaded)+.*dish\.jpg: done$")
        [bar] = self.find('[role="progressbar"]')
        self.assertEqual(bar.accessible_name, "dish.jpg")

    def test_without_scripts_the_form_is_an_ordinary_one(self):
        self.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        self.addCleanup(
            self.browser.execute_cdp_cmd, "Emulation.setScriptExecutionDisabled", {"value": False}
        )
        self.browser.refresh()

        self.upload(one=photo(), menu=b"A text.", two=photo(60, 40, "PNG"))

        wait_for(lambda: self.find(".refusals"))
        self.assertRegex(self.find_text(".refusals")[0], r"^menu\.jpg: This file is not a picture")
        wait_for(lambda: len(self.find("#pictures img")) == 2)
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_a_diner_finds_the_way_from_the_list_to_the_photo(self):
        self.open("/")
        self.element(By.LINK_TEXT, "Add a dish").click()
        self.element(By.ID, "id_name").send_keys("Aïoli")
        self.element(By.ID, "id_restaurant").send_keys("Chez Fonfon")
        self.element(By.XPATH, "//button[text()='Add it']").click()
        self.upload(dish=photo())
        self.wait_for_state("done")
        self.element(By.LINK_TEXT, "Gourmious").click()

        wait_for(lambda: "Aïoli" in self.find_text("h2"))
        wait_for(lambda: len(self.find(".card img")) == 1)
