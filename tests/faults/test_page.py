"""What a diner sees when servers are killed, or the disk is full, in the middle of an upload."""

import hashlib

from tests.browser import BrowserTestCase
from tests.client import add_dish
from tests.photos import photo
from tests.servers import Server, requires
from tests.stack import PROGRAMS, Stack
from tests.waiting import wait_for

from .rig import Entry, Ledger


@requires(*PROGRAMS)
class PageTests(BrowserTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stack = cls.enterClassContext(Stack())
        cls.ledger = Ledger(cls.stack)

    def setUp(self):
        super().setUp()
        self.served_dish = add_dish(self.stack.http.address, self.id()[-100:])
        path = self.served_dish.get_absolute_url()
        self.browser.get(f"http://localhost:{self.stack.http.port}{path}")

    def send(self):
        """Begin to upload a photo on a slow line; it takes some seconds."""
        content = photo(800, 600)
        digest = hashlib.sha256(content).hexdigest()
        self.ledger.note(Entry(self.id(), digest, None, whole=True))
        self.throttle(100_000)
        self.upload(dish=content)

    def told(self):
        """Return what the photo's row says, and what its buttons offer."""
        return self.find_text(".upload-state, .upload [data-action]:not([hidden])")

    def assert_kept(self):
        self.wait_for_state("done")
        self.assertEqual(len(wait_for(self.shown_pictures)), 1)
        self.ledger.audit(killed=True)

    def test_servers_that_are_killed_are_told_of_and_the_photo_is_sent_anew(self):
        self.send()
        self.wait_for_state("uploading")

        stack = self.stack
        servers = (stack.http, stack.pages, stack.uploads, stack.memcached)
        for server in servers:
            Server.stop(server)
        self.wait_for_state("paused")
        self.assertEqual(self.told(), ["It did not get through. Trying again…", "Retry", "Cancel"])

        for server in servers:
            server.start()
        self.throttle(None)
        self.assert_kept()

    def test_a_full_disk_is_told_of_at_once_and_the_photo_can_be_sent_anew(self):
        with self.stack.uploads.limited(60_000):
            self.send()
            self.wait_for_state("failed")
        sentence = "Failed. There is no room for more photos; please try again later."
        self.assertEqual(self.told(), [sentence, "Retry", "Dismiss"])

        self.throttle(None)
        self.act("retry", "failed")
        self.assert_kept()
