"""What a diner sees when all servers are killed in the middle of an upload."""

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

    def test_it_says_so_and_sends_the_photo_anew(self):
        content = photo(800, 600)
        digest = hashlib.sha256(content).hexdigest()
        self.ledger.note(Entry(self.id(), digest, None, whole=True))
        self.throttle(200_000)
        self.upload(dish=content)
        self.wait_for_state("uploading")

        servers = (self.stack.http, self.stack.granian, self.stack.memcached)
        for server in servers:
            Server.stop(server)
        self.wait_for_state("paused")
        told = self.find_text(".upload-state, .upload [data-action]:not([hidden])")
        self.assertEqual(told, ["It did not get through. Trying again…", "Retry", "Cancel"])

        for server in servers:
            server.start()
        self.throttle(None)
        self.wait_for_state("done")
        self.assertEqual(len(wait_for(self.shown_pictures)), 1)
        self.ledger.audit(killed=True)
