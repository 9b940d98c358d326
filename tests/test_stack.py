"""The whole of a production server, as a diner's browser sees it."""

import json
import re
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from django.test import SimpleTestCase
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from .base import upload_file
from .browser import BrowserTestCase
from .cases import PIECE, StackTestCase
from .client import (
    Upload,
    add_dish,
    client_headers,
    connect,
    get,
    get_answer,
    poll,
    post_dish,
)
from .photos import photo, photo_of_megabytes
from .servers import ADDRESS, Memcached, manage, requires
from .stack import PROGRAMS, Stack, loopback_hosts
from .waiting import wait_for

ONE_PIXEL = photo(1, 1)


class ProgressTests(StackTestCase):
    def test_it_rises_over_http(self):
        upload = self.upload()

        self.assert_rising(self.watch(lambda: upload.send_more(200)))

        self.assert_kept(upload)
        self.assert_deleted()

    def test_it_rises_over_tls(self):
        upload = self.upload(self.https, secure=True)

        self.assert_rising(self.watch(lambda: upload.send_more(200)))

        self.assert_kept(upload)

    @requires("curl")
    def test_it_rises_over_http_2(self):
        with self.curl("--http2", "--limit-rate", "400k") as curl:
            self.assert_rising(self.watch(lambda: None))
            answer, _ = curl.communicate()

        self.assertIn(b"<status>ok</status>", answer)
        self.assertTrue(answer.endswith(b" 200 2"), answer)

    @contextmanager
    def curl(self, *options):
        """Upload a photo with curl, which prints the status and the version of HTTP at the end."""
        headers = {**client_headers(self.https, secure=True), "Expect": ""}
        options += tuple(f"-H{name}: {value}" for name, value in headers.items())
        file = Path(self.enterContext(TemporaryDirectory()), "dish.jpg")
        file.write_bytes(photo_of_megabytes())
        form = ["-F", f"id={self.dish.pk}", "-F", f"picture=@{file}"]
        url = f"https://{self.https}/upload?X-Progress-ID={self.progress_id}"
        command = ["curl", "-sk", "-w", " %{http_code} %{http_version}", *options, *form, url]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            yield curl

    def test_polls_need_no_python(self):
        upload = self.upload()

        with self.stack.pages.hung(), self.stack.uploads.hung():
            self.assertEqual(self.poll()["length"], upload.length)

        self.assert_kept(upload)

    def test_a_poll_from_another_address_sees_nothing(self):
        self.upload()

        self.assertIsNotNone(self.poll(source="127.0.0.1"))
        self.assertIsNone(self.poll(source="127.0.0.2"))

    def test_what_django_writes_is_what_nginx_reads(self):
        for host in loopback_hosts():
            with self.subTest(host):
                self.progress_id = f"key-{len(host)}"
                address = f"{host}:{self.stack.http.port}"
                upload = self.upload(address)
                key = f"gourmious:1:{host.strip('[]')}_{self.progress_id}"
                kept = self.stack.memcached.ask(f"get {key}").splitlines()
                self.assertEqual(json.loads(kept[1]), poll(address, self.progress_id))
                self.assert_kept(upload)

    def test_the_id_may_come_in_a_header_or_encoded(self):
        self.progress_id = "dish-1"
        self.upload()

        for query, header in (
            ("?X-Progress-ID=dish%2D1", {}),
            ("?X-Progress-ID=other&_=1&X-Progress-ID=dish-1&_=2", {"X-Progress-ID": "other"}),
            ("?_=1", {"X-Progress-ID": "dish-1"}),
        ):
            answer = get(self.http, f"/get_upload_progress{query}", header)
            self.assertIn("length", json.loads(answer.text), query)

    def test_a_malformed_id_is_refused_without_python(self):
        with self.stack.pages.hung(), self.stack.uploads.hung():
            for query in ("", "?X-Progress-ID", "?X-Progress-ID=", "?X-Progress-ID=a:b"):
                answer = get(self.http, f"/get_upload_progress{query}")
                self.assertEqual(answer.status, 400)
                self.assertRegex(json.loads(answer.text)["error"], r"^The .*\.$")

    def test_nothing_that_a_client_says_of_its_address_is_believed(self):
        spoofed = {"X-Forwarded-For": "192.0.2.7", "X-Real-IP": "192.0.2.7"}
        self.upload(headers=spoofed)

        self.assertIn(
            "END", self.stack.memcached.ask(f"get gourmious:1:192.0.2.7_{self.progress_id}")[:5]
        )
        self.assertIsNotNone(self.poll(headers=spoofed))

    def test_it_goes_on_when_memcached_comes_back(self):
        upload = self.upload()
        self.stack.memcached.stop()
        upload.send_more(PIECE)
        self.assertIsNone(self.poll())

        self.stack.memcached.start()
        wait_for(lambda: upload.send_more(1000) or self.poll())

        self.assert_kept(upload)

    def test_a_memcached_that_hangs_costs_a_poll_little(self):
        upload = self.upload()

        with self.stack.memcached.hung():
            self.assertIsNone(self.poll())

        self.assert_kept(upload)


