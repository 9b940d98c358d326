"""upload.js, when the server, the network, a proxy or memcached fails."""

from collections import defaultdict
from itertools import pairwise
from operator import sub

from django.conf import settings

from tests.browser import BrowserTestCase
from tests.cases import MemcachedMixin
from tests.photos import photo
from tests.proxy import Proxy, answer, hang, swallow
from tests.servers import Runserver, prepare_data, requires
from tests.waiting import wait_for
from uploads.models import Cancellation

# The pauses before further attempts take a tenth of their time: all four together take 40 seconds.
HASTE = 10
HASTEN = """
    const [names, haste] = arguments, setTimeout = window.setTimeout;
    window.setTimeout = (callback, pause, ...args) =>
        setTimeout(callback, names.includes(callback.name) ? pause / haste : pause, ...args);
"""


class FaultyBrowserTestCase(BrowserTestCase):
    def hasten(self, *functions):
        """Shorten the pauses before these functions of the open page, HASTE times."""
        self.run_script(HASTEN, functions, HASTE)


class RetryTests(FaultyBrowserTestCase):
    def serve_a_dish(self):
        """Start a server that can be stopped, and open the page of its first dish."""
        prepare_data(self.folder)
        server = self.enterContext(Runserver(self.folder))
        self.browser.get(f"http://localhost:{server.port}/dishes/new")
        self.add_dish()
        return server

    def test_an_upload_goes_on_by_itself_when_the_server_is_back(self):
        server = self.serve_a_dish()
        self.throttle(500_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")

        server.stop()
        sentence = "The connection was lost. Trying again…"
        wait_for(lambda: self.find_text(".upload-state") == [sentence])
        self.throttle(None)
        server.start()
        self.wait_for_done()

        self.assertEqual(len(self.files("originals")), 1)
        self.assertEqual(wait_for(self.shown_pictures)[0][:7], "/media/")

    def test_after_some_attempts_a_line_that_is_lost_is_left_to_the_diner(self):
        self.hasten("queue")
        self.throttle(200_000)
        self.upload(dish=photo(1500, 1200))
        for number in range(1, 6):
            wait_for(lambda number=number: self.count_witnessed("uploading") == number)
            self.run_script("window.stop()")

        self.wait_for_state("failed")
        self.assertRegex(
            self.find_text(".upload-state")[0], r"^Failed\. The photo did not get .*\.$"
        )
        self.assert_nothing_polls()
        wait_for(lambda: not self.files())
        self.throttle(None)
        self.act("retry", "failed")
        self.wait_for_done()
        self.assertEqual(self.dish.pictures.count(), 1)

    def count_witnessed(self, state):
        """Return how many times the photo has come into a state."""
        return self.witnessed("dish")[0].count(state)

    def test_each_photo_is_tried_again_after_growing_pauses(self):
        server = self.serve_a_dish()
        self.hasten("queue")
        self.throttle(100_000)
        self.upload(**{f"photo{width}": photo(width, 500) for width in (500, 550, 600)})
        wait_for(lambda: self.run_script("return mostAtOnce") == 2)

        server.stop()
        self.wait_for_state("failed", 3)

        self.assert_nothing_polls()
        ends = defaultdict(list)
        for address, _, end in self.requests("/upload"):
            ends[address.split("size=")[1]].append(end)
        for of_a_photo in ends.values():
            pauses = [later - earlier for earlier, later in pairwise(sorted(of_a_photo))]
            self.assertEqual(len(pauses), 4)
            for pause, least in zip(pauses, (1000, 3000, 9000, 27000), strict=True):
                self.assertGreaterEqual(pause, least / HASTE)

    def test_after_an_attempt_by_hand_the_pauses_start_from_the_first(self):
        self.run_script(
            "window.sent = []; window.pressed = Infinity;"
            "$(document).on('ajaxSend', (event, jqxhr, {url}) => {"
            "  if (url.includes('/upload?')) sent.push(performance.now());"
            "});"
        )
        self.cdp("Network.setBlockedURLs", urls=["*/upload*"])
        self.addCleanup(self.cdp, "Network.setBlockedURLs", urls=[])
        self.upload(dish=photo())
        self.wait_for_state("paused")
        self.run_script("addEventListener('click', () => { pressed = performance.now(); }, true)")

        self.act("retry", "paused")
        by_hand, then = wait_for(self.find_two_attempts)

        self.assertGreaterEqual(then - by_hand, 1000)
        self.assertLess(then - by_hand, 3000)  # the second pause

    def find_two_attempts(self):
        """Return the times of the first two attempts after the click; None until there are two."""
        times = self.run_script("return sent.filter(time => time > pressed)")
        return times[:2] if len(times) > 1 else None

    def test_when_the_network_is_back_it_goes_on_at_once(self):
        self.throttle(200_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")
        self.throttle(200_000, offline=True)
        self.run_script("window.stop()")
        wait_for(lambda: self.count_witnessed("paused") == 3)  # for nine seconds

        self.throttle(None)

        wait_for(lambda: not self.find('[data-state="paused"]'), 5)
        self.wait_for_done()
        self.assertEqual(self.dish.pictures.count(), 1)


class ProxyTests(FaultyBrowserTestCase):
    takes_minutes = True

    def setUp(self):
        super().setUp()
        upstream = self.live_server_url.removeprefix("http://")
        self.proxy = self.enterContext(Proxy(upstream))
        self.browser.get(f"http://localhost:{self.proxy.port}{self.dish.get_absolute_url()}")

    def test_a_server_that_is_away_is_tried_again(self):
        with self.proxy.fault("/upload?", answer(502)):
            self.upload(dish=photo())
            self.wait_for_state("paused")
        self.wait_for_done()

        self.assert_nothing_polls()
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_every_status_of_a_broken_connection_is_tried_again(self):
        self.hasten("queue")
        for status in (408, 502, 504, 520, 524):
            with self.subTest(status), self.proxy.fault("/upload?", answer(status), times=1):
                self.upload(dish=photo())
                self.wait_for_done()
                if status != 408:  # Chromium sends the request again without telling the page.
                    self.assertIn("paused", self.witnessed("dish")[0])

    def test_a_busy_server_is_waited_for_however_long_it_takes(self):
        for status in (429, 503):
            busy = answer(status, headers={"Retry-After": 0.1})
            with self.subTest(status), self.proxy.fault("/upload?", busy, times=9) as met:
                self.upload(dish=photo())
                self.wait_for_done()
                self.assertEqual(len(met), 9)

    def test_pauses_for_a_busy_server_grow(self):
        with self.proxy.fault("/upload?", answer(503), times=3):
            self.upload(dish=photo())
            self.wait_for_state("busy")
            self.assertEqual(self.find_text(".upload-state"), ["Waiting for its turn…"])
            self.wait_for_done()

        ends = [end for *_, end in self.requests("/upload")]
        for pause, least in zip(map(sub, ends[1:], ends), (1000, 2000, 4000), strict=True):
            self.assertGreaterEqual(pause, least)

    def test_what_is_answered_in_the_servers_place_is_told_and_can_be_tried_again(self):
        between = "Failed. Something between this browser and the site refused it."
        for status, sentence in {
            200: between,
            403: between,
            413: "Failed. This photo is too large for this network.",
        }.items():
            page = answer(status, "<!DOCTYPE html><p style='x'>Log in.")
            with self.subTest(status):
                with self.proxy.fault("/upload?", page):
                    self.upload(dish=photo())
                    self.wait_for_state("failed")
                self.assertEqual(self.find_text(".upload-state"), [sentence])
                self.assert_nothing_polls()

                self.act("retry", "failed")
                self.wait_for_done()

    def test_a_token_that_was_refused_is_fetched_and_the_photo_is_sent_again(self):
        refusal = '<upload><error code="csrf">This form is too old.</error></upload>'
        csrf = answer(403, refusal, "application/xml")
        with self.proxy.fault("/upload?", csrf, times=1):
            self.upload(dish=photo())
            self.wait_for_done()

        with self.proxy.fault("/upload?", csrf):
            self.upload(dish=photo())
            self.wait_for_state("refused")

    def test_what_is_cancelled_before_it_was_sent_holds_up_no_other(self):
        self.browser.delete_cookie("csrftoken")
        with self.proxy.fault("/dishes", hang()):  # The page fetches a token there.
            self.upload(one=photo(), two=photo(), three=photo())
            self.wait_for_state("starting", 2)
            for _ in range(2):
                self.act("cancel", "starting")
            self.wait_for_state("cancelled", 2)
        self.wait_for_done()

        self.assertEqual(self.dish.pictures.count(), 1)

    def test_where_the_answer_is_lost_the_photo_may_be_on_the_page(self):
        self.hasten("queue")
        with self.proxy.fault("/upload?", swallow()):
            self.upload(dish=photo())
            self.wait_for_state("uncertain")
        sentence = "It may be on the page. The server's answer did not get through."
        self.assertEqual(self.find_text(".upload-state"), [sentence])
        self.assertEqual(self.dish.pictures.count(), 1)

        self.act("retry", "uncertain")
        self.wait_for_done()

        self.assertEqual(self.find_text(".added-link"), ["1 photo added"])
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_one_that_is_too_slow_each_time_is_told_so(self):
        sentence = "The upload was too slow: it sent less than 1000 bytes a second."
        refusal = f'<upload><error code="too_slow" retry="true">{sentence}</error></upload>'
        self.hasten("queue")
        with self.proxy.fault("/upload?", answer(408, refusal, "application/xml")):
            self.upload(dish=photo())
            self.wait_for_state("failed")

        self.assertEqual(self.find_text(".upload-state"), [f"Failed. {sentence}"])

    def test_one_that_is_tried_again_is_cancelled_with_all_its_attempts(self):
        with self.proxy.fault("/upload?", swallow()):
            self.upload(dish=photo())
            self.wait_for_state("paused")
            wait_for(self.dish.pictures.exists)

            self.act("cancel", "paused")
            self.wait_for_state("cancelled")

        self.assertFalse(self.dish.pictures.exists())
        wait_for(lambda: not self.files())

    def test_a_cancellation_that_does_not_get_through_is_not_called_one(self):
        self.hasten("tellServer")
        with (
            self.proxy.fault("/upload?", swallow()),
            self.proxy.fault("/cancel_upload", answer(502)) as met,
        ):
            self.upload(dish=photo())
            self.wait_for_state("paused")
            self.act("cancel", "paused")
            self.assertEqual(self.find_text(".upload-state"), ["Cancelling…"])
            self.assertEqual(self.find('[data-action="cancel"]:not([hidden])'), [])
            self.wait_for_state("uncertain")
        self.assertEqual(len(met), 5)

        self.act("cancel", "uncertain")
        self.wait_for_state("cancelled")
        self.assertFalse(self.dish.pictures.exists())

    def test_what_the_system_still_sends_after_a_cancellation_is_not_stored(self):
        content = photo(900, 700)
        with self.proxy.throttle("/upload?", upload=50_000, deep=True):
            self.upload(dish=content)
            wait_for(lambda: len(set(self.witnessed("dish")[1])) >= 3)
            self.act("cancel", "uploading")
            self.assertEqual(self.find_text(".upload-state"), ["Cancelled"])
            wait_for(Cancellation.objects.exists)

        wait_for(lambda: not self.files())
        self.assertFalse(self.dish.pictures.exists())

    def test_polls_that_fail_become_rare_and_the_bar_goes_on(self):
        self.throttle(200_000)
        with self.proxy.fault("/get_upload_progress", answer(502)):
            self.upload(dish=photo(1500, 1200))
            wait_for(lambda: len(self.requests("/get_upload_progress")) == 5)
        self.throttle(None)
        self.wait_for_done()

        begun = [beginning for _, beginning, _ in self.requests("/get_upload_progress")[:5]]
        pauses = [later - earlier for earlier, later in pairwise(begun)]
        for doublings, pause in enumerate(pauses, 1):
            self.assertGreaterEqual(pause, settings.PROGRESS_POLL_INTERVAL * 2**doublings)
        values = self.witnessed("dish")[1]
        self.assertGreaterEqual(len(values), 3)
        self.assertEqual(values, sorted(values))


@requires("memcached")
class MemcachedTests(MemcachedMixin, BrowserTestCase):
    def test_when_memcached_stops_the_bar_goes_on_and_never_back(self):
        self.throttle(300_000)
        self.upload(dish=photo(2000, 1500))
        wait_for(lambda: (self.witnessed("dish")[1] or [0])[-1] >= 20)

        self.memcached.stop()
        before = self.witnessed("dish")[1][-1]
        self.wait_for_done()

        states, values, _ = self.witnessed("dish")
        self.assertGreaterEqual(len([value for value in values if value > before + 5]), 5)
        self.assertEqual(values, sorted(values))
        self.assertEqual(states[-1], "done")
        self.assertEqual(self.dish.pictures.count(), 1)
