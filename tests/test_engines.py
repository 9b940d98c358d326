"""The way of a photo from the form to the page, in browsers with other engines than Chromium's."""

from functools import partial

from PIL import Image
from selenium.webdriver.common.by import By

from uploads import formats, refusals

from .browser import PageTestCase
from .engines import start_firefox, start_webkit
from .photos import encoded, photo
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
        self.wait_for_state("done")

        picture = self.dish.pictures.get()
        wait_for(lambda: self.shown_pictures() == [picture.thumbnail.url])
        self.wait_for_red_and_blue(".picture img")
        self.assertEqual(len(self.requests("/upload")), 1)
        self.assert_nothing_polls()

    def test_two_photos_at_once_are_both_kept(self):
        self.upload(one=photo(), two=photo())
        self.wait_for_state("done", 2)

        wait_for(lambda: len(self.shown_pictures()) == 2)
        self.assertEqual(self.find_text(".upload-name"), ["one.jpg", "two.jpg"])
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


@requires("firefox-esr")
class FirefoxTests(WholeWayMixin, PageTestCase):
    start_browser = staticmethod(start_firefox)


@requires("WebKitWebDriver", "Xvfb")
class WebKitTests(WholeWayMixin, PageTestCase):
    start_browser = staticmethod(start_webkit)
