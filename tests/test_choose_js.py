"""choose.js and drop.js: choosing photos, before anything is sent."""

import base64
from io import BytesIO
from pathlib import Path

from django.test import override_settings
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from uploads import formats, refusals
from uploads.formats import SIGNATURE_LENGTH
from uploads.uploadhandler import find_error

from .browser import BrowserTestCase
from .contract import FORMATS
from .photos import encoded, photo
from .test_formats import OTHERS
from .waiting import wait_for

# Chooses a file as soon as the page has the field.
CHOOSE_EARLY = """
    new MutationObserver((records, observer) => {
        const picture = document.querySelector('#picture');
        if (picture && !window.$) {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array([255, 216, 255])], 'early.jpg'));
            picture.files = transfer.files;
            observer.disconnect();
        }
    }).observe(document, {subtree: true, childList: true});
"""

# The states of all rows, also of those whose refusal is said in another.
STATES = """
    return Array.from(document.querySelectorAll('.upload-state'), state => Array.from(
        state.querySelectorAll(':not([hidden])'), part => part.textContent).join(' '));
"""

RED, BLUE = (220, 20, 20), (20, 20, 220)


def near(colour, other):
    return all(abs(one - another) < 16 for one, another in zip(colour, other, strict=True))


class ChooseTests(BrowserTestCase):
    def assert_ready(self, *names):
        wait_for(lambda: self.find_text('[data-state="ready"] .upload-name') == [*names])

    def assert_sent(self, count):
        self.submit()
        self.wait_for_done(count)
        self.assertEqual(self.dish.pictures.count(), count)

    def preview(self, x):
        """Return the colour of the first preview at a fraction of its width, half way down."""
        with Image.open(BytesIO(self.find(".upload-preview")[0].screenshot_as_png)) as shot:
            return shot.convert("RGB").getpixel((int(x * shot.width), shot.height // 2))

    def drag(self, event, *paths):
        data = {"items": [], "files": paths, "dragOperationsMask": 1}
        self.cdp("Input.dispatchDragEvent", type=event, x=200, y=400, data=data)

    def test_nothing_is_sent_before_the_form_is_submitted(self):
        self.choose({"one.jpg": photo()})
        self.choose({"two.jpg": photo()})

        self.assert_ready("one.jpg", "two.jpg")
        self.assertEqual(self.requests("/upload"), [])
        self.assert_sent(2)

    def test_the_browser_asks_for_a_photo_where_none_is_chosen(self):
        self.submit()
        missing = "return document.querySelector('#picture').validity.valueMissing"
        self.assertTrue(self.run_script(missing))

        self.choose({"dish.jpg": photo()})
        self.act("remove", "ready")

        self.assertEqual(self.find(".upload"), [])
        self.assertTrue(self.run_script(missing))

    def test_a_second_click_on_upload_asks_for_nothing(self):
        self.throttle(200_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")

        self.submit()

        focused = self.browser.switch_to.active_element
        self.assertEqual(focused.get_attribute("id"), "form_submit_button")
        self.throttle(None)
        self.wait_for_done()
        self.assertEqual(len(self.requests("/upload")), 1)

    def test_a_file_can_be_chosen_again_after_it_was_removed(self):
        content = photo()
        for _ in range(2):
            self.choose({"dish.jpg": content})
            self.assert_ready("dish.jpg")
            self.act("remove", "ready")

    def test_a_photo_can_be_chosen_before_the_scripts_are_there(self):
        script = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=CHOOSE_EARLY)
        self.addCleanup(self.cdp, "Page.removeScriptToEvaluateOnNewDocument", **script)

        self.browser.refresh()

        self.assert_ready("early.jpg")

    def test_photos_can_be_dropped_anywhere_on_the_page(self):
        paths = self.write({"one.jpg": photo(), "two.jpg": photo()})

        self.drag("dragEnter", *paths)
        self.drag("dragOver", *paths)
        wait_for(lambda: self.find(".dropping"))
        self.drag("drop", *paths)

        self.assert_ready("one.jpg", "two.jpg")
        self.assertEqual(self.find(".dropping"), [])
        self.assert_sent(2)

    def test_photos_that_are_dragged_away_again_are_not_chosen(self):
        paths = self.write({"dish.jpg": photo()})
        self.drag("dragEnter", *paths)
        self.drag("dragOver", *paths)
        wait_for(lambda: self.find(".dropping"))

        self.run_script(  # as the browser does, which the protocol cannot be told to
            "const event = new DragEvent('dragleave', {bubbles: true});"
            "const dataTransfer = {value: {types: ['Files'], files: []}};"
            "Object.defineProperties(event, {dataTransfer});"
            "document.body.dispatchEvent(event)"
        )

        wait_for(lambda: not self.find(".dropping"))
        self.assertEqual(self.find(".upload"), [])

    def test_a_photo_can_be_pasted(self):
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        self.cdp("Browser.grantPermissions", permissions=permissions)
        self.addCleanup(self.cdp, "Browser.resetPermissions")
        self.browser.execute_async_script(
            """
            const [encoded, done] = arguments;
            const bytes = Uint8Array.from(atob(encoded), character => character.charCodeAt());
            const png = new Blob([bytes], {type: 'image/png'});
            navigator.clipboard.write([new ClipboardItem({'image/png': png})]).then(done, done);
            """,
            base64.b64encode(photo(60, 40, "PNG")).decode(),
        )

        ActionChains(self.browser).key_down(Keys.CONTROL).send_keys("v").perform()

        self.assert_ready("image.png")
        self.assert_sent(1)

    def test_a_phone_offers_its_camera(self):
        self.assertFalse(self.find(".camera")[0].is_displayed())
        self.enterContext(self.phone(390))
        self.browser.refresh()

        camera = self.element(By.ID, "camera")
        self.assertTrue(self.find(".camera")[0].is_displayed())
        self.assertEqual(camera.get_attribute("capture"), "environment")
        camera.send_keys(*self.write({"camera.jpg": photo()}))

        self.assert_ready("camera.jpg")
        self.assert_sent(1)

    def test_what_is_no_picture_is_told_in_the_servers_words_and_not_sent(self):
        self.choose(
            {"one.jpg": photo(), "menu.txt": b"A text.", "empty.jpg": b"", "two.jpg": photo()}
        )

        self.assert_ready("one.jpg", "two.jpg")
        not_an_image = refusals.NOT_AN_IMAGE.fill(formats=formats.LABELS)
        sentences = [not_an_image.message, refusals.EMPTY_FILE.message]
        self.assertEqual(
            self.find_text('[data-state="refused"] .upload-state'),
            [f"Refused. {sentence}" for sentence in sentences],
        )
        self.assert_sent(2)
        self.assertEqual(len(self.requests("/upload")), 2)

    def test_the_first_bytes_decide_as_on_the_server(self):
        beginnings = [
            *(photo(60, 40, name)[:SIGNATURE_LENGTH] for name in FORMATS),
            *(first_bytes for group in OTHERS.values() for first_bytes in group),
            *(b"A text.", b"BM is no picture", bytes(16), b"\xff\xd8"),
        ]
        self.choose({f"{number}.jpg": data for number, data in enumerate(beginnings)})

        wait_for(lambda: len(self.find(".upload")) == len(beginnings))
        wait_for(lambda: not self.find('[data-state="preparing"]'))
        states = self.run_script(STATES)
        for first_bytes, state in zip(beginnings, states, strict=True):
            error = find_error(first_bytes)
            sentence = f"Refused. {error.messages[0]}" if error else "Ready"
            with self.subTest(first_bytes):
                self.assertTrue(state.startswith(sentence), state)

    def test_a_photo_may_have_any_name_and_type(self):
        self.choose({"dish.bin": photo(), "dish": photo(), "dish.txt": photo()})

        self.assert_ready("dish.bin", "dish", "dish.txt")
        self.assert_sent(3)

    def test_what_is_too_large_is_told_in_the_servers_words(self):
        with override_settings(PICTURE_MAX_SIZE=2**20):
            self.browser.refresh()
            self.choose(
                {
                    "large.jpg": b"\xff\xd8\xff".ljust(2**20 + 1, b"\0"),
                    "right.jpg": photo().ljust(2**20, b"\0"),
                }
            )

            [row] = wait_for(lambda: self.find('[data-state="refused"]'))
            sentence = refusals.TOO_LARGE.fill().message.replace("\xa0", " ")
            self.assertEqual(row.text, f"large.jpg\nRefused. {sentence}\nDismiss")
            self.assert_ready("right.jpg")
            self.assert_sent(1)

    def test_a_refusal_that_several_files_share_is_said_once(self):
        self.choose({"one.txt": b"A text.", "empty.jpg": b"", "two.txt": b"A text."})
        self.wait_for_state("refused", 3)

        shown = [row.text.splitlines()[0] for row in self.find(".upload") if row.is_displayed()]
        self.assertEqual(shown, ["one.txt, two.txt", "empty.jpg"])
        self.find('[data-action="remove"]:not([hidden])')[0].click()
        self.wait_for_state("refused")

    def test_a_file_that_is_gone_is_told_before_it_is_sent(self):
        self.choose({"dish.jpg": photo()})
        self.assert_ready("dish.jpg")
        Path(self.photos, "dish.jpg").unlink()

        self.submit()
        self.wait_for_state("refused")

        sentence = "This file can no longer be read. Please choose it again."
        self.assertEqual(self.find_text(".upload-state"), [f"Refused. {sentence}"])
        self.assertEqual(self.requests("/upload"), [])

    def test_a_folder_that_is_dropped_is_told(self):
        self.drag("dragEnter", self.photos)
        self.drag("dragOver", self.photos)
        self.drag("drop", self.photos)
        self.wait_for_state("refused")

        self.assertRegex(self.find_text(".upload-state")[0], "can no longer be read")

    def test_a_drop_beside_the_form_does_not_leave_the_page(self):
        self.open("/")
        [path] = self.write({"dish.jpg": photo()})
        self.run_script("window.sameDocument = true")

        self.drag("dragEnter", path)
        self.drag("dragOver", path)
        self.drag("drop", path)

        self.assertTrue(self.run_script("return sameDocument"))
        self.assertEqual(self.find(".upload, .dropping"), [])

    def test_a_photo_has_a_preview_that_is_upright(self):
        image = Image.new("RGB", (400, 800), RED)
        image.paste(BLUE, (0, 400, 400, 800))
        turned = BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 8  # to be turned by a quarter, after which red is on the left
        image.save(turned, "JPEG", exif=exif)

        self.choose({"dish.jpg": turned.getvalue()})

        wait_for(lambda: near(self.preview(0.2), RED) and near(self.preview(0.8), BLUE))

    def test_a_photo_that_the_browser_cannot_decode_has_an_icon_and_is_sent(self):
        content = encoded(Image.new("RGB", (64, 48), RED), "HEIF")
        self.choose({"dish.heic": content})

        icon = self.find(".upload-preview")[0].value_of_css_property("background-image")
        self.assertIn("/static/uploads/photo.svg", icon)
        self.assert_sent(1)

    def test_files_of_any_name_are_shown_by_it(self):
        name = '<b>crème & "brûlée" 🍮.jpg'

        self.choose({name: photo()})

        self.assert_ready(name)
        self.assert_sent(1)
