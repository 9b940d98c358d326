"""upload.js and its modules: the way of a photo from the form to the page."""

import re
from contextlib import contextmanager
from errno import ENOSPC
from itertools import pairwise
from threading import Event
from unittest.mock import patch

from django.core.cache import cache
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from uploads.models import PictureQuerySet

from .base import store
from .browser import BrowserTestCase
from .client import poll
from .photos import photo
from .waiting import wait_for


@contextmanager
def store_held_back():
    """Let the server store no picture until the block ends."""
    held, get_or_store = Event(), PictureQuerySet.get_or_store

    def store_later(*args, **fields):
        held.wait(60)
        return get_or_store(*args, **fields)

    with patch.object(PictureQuerySet, "get_or_store", store_later):
        try:
            yield
        finally:
            held.set()


class UploadTests(BrowserTestCase):
    takes_minutes = True

    def test_the_bar_rises_until_the_photo_appears_on_the_page(self):
        self.throttle(1_500_000)
        self.run_script("window.sameDocument = true")

        self.upload(dish=photo(2400, 1800))
        self.wait_for_done()

        states, values, _ = self.witnessed("dish")
        self.assertEqual(states[:2], ["starting", "uploading"])
        self.assertEqual(values, sorted(values))
        self.assertGreaterEqual(len(set(values)), 5)
        self.assertLessEqual(values[-1], 100)
        picture = self.dish.pictures.get()
        self.assertEqual(wait_for(self.shown_pictures), [picture.thumbnail.url])
        self.assertFalse(self.find(".empty")[0].is_displayed())
        self.assertTrue(self.run_script("return sameDocument"))
        self.assert_nothing_polls()

    def test_two_photos_at_once_have_a_request_and_a_bar_each(self):
        self.throttle(1_500_000)

        self.upload(one=photo(1500, 1200), two=photo(1200, 1500))
        bars = '.upload[data-state="uploading"] [role="progressbar"]'
        wait_for(lambda: len(self.find(bars)) == 2)
        self.wait_for_done(2)

        for name in ("one", "two"):
            self.assertGreaterEqual(len(set(self.witnessed(name)[1])), 3)
        self.assertEqual(len({address for address, *_ in self.requests("/upload")}), 2)
        self.assertEqual(
            len(wait_for(lambda: len(self.shown_pictures()) == 2 and self.find(".picture img"))), 2
        )
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_a_first_null_means_that_the_upload_has_not_begun(self):
        self.throttle(60_000)

        self.upload(dish=photo(500, 400))
        wait_for(lambda: len(self.requests("/get_upload_progress")) >= 3)

        self.assertNotIn("processing", self.witnessed("dish")[0])
        self.wait_for_done()
        self.assertEqual(self.witnessed("dish")[0][:2], ["starting", "uploading"])

    def test_at_most_one_poll_is_in_flight(self):
        self.throttle(1_000_000, latency=300)

        self.upload(dish=photo(1500, 1200))
        self.wait_for_done()

        polls = self.requests("/get_upload_progress")
        self.assertGreaterEqual(len(polls), 3)
        for (_, _, end), (_, beginning, _) in pairwise(polls):
            self.assertGreaterEqual(beginning, end)

    def test_after_the_last_byte_the_photo_is_being_processed(self):
        self.throttle(1_000_000)
        with store_held_back():
            self.upload(dish=photo(800, 600))
            self.wait_for_state("processing")

            self.assertEqual(self.find_text(".upload-state"), ["Processing…"])
            [bar] = self.find('.upload [role="progressbar"]')
            self.assertIsNone(bar.get_attribute("aria-valuenow"))
        self.wait_for_done()
        self.assertEqual(self.witnessed("dish")[0], ["starting", "uploading", "processing", "done"])

    def test_what_moves_needs_no_layout(self):
        """A layout for each frame would empty a phone's battery."""
        self.emulate_media(**{"prefers-reduced-motion": "no-preference"})
        self.throttle(20_000)
        self.upload(one=photo())
        self.assertEqual(wait_for(lambda: self.list_moved("uploading")), {"transform"})
        self.throttle(None)
        self.wait_for_done()

        self.throttle(1_000_000)
        with store_held_back():
            self.upload(two=photo(800, 600))
            self.assertEqual(wait_for(lambda: self.list_moved("processing")), {"transform"})
        wait_for(lambda: self.dish.pictures.count() == 2)

    def list_moved(self, state):
        """Return the CSS properties that move in the row of a photo that is in this state."""
        frames = self.run_script(
            f"return [...document.querySelectorAll('.upload[data-state={state}]')]"
            "  .flatMap(row => row.getAnimations({subtree: true}))"
            "  .flatMap(animation => animation.effect.getKeyframes())"
        )
        names = {name for frame in frames for name in frame}
        return names - {"offset", "computedOffset", "easing", "composite"}

    def test_what_is_refused_is_told_beside_its_name_and_the_others_go_on(self):
        self.upload(menu=b"A text.", dish=photo())
        self.wait_for_state("refused")
        self.wait_for_done()

        [row] = self.find('.upload[data-state="refused"]')
        self.assertRegex(
            row.text, r"^menu\.jpg\nRefused\. This file is not a picture.*\.\nDismiss$"
        )
        self.assertEqual(self.dish.pictures.count(), 1)
        self.assert_nothing_polls()

    def test_a_file_that_is_no_picture_is_refused_long_before_its_end(self):
        self.throttle(100_000)

        self.upload(menu=b"A text.\n" * 500_000)
        wait_for(
            lambda: self.find('.upload[data-state="refused"]'), 20
        )  # The whole file takes 40 s.

        self.assertRegex(
            self.find_text(".upload-state")[0], r"^Refused\. This file is not a picture.*\.$"
        )
        self.assert_nothing_polls()
        self.assertEqual(self.files(), [])

    def test_no_news_in_the_middle_of_an_upload_changes_nothing(self):
        self.throttle(1_000_000)
        self.upload(dish=photo(2000, 1500))
        self.wait_for_state("uploading")

        cache.clear()
        self.wait_for_done()

        states = self.witnessed("dish")[0]
        self.assertEqual(
            [state for state in states if state != "processing"], [*states[:2], "done"]
        )

    def test_what_the_server_failed_at_is_told_in_its_words_and_can_be_tried_again(self):
        with patch.object(PictureQuerySet, "get_or_store", side_effect=OSError(ENOSPC, "full")):
            self.upload(dish=photo())
            self.wait_for_state("failed")
        self.assertRegex(self.find_text(".upload-state")[0], r"^Failed\. There is no room .*\.$")

        self.act("retry", "failed")
        self.wait_for_done()

    def test_the_same_photo_twice_is_shown_once(self):
        content = photo()

        self.upload(one=content)
        self.wait_for_done()
        self.upload(two=content)
        self.wait_for_done()

        self.assertEqual(self.find_text(".added-link"), ["1 photo was here before"])
        self.assertEqual(len(self.find(".picture img")), 1)

    def test_a_new_picture_is_the_same_after_a_reload(self):
        self.upload(dish=photo(1000, 2000))
        self.wait_for_done()

        self.assertIn("take_back", self.assert_same_after_reload(".picture"))

    def test_a_picture_that_another_diner_sent_before_is_the_same_after_a_reload(self):
        content = photo()
        store(self.dish, content, diner="another")

        self.upload(dish=content)
        self.wait_for_done()

        self.assertNotIn("take_back", self.assert_same_after_reload(".picture"))

    def test_a_diner_takes_a_photo_back(self):
        self.upload(dish=photo())
        self.wait_for_done()

        self.element(By.LINK_TEXT, "Take it back").click()
        wait_for(lambda: "Take this photo back?" in self.find_text("h1"))
        self.element(By.XPATH, "//button[text()='Take it back']").click()

        wait_for(lambda: self.find(".empty"))
        self.assertEqual(self.files(), [])

    def test_of_seven_photos_two_are_sent_at_once_over_http_1(self):
        self.throttle(2_000_000)

        with store_held_back():
            self.upload(**{f"photo{number}": photo(600, 500) for number in range(7)})
            self.wait_for_state("waiting", 5)
        self.wait_for_done(7)

        self.assertEqual(self.run_script("return mostAtOnce"), 2)
        self.assertEqual(len({address for address, *_ in self.requests("/upload")}), 7)
        self.assertEqual(self.dish.pictures.count(), 7)

    def test_sixty_photos_are_sixty_uploads(self):
        self.upload(**{f"photo{number}": photo(40, 30) for number in range(60)})
        self.wait_for_done(60)

        self.assertEqual(self.find_text(".added-link"), ["60 photos added"])
        self.assertEqual(self.dish.pictures.count(), 60)

    def test_photos_can_be_added_while_others_are_sent(self):
        self.throttle(500_000)
        self.upload(one=photo(1500, 1200))
        self.wait_for_state("uploading")

        self.upload(two=photo())
        self.wait_for_done(2)

        self.assertEqual(self.dish.pictures.count(), 2)

    def test_quarters_and_the_end_are_announced(self):
        self.throttle(1_000_000)
        self.choose({"one.jpg": photo(1500, 1200), "two.jpg": photo(1500, 1200)})
        self.wait_for_state("ready", 2)
        self.submit()
        self.wait_for_done(2)

        [log] = self.find('[role="log"]')
        news = [news for news in log.get_property("innerText").splitlines() if news]
        self.assertRegex(news[0], r"^Ready: 2 photos \(.*MB\)$")
        for quarter in news[1:-1]:
            self.assertRegex(quarter, r"^[01] of 2 photos · \d+\s% · \d+\ss\sleft$")
        self.assertIn(len(news), {3, 4, 5})
        self.assertEqual(news[-1], "2 photos added")

    def test_a_bar_has_the_name_of_its_photo_and_tells_the_figures(self):
        self.throttle(500_000)
        self.upload(dish=photo(1500, 1200))
        wait_for(lambda: " left" in self.find_text(".upload-state")[0].replace("\xa0", " "))

        [bar] = self.find('.upload [role="progressbar"]')
        self.assertEqual(bar.accessible_name, "dish.jpg")
        self.assertRegex(bar.get_attribute("aria-valuetext"), r"^Uploading \d\.\d of 1\.\d\sMB")
        self.throttle(None)
        self.wait_for_done()

    def test_bytes_speed_and_time_left_are_told(self):
        self.throttle(500_000)
        self.upload(dish=photo(2000, 1500))
        self.wait_for_done()

        first, *texts = self.witnessed("dish")[2]
        self.assertRegex(first, r"^\d\.\d of \d\.\d\sMB$")
        self.assertGreaterEqual(len(texts), 5)
        speed, left = r"(\d{2,3}\skB|\d\.\d\sMB)/s", r"([1-9]\d?\ss|[1-9]\smin)\sleft"
        for text in texts:
            self.assertRegex(text, rf"^\d\.\d of \d\.\d\sMB · {speed} · {left}$")
        self.assertIn("kB/s", texts[-1])

    def test_one_summary_tells_of_all_photos(self):
        self.throttle(300_000)
        self.choose({f"{name}.jpg": photo(900, 700) for name in ("one", "two", "three")})
        self.wait_for_state("ready", 3)
        self.assertRegex(
            self.find_text("#form_submit_button")[0], r"^Upload 3 photos \(\d\.\d\sMB\)$"
        )

        self.submit()
        pattern = re.compile(r"^[012] of 3 photos · \d+\s% · \d+\ss\sleft$")
        wait_for(lambda: pattern.match(self.find_text(".upload-total")[0]))
        self.assertEqual(self.find_text("#form_submit_button"), ["Upload"])
        self.throttle(None)
        self.wait_for_done(3)

        self.assertFalse(self.find("#upload_summary")[0].is_displayed())
        self.assertEqual(self.find(".upload"), [])

    def test_the_link_to_what_was_added_marks_it(self):
        store(self.dish, photo())
        self.browser.refresh()
        self.upload(one=photo(), two=photo())
        self.wait_for_done(2)

        self.find(".added-link")[0].click()

        marked = (
            "return Array.from(document.querySelectorAll('.added'), one => one.dataset.picture)"
        )
        newest = [str(picture.pk) for picture in self.dish.pictures.all()[:2]]
        self.assertEqual(sorted(self.run_script(marked)), sorted(newest))

    def test_from_the_second_page_the_link_leads_to_the_first(self):
        with patch("uploads.responses.PICTURES_PER_PAGE", 1):
            for _ in range(2):
                store(self.dish, photo())
            self.open(self.dish.get_absolute_url() + "?page=2")
            self.upload(dish=photo())
            self.wait_for_done()
            self.assertEqual(len(self.find(".picture")), 1)

            self.find(".added-link")[0].click()

            newest = self.dish.pictures.first()
            wait_for(lambda: self.find(f"#picture_{newest.pk}:target"))

    def test_a_caption_is_sent_with_the_photo(self):
        self.choose({"dish.jpg": photo()})
        self.wait_for_state("ready")
        self.write_caption("With <rouille> & croûtons")
        self.submit()
        self.wait_for_done()

        self.assertEqual(self.dish.pictures.get().caption, "With <rouille> & croûtons")
        self.assertEqual(self.find_text(".caption"), ["With <rouille> & croûtons"])
        self.assert_same_after_reload(".picture")

    def test_a_caption_that_is_written_while_the_photo_is_sent_is_kept(self):
        self.throttle(50_000)
        self.upload(dish=photo(1200, 900))
        self.wait_for_state("uploading")
        field = self.write_caption("With rouille")
        self.throttle(None)
        self.wait_for_state("done")

        field.send_keys(Keys.ENTER)
        self.wait_for_done()

        self.assertEqual(self.dish.pictures.get().caption, "With rouille")
        # The picture is painted again with its caption.
        read_name = "return document.querySelector('.picture img')?.alt"
        wait_for(lambda: self.run_script(read_name) == "With rouille")

    def write_caption(self, text):
        self.find('[data-action="openCaption"]')[0].click()
        field = self.browser.switch_to.active_element
        field.send_keys(text)
        return field

    def test_pictures_are_named_by_their_place(self):
        for _ in range(2):
            store(self.dish, photo())
        self.browser.refresh()
        self.upload(dish=photo())
        self.wait_for_done()

        expected = [f"Bouillabaisse, photo {number} of 3" for number in (1, 2, 3)]
        for _ in range(2):
            names = [image.get_attribute("alt") for image in self.find(".picture img")]
            self.assertEqual(names, expected)
            self.browser.refresh()

    def test_the_tokens_of_other_tabs_and_lost_cookies_cost_no_photo(self):
        for cookie in (
            None,
            {"name": "csrftoken", "value": "a" * 32},
            {"name": "csrftoken", "value": "x"},
        ):
            with self.subTest(cookie):
                self.browser.delete_cookie("csrftoken")
                if cookie:
                    self.browser.add_cookie(cookie)
                self.upload(dish=photo())
                self.wait_for_done()

    def test_a_script_that_does_not_load_leaves_a_form_that_works(self):
        self.cdp("Network.setBlockedURLs", urls=["*/uploads/total*.js"])
        self.addCleanup(self.cdp, "Network.setBlockedURLs", urls=[])
        self.browser.refresh()

        self.assertTrue(self.element(By.ID, "picture").is_displayed())
        self.assertFalse(self.find(".option")[0].is_displayed())
        self.find("[name=caption]")[0].send_keys("With rouille")
        self.upload(dish=photo())

        wait_for(lambda: self.find_text(".caption") == ["With rouille"])

    def test_the_title_tells_the_percentage_while_the_page_is_in_the_background(self):
        title = self.browser.title
        self.throttle(50_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")
        self.assertEqual(self.browser.title, title)

        before = self.browser.get_window_rect()
        self.addCleanup(self.browser.set_window_rect, **before)
        self.browser.minimize_window()
        self.assertEqual(self.run_script("return document.visibilityState"), "hidden")

        wait_for(lambda: re.search(r"^\(\d+ %\) Gourmious$", self.browser.title))
        self.throttle(None)
        wait_for(lambda: self.browser.title == title)
        self.wait_for_done()

    def test_leaving_the_page_asks_first_while_a_photo_is_sent(self):
        leave = (
            "const event = new Event('beforeunload', {cancelable: true});"
            "dispatchEvent(event); return event.defaultPrevented"
        )
        self.choose({"dish.jpg": photo(1500, 1200)})
        self.assertFalse(self.run_script(leave))

        self.throttle(500_000)
        self.submit()
        self.wait_for_state("uploading")
        self.assertTrue(self.run_script(leave))

        self.throttle(None)
        self.wait_for_done()
        self.assertFalse(self.run_script(leave))

    def test_without_scripts_the_form_is_an_ordinary_one(self):
        self.emulate("setScriptExecutionDisabled", {"value": True}, {"value": False})
        self.browser.refresh()

        self.upload(one=photo(), menu=b"A text.", two=photo(60, 40, "PNG"))

        wait_for(lambda: self.find(".refusals"))
        self.assertRegex(self.find_text(".refusals")[0], r"^menu\.jpg: This file is not a picture")
        wait_for(lambda: len(self.find(".picture img")) == 2)
        self.assertEqual(self.dish.pictures.count(), 2)

    def test_a_diner_finds_the_way_from_the_list_to_the_photo(self):
        self.open("/")
        self.element(By.LINK_TEXT, "Add a dish").click()
        self.add_dish()
        self.upload(dish=photo())
        self.wait_for_done()
        self.element(By.LINK_TEXT, "Gourmious").click()

        wait_for(lambda: "Aïoli" in self.find_text("h2"))
        wait_for(lambda: len(self.find(".card img")) == 1)


class CancelTests(BrowserTestCase):
    def upload_slowly(self, **contents):
        """Upload photos that would take longer than a test waits."""
        self.throttle(20_000)
        self.upload(**contents or {"dish": photo(1500, 1200)})
        self.wait_for_state("uploading", len(contents) or 1)

    def test_a_cancelled_upload_leaves_nothing(self):
        self.upload_slowly()
        progress_id = self.requests("/get_upload_progress")[-1][0].split("=")[1]
        address = self.live_server_url.removeprefix("http://")
        wait_for(lambda: poll(address, progress_id))
        wait_for(lambda: len(self.files("incoming")) == 1)

        self.act("cancel", "uploading")
        wait_for(lambda: poll(address, progress_id) is None and not self.files())

        self.assertEqual(self.find_text(".upload-state"), ["Cancelled"])
        self.assert_nothing_polls()
        self.assertFalse(self.dish.pictures.exists())

    def test_a_cancelled_upload_can_be_sent_after_all(self):
        self.upload_slowly()
        self.act("cancel", "uploading")
        self.assertEqual(self.browser.switch_to.active_element.text, "Retry")

        self.throttle(None)
        self.act("retry", "cancelled")
        self.wait_for_done()

        self.assertEqual(self.dish.pictures.count(), 1)

    def test_the_others_go_on(self):
        self.upload_slowly(one=photo(1500, 1200), two=photo(1200, 1500))

        self.act("cancel", "uploading")
        wait_for(lambda: len(self.files("incoming")) == 1)
        self.throttle(None)
        self.wait_for_done()

        self.assertEqual(self.find_text(".upload-state"), ["Cancelled"])
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_one_that_waits_for_its_turn_is_never_sent(self):
        self.throttle(200_000)
        self.upload(**{f"photo{number}": photo(800, 600) for number in range(3)})
        self.wait_for_state("waiting")

        self.act("cancel", "waiting")
        self.throttle(None)
        self.wait_for_done(2)

        self.assertEqual(len(self.requests("/upload")), 2)

    def upload_and_cancel_too_late(self, content):
        self.throttle(1_000_000)
        with store_held_back():
            self.upload(dish=content)
            self.wait_for_state("processing")
            self.act("cancel", "processing")
            self.wait_for_state("cancelled")

    def test_one_that_the_server_has_already_is_never_shown(self):
        self.upload_and_cancel_too_late(photo(800, 600))

        wait_for(lambda: not self.files())
        self.assertFalse(self.dish.pictures.exists())

    def test_all_are_cancelled_together(self):
        self.throttle(200_000)
        self.upload(**{f"photo{number}": photo(800, 600) for number in range(4)})
        self.wait_for_state("uploading", 2)

        self.find('[data-all="cancel"]')[0].click()
        self.wait_for_state("cancelled", 4)

        self.assertEqual(self.find_text(".upload-total"), ["4 photos cancelled"])
        wait_for(lambda: not self.files())
        self.assert_nothing_polls()

    def test_a_photo_that_was_there_before_stays(self):
        content = photo(800, 600)
        self.upload(dish=content)
        self.wait_for_done()

        self.upload_and_cancel_too_late(content)

        self.assertEqual(self.dish.pictures.count(), 1)

    def test_one_that_is_known_from_elsewhere_stays_too(self):
        content = photo(800, 600)
        self.upload(dish=content)
        self.wait_for_done()

        self.open("/")
        self.element(By.CSS_SELECTOR, "[data-dish]").click()
        self.upload_and_cancel_too_late(content)

        self.assertEqual(self.dish.pictures.count(), 1)

    def test_those_that_wait_are_sent_when_others_are_taken_back(self):
        self.throttle(5_000_000)
        with store_held_back():
            self.upload(**{f"photo{number}": photo(400, 300) for number in range(3)})
            self.wait_for_state("processing", 2)
            for _ in range(2):
                self.act("cancel", "processing")
            self.wait_for_state("cancelled", 2)
        self.wait_for_done()

        wait_for(lambda: self.dish.pictures.count() == 1)

    def test_the_list_gets_the_focus_of_what_is_dismissed(self):
        self.upload_slowly()
        self.act("cancel", "uploading")

        self.find('.upload [data-action="remove"]:not([hidden])')[0].send_keys(Keys.ENTER)

        self.assertEqual(self.browser.switch_to.active_element.get_attribute("id"), "uploads")
