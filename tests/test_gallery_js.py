"""gallery.js: a picture, large."""

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from uploads.models import Report

from .base import store
from .browser import BrowserTestCase
from .photos import photo
from .waiting import wait_for

# The picture that lies in the middle of the strip, once that has come to rest.
IN_THE_MIDDLE = """
    const strip = document.querySelector('.strip');
    const index = strip.scrollLeft / strip.clientWidth;
    const image = Number.isInteger(index) && strip.children[index].querySelector('img');
    return image && image.naturalWidth ? image.currentSrc : null;
"""


class GalleryTests(BrowserTestCase):
    def setUp(self):
        super().setUp()
        for _ in range(3):
            store(self.dish, photo(1200, 900))
        self.large = [picture.display.url for picture in self.dish.pictures.all()]
        self.browser.refresh()

    def links(self):
        return self.find(".picture-link")

    def press(self, key):
        self.browser.switch_to.active_element.send_keys(key)

    def touch(self, event, *points):
        self.cdp("Input.dispatchTouchEvent", type=event, touchPoints=points)

    def wait_for_picture(self, index):
        """Wait until a picture is in the middle, and the foot tells of it, a frame later."""
        wait_for(lambda: self.run_script(IN_THE_MIDDLE) == self.live_server_url + self.large[index])
        wait_for(lambda: f"Photo {index + 1} of" in self.find_text(".gallery-position")[0])

    def test_a_picture_opens_large(self):
        self.links()[1].click()

        self.wait_for_picture(1)

    def test_arrow_keys_lead_to_the_others(self):
        self.links()[0].send_keys(Keys.ENTER)
        self.wait_for_picture(0)

        self.press(Keys.ARROW_RIGHT)
        self.wait_for_picture(1)
        self.press(Keys.ARROW_RIGHT)
        self.wait_for_picture(2)
        self.press(Keys.ARROW_LEFT)
        self.wait_for_picture(1)

    def test_a_swipe_leads_to_the_next(self):
        self.enterContext(self.phone(390))
        self.links()[0].click()
        self.wait_for_picture(0)

        self.touch("touchStart", {"x": 340, "y": 300})
        for x in range(320, 80, -20):
            self.touch("touchMove", {"x": x, "y": 300})
        self.touch("touchEnd")

        self.wait_for_picture(1)

    def test_buttons_lead_to_the_others(self):
        self.links()[1].click()
        self.wait_for_picture(1)

        self.element(By.XPATH, "//button[text()='Next']").click()
        self.wait_for_picture(2)
        self.run_script("$('[data-step=\"-1\"]').trigger('click').trigger('click')")
        self.wait_for_picture(0)

    def test_it_tells_the_position_and_disables_what_leads_nowhere(self):
        self.dish.pictures.filter(display=self.large[1][7:]).update(caption="With rouille")
        self.browser.refresh()
        self.links()[1].click()
        wait_for(lambda: self.find_text(".gallery-position") == ["Photo 2 of 3"])
        self.assertRegex(self.find_text(".strip figcaption")[1], r"^With rouille\s+\d+ \w+ \d+$")

        self.element(By.XPATH, "//button[text()='Next']").click()
        wait_for(lambda: self.find_text(".gallery-position") == ["Photo 3 of 3"])

        self.assertFalse(self.find('[data-step="1"]')[0].is_enabled())
        self.assertEqual(self.browser.switch_to.active_element, self.find(".strip")[0])

    def report_links(self):
        return self.find(".gallery-foot a:not([hidden])")

    def test_each_picture_of_others_can_be_reported(self):
        self.links()[0].click()
        self.wait_for_picture(0)
        self.element(By.XPATH, "//button[text()='Next']").click()
        self.wait_for_picture(1)

        self.report()

        self.assertEqual(Report.objects.get().picture, self.dish.pictures.all()[1])

    def report(self):
        self.element(By.LINK_TEXT, "Report").click()
        wait_for(lambda: self.find("#id_reason"))
        self.element(By.ID, "id_reason").send_keys("Not food", Keys.ENTER)
        thanks = "Thank you. Our staff will look at the photo."
        wait_for(lambda: self.find_text(".thanks") == [thanks])

    def test_a_diners_own_photo_cannot_be_reported(self):
        self.upload(dish=photo(1200, 900))
        self.wait_for_done()
        self.large.insert(0, self.dish.pictures.first().display.url)
        self.links()[0].click()
        self.wait_for_picture(0)
        self.assertEqual(self.report_links(), [])

        self.press(Keys.ARROW_RIGHT)
        self.wait_for_picture(1)
        self.assertEqual(len(self.report_links()), 1)

    def test_the_link_stays_that_of_the_picture_when_a_photo_arrives(self):
        self.links()[0].click()
        self.wait_for_picture(0)
        link = self.report_links()[0].get_attribute("href")
        self.run_script("$('.picture').first().clone().prependTo('.pictures')")

        self.press(Keys.ARROW_RIGHT)
        self.wait_for_picture(1)
        self.press(Keys.ARROW_LEFT)
        self.wait_for_picture(0)

        self.assertEqual(self.report_links()[0].get_attribute("href"), link)

    def test_only_without_scripts_the_page_itself_offers_reports(self):
        for link in self.find(".picture .report"):
            self.assertFalse(link.is_displayed())
        self.emulate("setScriptExecutionDisabled", {"value": True}, {"value": False})
        self.browser.refresh()

        self.report()

        self.assertEqual(Report.objects.get().picture, self.dish.pictures.first())

    def test_it_closes_and_the_focus_comes_back(self):
        link = self.links()[2]
        for close in (
            lambda: self.press(Keys.ESCAPE),
            lambda: self.element(By.XPATH, "//button[text()='Close']").click(),
        ):
            link.send_keys(Keys.ENTER)
            self.wait_for_picture(2)
            close()
            wait_for(lambda: not self.find("#gallery[open]"))
            self.assertEqual(self.browser.switch_to.active_element, link)

    def test_a_photo_that_has_just_arrived_opens_too(self):
        self.upload(dish=photo(1200, 900))
        self.wait_for_done()
        self.large.insert(0, self.dish.pictures.first().display.url)

        self.links()[0].click()
        self.wait_for_picture(0)

    def test_without_scripts_it_is_a_link(self):
        self.emulate("setScriptExecutionDisabled", {"value": True}, {"value": False})
        self.browser.refresh()

        self.links()[0].click()

        wait_for(lambda: self.browser.current_url == self.live_server_url + self.large[0])
