"""Hostile clients. Every answer keeps the contract, and nothing is left behind."""

import hashlib
import pickle
import re
import resource
import select
import socket
from base64 import b64encode
from contextlib import ExitStack, closing, suppress
from http.client import HTTPResponse
from pathlib import Path
from random import Random

from django.conf import settings

from tests.client import (
    TOKEN,
    Answer,
    add_dish,
    client_headers,
    connect,
    get,
    get_answer,
    open_socket,
    poll,
    read_answer,
)
from tests.photos import photo
from tests.samples import with_video
from tests.servers import ADDRESS
from tests.waiting import wait_for

from .rig import SEED, TIMES, Entry, FaultTestCase

MULTIPART = "multipart/form-data; boundary=b"
SCRIPT = "'><script>alert(1)"
EVIL = "https://evil.example"
END = b"--b--\r\n"


def make_part(disposition, content, *headers):
    lines = [f"--b\r\nContent-Disposition: form-data; {disposition}", *headers]
    return "\r\n".join([*lines, "\r\n"]).encode() + content + b"\r\n"


def make_field(name, value):
    return make_part(f'name="{name}"', value)


def receive(client):
    """Return the next answer on a connection."""
    with closing(HTTPResponse(client)) as response:
        response.begin()
        return read_answer(response)


