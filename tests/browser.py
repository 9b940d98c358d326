"""Helpers of the tests that use the pages as a diner does, in real browsers."""

import re
from contextlib import contextmanager
from io import BytesIO
from itertools import dropwhile
from pathlib import Path
from tempfile import TemporaryDirectory

from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import override_settings
from PIL import Image
from selenium.webdriver.common.by import By

from .base import FoldersMixin, make_dish
from .engines import start_chromium
from .servers import ROOT, requires
from .waiting import wait_for

AXE = ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js"
CONTRAST = {"color-contrast-enhanced": {"enabled": True}}

# Notes what changes too fast for a test to see: the states, percentages and texts of each row, the
# highest number of parallel uploads, the scheduled polls, and violations of the page's policy.
WITNESS = """
(() => {
    if (window.witnessed) return;
    window.witnessed = {};
    window.mostAtOnce = 0;
    window.polls = new Set();
    const setTimeout = window.setTimeout, clearTimeout = window.clearTimeout;
    window.setTimeout = (callback, ...args) => {
        const id = setTimeout((...args) => { polls.delete(id); callback(...args); }, ...args);
        if (callback.name === 'poll') polls.add(id);
        return id;
    };
    window.clearTimeout = id => { polls.delete(id); clearTimeout(id); };
    document.addEventListener('securitypolicyviolation', event => {
        sessionStorage.violation = `${event.violatedDirective} ${event.blockedURI}`;
    });
    new MutationObserver(() => {
        const sending = '[data-state=starting], [data-state=uploading], [data-state=processing]';
        window.mostAtOnce = Math.max(mostAtOnce, document.querySelectorAll(sending).length);
        document.querySelectorAll('.upload').forEach(row => {
            const name = row.querySelector('.upload-name').textContent;
            const bar = row.querySelector('[role=progressbar]');
            const seen = witnessed[name] ??= {states: [], values: [], texts: []};
            const note = (list, value) => value && list.at(-1) !== value && list.push(value);
            note(seen.states, row.dataset.state);
            if (row.dataset.state === 'uploading') {
                note(seen.values, bar.ariaValueNow);
                note(seen.texts, row.querySelector('.upload-detail').textContent);
            }
        });
    }).observe(document, {subtree: true, childList: true, attributes: true});
})();
"""


