"""HAProxy, as deployconf sets it up, in front of real web hosts."""

import subprocess
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode
from xml.etree import ElementTree

from .cases import StackTestCase
from .client import Upload, client_headers, connect, get, get_answer, open_socket, poll
from .photos import photo, photo_of_megabytes
from .servers import ADDRESS, requires
from .stack import Balancer, loopback_hosts
from .test_nginx import SECURITY_HEADERS
from .waiting import wait_for

FORGED = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "ftp", "X-Real-IP": "192.0.2.7"}
PAGE = {"Accept": "text/html,application/xhtml+xml"}
ONE_PIXEL = photo(1, 1)


@requires("haproxy")
class BalancerTestCase(StackTestCase):
    variables = {"GOURMIOUS_BALANCERS": ADDRESS}

    @classmethod
    @contextmanager
    def balance(cls, *hosts, **variables):
        """Start a balancer in front of these web hosts, with these variables for its limits."""
        with TemporaryDirectory(prefix="gourmious-") as folder:
            environment = {**cls.stack.environment, **variables}
            with Balancer(Path(folder), hosts or [cls.http], environment) as balancer:
                wait_for(lambda: get(balancer.address, "/", secure=True).status == 200)
                yield balancer

    def begin(self, balancer, number, source=None, headers=()):
        """Begin an upload, and return it when its first bytes were sent."""
        name = f"{self.progress_id[-50:]}-{number}"
        options = {"secure": True, "source": source, "headers": headers}
        upload = Upload(balancer.address, self.dish, photo(800, 600), name, **options)
        self.enterContext(upload).send(200_000)
        return upload

    def begin_and_await(self, balancer, number, source=None):
        upload = self.begin(balancer, number, source)
        options = {"secure": True, "source": source}
        wait_for(lambda: poll(balancer.address, upload.progress_id, **options))
        return upload

    def post(self, balancer, path, headers=(), **form):
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            **client_headers(balancer.address, secure=True),
            **dict(headers),
        }
        with closing(connect(balancer.address, secure=True)) as connection:
            connection.request("POST", path, urlencode(form), headers)
            return get_answer(connection)

    def assert_refused(self, answer, status, code, retry_after="5"):
        upload = ElementTree.fromstring(answer.text)
        self.assertEqual(upload.find("error").get("code"), code)
        self.assertEqual(upload.find("error").get("retry"), "true")
        self.assertRegex(upload.findtext("error"), r"^[A-Z].*\.$")
        self.assertEqual(answer.headers["content-type"], "application/xml")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (status, retry_after))

    def assert_refused_by_a_page(self, answer, status, retry_after):
        self.assertIn("<h1>That did not work</h1>", answer.text)
        self.assertEqual((answer.status, answer.headers["retry-after"]), (status, retry_after))


