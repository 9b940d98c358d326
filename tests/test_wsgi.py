"""The app as it is deployed: in production mode, served by Granian, with a real memcached."""

import re
from pathlib import Path
from unittest import skipUnless

from .cases import GranianTestCase
from .client import Upload, get, poll
from .photos import photo
from .samples import with_video
from .servers import Granian, manage
from .waiting import wait_for

CLIENT = "192.0.2.7"


class WsgiTests(GranianTestCase):
    def uploaded_files(self):
        return [path for name in ("incoming", "originals", "media") for path in self.files(name)]

    def poll_for(self, server, address):
        return poll(server.address, "dish-1", headers={"X-Forwarded-For": address})

    def test_an_upload_can_be_watched_and_is_kept(self):
        server, dish = self.serve_a_dish()

        with Upload(server.address, dish, photo(1600, 1200), "dish-1") as upload:
            upload.send(200_000)
            first = wait_for(lambda: poll(server.address, "dish-1"))
            self.assertLessEqual(first["uploaded"], 200_000)
            answer = upload.answer()

        self.assertEqual((answer.status, answer.text.count("<picture ")), (200, 1))
        wait_for(lambda: poll(server.address, "dish-1") is None)
        self.assertEqual(len(self.uploaded_files()), 3)

    def test_a_line_that_breaks_leaves_nothing(self):
        server, dish = self.serve_a_dish()

        with Upload(server.address, dish, photo(1600, 1200), "dish-1") as upload:
            upload.send(200_000)
            wait_for(lambda: poll(server.address, "dish-1"))
            self.assertEqual(len(self.uploaded_files()), 1)
            upload.hang_up()

        wait_for(lambda: not self.uploaded_files())
        wait_for(lambda: poll(server.address, "dish-1") is None)

    def test_pages_name_the_static_files_by_their_content(self):
        server, dish = self.serve_a_dish("pages")

        page = get(server.address, dish.get_absolute_url()).text
        names = re.findall(r'"/static/([^"]+)"', page)

        self.assertGreaterEqual(len(names), 10)
        for name in names:
            self.assertRegex(name, r"\.[0-9a-f]{12}\.(css|js|svg)$")
            self.assertTrue((self.folder / "static" / name).is_file())

    @skipUnless(Path("/proc/self/status").exists(), "Memory is read from /proc, as Linux has it.")
    def test_memory_does_not_depend_on_the_size_of_an_upload(self):
        server, dish = self.serve_a_dish(DJANGO_SETTINGS_MODULE="tests.settings")
        content = photo()
        with Upload(server.address, dish, content) as upload:
            self.assertEqual(upload.answer().status, 200)
        before = server.memory("VmRSS")

        with Upload(server.address, dish, with_video(content, 200 * 2**20)) as upload:
            self.assertEqual(upload.answer().status, 200)

        self.assertEqual(max(path.stat().st_size for path in self.files("originals")), 200 * 2**20)
        self.assertLess(server.memory("VmHWM") - before, 10 * 2**20)

    def test_the_database_is_open_before_the_first_request(self):
        manage("migrate", **self.environment)
        index = self.folder / "db.sqlite3-shm"  # which SQLite needs to read, and makes for that
        self.assertFalse(index.exists())

        self.enterContext(Granian("pages", **self.environment))

        wait_for(index.exists)

    def test_a_trusted_proxy_tells_the_clients_address(self):
        server = self.serve("pages")
        self.memcached.ask(f"set gourmious:1:{CLIENT}_dish-1 0 60 2\r\n{{}}")

        self.assertEqual(self.poll_for(server, CLIENT), {})
        self.assertIsNone(self.poll_for(server, "192.0.2.8"))

    def test_nobody_else_can_tell_an_address(self):
        server = self.serve("pages", GOURMIOUS_TRUSTED_PROXIES="192.0.2.1")
        self.memcached.ask(f"set gourmious:1:{CLIENT}_dish-1 0 60 2\r\n{{}}")

        self.assertIsNone(self.poll_for(server, CLIENT))
