"""dialog.js: the form in a dialog, on the list of the dishes."""

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from .base import make_dish
from .browser import BrowserTestCase
from .photos import photo
from .waiting import wait_for


class DialogTests(BrowserTestCase):
    def setUp(self):
        super().setUp()
        self.other = make_dish("Aïoli")
        self.open("/")

    def open_dialog(self, dish):
        self.element(By.CSS_SELECTOR, f'[data-dish="{dish.pk}"]').send_keys(Keys.ENTER)
        wait_for(self.is_open)

    def is_open(self):
        return bool(self.find("#upload_dialog[open]"))

    def close_dialog(self):
        self.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        wait_for(lambda: not self.is_open())

    def covers(self, dish):
        return self.run_script(
            "return Array.from(document.querySelectorAll(arguments[0]))"
            ".filter(image => image.naturalWidth && image.checkVisibility())"
            ".map(image => image.getAttribute('src'))",
            f'[data-pictures="{dish.pk}"] img',
        )

    def test_a_photo_is_added_to_a_dish_of_the_list(self):
        self.open_dialog(self.dish)
        self.assertEqual(self.find_text("#upload_title"), [str(self.dish)])

        self.upload(dish=photo())
        self.wait_for_done()

        cover = self.dish.pictures.get().thumbnail.url
        wait_for(lambda: self.covers(self.dish) == [cover])
        self.assertEqual(self.covers(self.other), [])
        self.upload(dish=photo())
        wait_for(lambda: self.dish.pictures.count() == 2)
        newest = self.dish.pictures.first().thumbnail.url
        wait_for(lambda: self.covers(self.dish) == [newest])

    def test_a_new_cover_is_the_same_after_a_reload(self):
        self.open_dialog(self.dish)
        self.upload(dish=photo())
        self.wait_for_done()

        cover = f'[data-pictures="{self.dish.pk}"] > :first-child'
        self.assertIn(self.dish.pictures.get().thumbnail.url, self.assert_same_after_reload(cover))

    def test_uploads_go_on_and_are_summed_up_when_it_is_closed(self):
        self.throttle(300_000)
        self.open_dialog(self.dish)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")

        self.close_dialog()
        wait_for(lambda: "0 of 1 photo" in self.find_text(".upload-total")[0])
        self.assertEqual(self.find_text(".upload-summary .upload-dish"), [str(self.dish)])
        self.assertFalse(self.find(".upload")[0].is_displayed())
        self.find("#upload_fold")[0].click()
        self.assertTrue(self.find(".upload")[0].is_displayed())

        self.open_dialog(self.other)
        self.throttle(None)
        self.upload(other=photo())
        self.wait_for_done(2)

        self.assertEqual(self.dish.pictures.count(), 1)
        self.assertEqual(self.other.pictures.count(), 1)

    def test_a_dish_on_the_list_counts_its_photos(self):
        for number in (1, 2):
            self.open_dialog(self.dish)
            self.upload(dish=photo())
            self.wait_for_done()
            self.close_dialog()
            counted = f'[data-pictures="{self.dish.pk}"] ~ .photo-count'
            self.assertEqual(self.find_text(counted), [f"{number} photo{'s' * (number > 1)}"])

    def test_what_was_only_chosen_is_forgotten_when_it_is_closed(self):
        self.open_dialog(self.dish)
        self.choose({"dish.jpg": photo()})

        self.close_dialog()

        wait_for(lambda: not self.find(".upload"))

    def test_the_focus_goes_into_it_and_comes_back(self):
        self.open_dialog(self.dish)
        self.assertEqual(self.browser.switch_to.active_element.text, str(self.dish))

        ActionChains(self.browser).send_keys(Keys.TAB, Keys.ENTER).perform()  # on "Close"

        wait_for(lambda: not self.is_open())
        link = self.element(By.CSS_SELECTOR, f'[data-dish="{self.dish.pk}"]')
        self.assertEqual(self.browser.switch_to.active_element, link)

    def test_without_scripts_the_link_leads_to_the_form(self):
        self.emulate("setScriptExecutionDisabled", {"value": True}, {"value": False})
        self.browser.refresh()

        self.element(By.CSS_SELECTOR, f'[data-dish="{self.dish.pk}"]').click()
        wait_for(lambda: self.dish.name in self.find_text("h1"))
        self.upload(dish=photo())

        wait_for(lambda: self.find(".picture img"))
        self.assertEqual(self.dish.pictures.count(), 1)
