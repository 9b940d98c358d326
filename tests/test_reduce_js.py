"""reduce.js and originals.js: what of a large photo is sent."""

from io import BytesIO

from django.test import override_settings
from PIL import Image

from .browser import BrowserTestCase
from .photos import encoded, photo
from .waiting import wait_for


class ReduceTests(BrowserTestCase):
    def setUp(self):
        super().setUp()
        self.run_script("localStorage.clear()")
        self.browser.refresh()

    def send(self, content, name="dish.jpg"):
        """Upload a photo, and return what the server has of it."""
        self.choose({name: content})
        self.wait_for_state("ready")
        self.submit()
        self.wait_for_done()
        [path] = self.files("originals")
        return path.read_bytes()

    def check_originals(self):
        self.find("label.option")[0].click()

    def test_a_large_photo_is_sent_smaller_and_its_row_says_so(self):
        self.choose({"dish.jpg": photo(4000, 3000)})
        self.wait_for_state("ready")

        self.assertRegex(self.find_text(".upload-detail")[0], r"^\d+\.\d\sMB, sent as \d\.\d\sMB$")
        self.submit()
        self.wait_for_done()
        picture = self.dish.pictures.get()
        self.assertEqual((picture.width, picture.height), (3200, 2400))

    def test_the_place_where_it_was_taken_is_not_sent(self):
        exif = Image.Exif()
        exif.get_ifd(0x8825)[2] = (43.0, 17.0, 42.0)  # the latitude
        content = encoded(Image.new("RGB", (4000, 3000)), exif=exif, quality=100)

        with Image.open(BytesIO(self.send(content))) as sent:
            self.assertEqual(dict(sent.getexif()), {})

    def test_a_photo_of_the_size_that_is_shown_is_sent_as_it_is(self):
        content = photo(3200, 100)

        self.assertEqual(self.send(content), content)

    def test_one_that_would_grow_is_sent_as_it_is(self):
        content = encoded(Image.new("1", (4000, 3000)), "PNG")

        self.assertEqual(self.send(content, "dish.png"), content)

    def test_animations_are_sent_as_they_are(self):
        frames = [Image.effect_noise((3300, 40), spread) for spread in (40, 80)]
        for name in ("GIF", "WEBP", "PNG"):
            with self.subTest(name):
                content = encoded(frames[0], name, save_all=True, append_images=frames[1:])
                self.choose({f"dish.{name}": content})
                self.wait_for_state("ready")
                self.assertNotIn("sent as", self.find_text(".upload-detail")[0])
                self.act("remove", "ready")

    def test_the_original_is_sent_where_the_diner_wants_it(self):
        content = photo(4000, 3000)
        self.choose({"dish.jpg": content})
        self.wait_for_state("ready")
        self.check_originals()
        self.assertNotIn("sent as", self.find_text(".upload-detail")[0])

        self.submit()
        self.wait_for_done()

        [path] = self.files("originals")
        self.assertEqual(path.read_bytes(), content)
        self.browser.refresh()
        self.assertTrue(self.find("#originals")[0].is_selected())

    def test_one_over_the_limits_is_reduced_and_refused_only_as_an_original(self):
        with override_settings(PICTURE_MAX_SIZE=2**20):
            self.browser.refresh()
            content = encoded(Image.effect_noise((3600, 2400), 30), quality=97)
            self.assertGreater(len(content), 2**20)
            self.choose({"dish.jpg": content.ljust(2**22, b"\0")})
            wait_for(lambda: self.find('[data-state="ready"], [data-state="refused"]'))
            before = self.find(".upload")[0].get_attribute("data-state")
            self.check_originals()
            self.wait_for_state("refused")
            self.check_originals()
            self.assertEqual(self.find(".upload")[0].get_attribute("data-state"), before)
