"""The way of a photo from the form to the page, in browsers with other engines than Chromium's."""

from contextlib import contextmanager
from functools import partial

from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from uploads import formats, refusals

from .browser import WITNESS, BrowserTestCase, PageTestCase
from .engines import start_firefox, start_webkit
from .photos import encoded, photo
from .proxy import Proxy, answer
from .samples import P3_PROFILE
from .servers import requires
from .waiting import wait_for

RED, BLUE = (220, 20, 20), (20, 20, 220)


def red_and_blue():
    """Return a photo that is red on the left and blue on the right."""
    image = Image.new("RGB", (800, 600), RED)
    image.paste(BLUE, (400, 0, 800, 600))
    return encoded(image, quality=90)


def near(colour, other):
    return all(abs(one - another) < 16 for one, another in zip(colour, other, strict=True))


class WholeWayMixin:
    def wait_for_red_and_blue(self, selector):
        [element] = self.find(selector)
        left, right = partial(self.pixel, element, 0.25), partial(self.pixel, element, 0.75)
        wait_for(lambda: near(left(), RED) and near(right(), BLUE))

    def test_a_photo_that_is_chosen_has_a_row_and_a_preview(self):
        self.choose({"dish.jpg": red_and_blue()})
        self.wait_for_state("ready")

        self.assertEqual(self.find_text(".upload-name"), ["dish.jpg"])
        self.wait_for_red_and_blue(".upload-preview")
        self.assertEqual(self.requests("/upload"), [])

    def test_a_photo_that_is_uploaded_appears_on_the_page(self):
        self.upload(dish=red_and_blue())
        self.wait_for_done()

        picture = self.dish.pictures.get()
        wait_for(lambda: self.shown_pictures() == [picture.thumbnail.url])
        self.wait_for_red_and_blue(".picture img")
        self.assertEqual(len(self.requests("/upload")), 1)
        self.assert_nothing_polls()

    def test_two_photos_at_once_are_both_kept(self):
        self.upload(one=photo(), two=photo())
        self.wait_for_done(2)

        wait_for(lambda: len(self.shown_pictures()) == 2)
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_a_text_is_refused_in_the_servers_words_and_not_sent(self):
        self.choose({"menu.txt": b"A text."})
        self.wait_for_state("refused")

        sentence = refusals.NOT_AN_IMAGE.fill(formats=formats.LABELS).message
        self.assertEqual(self.find_text(".upload-state"), [f"Refused. {sentence}"])
        self.submit()
        self.assertEqual(self.requests("/upload"), [])

    def test_nothing_is_sent_where_nothing_is_chosen(self):
        self.submit()

        picture = self.element(By.ID, "picture")
        self.assertEqual(self.browser.switch_to.active_element, picture)
        self.assertEqual(self.requests("/upload"), [])

    def test_a_large_photo_is_sent_smaller_upright_and_in_its_colours(self):
        image = Image.new("RGB", (3000, 4000), (234, 51, 35))  # sRGB's red in Display P3
        image.paste((117, 251, 76), (0, 2000, 3000, 4000))  # and its green
        turned = Image.Exif()
        turned[0x0112] = 8  # to be turned by a quarter, after which the first colour is on the left
        content = encoded(image, quality=95, exif=turned, icc_profile=P3_PROFILE)
        self.choose({"dish.jpg": content.ljust(2**20, b"\0")})
        self.wait_for_state("ready")
        self.assertIn("sent as", self.find_text(".upload-detail")[0])

        self.submit()
        self.wait_for_done()

        picture = self.dish.pictures.get()
        self.assertEqual((picture.width, picture.height), (3200, 2400))
        with Image.open(picture.display.path) as shown:
            left, right = (shown.getpixel((x * shown.width // 4, 600)) for x in (1, 3))
        self.assertTrue(near(left, (255, 0, 0)), left)
        self.assertTrue(near(right, (0, 255, 0)), right)

    @contextmanager
    def slow_line(self):
        """Open the dish's page over a line on which an upload takes seconds."""
        proxy = self.enterContext(Proxy(self.live_server_url.removeprefix("http://")))
        self.browser.get(f"http://localhost:{proxy.port}{self.dish.get_absolute_url()}")
        self.run_script(WITNESS)
        with proxy.throttle("/upload?", upload=80_000):
            yield proxy

    def test_the_bar_rises_and_a_cancelled_upload_leaves_nothing(self):
        with self.slow_line():
            self.upload(dish=photo(1500, 1200))
            wait_for(lambda: len(set(self.witnessed("dish")[1])) >= 3, 60)
            self.act("cancel", "uploading")
            self.wait_for_state("cancelled")
            wait_for(lambda: not self.files())

            values = self.witnessed("dish")[1]
            self.assertEqual(values, sorted(values))
        self.act("retry", "cancelled")
        self.wait_for_done()
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_a_server_that_is_away_is_tried_again(self):
        with self.slow_line() as proxy, proxy.fault("/upload?", answer(502), times=1):
            self.upload(dish=photo(200, 150))
            self.wait_for_state("paused")
            self.wait_for_done()

    def test_the_dialog_and_the_gallery_are_used_by_keys(self):
        self.open("/")
        self.find("[data-dish]")[0].send_keys(Keys.ENTER)
        wait_for(lambda: self.find("#upload_dialog[open]"))
        self.upload(dish=photo())
        self.wait_for_done()
        self.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        wait_for(lambda: not self.find("#upload_dialog[open]"))

        self.open(self.dish.get_absolute_url())
        self.find(".picture-link")[0].send_keys(Keys.ENTER)
        wait_for(lambda: self.find_text(".gallery-position") == ["Photo 1 of 1"])
        self.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        wait_for(lambda: not self.find("#gallery[open]"))
        link = self.find(".picture-link")[0]
        self.assertEqual(self.browser.switch_to.active_element, link)

    def test_every_state_is_accessible(self):
        with self.slow_line():
            self.choose({"one.jpg": photo(1500, 1200), "menu.txt": b"A text."})
            self.wait_for_state("refused")
            self.assert_accessible()
            self.submit()
            self.wait_for_state("uploading")
            self.assert_accessible()
        self.wait_for_done()
        wait_for(lambda: not self.find(".arriving"))
        self.assert_accessible()


class ChromiumTests(WholeWayMixin, BrowserTestCase):
    pass


@requires("firefox-esr")
class FirefoxTests(WholeWayMixin, PageTestCase):
    start_browser = staticmethod(start_firefox)


@requires("WebKitWebDriver", "Xvfb")
class WebKitTests(WholeWayMixin, PageTestCase):
    start_browser = staticmethod(start_webkit)
