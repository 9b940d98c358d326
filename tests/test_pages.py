"""What holds for every page and state: all can use it, on a phone too, and its policy holds."""

from pathlib import Path

from django.contrib.staticfiles import finders
from selenium.webdriver.common.by import By

from uploads.models import Picture

from .base import upload_file, wait_for
from .browser import BrowserTestCase
from .photos import photo


class PageTests(BrowserTestCase):
    """Each state is looked at light and dark, on a desktop and on the smallest phone."""

    def setUp(self):
        super().setUp()
        Picture.objects.store(self.dish, upload_file(photo()))
        self.emulate_media(**{"prefers-reduced-motion": "reduce"})

    def assert_good(self):
        for scheme in ("light", "dark"):
            features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
            self.emulate_media(**features)
            self.assert_accessible()
        self.emulate_phone(320)
        self.assert_accessible()
        self.assert_fits()
        self.cdp("Emulation.clearDeviceMetricsOverride")

    def test_the_pages(self):
        for path in ("/", "/dishes/new", self.dish.get_absolute_url(), "/menu"):
            with self.subTest(path=path):
                self.open(path)
                self.assert_good()

    def test_the_lists_that_are_empty(self):
        for path in (self.dish.get_absolute_url(), "/"):
            with self.subTest(path=path):
                Picture.objects.all().delete()
                self.open(path)
                self.assert_good()
        self.dish.delete()
        self.open("/")
        self.assert_good()

    def test_the_page_that_takes_a_photo_back(self):
        self.upload(dish=photo())
        self.wait_for_state("done")

        self.element(By.LINK_TEXT, "Take it back").click()

        wait_for(lambda: "Take this photo back?" in self.find_text("h1"))
        self.assert_good()

    def test_a_form_with_errors(self):
        self.open("/dishes/new")
        self.run_script("document.querySelectorAll('[required]').forEach(f => f.required = false)")
        self.element(By.XPATH, "//button[text()='Add it']").click()

        wait_for(lambda: self.find(".errorlist"))
        self.assert_good()

    def test_a_page_with_refusals(self):
        self.cdp("Emulation.setScriptExecutionDisabled", value=True)
        self.browser.refresh()
        self.upload(menu=b"A text.")
        wait_for(lambda: self.find(".refusals"))
        self.cdp("Emulation.setScriptExecutionDisabled", value=False)

        self.assert_good()

    def test_what_is_chosen_and_what_is_refused(self):
        self.open(self.dish.get_absolute_url())
        self.choose({"dish.jpg": photo(), "menu.txt": b"A text.", "a" * 200 + ".jpg": photo()})

        self.assert_good()

    def test_what_is_sent(self):
        self.open(self.dish.get_absolute_url())
        self.throttle(50_000)
        self.upload(**{f"photo{number}": photo(1200, 900) for number in range(5)})
        self.wait_for_state("uploading", 3)
        self.act("cancel", "waiting")

        self.assert_good()

    def test_what_is_done_and_what_has_failed(self):
        self.open(self.dish.get_absolute_url())
        self.upload(one=photo(), menu=b"A text.")
        self.wait_for_state("done")
        self.wait_for_state("refused")

        self.assert_good()

    def test_the_form_in_the_dialog(self):
        self.open("/")
        self.element(By.CSS_SELECTOR, "[data-dish]").click()
        self.choose({"dish.jpg": photo()})

        self.assert_good()

    def test_the_gallery(self):
        self.open(self.dish.get_absolute_url())
        self.element(By.CSS_SELECTOR, ".picture-link").click()

        self.assert_good()

    def test_nothing_moves_for_those_who_want_it_still(self):
        self.open(self.dish.get_absolute_url())
        moving = """
            const styles = [...document.querySelectorAll('*')].map(one => getComputedStyle(one));
            const transitions = styles.filter(style => parseFloat(style.transitionDuration));
            return document.getAnimations().length + transitions.length;
        """
        self.throttle(300_000)
        self.upload(dish=photo())
        self.wait_for_state("uploading")
        self.assertEqual(self.run_script(moving), 0)

        self.emulate_media(**{"prefers-reduced-motion": "no-preference"})
        self.assertGreater(self.run_script(moving), 0)
        self.wait_for_state("done")

    def test_what_the_policy_forbids_does_not_run(self):
        self.open(self.dish.get_absolute_url())
        self.run_script(
            "const script = document.createElement('script');"
            "script.textContent = 'window.smuggled = true';"
            "document.body.append(script)"
        )

        self.assertIsNone(self.run_script("return window.smuggled ?? null"))
        wait_for(lambda: self.run_script("return sessionStorage.getItem('violation')"))
        self.run_script("sessionStorage.clear()")

    def test_the_script_and_the_style_sheet_are_light(self):
        scripts = ("upload", "choose", "dialog", "gallery")
        size = sum(len(self.static(f"{name}.js")) for name in scripts)

        self.assertLess(size, 12 * 1024)
        self.assertLess(len(self.static("gourmious.css")), 10 * 1024)

    def static(self, name):
        return Path(finders.find(f"uploads/{name}")).read_bytes()