@requires(*PROGRAMS)
class PeerTests(SimpleTestCase):
    """Another host receives the uploads, and keeps their records in its own memcached."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.peer = cls.enterClassContext(Memcached())
        cls.stack = cls.enterClassContext(Stack(GOURMIOUS_MEMCACHED_PEERS=cls.peer.address))
        cls.address = cls.stack.http.address

    def setUp(self):
        super().setUp()
        for memcached in (self.peer, self.stack.memcached):
            self.wait_until_asked(memcached)

    def wait_until_asked(self, memcached, seconds=60):
        """Wait until nginx asks this server again, if it was away."""
        self.store(memcached, "there", 1)
        wait_for(lambda: poll(self.address, "there"), seconds)
        memcached.ask(f"delete gourmious:1:{ADDRESS}_there")

    def store(self, memcached, progress_id, uploaded):
        record = json.dumps({"length": 9, "uploaded": uploaded})
        key = f"gourmious:1:{ADDRESS}_{progress_id}"
        memcached.ask(f"set {key} 0 60 {len(record)}\r\n{record}")

    def assert_polled(self, progress_id, uploaded):
        self.assertEqual(poll(self.address, progress_id), {"length": 9, "uploaded": uploaded})

    def assert_polled_from_django(self, encoded_id, uploaded):
        answer = get(self.address, f"/get_upload_progress?X-Progress-ID={encoded_id}")
        self.assertEqual(json.loads(answer.text), {"length": 9, "uploaded": uploaded})

    def poll_for_seconds(self, progress_id):
        """Poll for three seconds. Yield whether each poll found a record, and how long it took."""
        end = time.monotonic() + 3
        while (start := time.monotonic()) < end:
            yield bool(poll(self.address, progress_id)), time.monotonic() - start

    def test_the_record_of_another_host_is_found(self):
        self.store(self.peer, "dish-1", 3)

        self.assert_polled("dish-1", 3)

    def test_django_finds_the_record_of_another_host_too(self):
        self.store(self.peer, "dish-2", 4)

        self.assert_polled_from_django("dish%2D2", 4)

    def test_the_own_record_comes_first(self):
        self.store(self.peer, "dish-3", 5)
        self.store(self.stack.memcached, "dish-3", 6)

        self.assert_polled("dish-3", 6)
        self.assert_polled_from_django("dish%2D3", 6)

    def test_a_hung_memcached_delays_few_polls(self):
        for hung, other in (
            (self.peer, self.stack.memcached),
            (self.stack.memcached, self.peer),
        ):
            self.store(other, "dish-4", 7)
            with hung.hung():
                polls = [*self.poll_for_seconds("dish-4")]
            self.assertTrue(polls[0][0])
            self.assertLess(sum(seconds for _, seconds in polls if seconds > 0.1), 0.9)

    def test_a_poll_of_an_unknown_upload_waits_for_a_hung_peer_only_now_and_then(self):
        with self.peer.hung():
            waits = [self.measure_a_miss() for _ in range(50)]

        self.assertLess(sorted(waits)[len(waits) // 2], 0.1)

    def measure_a_miss(self):
        start = time.monotonic()
        self.assertIsNone(poll(self.address, "unknown"))
        return time.monotonic() - start

    def test_a_memcached_that_comes_back_is_asked_soon(self):
        for memcached in (self.peer, self.stack.memcached):
            memcached.stop()
            try:
                self.assertIsNone(poll(self.address, "dish-5"))
            finally:
                memcached.start()
            self.wait_until_asked(memcached, 8)  # By default nginx would ask it after 10 seconds.


class FileTests(StackTestCase):
    def setUp(self):
        super().setUp()
        with Upload(self.http, self.dish, photo()) as upload:
            answer = upload.answer()
        self.picture = ElementTree.fromstring(answer.text).find("picture")

    def static_names(self):
        page = get(self.http, self.dish.get_absolute_url()).text
        return re.findall(r'"(/static/[^"]+)"', page)

    def assert_safe(self, answer):
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        policy = get(self.http, "/").headers["content-security-policy"]
        self.assertEqual(
            set(answer.headers["content-security-policy"].split("; ")), set(policy.split("; "))
        )

    def test_static_files_named_by_their_content_are_kept_for_ever(self):
        names = self.static_names()
        self.assertGreaterEqual(len(names), 10)
        for name in names:
            answer = get(self.http, name)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.headers["cache-control"], "public, max-age=31536000, immutable")
            self.assert_safe(answer)

    def test_others_are_asked_for_anew(self):
        answer = get(self.http, "/static/uploads/upload.js")

        self.assertEqual(answer.headers["cache-control"], "no-cache")
        self.assertNotIn("cache-control", get(self.http, "/static/0123456789ab.js").headers)

    def test_scripts_and_pages_are_compressed(self):
        [script] = [name for name in self.static_names() if "/uploads/upload." in name]
        with_gzip = {"Accept-Encoding": "gzip"}
        for path in (script, self.dish.get_absolute_url()):
            connection = connect(self.http)
            self.addCleanup(connection.close)
            connection.request("GET", path, headers=with_gzip)
            response = connection.getresponse()
            self.assertEqual(response.getheader("Content-Encoding"), "gzip")
            self.assertEqual(response.read(2), b"\x1f\x8b")

    def test_pictures_come_without_python(self):
        with self.stack.pages.hung(), self.stack.uploads.hung():
            connection = connect(self.http)
            self.addCleanup(connection.close)
            connection.request("GET", self.picture.get("url"))
            response = connection.getresponse()
            self.assertEqual(response.read(3), b"\xff\xd8\xff")
        self.assertEqual(
            response.getheader("Cache-Control"), "private, max-age=31536000, immutable"
        )
        self.assertEqual(response.getheader("X-Content-Type-Options"), "nosniff")

    def test_a_hidden_picture_cannot_be_had(self):
        self.assertEqual(get(self.http, "/").status, 200)
        picture = f"Picture.objects.get(pk={self.picture.get('id')})"
        script = f"from uploads.models import Picture; {picture}.hide()"
        manage("shell", "-c", script, **self.stack.environment)

        for url in (self.picture.get("url"), self.picture.get("thumbnail")):
            self.assertEqual(get(self.http, url).status, 404)

    def test_nothing_but_renditions_and_static_files_can_be_had(self):
        [*_, original] = self.files("originals")
        for path in (
            f"/originals/{original.name}",
            f"/media/{original.name}",
            f"/media/../originals/{original.name}",
            f"/media/%2e%2e/originals/{original.name}",
            f"/media..%2foriginals/{original.name}",
            f"/static../originals/{original.name}",
            "/db.sqlite3",
            "/media/../db.sqlite3",
            "/media../db.sqlite3",
            "/incoming/",
        ):
            self.assertIn(get(self.http, path).status, {400, 404}, path)

    def test_polls_are_never_kept_by_a_cache(self):
        answer = get(self.http, "/get_upload_progress?X-Progress-ID=none")

        self.assertEqual((answer.status, answer.text), (200, "null"))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assert_safe(answer)

    def test_pages_over_tls_are_for_tls_alone(self):
        answer = get(self.https, self.dish.get_absolute_url(), secure=True)

        self.assertRegex(answer.headers["strict-transport-security"], r"^max-age=\d{7,}$")
        self.assertEqual(answer.headers["referrer-policy"], "same-origin")
        self.assertEqual(answer.headers["cross-origin-opener-policy"], "same-origin")
        self.assertIn("Secure", answer.headers["set-cookie"])
        without = get(self.http, self.dish.get_absolute_url())
        self.assertNotIn("Secure", without.headers["set-cookie"])
        self.assertNotIn("strict-transport-security", without.headers)

    def test_each_upload_leaves_a_line_in_the_log(self):
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line[0] == "{"]

        [line] = [line for line in lines if line["dish"] == self.dish.pk]
        self.assertEqual((line["outcome"], line["files"]), ("ok", 1))
        self.assertGreater(line["bytes"], 100_000)
        self.assertGreater(line["processing"], 0)
        self.assertEqual(line["network"], "127.0.0.0/24")
        self.assertNotIn("dish.jpg", self.log.read_text())

    def test_the_log_is_not_filled_by_who_asks_by_another_name(self):
        before = self.log.stat().st_size

        pages = self.stack.pages.address
        self.assertEqual(get(pages, "/", {"Host": "evil.example"}).status, 400)

        self.assertEqual(get(self.http, "/").status, 200)
        self.assertEqual(self.log.stat().st_size, before)


class RefusalTests(StackTestCase):
    """At full speed, fifty times each: no answer may get lost."""

    variables = {"DJANGO_SETTINGS_MODULE": "tests.settings_small"}

    def refuse(self, code, status, content, query="", headers=(), **fields):
        body = encode_multipart(
            BOUNDARY, {"id": self.dish.pk, "picture": upload_file(content), **fields}
        )
        own = {"Content-Type": MULTIPART_CONTENT, "Accept": "application/xml"}
        for _ in range(50):
            connection = connect(self.http)
            self.addCleanup(connection.close)
            all_headers = {**client_headers(self.http), **own, **dict(headers)}
            connection.request("POST", f"/upload{query}", body, all_headers)
            answer = get_answer(connection)
            connection.close()
            upload = ElementTree.fromstring(answer.text)
            self.assertEqual(answer.headers["content-type"], "application/xml")
            self.assertEqual((answer.status, upload.findtext("status")), (status, "error"))
            self.assertEqual(upload.find("error").get("code"), code)
            self.assertRegex(upload.findtext("error"), r"^[A-Z].*\.$")

    def test_a_body_over_the_limit(self):
        self.refuse("too_large", 413, ONE_PIXEL.ljust(20 * 2**20, b"\0"))

    def test_nginx_says_it_as_django_does(self):
        body = b"x" * (8 * 2**20 + 1)
        headers = {**client_headers(self.http), "Content-Type": MULTIPART_CONTENT}
        texts = []
        for address in (self.http, self.stack.uploads.address):
            connection = connect(address)
            self.addCleanup(connection.close)
            connection.request("POST", "/upload", body, headers)
            texts.append(get_answer(connection).text)

        self.assertEqual(*texts)

    def test_a_file_over_the_limit(self):
        self.refuse("too_large", 413, ONE_PIXEL.ljust(5 * 2**20, b"\0"))

    def test_what_is_no_picture(self):
        self.refuse("not_an_image", 415, b"A text.\n" * 500_000)

    def test_a_dish_that_is_not_there(self):
        self.refuse("unknown_dish", 404, ONE_PIXEL.ljust(2**20, b"\0"), id=10**6)

    def test_a_malformed_id(self):
        self.refuse("bad_progress_id", 400, ONE_PIXEL.ljust(2**20), "?X-Progress-ID=a:b")

    def test_a_forged_form(self):
        self.refuse("csrf", 403, ONE_PIXEL.ljust(2**20), headers={"Cookie": "csrftoken=none"})

    def test_a_foreign_origin(self):
        self.refuse("csrf", 403, ONE_PIXEL.ljust(2**20), headers={"Origin": "https://evil.example"})

    def test_a_server_that_is_down(self):
        self.stack.uploads.stop()
        self.addCleanup(self.stack.uploads.start)

        self.refuse("server_error", 502, ONE_PIXEL.ljust(2**20))

    def test_of_equal_dishes_that_are_posted_at_once_one_is_kept_and_the_others_are_told(self):
        with ThreadPoolExecutor(20) as threads:
            posts = [threads.submit(post_dish, self.http, "Pistou") for _ in range(20)]
            answers = [post.result() for post in posts]

        refused = [answer.text for answer in answers if answer.status == 200]
        self.assertEqual(Counter(answer.status for answer in answers), {302: 1, 200: 19})
        for text in refused:
            self.assertIn("This dish of this restaurant is here already.", text)

    def test_a_browser_without_scripts_gets_a_page(self):
        body = b"x" * (8 * 2**20 + 1)
        for accept, content_type in (("text/html,*/*", "text/html"), ("*/*", "application/xml")):
            connection = connect(self.http)
            self.addCleanup(connection.close)
            headers = {"Accept": accept, "Content-Type": MULTIPART_CONTENT}
            connection.request("POST", "/upload", body, headers)
            answer = get_answer(connection)
            self.assertEqual(answer.headers["content-type"], content_type)
            self.assertIn("The upload is larger than the 8.0\xa0MB that are allowed.", answer.text)

    def test_a_client_that_sends_nothing_more_is_cut(self):
        self.upload()
        self.assertEqual(len(self.files("incoming")), 1)

        wait_for(lambda: not self.files("incoming") and self.poll() is None)


class LimitTests(StackTestCase):
    variables = {"GOURMIOUS_MAX_UPLOADS": "3", "GOURMIOUS_MAX_UPLOADS_PER_ADDRESS": "2"}
    numbers = count()

    def begin(self, source):
        self.progress_id = f"{source[-1]}-{next(self.numbers)}"
        upload = Upload(self.http, self.dish, photo(), self.progress_id, source=source)
        self.enterContext(upload)
        upload.send(PIECE)
        return upload

    def begin_and_wait(self, source):
        upload = self.begin(source)
        wait_for(lambda: self.poll(source=source))
        return upload

    def assert_busy(self, upload):
        answer = upload.answer()
        self.assertEqual(answer.status, 429)
        error = ElementTree.fromstring(answer.text).find("error")
        self.assertEqual((error.get("code"), error.get("retry")), ("busy", "true"))
        self.assertTrue(error.text.startswith("Too many photos"))

    def test_more_uploads_than_there_are_threads_for_are_refused(self):
        first, second = self.begin_and_wait("127.0.0.2"), self.begin_and_wait("127.0.0.2")
        self.assert_busy(self.begin("127.0.0.2"))

        third = self.begin_and_wait("127.0.0.3")
        self.assert_busy(self.begin("127.0.0.4"))
        self.assertEqual(get(self.http, "/").status, 200)

        for upload in (first, second, third):
            self.assert_kept(upload)
        self.assert_kept(self.begin("127.0.0.2"))

    def test_addresses_of_one_ipv6_network_count_as_one(self):
        # Their texts are shortened in different places, and the last has the byte of a new line.
        networks = (
            ("2001:db8:1::5", "2001:db8:1:1:2:3:4:5", "2001:db8:1:ffff:a:0:0:1"),
            ("2001:db8::1", "2001:db8:0:1::", "2001:db8::1:0:0:1"),
            ("2001:db8:a0a::1", "2001:db8:a0a:a0a:a0a::1", "2001:db8:a0a:1::"),
            ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"),
            ("::ffff:192.0.2.2", "192.0.2.2", "::ffff:c000:202"),
        )
        for network, other in zip(networks, (*networks[1:], networks[0]), strict=True):
            # A balancer names the clients: this machine may have only one IPv6 address.
            with self.another_nginx(GOURMIOUS_BALANCERS=ADDRESS) as address:
                first, second, third = network
                uploads = [self.begin_from(address, source) for source in (first, second)]
                self.assert_busy(self.begin_from(address, third, begun=False))
                uploads.append(self.begin_from(address, other[0]))
                for upload in uploads:
                    self.assert_kept(upload)

    def begin_from(self, address, source, begun=True):
        headers = {"X-Forwarded-For": source}
        progress_id = f"ipv6-{next(self.numbers)}"
        upload = Upload(address, self.dish, photo(), progress_id, headers)
        self.enterContext(upload).send(PIECE)
        if begun:
            wait_for(lambda: poll(address, progress_id, headers=headers))
        return upload

    def test_a_client_that_hangs_up_is_counted_until_the_server_is_through(self):
        before, content = len(self.files("media")), photo()
        with self.processing_held_back():
            for number in range(2):
                mine = content + bytes([number])
                upload = Upload(self.http, self.dish, mine, source="127.0.0.5")
                self.enterContext(upload).send()
                wait_for(lambda count=number + 1: self.count_incoming(len(content) + 1) == count)
                upload.hang_up()
            self.assert_busy(self.begin("127.0.0.5"))

        wait_for(lambda: len(self.files("media")) == before + 4)


@requires(*PROGRAMS)
class StackBrowserTests(BrowserTestCase):
    def test_the_bar_rises_over_http_2(self):
        stack = self.enterContext(Stack(DJANGO_SETTINGS_MODULE="tests.settings_small"))
        dish = add_dish(stack.http.address)
        self.browser.get(f"https://localhost:{stack.https.port}{dish.get_absolute_url()}")
        self.throttle(200_000)

        self.upload(dish=photo(1400, 1050))
        self.wait_for_done()

        values = self.witnessed("dish")[1]
        self.assertEqual(values, sorted(values))
        self.assertGreaterEqual(len(set(values)), 10)
        versions = self.run_script(
            "return performance.getEntriesByType('resource')"
            ".filter(entry => /upload/.test(entry.name)).map(entry => entry.nextHopProtocol)"
        )
        self.assertEqual(set(versions), {"h2"})
        self.assertEqual(len(wait_for(self.shown_pictures)), 1)