class PassageTests(BalancerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.balancer = cls.enterClassContext(cls.balance())
        cls.https = cls.balancer.address

    @contextmanager
    def no_host_up(self):
        self.stack.http.stop()
        try:
            wait_for(lambda: not self.balancer.list_up())
            yield
        finally:
            self.stack.http.start()
            wait_for(self.balancer.list_up)

    def poll(self, **options):
        return poll(self.https, self.progress_id, secure=True, **options)

    def test_the_progress_rises_and_the_photo_is_kept(self):
        upload = self.upload(self.https, secure=True)

        self.assert_rising(self.watch(lambda: upload.send_more(200)))

        self.assert_kept(upload)
        self.assert_deleted()

    @requires("curl")
    def test_the_progress_rises_over_http_2(self):
        file = self.balancer.folder / "dish.jpg"
        file.write_bytes(photo_of_megabytes())
        headers = client_headers(self.https, secure=True)
        options = [f"-H{name}: {value}" for name, value in headers.items()]
        form = ["-F", f"id={self.dish.pk}", "-F", f"picture=@{file}"]
        url = f"https://{self.https}/upload?X-Progress-ID={self.progress_id}"
        command = ["curl", "-sk", "--http2", "--limit-rate", "400k", "-w", " %{http_version}"]
        with subprocess.Popen([*command, *options, *form, url], stdout=subprocess.PIPE) as curl:
            self.assert_rising(self.watch(lambda: None))
            answer, _ = curl.communicate()

        self.assertIn(b"<status>ok</status>", answer)
        self.assertTrue(answer.endswith(b" 2"), answer)

    def test_what_a_client_says_of_its_address_is_believed_nowhere(self):
        """Neither the balancer nor nginx believes it, unless the balancer itself says it."""
        for number, (address, source, secure) in enumerate(
            ((self.https, "127.0.0.5", True), (self.http, "127.0.0.6", False))
        ):
            options = {"source": source, "secure": secure}
            self.progress_id = f"forged-{number}"
            upload = self.upload(address, headers=FORGED, **options)

            record = self.stack.memcached.ask(f"get gourmious:1:{source}_{self.progress_id}")
            self.assertIn("uploaded", record)
            self.assertIsNone(poll(address, self.progress_id, secure=secure))
            self.assert_kept(upload)

    def test_only_the_balancer_says_whether_a_request_came_over_https(self):
        for address, options, secure in (
            (self.https, {"secure": True}, True),
            (self.http, {"source": "127.0.0.6"}, False),
        ):
            for forged in ("http", "https"):
                headers = {"X-Forwarded-Proto": forged}
                answer = get(address, self.dish.get_absolute_url(), headers, **options)
                self.assertEqual("__Host-" in answer.headers["set-cookie"], secure)
                self.assertEqual("strict-transport-security" in answer.headers, secure)

    def test_http_leads_to_https(self):
        answer = get(self.balancer.plain_address, "/dishes/1/?page=2", {"Host": "localhost:80"})

        self.assertEqual(answer.status, 301)
        self.assertEqual(answer.headers["location"], "https://localhost/dishes/1/?page=2")

    def test_a_request_under_a_foreign_host_gets_no_answer(self):
        refusals = {b"", b"HTTP/1.1 400"}  # HAProxy (3.0) refuses a comma.
        for host, answers in (
            ("evil.example", {b""}),
            ("evil.example,localhost", refusals),
            ("localhost,evil.example", refusals),
        ):
            for address, secure in ((self.https, True), (self.balancer.plain_address, False)):
                with open_socket(address, secure=secure) as client:
                    client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    self.assertIn(client.recv(12), answers, host)

    def test_no_answer_tells_the_version_of_a_server(self):
        for path in ("/", "/static/none.css", "/upload"):
            answer = get(self.https, path, secure=True)
            self.assertRegex(answer.headers.get("server", "nginx"), "^nginx$")

    def test_its_own_answers_have_the_headers_of_the_app(self):
        page = get(self.https, "/", secure=True)
        with self.no_host_up():
            answer = get(self.https, "/", secure=True)
        for name in (*SECURITY_HEADERS, "strict-transport-security"):
            self.assertEqual(*(set(one.headers[name].split("; ")) for one in (answer, page)))

    def test_when_no_host_is_up_clients_are_told_to_try_again(self):
        with self.no_host_up():
            self.assert_refused(self.send({}), 503, "server_error")
            self.assert_refused_by_a_page(self.send(PAGE), 503, "5")
            self.assert_refused_by_a_page(get(self.https, "/", secure=True), 503, "5")

    def send(self, headers):
        with Upload(self.https, self.dish, ONE_PIXEL, secure=True, headers=headers) as upload:
            return upload.answer()


class LimitTests(BalancerTestCase):
    def refuse_the_third(self, balancer, sources):
        """Begin two uploads, and return the answers to a third one, as a script and as a page."""
        for number, source in enumerate(sources[:2]):
            self.begin_and_await(balancer, number, source)
        return [
            self.begin(balancer, "third", sources[2], headers).answer() for headers in ({}, PAGE)
        ]

    def test_a_client_has_only_so_many_uploads_at_once(self):
        with self.balance(GOURMIOUS_MAX_UPLOADS_PER_ADDRESS="2") as balancer:
            answer, page = self.refuse_the_third(balancer, ["127.0.0.5"] * 3)

            self.assert_refused(answer, 429, "busy")
            self.assert_refused_by_a_page(page, 429, "5")
            self.assert_kept(self.begin(balancer, "other", "127.0.0.6"))

    def test_all_clients_have_only_so_many_uploads_at_once(self):
        with self.balance(GOURMIOUS_MAX_UPLOADS="2") as balancer:
            answer, page = self.refuse_the_third(balancer, ["127.0.0.5", "127.0.0.6", "127.0.0.7"])

            self.assert_refused(answer, 429, "busy")
            self.assert_refused_by_a_page(page, 429, "5")

    def test_an_upload_that_has_ended_leaves_its_place(self):
        with self.balance(GOURMIOUS_MAX_UPLOADS_PER_ADDRESS="1") as balancer:
            for number in range(3):
                self.assert_kept(self.begin(balancer, number))

    def test_a_client_sends_only_so_many_uploads_in_a_minute(self):
        with self.balance(GOURMIOUS_UPLOADS_PER_MINUTE="6") as balancer:
            answers = [self.begin(balancer, number).answer() for number in range(3)]

            self.assertEqual([answer.status for answer in answers], [200, 200, 429])
            self.assert_refused(answers[-1], 429, "busy")

    def test_a_client_sends_each_form_only_so_often(self):
        forms = ("/dishes/new", "/admin/login/", f"/pictures/{10**6}/report")
        with self.balance(GOURMIOUS_POSTS_PER_MINUTE="2") as balancer:
            for path in forms:
                answers = [self.post(balancer, path) for _ in range(3)]
                self.assertEqual([answer.status == 429 for answer in answers], [0, 0, 1], path)
                self.assert_refused_by_a_page(answers[-1], 429, "60")
                self.assertNotEqual(get(balancer.address, path, secure=True).status, 429)

    def test_an_ipv6_client_is_counted_by_its_network(self):
        if len(loopback_hosts()) == 1:
            self.skipTest("This machine does not speak IPv6.")
        with self.balance() as balancer:
            get(f"[::1]:{balancer.port}", "/upload", secure=True)

            # HAProxy (3.0) takes ::1 for an IPv4 address in an old notation.
            table = balancer.ask("show table upload_of_client")
            self.assertRegex(table, r"key=::(ffff:0\.0\.0\.1)? ")


class ReleaseTests(BalancerTestCase):
    """Two hosts; the static files of a new release are on one of them."""

    def test_a_static_file_that_one_host_has_is_found(self):
        with TemporaryDirectory(prefix="gourmious-") as folder, ExitStack() as stack:
            Path(folder, "static").mkdir()
            Path(folder, "static", "new.css").write_text("p {}")
            newer = stack.enter_context(self.another_nginx(GOURMIOUS_DATA_DIR=folder))
            balancer = stack.enter_context(self.balance(self.http, newer))
            for _ in range(20):
                for name in ("new.css", "uploads/gourmious.css"):
                    answer = get(balancer.address, f"/static/{name}", secure=True)
                    self.assertEqual(answer.status, 200, name)

            answer = get(balancer.address, "/static/none.css", secure=True)
            self.assertEqual(answer.status, 404)