class MaliceTestCase(FaultTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.photo = photo(40, 30, randbytes=Random(SEED).randbytes)
        cls.addresses = (cls.http, cls.stack.uploads.address)
        cls.pages = (cls.http, cls.stack.pages.address)

    def make_form(self, disposition='name="picture"; filename="dish.jpg"', content=None, *headers):
        """Return the body of a form with a file that has this Content-Disposition."""
        self.content = content if content is not None else self.photo + self.rng.randbytes(8)
        file = make_part(disposition, self.content, *headers)
        return make_field("id", str(self.dish.pk).encode()) + file + END

    def build_request(self, body, content_type=MULTIPART, query="", **headers):
        """Return the bytes of an upload. A header that is None is left out."""
        own = {"Host": self.http, "Content-Type": content_type, "Content-Length": len(body)}
        csrf = {"Cookie": f"csrftoken={TOKEN}", "X-CSRFToken": TOKEN}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [
            f"{name}: {value}\r\n"
            for name, value in {**own, **csrf, **given}.items()
            if value is not None
        ]
        return "".join([f"POST /upload{query} HTTP/1.1\r\n", *lines, "\r\n"]).encode() + body

    def connect(self, address=None, source=ADDRESS):
        return closing(open_socket(address or self.http, source=source))

    def exchange(self, data, address=None):
        with self.connect(address) as client:
            client.sendall(data)
            return receive(client)

    def attack(self, data, *codes, address=None):
        """Assert that an upload is answered with one of these codes. None means that it is kept."""
        entry = self.note(self.exchange(data, address))
        error = entry.upload.find("error")
        self.assertIn(None if error is None else error.get("code"), codes, entry)
        self.assertNotIn("x-evil", entry.answer.headers)

    def assert_interrupted(self, data):
        """Send only these bytes straight to the app, and assert that it answers `interrupted`."""
        with self.connect(self.stack.uploads.address) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            upload = self.note(receive(client)).upload
        self.assertEqual(upload.find("error").get("code"), "interrupted")

    def note(self, answer):
        """Enter the answer to the last form in the ledger."""
        entry = Entry("none", self.compute_digest(), answer, whole=True)
        self.ledger.note(entry)
        return entry

    def compute_digest(self):
        return hashlib.sha256(self.content).hexdigest()

    def attack_all(self, fault, requests, *codes):
        """Attack with the request of each function, through nginx and straight to the app."""
        for make_request in requests:
            for address in self.addresses:
                for _ in range(TIMES):
                    self.attack(make_request(), *codes, address=address)
        self.assert_uploads_work()
        self.audit(fault, len(requests) * len(self.addresses) * TIMES)


class FormTests(MaliceTestCase):
    def make_forms(self, *dispositions):
        """Return a function for each disposition, which makes an upload of such a file."""
        return [
            lambda disposition=disposition: self.build_request(self.make_form(disposition))
            for disposition in dispositions
        ]

    def make_typed_forms(self, *content_types):
        """Return a function for each content type, which makes an upload of such a form."""
        return [
            lambda content_type=content_type: self.build_request(self.make_form(), content_type)
            for content_type in content_types
        ]

    def test_the_charset_of_a_form_is_ignored(self):
        charsets = ("undefined", "hex", "unknown", "base64", "rot13", "utf-16")

        types = self.make_typed_forms(*(f"{MULTIPART}; charset={charset}" for charset in charsets))
        self.attack_all("an odd charset of a form", types, None)

    def test_a_content_type_in_an_unusable_charset_is_refused(self):
        charsets = ("undefined", "unknown")

        types = self.make_typed_forms(*(f"{MULTIPART}; x*={charset}''%FF" for charset in charsets))
        self.attack_all("a content type in an unusable charset", types, "no_picture")

    def test_the_charset_of_a_query_is_ignored(self):
        queries = {"?" + "&a" * 1100: "too_many", "?x=%61": None}
        for query, code in queries.items():
            requests = [
                lambda query=query, name=name: self.build_request(
                    self.make_form(), f"{MULTIPART}; charset={name}", query
                )
                for name in ("undefined", "idna", "hex", "utf-8")
            ]
            self.attack_all("a query in an unusable charset", requests, code)

    def test_a_page_ignores_the_charset_of_its_request(self):
        for address in self.pages:
            for name in ("undefined", "idna"):
                headers = {"Content-Type": f"text/plain; charset={name}"}
                record = get(address, "/get_upload_progress?X-Progress-ID=%61", headers)
                self.assertEqual(record.text, "null")
                for path in ("/?page=%31", "/admin/login/?next=%2F"):
                    self.assertEqual(get(address, path, headers).status, 200)

    def test_a_malformed_form_to_a_missing_page_gets_a_404(self):
        body = self.build_request(self.make_form(), f"{MULTIPART[:-1]}{'b' * 7000}")
        for address in self.pages:
            answer = self.exchange(body.replace(b"/upload", b"/menu"), address)
            self.assertEqual(answer.status, 404)

    def test_a_broken_photo_in_another_form_leaves_no_file(self):
        encoding = "Content-Transfer-Encoding: base64"
        content = b64encode(self.photo) + b"="
        for _ in range(10):
            body = self.make_form("name=picture; filename=a", content, encoding)
            self.exchange(self.build_request(body).replace(b"/upload", b"/dishes/new"))

        self.assertEqual(self.files("incoming"), [])

    def test_a_photo_whose_name_is_in_an_unusable_charset_is_kept(self):
        charsets = ("undefined", "unknown", "idna", "punycode", "unicode_escape", "utf-8")
        extended = (f"filename*={charset}''%FF%00" for charset in charsets)

        forms = self.make_forms(
            *(f"name=picture; {parameter}" for parameter in extended),
            "name=picture; filename=a; name*=unknown''%FF",
            "name=picture; filename*0=a; filename*=b",
        )
        self.attack_all("a file's name in an unusable charset", forms, None)

    def test_a_name_of_4_kib_is_refused(self):
        forms = self.make_forms(f"name=picture; filename={'x' * 4200}")

        self.attack_all("a file's name of 4 KiB", forms, "no_picture")

    def test_names_do_not_break_out_of_headers_paths_and_pages(self):
        names = (
            "a\rb\nc\0d.jpg",
            "../../../../etc/passwd",
            "..\\..\\db.sqlite3",
            "/var/lib/gourmious/db.sqlite3",
            "x" * 3900,
            SCRIPT,
        )
        forms = self.make_forms(*(f'name="picture"; filename="{name}"' for name in names))

        self.attack_all("a file's name that breaks out", forms, None)

    def test_a_name_that_ends_the_headers_of_its_part_is_refused(self):
        forms = self.make_forms('name="picture"; filename="a\r\nX-Evil: 1\r\n\r\nb.jpg"')

        self.attack_all("a file's name that ends the headers", forms, "not_an_image")

    def test_no_path_contains_a_name_from_a_client(self):
        folder = self.stack.folder
        names = ("../../evil", "..\\..\\evil", f"{folder}/evil", "dish.evil", "evil\0.jpg")
        with self.processing_held_back(), ExitStack() as sent:
            for name in names:
                client = sent.enter_context(self.connect())
                client.sendall(
                    self.build_request(self.make_form(f'name=picture; filename="{name}"'))
                )
                self.ledger.note(Entry("none", self.compute_digest(), None, whole=True))
            wait_for(lambda: self.count_complete() == len(names))
            self.assertEqual(list(folder.rglob("*evil*")), [])

        self.audit("a file's name that is a path", len(names))

    def count_complete(self):
        """Return how many files have arrived completely."""
        sizes = [path.stat().st_size for path in self.files("incoming")]
        return sizes.count(len(self.content))

    def test_a_dish_that_is_not_a_number_is_refused(self):
        values = (b"1 OR 1=1", b"1\r\nX: 1", b"../1", b"9" * 5000, b"\xff", b"1\0", b"-1", b"1e0")
        self.make_form()
        bodies = [
            make_field("id", value) + make_part("name=picture; filename=a", self.photo) + END
            for value in values
        ]

        requests = [lambda body=body: self.build_request(body) for body in bodies]
        self.attack_all("a dish that is not a number", requests, "unknown_dish")

    def test_a_boundary_may_have_70_characters_but_not_7000(self):
        for length, codes in ((70, [None]), (7000, ["no_picture"])):
            boundary = "b" * length

            def make_request(boundary=boundary):
                body = self.make_form().replace(b"--b", f"--{boundary}".encode())
                return self.build_request(body, f"multipart/form-data; boundary={boundary}")

            self.attack_all(f"a boundary of {length} characters", [make_request], *codes)

    def test_ten_thousand_files_or_fields_are_refused(self):
        files = b"".join(make_part("name=picture; filename=a", self.photo) for _ in range(10_000))
        fields = b"".join(make_field(number, b"x") for number in range(10_000))
        bodies = [self.make_form()[: -len(END)] + more + END for more in (files, fields)]

        requests = [lambda body=body: self.build_request(body) for body in bodies]
        self.attack_all("10,000 files, or fields", requests, "too_many")

    def test_a_form_in_a_form_is_refused(self):
        def make_request():
            inner = make_part("name=picture; filename=dish.jpg", self.photo).replace(b"--b", b"--c")
            own = "Content-Type: multipart/mixed; boundary=c"
            return self.build_request(self.make_form("name=picture", inner + b"--c--", own))

        self.attack_all("a form in a form", [make_request], "no_picture")

    def test_base64_is_decoded_and_broken_base64_is_refused(self):
        encoding = "Content-Transfer-Encoding: base64"

        def make_request():
            content = self.photo + self.rng.randbytes(9)
            body = self.make_form(
                'name="picture"; filename="dish.jpg"', b64encode(content), encoding
            )
            self.content = content
            return self.build_request(body)

        self.attack_all("a file in base64", [make_request], None)
        junk = [
            lambda: self.build_request(
                self.make_form("name=picture; filename=a", b"/9j/" * 5 + b"=", encoding)
            )
        ]
        self.attack_all("a file in broken base64", junk, "no_picture")

    def test_a_form_without_its_last_boundary_is_refused(self):
        def make_request():
            return self.build_request(self.make_form()[: -len(END) - 4])

        self.attack_all("a form without its last boundary", [make_request], "interrupted")

    def test_a_form_that_ends_between_two_photos_is_refused(self):
        content = photo(40, 30, randbytes=self.rng.randbytes)
        second = make_part("name=picture; filename=second.jpg", content)
        data = self.build_request(self.make_form()[: -len(END)] + second + END)
        start = data.index(second)

        places = (start, start + 1, start + 3, start + 30, start + len(second))
        for place in places * TIMES:
            self.assert_interrupted(data[:place])
        self.audit("a form that ends between two photos, or soon after", len(places) * TIMES)


class ExtraDataTests(MaliceTestCase):
    """A small picture may be an envelope for megabytes of other data."""

    def attack_with(self, name, extra, code):
        def make_request():
            content = photo(1, 1) + extra + self.rng.randbytes(8)
            return self.build_request(self.make_form(content=content))

        self.attack_all(name, [make_request], code)

    def test_megabytes_behind_a_picture_are_refused(self):
        self.attack_with("25 MB of zeros behind a pixel", bytes(25 * 2**20), "extra_data")

    def test_a_video_behind_a_picture_is_kept(self):
        self.attack_with("a motion photo", with_video(b"", 5_000_000), None)


class HeaderTests(MaliceTestCase):
    def make_uploads(self, *variants):
        return [
            lambda headers=headers: self.build_request(self.make_form(), **headers)
            for headers in variants
        ]

    def test_an_upload_to_a_foreign_host_is_refused(self):
        hosts = [{"Host": host} for host in ("evil.example", "localhost.evil.example", "x:99999")]

        for make_request in self.make_uploads(*hosts):
            with self.assertRaises(ConnectionResetError):
                self.exchange(make_request())
        self.addresses = [self.stack.uploads.address]
        self.attack_all("a foreign Host header", self.make_uploads(*hosts), "csrf")

    def test_an_upload_from_a_foreign_origin_is_refused(self):
        origins = [{"Origin": origin} for origin in (EVIL, "null", "http://[x")]

        self.attack_all("a foreign Origin header", self.make_uploads(*origins), "csrf")

    def test_a_foreign_host_has_no_page(self):
        paths = ("/", "/dishes/new", self.dish.get_absolute_url(), "/admin/login/", "/healthz")
        for path in paths:
            with self.assertRaises(ConnectionResetError):
                get(self.http, path, {"Host": "evil.example"})
            answer = get(self.stack.pages.address, path, {"Host": "evil.example"})
            self.assertEqual(answer.status, 400)
            self.assertNotIn("evil.example", f"{answer.headers} {answer.text}")
            self.assertNotIn("set-cookie", answer.headers)

    def test_a_foreign_origin_cannot_post_the_other_forms(self):
        form, pages = "name=Evil&restaurant=Evil&username=x&password=x", get(self.http, "/").text
        own = {"Content-Type": "application/x-www-form-urlencoded", "Origin": EVIL}
        for address in self.pages:
            for path in ("/dishes/new", "/admin/login/"):
                with closing(connect(address)) as connection:
                    with suppress(BrokenPipeError):  # It may be refused before its body is sent.
                        connection.request("POST", path, form, {**client_headers(address), **own})
                    self.assertEqual(get_answer(connection).status, 403)

        self.assertEqual(get(self.http, "/").text.count("Evil"), pages.count("Evil"))

    def test_an_upload_without_a_valid_token_is_refused(self):
        tokens = [{"Cookie": None}, {"X_CSRFToken": "y" * 32}, {"Cookie": "csrftoken=x"}]

        self.attack_all("a form without a valid token", self.make_uploads(*tokens), "csrf")

    def test_meaningless_headers_are_ignored(self):
        headers = [
            {"Accept": "a/b;q=x, */*;q=2;;, ,text/html;q=nan"},
            {"Accept": "application/xml; x*=unknown''a"},
            {"Accept": "application/xml; x*0=a; x*=b"},
            {"Accept": "a/b," * 1700},
            {"Cookie": f"csrftoken={TOKEN}; diner=a:b:c; sessionid={SCRIPT}"},
            {"X_Forwarded_For": SCRIPT, "X_Forwarded_Proto": "gopher"},
            {"X_Padding": "x" * 7000},
            {"Content_Encoding": "gzip"},
        ]

        self.attack_all("a meaningless header", self.make_uploads(*headers), None)

    def test_a_malformed_id_does_not_reach_memcached(self):
        self.assert_uploads_work()  # It adds the quota of its network.
        before = self.count_records()
        for evil in ("a%0D%0Aset%20x%200%200%201%0D%0Ay", "a%20b", "%00", "a:b", "x" * 65):
            requests = [
                lambda query=f"?X-Progress-ID={evil}": self.build_request(
                    self.make_form(), query=query
                )
            ]
            self.attack_all("a malformed id", requests, "bad_progress_id")
            for address in self.pages:
                answer = get(address, f"/get_upload_progress?X-Progress-ID={evil}")
                self.assertEqual(answer.status, 400)

        self.assertEqual(self.count_records(), before)

    def count_records(self):
        return re.findall(r"items:\d+:number (\d+)", self.stack.memcached.ask("stats items"))

    def test_lengths_that_contradict_each_other_are_refused(self):
        self.make_form()
        for headers in (
            {"Content_Length": "5\r\nContent-Length: 7"},
            {"Transfer_Encoding": "chunked"},
            {"Content_Length": "9" * 5000},
            {"Content_Length": "-5"},
        ):
            answer = self.exchange(self.build_request(self.make_form(), **headers))
            self.assertEqual(answer.status, 400)

        self.audit("lengths that contradict each other", 4)

    def test_a_length_that_is_too_short_is_refused(self):
        def make_request():
            body = self.make_form()
            return self.build_request(body, Content_Length=len(body) - 20)

        self.attack_all("a length that is too short", [make_request], "interrupted")

    def test_a_length_that_is_too_long_is_refused(self):
        for more in (1, 20, 5000) * TIMES:
            body = self.make_form()
            self.assert_interrupted(self.build_request(body, Content_Length=len(body) + more))

        self.audit("a length that is too long", 3 * TIMES)

    def build_chunked(self, body, size):
        """Return an upload that does not state its length, in chunks of so many bytes."""
        chunks = [body[start : start + size] for start in range(0, len(body), size)]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
        head = self.build_request(b"", Content_Length=None, Transfer_Encoding="chunked")
        return head + coded

    def test_an_upload_that_does_not_state_its_length_is_kept(self):
        def make_request(size):
            return lambda: self.build_chunked(self.make_form(), size)

        self.attack_all("a chunked body", [*map(make_request, (10, 100, 10**6))], None)

    def test_a_chunked_upload_that_is_no_form_is_refused(self):
        def make_request():
            return self.build_chunked(bytes(self.rng.choice([60_000, 20_000_000])), 60_000)

        self.make_form()
        self.attack_all("a chunked body of zeros", 4 * [make_request], "no_picture")

    def test_a_chunked_upload_has_progress_without_a_length(self):
        form = self.make_form(content=photo(800, 600))
        data = self.build_chunked(form, 1000)
        with self.connect() as client:
            client.sendall(data.replace(b"/upload", b"/upload?X-Progress-ID=chunked")[:100_000])
            record = wait_for(lambda: poll(self.http, "chunked"))
        self.assertIsNone(record["length"])
        self.assertGreater(record["uploaded"], 0)

    def test_a_client_may_wait_for_100_continue(self):
        data = self.build_request(self.make_form(), Expect="100-continue")
        head, _, body = data.partition(b"\r\n\r\n")
        with self.connect() as client:
            client.sendall(head + b"\r\n\r\n")
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 100 "))
            client.sendall(body)
            self.assertTrue(self.note(receive(client)).kept)

        self.audit("a client that waits for 100 Continue", 1)

    def test_two_pipelined_requests_are_both_answered(self):
        form = self.make_form()
        with self.connect() as client:
            client.sendall(self.build_request(form) + self.build_request(form, Connection="close"))
            data = b"".join(iter(lambda: client.recv(2**16), b"")).decode()

        # Both answers may arrive together: HTTPResponse would read more than its own.
        first, second = data.split("HTTP/1.1 ")[1:]
        for answer in (first, second):
            self.assertTrue(answer.startswith("200 "), answer)
            self.note(Answer(200, {}, answer.partition("\r\n\r\n")[2]))
        self.assertNotIn("known", first)
        self.assertIn("known", second)
        self.audit("two pipelined requests", 2)


class OtherTests(MaliceTestCase):
    def test_the_body_of_a_forged_form_never_reaches_the_disk(self):
        body = self.make_form(content=self.photo + bytes(20_000_000))  # more than sockets buffer
        data = self.build_request(body, Origin=EVIL)
        with self.connect() as client:
            client.sendall(data[:-1000])
            self.assertEqual(self.files("incoming"), [])
            client.sendall(data[-1000:])
            self.assertEqual(receive(client).status, 403)

        self.audit("a forged form of megabytes", 1)

    def test_an_upload_with_the_id_of_another_does_not_disturb_it(self):
        with self.make_upload(photo(1600, 1200), "mine") as victim:
            victim.send(100_000)
            wait_for(lambda: poll(self.http, "mine"))
            for source in (ADDRESS, "127.0.0.2"):
                with self.make_upload(progress_id="mine", source=source) as thief:
                    self.assertEqual(thief.answer().status, 200)
            place = iter(range(100_000, len(victim.data), 2000))
            wait_for(lambda: victim.send(next(place)) or poll(self.http, "mine"))
            self.assertEqual(victim.answer().status, 200)

        self.audit("the id of another upload", 2)

    def test_a_pickle_in_memcached_is_never_executed(self):
        touched = Path(self.stack.folder, "touched")
        planted = pickle.dumps(Plant(str(touched)), 0).decode()
        for number, text in enumerate((planted, "<script>alert(1)</script>")):
            key = f"gourmious:1:{ADDRESS}_planted-{number}"
            self.stack.memcached.ask(f"set {key} 1 60 {len(text)}\r\n{text}")
            for address in self.pages:
                answer = get(address, f"/get_upload_progress?X-Progress-ID=planted-{number}")
                self.assertEqual(answer.headers["content-type"], "application/json")
                self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

        self.assertFalse(touched.exists())

    def test_nothing_that_a_diner_writes_becomes_a_script(self):
        dish = add_dish(self.http, f"{SCRIPT}{self.rng.random()}")
        refused = self.build_request(
            self.make_form(f'name="picture"; filename="{SCRIPT}"', b"A text."), Accept="text/html"
        )
        pages = [
            self.exchange(refused),
            get(self.http, "/"),
            get(self.http, dish.get_absolute_url()),
        ]

        for page in pages:
            self.assertNotIn("<script>alert", page.text)
            self.assertIn("&lt;script&gt;alert", page.text)
            self.assertIn("default-src 'self'", page.headers["content-security-policy"])

    def test_no_page_can_be_framed(self):
        for path in ("/", self.dish.get_absolute_url(), "/admin/login/", "/menu", "/healthz"):
            headers = get(self.http, path).headers
            self.assertEqual(headers["x-frame-options"], "DENY")
            self.assertIn("frame-ancestors 'none'", headers["content-security-policy"])

    def test_no_answer_of_nginx_itself_can_be_framed(self):
        for accept, source in (("text/html", "127.0.0.7"), ("*/*", "127.0.0.8")):
            self.assert_unframeable(self.send_too_large(accept), 413)
            self.assert_unframeable(self.send_too_many(accept, source), 429)
        for server in (self.stack.pages, self.stack.uploads):
            server.stop()
            self.addCleanup(server.start)
        for accept in ("text/html", "*/*"):
            self.assert_unframeable(self.exchange(self.build_request(b"", Accept=accept)), 502)
        self.assert_unframeable(get(self.http, "/"), 502)

    def assert_unframeable(self, answer, status):
        self.assertEqual(answer.status, status)
        self.assertIn("frame-ancestors 'none'", answer.headers["content-security-policy"])
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def send_too_large(self, accept):
        return self.exchange(self.build_request(b"", Accept=accept, Content_Length=10**9))

    def send_too_many(self, accept, source):
        """Begin one upload more than an address may send, and return the refusal."""
        head = self.build_request(b"", Accept=accept, Content_Length=1000)
        with ExitStack() as begun:
            clients = []
            for _ in range(settings.MAX_UPLOADS_PER_ADDRESS + 1):
                clients.append(begun.enter_context(self.connect(source=source)))
                clients[-1].sendall(head)
            [refused], _, _ = select.select(clients, [], [], 20)
            return receive(refused)

    def test_500_idle_connections_keep_nobody_out(self):
        with ExitStack() as idle:
            for number in range(500):
                client = idle.enter_context(self.connect())
                client.sendall(self.build_request(self.make_form())[: number % 2 * 100])
            self.assert_open()

        self.audit("500 idle connections", 500)

    def test_500_idle_connections_over_tls_keep_nobody_out(self):
        with ExitStack() as idle:
            for number in range(500):
                secure = number % 10 == 0
                idle.enter_context(closing(open_socket(self.https, secure=secure)))
            self.assert_open()

        self.audit("500 idle connections over TLS", 500)

    def test_500_connections_that_send_no_body_keep_nobody_out(self):
        head = self.build_request(b"", Content_Length=1000)
        with ExitStack() as idle:
            for number in range(500):
                source = f"127.0.0.{10 + number % 5}"
                idle.enter_context(self.connect(source=source)).sendall(head)
            self.assert_open()

        self.audit("500 connections that send no body", 500)

    def test_1700_half_requests_keep_nobody_out(self):
        half = self.build_request(b"")[:40]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with ExitStack() as begun:
            for _ in range(1700):
                for address, secure in ((self.http, False), (self.https, True)):
                    client = begun.enter_context(closing(open_socket(address, secure=secure)))
                    client.sendall(half)
            self.assert_open()
            self.assertEqual(client.recv(1), b"")  # It is cut off.

        self.audit("half requests, over HTTP and over TLS", 3400)

    def assert_open(self):
        self.assertEqual(get(self.https, "/", secure=True).status, 200)
        self.assert_open_to_others(10)


class Plant:
    """An object that touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)
