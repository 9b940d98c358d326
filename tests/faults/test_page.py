"""The page of an upload when servers are killed, or when the disk is full."""

import hashlib

from tests.browser import BrowserTestCase
from tests.client import add_dish
from tests.photos import photo
from tests.servers import Server, requires
from tests.stack import PROGRAMS, Stack
from tests.waiting import wait_for

from .rig import Entry, Ledger, StackSite


@requires(*PROGRAMS)
class PageTests(BrowserTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stack = cls.enterClassContext(Stack())
        cls.ledger = Ledger(StackSite(cls.stack))

    def setUp(self):
        super().setUp()
        self.served_dish = add_dish(self.stack.http.address, self.id()[-100:])
        path = self.served_dish.get_absolute_url()
        self.browser.get(f"http://localhost:{self.stack.http.port}{path}")

    def send(self):
        """Begin to upload a photo over a slow connection. It takes some seconds."""
        content = photo(800, 600)
        digest = hashlib.sha256(content).hexdigest()
        self.ledger.note(Entry(self.id(), digest, None, whole=True))
        self.throttle(100_000)
        self.upload(dish=content)

    def read_row(self):
        """Return the texts of the photo's row and of its buttons."""
        return self.find_text(".upload-state, .upload [data-action]:not([hidden])")

    def assert_kept(self):
        self.wait_for_done()
        self.assertEqual(len(wait_for(self.shown_pictures)), 1)
        self.ledger.audit(killed=True)

    def test_the_page_says_that_servers_were_killed_and_sends_the_photo_again(self):
        self.send()
        self.wait_for_state("uploading")

        stack = self.stack
        servers = (stack.http, stack.pages, stack.uploads, stack.memcached)
        for server in servers:
            Server.stop(server)
        sentence = "The connection was lost. Trying again…"
        wait_for(lambda: self.read_row() == [sentence, "Caption", "Retry", "Cancel"])

        for server in servers:
            server.start()
        self.throttle(None)
        self.assert_kept()

    def test_the_page_says_that_the_disk_is_full_and_can_send_the_photo_again(self):
        with self.stack.uploads.limited(60_000):
            self.send()
            self.wait_for_state("failed")
        sentence = "Failed. There is no room for more photos; please try again later."
        self.assertEqual(self.read_row(), [sentence, "Retry", "Dismiss"])

        self.throttle(None)
        self.act("retry", "failed")
        self.assert_kept()
