"""nginx in front of the app: whom it believes and refuses, and its own answers."""

import re
import subprocess
from contextlib import closing
from http.client import HTTPResponse, RemoteDisconnected
from pathlib import Path
from ssl import SSLError
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from .cases import StackTestCase
from .client import (
    Upload,
    client_headers,
    connect,
    get,
    get_answer,
    host_of,
    open_socket,
    read_answer,
    trusting_context,
)
from .contract import REFUSALS
from .environment import deployconf
from .photos import photo
from .servers import ADDRESS, Nginx, free_port, requires
from .stack import make_certificate
from .waiting import wait_for

BALANCER, CLIENT = "127.0.0.3", "203.0.113.9"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SECURITY_HEADERS = (
    "content-security-policy",
    "cross-origin-opener-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
)


def exchange(address, data, secure=False):
    """Send these bytes on a connection, and return the answer."""
    with closing(open_socket(address, secure=secure)) as client:
        client.sendall(data)
        with closing(HTTPResponse(client)) as response:
            response.begin()
            return read_answer(response)


class BalancerTests(StackTestCase):
    variables = {"GOURMIOUS_BALANCERS": BALANCER}

    def tell(self, client=CLIENT, scheme="https"):
        """Return the headers of a balancer."""
        return {"X-Forwarded-For": client, "X-Forwarded-Proto": scheme}

    def make_upload(self, headers, **options):
        """Return an upload that begins on a page over HTTPS."""
        headers = {**client_headers(self.http, secure=True), **headers}
        upload = Upload(self.http, self.dish, photo(), self.progress_id, headers, **options)
        return self.enterContext(upload)

    def test_the_address_and_the_scheme_are_those_that_a_balancer_names(self):
        headers = self.tell()
        upload = self.make_upload(headers, source=BALANCER)
        upload.send(200_000)

        record = wait_for(lambda: self.poll(source=BALANCER, headers=headers))

        self.assertEqual(record["length"], upload.length)
        self.assertIsNone(self.poll(source=BALANCER))
        self.assert_kept(upload)

    def test_nobody_else_is_believed(self):
        self.assertEqual(self.make_upload(self.tell()).answer().status, 403)
        upload = self.upload(headers=self.tell())

        self.assertIsNotNone(self.poll())
        self.assertIsNone(self.poll(source=BALANCER, headers=self.tell()))
        self.assert_kept(upload)

    def test_a_client_behind_a_balancer_cannot_choose_its_address(self):
        headers = self.tell(f"192.0.2.7, {CLIENT}", "http")
        upload = self.upload(source=BALANCER, headers=headers)

        self.assertIsNotNone(self.poll(source=BALANCER, headers=self.tell()))
        self.assertIsNone(self.poll(source=BALANCER, headers=self.tell("192.0.2.7")))
        self.assert_kept(upload)

    def test_only_a_balancer_that_names_https_gets_hsts(self):
        for source, scheme, expected in (
            (BALANCER, "https", True),
            (BALANCER, "http", False),
            (BALANCER, "gopher", False),
            ("127.0.0.1", "https", False),
        ):
            for path in ("/", "/static/uploads/icon.svg"):
                answer = get(self.http, path, self.tell(scheme=scheme), source=source)
                self.assertEqual("strict-transport-security" in answer.headers, expected, scheme)