@override_settings(PROGRESS_POLL_INTERVAL=100)
class PageTestCase(FoldersMixin, StaticLiveServerTestCase):
    """Open the page of a dish in a browser; at the end nothing may have broken the page's policy.

    A subclass names the context manager that starts its browser.
    """

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = cls.enterClassContext(cls.start_browser())

    def setUp(self):
        super().setUp()
        self.dish = make_dish()
        self.photos = self.enterContext(TemporaryDirectory())
        self.open(self.dish.get_absolute_url())

    def tearDown(self):
        self.assertIsNone(self.run_script("return sessionStorage.getItem('violation')"))
        super().tearDown()

    def open(self, path):
        self.browser.get(self.live_server_url + path)
        self.run_script(WITNESS)

    def run_script(self, script, *args):
        return self.browser.execute_script(script, *args)

    def find(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def element(self, by, value):
        """Return an element once it is there: a click does not wait for the page it leads to."""
        return wait_for(lambda: self.browser.find_elements(by, value))[0]

    def find_text(self, selector):
        """Return the texts of elements, at one moment: between two calls the page may change."""
        return self.run_script(
            "return Array.from(document.querySelectorAll(arguments[0]), found => found.innerText)",
            selector,
        )

    def add_dish(self):
        """Fill in the form for a new dish, and wait until its page has run its scripts."""
        self.element(By.ID, "id_name").send_keys("Aïoli")
        self.element(By.ID, "id_restaurant").send_keys("Chez Fonfon")
        self.element(By.XPATH, "//button[text()='Add it']").click()
        self.element(By.ID, "picture")
        wait_for(lambda: self.run_script("return document.readyState") == "complete")

    def write(self, contents):
        """Write files by their name and content, and return their paths."""
        for name, content in contents.items():
            Path(self.photos, name).write_bytes(content)
        return [str(Path(self.photos, name)) for name in contents]

    def choose(self, contents):
        """Choose files in the form, by their name and content."""
        self.element(By.ID, "picture").send_keys("\n".join(self.write(contents)))

    def submit(self):
        self.element(By.ID, "form_submit_button").click()

    def upload(self, **contents):
        """Choose files of these names and the suffix .jpg, and submit the form."""
        self.choose({f"{name}.jpg": content for name, content in contents.items()})
        self.submit()

    def act(self, action, state):
        """Press a button of the first row that is in a state."""
        buttons = f'.upload[data-state="{state}"] [data-action="{action}"]:not([hidden])'
        wait_for(lambda: self.find(buttons))[0].click()

    def wait_for_done(self, count=1):
        """Wait until so many photos have their rows folded into the links that lead to them."""

        def counts():
            return [
                int(number)
                for text in self.find_text(".added-link")
                for number in re.findall(r"\d+", text)
            ]

        wait_for(lambda: sum(counts()) == count, 60)

    def wait_for_state(self, state, count=1):
        wait_for(lambda: len(self.find(f'.upload[data-state="{state}"]')) == count, 60)

    def witnessed(self, name):
        """Return the states, the percentages and the texts that a row went through when sent."""
        row = self.run_script("return witnessed[arguments[0]]", f"{name}.jpg")
        sent = dropwhile(lambda state: state != "starting", row["states"])
        return [*sent], [int(value) for value in row["values"]], row["texts"]

    def requests(self, path):
        """Return the addresses, beginnings and ends of the page's requests to a path."""
        return self.run_script(
            "return performance.getEntriesByType('resource')"
            ".filter(entry => new URL(entry.name).pathname === arguments[0])"
            ".map(entry => [entry.name, entry.startTime, entry.responseEnd])",
            path,
        )

    def assert_nothing_polls(self):
        self.assertEqual(self.run_script("return [polls.size, $.active]"), [0, 0])

    def assert_accessible(self, **options):
        """Let axe-core look at the page as it is. Text must have the contrast of level AAA."""
        if not self.run_script("return Boolean(window.axe)"):
            self.run_script(AXE.read_text())
        found = self.browser.execute_async_script(
            "const [options, report] = arguments;"
            "axe.run(options).then(report, error => report({violations: [String(error)]}))",
            {"rules": CONTRAST, "resultTypes": ["violations"], **options},
        )
        self.assertEqual(found["violations"], [])

    def assert_fits(self):
        """Assert that nothing has to be scrolled sideways, and that fingers hit their aims."""
        wide = self.run_script(
            "return [document.documentElement, ...document.querySelectorAll('dialog[open]')]"
            ".filter(box => box.scrollWidth > box.clientWidth).map(box => box.tagName)"
        )
        self.assertEqual(wide, [])
        small = self.run_script(
            "return Array.from(document.querySelectorAll('a, button, input, label.button'))"
            ".map(target => target.type === 'checkbox' ? target.closest('label') : target)"
            ".map(target => [target.outerHTML, target.getBoundingClientRect()])"
            ".filter(([, {width, height}]) => width > 1 && (width < 44 || height < 44))"
            ".map(([html]) => html)"
        )
        self.assertEqual(small, [])

    def assert_same_after_reload(self, selector):
        """Assert that a reload does not change the markup of an element, and return it."""
        wait_for(lambda: self.find(selector) and not self.find(".arriving"))
        live = self.find(selector)[0].get_property("outerHTML")
        self.browser.refresh()
        self.assertEqual(live, self.element(By.CSS_SELECTOR, selector).get_property("outerHTML"))
        return live

    def pixel(self, element, x):
        """Return the colour of an element at a fraction of its width, half way down."""
        left, top, width, height = self.run_script(
            "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});"
            "const {left, top, width, height} = arguments[0].getBoundingClientRect();"
            "return [left, top, width, height]",
            element,
        )
        # The whole window: WebKitGTK (2.50) returns black for an element.
        with Image.open(BytesIO(self.browser.get_screenshot_as_png())) as shot:
            return shot.convert("RGB").getpixel((int(left + x * width), int(top + height / 2)))

    def shown_pictures(self):
        """Return the addresses of the pictures that the page shows, and that did load."""
        return self.run_script(
            "return Array.from(document.querySelectorAll('.picture img'))"
            ".filter(image => image.naturalWidth).map(image => image.getAttribute('src'))"
        )


@requires("chromium", "chromedriver")
class BrowserTestCase(PageTestCase):
    """Use Chromium, and what only its protocol can do: the line, the device, the media."""

    @staticmethod
    def start_browser():
        # Animations take half a core. One test turns them on; other browsers always show them.
        return start_chromium("--force-prefers-reduced-motion")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # From the beginning of each document: others get it once the document is there.
        cls.cdp("Page.addScriptToEvaluateOnNewDocument", source=WITNESS)

    def setUp(self):
        self.throttle(None)
        super().setUp()

    @classmethod
    def cdp(cls, command, **parameters):
        """Send a command of the Chrome DevTools protocol."""
        return cls.browser.execute_cdp_cmd(command, parameters)

    def emulate(self, command, on, off):
        """Set something of the browser's emulation for the rest of the test."""
        self.cdp(f"Emulation.{command}", **on)
        self.addCleanup(self.cdp, f"Emulation.{command}", **off)

    def emulate_media(self, **features):
        features = [{"name": name, "value": value} for name, value in features.items()]
        self.emulate("setEmulatedMedia", {"features": features}, {"features": []})

    @contextmanager
    def phone(self, width):
        """Make the browser a phone's, until the block ends."""
        screen = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
        self.cdp("Emulation.setDeviceMetricsOverride", **screen)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=True)
        try:
            yield
        finally:
            self.cdp("Emulation.setTouchEmulationEnabled", enabled=False)
            self.cdp("Emulation.clearDeviceMetricsOverride")

    def throttle(self, upload, latency=0, offline=False):
        """Let the line take so many bytes in a second, or all that it can; latency is in ms."""
        self.browser.set_network_conditions(
            latency=latency,
            download_throughput=-1,
            upload_throughput=upload or -1,
            offline=offline,
        )
