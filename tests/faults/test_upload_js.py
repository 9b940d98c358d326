"""upload.js, when the server, the network, a proxy or memcached fails."""

from collections import defaultdict
from itertools import pairwise

from django.conf import settings

from tests.browser import BrowserTestCase
from tests.cases import MemcachedMixin
from tests.photos import photo
from tests.proxy import Proxy, answer
from tests.servers import Runserver, manage, requires
from tests.waiting import wait_for


class RetryTests(BrowserTestCase):
    def serve_a_dish(self):
        """Start a server that can be stopped, and open the page of its first dish."""
        manage("migrate", GOURMIOUS_DATA_DIR=str(self.folder))
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
        self.wait_for_state("paused")
        self.assertEqual(self.find_text(".upload-state"), ["It did not get through. Trying again…"])
        self.throttle(None)
        server.start()
        self.wait_for_state("done")

        self.assertEqual(len(self.files("originals")), 1)
        self.assertEqual(wait_for(self.shown_pictures)[0][:7], "/media/")

    def test_after_some_attempts_a_line_that_is_lost_is_left_to_the_diner(self):
        self.throttle(200_000)
        self.upload(dish=photo(1500, 1200))
        for _ in range(4):
            self.wait_for_state("uploading")
            self.run_script("window.stop()")
            wait_for(lambda: not self.find('[data-state="uploading"]'))

        self.wait_for_state("failed")
        self.assertRegex(
            self.find_text(".upload-state")[0], r"^Failed\. The photo did not get .*\.$"
        )
        self.assert_nothing_polls()
        wait_for(lambda: not self.files())
        self.throttle(None)
        self.act("retry", "failed")
        self.wait_for_state("done")
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_each_photo_is_tried_again_after_growing_pauses(self):
        server = self.serve_a_dish()
        self.throttle(100_000)
        self.upload(**{f"photo{number}": photo(600, 500) for number in range(3)})
        wait_for(lambda: self.run_script("return mostAtOnce") == 3)

        server.stop()
        self.wait_for_state("failed", 3)

        self.assert_nothing_polls()
        ends = defaultdict(list)
        for address, _, end in self.requests("/upload"):
            ends[address.split("size=")[1]].append(end)
        for of_a_photo in ends.values():
            pauses = [later - earlier for earlier, later in pairwise(sorted(of_a_photo))]
            self.assertEqual(len(pauses), 3)
            for pause, least in zip(pauses, (1000, 3000, 9000), strict=True):
                self.assertGreaterEqual(pause, least)

    def test_an_attempt_by_hand_begins_the_pauses_anew(self):
        self.run_script(
            "window.sent = [];"
            "$(document).on('ajaxSend', (event, jqxhr, {url}) => {"
            "  if (url.includes('/upload?')) sent.push(performance.now());"
            "})"
        )
        self.cdp("Network.setBlockedURLs", urls=["*/upload*"])
        self.addCleanup(self.cdp, "Network.setBlockedURLs", urls=[])
        self.upload(dish=photo())
        self.wait_for_state("paused")

        self.act("retry", "paused")
        wait_for(lambda: self.run_script("return sent.length") == 3)

        _, by_hand, then = self.run_script("return sent")
        self.assertGreaterEqual(then - by_hand, 1000)

    def test_without_a_network_it_waits_for_it(self):
        self.throttle(200_000)
        self.upload(dish=photo(1500, 1200))
        self.wait_for_state("uploading")
        self.throttle(200_000, offline=True)
        self.run_script("window.stop()")
        self.wait_for_state("paused")
        attempts = len(self.requests("/upload"))

        # The pause before the first attempt is over when a later timer of the page has run.
        self.browser.set_script_timeout(20)
        self.browser.execute_async_script("setTimeout(arguments[0], 1500)")
        self.assertEqual(self.find_text(".upload-state")[0][:22], "It did not get through")
        self.assertEqual(len(self.requests("/upload")), attempts)
        self.assertEqual(self.witnessed("dish")[0].count("starting"), 1)
        self.throttle(None)
        self.wait_for_state("done")

        self.assertEqual(self.dish.pictures.count(), 1)


class ProxyTests(BrowserTestCase):
    def setUp(self):
        super().setUp()
        upstream = self.live_server_url.removeprefix("http://")
        self.proxy = self.enterContext(Proxy(upstream))
        self.browser.get(f"http://localhost:{self.proxy.port}{self.dish.get_absolute_url()}")

    def test_a_server_that_is_away_is_tried_again(self):
        with self.proxy.fault("/upload", answer(502)):
            self.upload(dish=photo())
            self.wait_for_state("paused")
        self.wait_for_state("done")

        self.assert_nothing_polls()
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_a_page_that_is_put_in_the_way_is_a_failure_and_can_be_tried_again(self):
        page = answer(200, "<!DOCTYPE html><p style='x'>Log in.")
        with self.proxy.fault("/upload", page):
            self.upload(dish=photo())
            self.wait_for_state("failed")
        self.assertRegex(
            self.find_text(".upload-state")[0], r"^Failed\. The photo did not get .*\.$"
        )
        self.assertEqual(len(self.find(".picture")), 0)
        self.assert_nothing_polls()

        self.act("retry", "failed")
        self.wait_for_state("done")

        self.assertEqual(self.dish.pictures.count(), 1)

    def test_polls_that_fail_become_rare_and_the_bar_goes_on(self):
        self.throttle(200_000)
        with self.proxy.fault("/get_upload_progress", answer(502)):
            self.upload(dish=photo(1500, 1200))
            wait_for(lambda: len(self.requests("/get_upload_progress")) == 5)
        self.throttle(None)
        self.wait_for_state("done")

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
        self.wait_for_state("done")

        states, values, _ = self.witnessed("dish")
        self.assertGreaterEqual(len([value for value in values if value > before + 5]), 5)
        self.assertEqual(values, sorted(values))
        self.assertEqual(states[-1], "done")
        self.assertEqual(self.dish.pictures.count(), 1)