class HostTests(StackTestCase):
    def assert_closed(self, address, host, **options):
        with self.assertRaises(RemoteDisconnected):
            get(address, "/", {"Host": host}, **options)

    def test_a_foreign_host_gets_no_answer(self):
        for host in ("evil.example", "localhost.evil.example", "127.0.0.2"):
            self.assert_closed(self.http, host)
            self.assert_closed(self.https, host, secure=True)

    def test_a_request_without_a_host_gets_none_either(self):
        with self.assertRaises(RemoteDisconnected):
            exchange(self.http, b"GET / HTTP/1.0\r\n\r\n")

    def test_every_allowed_host_is_answered(self):
        for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST:80"):
            self.assertEqual(get(self.http, "/", {"Host": host}).status, 200)
            self.assertEqual(get(self.https, "/", {"Host": host}, secure=True).status, 200)

    def test_a_handshake_for_a_foreign_name_is_refused(self):
        tls = make_certificate(Path(self.enterContext(TemporaryDirectory())))
        variables = {**tls, "GOURMIOUS_ALLOWED_HOSTS": "localhost"}
        address = self.enterContext(self.another_nginx(**variables))

        for name in ("evil.example", None):
            with self.assertRaises(SSLError), closing(open_socket(address)) as client:
                trusting_context().wrap_socket(client, server_hostname=name)
        with (
            closing(open_socket(address)) as client,
            trusting_context().wrap_socket(client, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            self.assertEqual(secure.recv(1), b"")

    def test_port_80_leads_to_a_name_of_the_site(self):
        answer = get(self.nginx_on_port_80(), "/menu?page=2", {"Host": "LOCALHOST:80"})

        self.assertEqual(answer.status, 301)
        self.assertEqual(answer.headers["location"], "https://localhost/menu?page=2")
        self.assertNotIn("strict-transport-security", answer.headers)
        self.assertIn("content-security-policy", answer.headers)

    def test_port_80_does_not_answer_to_a_foreign_host(self):
        self.assert_closed(self.nginx_on_port_80(), "evil.example")

    def nginx_on_port_80(self):
        """Start the site as it is printed without --listen, with free ports for 80 and 443."""
        tls = make_certificate(Path(self.enterContext(TemporaryDirectory())))
        environment = {**self.stack.environment, **tls, "GOURMIOUS_ALLOWED_HOSTS": "localhost"}
        http, https = free_port(), free_port()
        main, site = (deployconf(kind, **environment) for kind in ("nginx-main", "nginx"))
        site = re.sub(r"listen \[::\].*;", "", site)
        for port, free in ((80, http), (443, https)):
            site = site.replace(f"listen {port}", f"listen {ADDRESS}:{free}")
        folder = self.enterContext(TemporaryDirectory(prefix="gourmious-"))
        return self.enterContext(Nginx(folder, http, main, site)).address

    def test_every_host_is_answered_if_every_host_is_allowed(self):
        address = self.enterContext(self.another_nginx(GOURMIOUS_ALLOWED_HOSTS="*"))

        # The app that is running allows fewer hosts.
        self.assertEqual(get(address, "/", {"Host": "evil.example"}).status, 400)
        self.assertEqual(get(address, "/").status, 200)


class HeaderTests(StackTestCase):
    def test_every_answer_has_the_headers_that_django_sets(self):
        page = get(self.https, "/", secure=True).headers
        names = (*SECURITY_HEADERS, "strict-transport-security")
        expected = {name: sorted(page[name].split("; ")) for name in names}
        for path in ("/static/uploads/icon.svg", "/static/none", "/get_upload_progress", "/upload"):
            headers = get(self.https, path, secure=True).headers
            found = {name: sorted(headers[name].split("; ")) for name in names}
            self.assertEqual(found, expected, path)

    def test_no_answer_tells_the_version_of_nginx(self):
        for path in ("/", "/static/none"):
            answer = get(self.http, path)
            self.assertEqual(answer.headers["server"], "nginx")
            self.assertNotRegex(answer.text, r"nginx/\d")

    def test_a_redirect_of_nginx_names_no_host(self):
        answer = get(self.http, "/static/uploads")

        self.assertEqual((answer.status, answer.headers["location"]), (301, "/static/uploads/"))


class RateTests(StackTestCase):
    """Each test has addresses of its own."""

    variables = {"GOURMIOUS_UPLOADS_PER_MINUTE": "", "GOURMIOUS_POSTS_PER_MINUTE": ""}

    def post(self, path, source, **headers):
        with closing(connect(self.http, source=source)) as connection:
            connection.request("POST", path, "", {**FORM, **headers})
            return get_answer(connection)

    def post_often(self, times, path, source):
        return [self.post(path, source).status for _ in range(times)]

    def get_refusal(self, *form, **headers):
        """Post until nginx refuses, and return the refusal: now and then it lets one in."""
        return wait_for(lambda: (answer := self.post(*form, **headers)).status == 429 and answer)

    def test_the_posts_of_each_form_are_limited(self):
        for path in ("/dishes/new", "/admin/login/", "/pictures/1/report"):
            statuses = self.post_often(40, path, "127.0.2.1")

            self.assertNotIn(429, statuses[:21])
            self.assertIn(429, statuses[21:])

    def test_another_address_is_not_kept_out(self):
        self.assertIn(429, self.post_often(40, "/dishes/new", "127.0.2.2"))

        self.assertNotIn(429, self.post_often(10, "/dishes/new", "127.0.2.3"))
        self.assertEqual(get(self.http, "/", source="127.0.2.2").status, 200)

    def test_the_refusal_is_a_page_that_tells_when_to_try_again(self):
        self.post_often(40, "/admin/login/", "127.0.2.4")

        answer = self.get_refusal("/admin/login/", "127.0.2.4")

        self.assertEqual(answer.headers["retry-after"], "60")
        self.assertEqual(answer.headers["content-type"], "text/html")
        self.assertIn("<p>Too many forms came from your address; please try again", answer.text)

    def test_pages_are_not_counted(self):
        answers = [get(self.http, "/dishes/new", source="127.0.2.5") for _ in range(60)]

        self.assertEqual({answer.status for answer in answers}, {200})

    def test_uploads_are_limited(self):
        statuses = self.post_often(200, "/upload", "127.0.2.6")

        self.assertNotIn(429, statuses[:101])
        self.assertIn(429, statuses[101:])
        answer = self.get_refusal("/upload", "127.0.2.6")
        error = ElementTree.fromstring(answer.text).find("error")
        self.assertEqual((error.get("code"), error.get("retry")), ("busy", "true"))
        self.assertEqual(answer.headers["retry-after"], "5")
        page = self.get_refusal("/upload", "127.0.2.6", Accept="text/html")
        self.assertIn("<p>Too many photos are being uploaded", page.text)

    def test_as_many_cancellations_are_accepted_as_uploads(self):
        statuses = self.post_often(200, "/cancel_upload", "127.0.2.7")

        self.assertNotIn(429, statuses[:101])
        self.assertIn(429, statuses[101:])
        self.assertEqual(self.post("/upload", "127.0.2.7").status, 400)


class RefusalTests(StackTestCase):
    """Requests that nginx refuses without asking the app."""

    def list_requests(self, host, accept="*/*"):
        """Yield the status that each request must get, and its bytes."""
        known = f"Host: {host}\r\nAccept: {accept}\r\n"
        for status, line, headers in (
            (400, "/upload HTTP/1.1", f"Accept: {accept}\r\n"),
            (400, "/upload HTTP/1.1", f"{known}Host: {host}\r\n"),
            (400, "/upload HTTP/1.1", f"{known}Content-Length: -5\r\n"),
            (413, "/upload HTTP/1.1", f"{known}Content-Length: {10**10}\r\n"),
            (431, "/upload HTTP/1.1", f"{known}X: {'x' * 9000}\r\n"),
            (501, "/upload HTTP/1.1", f"{known}Transfer-Encoding: menu\r\n"),
        ):
            yield status, f"POST {line}\r\n{headers}\r\n".encode()

    def list_malformed_lines(self, host):
        for status, line in (
            (414, f"/upload?{'x' * 9000} HTTP/1.1"),
            (400, "/upload HTTP/3.1"),
            (400, "/upload? \0 HTTP/1.1"),
        ):
            yield status, f"POST {line}\r\nHost: {host}\r\n\r\n".encode()

    def assert_refused(self, answer, status):
        self.assertEqual(
            (answer.status, answer.headers["content-type"]), (status, "application/xml")
        )
        upload = ElementTree.fromstring(answer.text)
        self.assertEqual(upload.findtext("status"), "error")
        self.assertIn(upload.find("error").get("code"), REFUSALS)
        self.assertRegex(upload.findtext("error"), r"^[A-Z].*\.$")
        for name in SECURITY_HEADERS:
            self.assertIn(name, answer.headers)

    def test_an_upload_is_refused_in_xml(self):
        for address, secure in ((self.http, False), (self.https, True)):
            host = host_of(address)
            for status, data in (*self.list_requests(host), *self.list_malformed_lines(host)):
                with self.subTest(data[:60], secure=secure):
                    self.assert_refused(exchange(address, data, secure), status)

    def test_a_browser_without_scripts_gets_a_page(self):
        for status, data in self.list_requests(self.http, "text/html,*/*"):
            with self.subTest(data[:60]):
                answer = exchange(self.http, data)
                self.assertEqual(answer.status, status)
                self.assertEqual(answer.headers["content-type"], "text/html")
                self.assertRegex(answer.text, r"<p>[A-Z].*\.</p>")

    def test_all_other_addresses_are_refused_with_a_page(self):
        head = f" /menu HTTP/1.1\r\nHost: {self.http}\r\n"
        for status, data in (
            (400, "GET menu HTTP/1.1\r\n\r\n"),
            (413, f"POST{head}Content-Length: {2 * 2**20}\r\n\r\n"),
            (414, f"GET /menu?{'x' * 9000} HTTP/1.1\r\n\r\n"),
            (431, f"GET{head}Cookie: {'x' * 9000}\r\n\r\n"),
        ):
            answer = exchange(self.http, data.encode())
            self.assertEqual((answer.status, answer.headers["content-type"]), (status, "text/html"))
            self.assertRegex(answer.text, r"<p>[A-Z].*\.</p>")

    def test_plain_http_on_the_port_of_https_is_refused_with_a_page(self):
        answer = get(self.https, "/")

        self.assertEqual((answer.status, answer.headers["content-type"]), (400, "text/html"))
        self.assertIn("<p>The server does not understand the request.</p>", answer.text)

    @requires("curl")
    def test_an_upload_over_http_2_is_refused_in_xml(self):
        url, length = f"https://{self.https}/upload", f"Content-Length: {10**10}"
        command = ["curl", "-sk", "--http2", "-w", " %{http_code} %{http_version}", "-H", length]
        for options, status in ((["-d", "x"], 413), (["-X", "POST"], 400)):
            curl = subprocess.run([*command, *options, url], check=True, stdout=subprocess.PIPE)
            self.assertRegex(curl.stdout.decode(), rf"^<upload>.*</upload> {status} 2$")

    def test_errors_of_the_app_stay_as_they_are(self):
        answer = get(self.http, "/menu")

        self.assertEqual(answer.status, 404)
        self.assertIn("There is no page at this address.", answer.text)
