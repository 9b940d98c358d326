"""share.js: the button that shares a dish."""

from selenium.webdriver.common.by import By

from .browser import BrowserTestCase
from .waiting import wait_for

# Stands in for the dialog of a phone, which a headless browser does not have.
SHARE = "navigator.share = async data => { window.shared = data; };"


class ShareTests(BrowserTestCase):
    def test_a_dish_can_be_shared_where_the_browser_can(self):
        script = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=SHARE)
        self.addCleanup(self.cdp, "Page.removeScriptToEvaluateOnNewDocument", **script)
        self.browser.refresh()

        wait_for(self.element(By.CSS_SELECTOR, "[data-share]").is_displayed)
        self.element(By.XPATH, "//button[text()='Share']").click()

        url = self.live_server_url + self.dish.get_absolute_url()
        self.assertEqual(self.run_script("return shared"), {"title": str(self.dish), "url": url})

    def test_there_is_no_button_where_the_browser_cannot(self):
        self.assertFalse(self.find("[data-share]")[0].is_displayed())
