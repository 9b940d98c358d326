"""Every page, in every state: all diners can use it, on a phone too, and its policy holds."""

import gzip
import re
from errno import ENOSPC
from pathlib import Path
from unittest.mock import patch

from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from uploads.models import Picture, PictureQuerySet

from .base import make_dish, store
from .browser import BrowserTestCase
from .photos import photo
from .waiting import wait_for

COLOURS = {"runOnly": ["cat.color"]}  # axe-core's rules about colours
SOURCES = Path(finders.find("uploads/upload.js")).parent


class PageTests(BrowserTestCase):
    """Each state is looked at light and dark, on a desktop and on the smallest phone."""

    takes_minutes = True

    def setUp(self):
        super().setUp()
        store(self.dish, photo())

    def assert_good(self):
        # Only colours differ between light and dark.
        for scheme, options in (("light", {}), ("dark", COLOURS)):
            self.emulate_media(**{"prefers-color-scheme": scheme})
            self.assert_accessible(**options)
            with self.phone(320):
                self.assert_accessible(**options)
                self.assert_fits()

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

    def test_names_of_one_long_word_fit(self):
        self.dish = make_dish("W" * 100, "W" * 100)
        picture = store(self.dish, photo(), caption="W" * 140)
        with self.phone(320):
            for path in ("/", self.dish.get_absolute_url(), f"/pictures/{picture.pk}/report"):
                with self.subTest(path=path):
                    self.open(path)
                    self.assert_fits()

    def test_the_page_that_takes_a_photo_back(self):
        self.upload(dish=photo())
        self.wait_for_done()

        self.element(By.LINK_TEXT, "Take it back").click()

        wait_for(lambda: "Take this photo back?" in self.find_text("h1"))
        self.assert_good()

    def test_the_pages_that_report_a_photo(self):
        self.dish.pictures.update(caption="With rouille and croûtons")
        self.open(f"/pictures/{self.dish.pictures.get().pk}/report")
        self.assert_good()

        self.element(By.ID, "id_reason").send_keys("  ", Keys.ENTER)
        wait_for(lambda: self.find(".errorlist"))
        self.assert_good()

        self.element(By.ID, "id_reason").send_keys("Not food", Keys.ENTER)
        wait_for(lambda: self.find(".thanks"))
        self.assert_good()

    def test_the_page_without_scripts(self):
        self.open(self.dish.get_absolute_url())
        self.run_script(
            "for (const sheet of document.styleSheets) for (const rule of sheet.cssRules)"
            "  if (rule.conditionText === '(scripting: enabled)') rule.media.mediaText = 'not all'"
        )
        self.assertTrue(self.element(By.LINK_TEXT, "Report").is_displayed())

        self.assert_good()

    def test_a_form_with_errors(self):
        self.open("/dishes/new")
        self.run_script("document.querySelectorAll('[required]').forEach(f => f.required = false)")
        self.element(By.XPATH, "//button[text()='Add it']").click()

        wait_for(lambda: self.find(".errorlist"))
        self.assert_good()

    def test_a_page_with_refusals(self):
        self.emulate("setScriptExecutionDisabled", {"value": True}, {"value": False})
        self.browser.refresh()
        self.upload(menu=b"A text.")
        wait_for(lambda: self.find(".refusals"))

        self.cdp("Emulation.setScriptExecutionDisabled", value=False)  # axe-core is one
        self.assert_good()

    def test_what_is_chosen_and_what_is_refused(self):
        self.open(self.dish.get_absolute_url())
        self.choose({"dish.jpg": photo(), "menu.txt": b"A text.", "a" * 200 + ".jpg": photo()})

        self.assert_good()

    def test_what_is_sent(self):
        self.open(self.dish.get_absolute_url())
        self.throttle(50_000)
        self.upload(**{f"photo{number}": photo(1200, 900) for number in range(5)})
        self.wait_for_state("uploading", 2)
        self.act("cancel", "waiting")

        self.assert_good()

    def test_what_is_done_and_what_is_refused(self):
        self.open(self.dish.get_absolute_url())
        self.upload(one=photo(), menu=b"A text.")
        self.wait_for_done()
        self.wait_for_state("refused")

        self.assert_good()

    def test_what_has_failed(self):
        self.open(self.dish.get_absolute_url())
        with patch.object(PictureQuerySet, "get_or_store", side_effect=OSError(ENOSPC, "full")):
            self.upload(one=photo())
            self.wait_for_state("failed")

        self.assert_good()

    def test_all_other_states_of_a_row(self):
        self.open(self.dish.get_absolute_url())
        self.throttle(50_000)
        self.upload(**{f"photo{number}": photo(1200, 900) for number in range(5)})
        self.wait_for_state("uploading", 2)
        for index, state in enumerate(("paused", "busy", "processing", "cancelling", "uncertain")):
            self.run_script(
                "const [index, state] = arguments;"
                "const row = document.querySelectorAll('.upload')[index];"
                "row.dataset.state = state;"
                "row.querySelectorAll('[data-states]').forEach(part => {"
                "  part.hidden = !part.dataset.states.split(' ').includes(state);"
                "});",
                index,
                state,
            )

        self.assert_good()

    def test_captions_and_the_search(self):
        self.dish.pictures.update(caption="With rouille and croûtons")
        for path in (self.dish.get_absolute_url(), "/?q=bouilla", "/?q=nothing"):
            with self.subTest(path):
                self.open(path)
                self.assert_good()

        self.open(self.dish.get_absolute_url())
        self.choose({"dish.jpg": photo()})
        self.find('[data-action="openCaption"]')[0].click()
        self.assert_good()

    def test_where_photos_are_dropped(self):
        self.open(self.dish.get_absolute_url())
        self.run_script("document.body.classList.add('dropping')")

        self.assert_good()

    def test_the_page_for_the_servers_own_faults(self):
        with patch("uploads.views.dish_response", side_effect=OSError):
            self.open(self.dish.get_absolute_url())

        self.assertEqual(self.find_text("h1"), ["Something burnt in our kitchen"])
        self.assert_good()

    def test_the_form_in_the_dialog(self):
        make_dish("Rindfleischsuppeneinlagengericht")
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
        self.throttle(20_000)
        self.upload(dish=photo())
        self.wait_for_state("uploading")
        self.assertEqual(self.run_script(moving), 0)

        self.emulate_media(**{"prefers-reduced-motion": "no-preference"})
        self.assertGreater(self.run_script(moving), 0)
        self.throttle(None)
        self.wait_for_done()

    def test_the_admin_breaks_no_policy(self):
        self.client.force_login(User.objects.create_superuser("chef"))
        cookie = self.client.cookies["sessionid"]
        self.browser.add_cookie({"name": cookie.key, "value": cookie.value})
        picture = self.dish.pictures.get()

        for path in (
            "dish/",
            f"dish/{self.dish.pk}/change/",
            f"picture/{picture.pk}/change/",
            "report/",
        ):
            self.open(f"/admin/uploads/{path}")
            wait_for(lambda: self.find("#content-main"))
            self.assertIsNone(self.run_script("return sessionStorage.getItem('violation')"))

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

    def test_the_scripts_and_the_style_sheet_are_light(self):
        scripts = [path.read_bytes() for path in SOURCES.glob("*.js")]

        self.assertLess(sum(map(len, scripts)), 42 * 1024)
        self.assertLess(sum(len(gzip.compress(script)) for script in scripts), 20 * 1024)
        self.assertLess(len((SOURCES / "gourmious.css").read_bytes()), 15 * 1024)

    def test_the_pages_name_all_scripts_so_that_they_load_at_once(self):
        named = set()
        for path in ("/", self.dish.get_absolute_url()):
            page = self.client.get(path).content.decode()
            named.update(re.findall(r"/uploads/([a-z]+\.js)", page))

        self.assertEqual(named, {path.name for path in SOURCES.glob("*.js")})
