"""The proxy of the tests: how it passes requests on, its slow lines and its faults."""

import threading
import time
from contextlib import closing
from http.client import HTTPResponse, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import TestCase

from .client import connect, get, get_answer, open_socket
from .proxy import BURST, PIECE, Proxy, answer, hang, reset, swallow
from .servers import ADDRESS, free_port
from .waiting import wait_for

CHUNKS = b"4\r\nfour\r\n8;extension\r\n, twelve\r\n0\r\n\r\n"
BODY = bytes(1_000_000)
AHEAD = 300_000  # bytes; the buffers of the sockets hold fewer


class Handler(BaseHTTPRequestHandler):
    """Answer in chunks, or with the Host header; /early is answered before its body is read."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/chunks":
            self.respond(200, CHUNKS, "Transfer-Encoding", "chunked")
        else:
            self.respond(200, self.headers["Host"].encode())

    def do_POST(self):
        if self.path == "/early":
            self.respond(413)
        self.receive(int(self.headers["Content-Length"]))
        if self.path != "/early":
            self.respond(200)

    def receive(self, length):
        while length and (data := self.rfile.read1(min(length, 2**16))):
            length -= len(data)
            self.server.received += len(data)
        self.close_connection = length > 0
        self.server.ended = True

    def respond(self, status, body=b"", name="Content-Length", value=None):
        self.send_response(status)
        self.send_header(name, value or len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Write nothing: the screen is for the tests."""


class Upstream(ThreadingHTTPServer):
    """A server that counts the bytes of bodies as they come."""

    daemon_threads = False  # server_close() waits for them
    received, ended = 0, False

    def __init__(self):
        super().__init__((ADDRESS, 0), Handler)

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=[0.01])
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, *arguments):
        """Write nothing about a client that hung up."""


class ProxyTestCase(TestCase):
    def setUp(self):
        self.upstream = self.enterContext(Upstream())
        self.proxy = self.enterContext(Proxy(f"{ADDRESS}:{self.upstream.server_port}"))
        self.client = self.enterContext(closing(connect(self.proxy.address)))

    def request(self, method="GET", path="/", body=None):
        self.client.request(method, path, body)
        return get_answer(self.client)

    def begin(self, path="/upload"):
        """Send the head of an upload, and return its socket."""
        client = self.enterContext(closing(open_socket(self.proxy.address)))
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BODY)}\r\n\r\n"
        client.sendall(head.encode())
        return client

    def read_status(self, client):
        with closing(HTTPResponse(client)) as response:
            response.begin()
            response.read()
            return response.status

    def seen(self):
        return [(request.method, request.path, request.status) for request in self.proxy.requests]


class PassTests(ProxyTestCase):
    def test_requests_pass_on_one_connection_and_are_listed(self):
        self.request("POST", "/upload?id=1", BODY)
        sock = self.client.sock
        self.request()

        self.assertIs(self.client.sock, sock)
        self.assertEqual(self.upstream.received, len(BODY))
        self.assertEqual(self.seen(), [("POST", "/upload?id=1", 200), ("GET", "/", 200)])

    def test_the_host_header_stays(self):
        self.assertEqual(self.request().text, self.proxy.address)

    def test_an_answer_in_chunks_passes_and_the_connection_stays(self):
        texts = [self.request(path="/chunks").text for _ in range(2)]

        self.assertEqual(texts, ["four, twelve"] * 2)

    def test_a_body_passes_while_it_is_being_sent(self):
        client = self.begin()
        client.sendall(BODY[:1000])

        wait_for(lambda: self.upstream.received == 1000)

    def test_an_early_answer_passes_before_the_body_has_been_sent(self):
        client = self.begin("/early")

        self.assertEqual(self.read_status(client), 413)
        client.sendall(BODY)
        wait_for(lambda: self.upstream.received == len(BODY))

    def test_a_client_that_hangs_up_is_gone_for_the_server_too(self):
        client = self.begin()
        client.sendall(BODY[:1000])
        client.close()

        wait_for(lambda: self.upstream.ended)
        self.assertEqual(self.upstream.received, 1000)

    def test_a_server_that_is_away_resets_the_connection(self):
        with (
            Proxy(f"{ADDRESS}:{free_port()}") as proxy,
            self.assertRaises(ConnectionResetError),
        ):
            get(proxy.address, "/")

    def test_it_ends_with_its_thread_while_clients_stay_connected(self):
        threads = {*threading.enumerate()}
        with Proxy(f"{ADDRESS}:{self.upstream.server_port}") as proxy:
            idle = self.enterContext(closing(open_socket(proxy.address)))
            kept = self.enterContext(closing(connect(proxy.address)))
            kept.request("GET", "/")
            get_answer(kept)

        self.assertEqual(idle.recv(1), b"")
        wait_for(lambda: threads.issuperset(threading.enumerate()))  # The server's may end, too.


class ThrottleTests(ProxyTestCase):
    def test_the_server_never_has_more_than_the_rate_allows(self):
        rate = 2_000_000
        with self.proxy.throttle("/upload", upload=rate):
            client = self.begin()
            begun = time.monotonic()
            for start in range(0, len(BODY), PIECE):
                client.sendall(BODY[start : start + PIECE])
                received = self.upstream.received
                passed = time.monotonic() - begun
                self.assertLessEqual(received, rate * (passed + BURST) + PIECE)
            self.assertEqual(self.read_status(client), 200)

    def test_a_client_is_never_far_ahead_of_the_server(self):
        with self.proxy.throttle("/upload", upload=200_000):
            client = self.begin()
            for start in range(0, 500_000, PIECE):
                client.sendall(BODY[start : start + PIECE])
                self.assertLess(start - self.upstream.received, AHEAD)

    def test_requests_share_the_line(self):
        rate = 1_000_000
        with self.proxy.throttle("/upload", upload=rate, deep=True):
            begun = time.monotonic()
            clients = [self.begin() for _ in range(2)]
            for client in clients:
                client.sendall(BODY[: len(BODY) // 2])
            wait_for(lambda: self.upstream.received == len(BODY))
            passed = time.monotonic() - begun

        self.assertGreaterEqual(rate * (passed + BURST), len(BODY))

    def test_the_latency_delays_each_direction(self):
        begun = time.monotonic()
        with self.proxy.throttle("/", latency=0.2):
            self.request()

        self.assertGreaterEqual(time.monotonic() - begun, 0.4)

    def test_a_deep_line_takes_all_at_once(self):
        with self.proxy.throttle("/upload", upload=100_000, deep=True):
            client = self.begin()
            client.sendall(BODY)
            self.assertLess(self.upstream.received, AHEAD)
        self.assertEqual(self.read_status(client), 200)

    def test_a_line_is_free_when_its_block_ends(self):
        with self.proxy.throttle("/upload", upload=10_000, deep=True):  # for a minute and a half
            client = self.begin()
            client.sendall(BODY)
        wait_for(lambda: self.upstream.received == len(BODY))

    def test_a_deep_line_delivers_what_it_has_after_its_client_hung_up(self):
        with self.proxy.throttle("/upload", upload=1_000_000, deep=True):
            client = self.begin()
            client.sendall(BODY)
            client.close()
            wait_for(lambda: self.upstream.ended)

        self.assertEqual(self.upstream.received, len(BODY))

    def test_other_paths_have_a_free_line(self):
        with self.proxy.throttle("/upload", upload=1000):
            self.request("POST", "/other", BODY)

        self.assertEqual(self.upstream.received, len(BODY))


class FaultTests(ProxyTestCase):
    def test_a_page_of_its_own_answers_the_first_requests(self):
        busy = answer(503, "Busy.", headers={"Retry-After": 2})
        with self.proxy.fault("/upload", busy, times=2) as met:
            replies = [self.request("POST", "/upload?id=1", BODY) for _ in range(3)]

        self.assertEqual([reply.status for reply in replies], [503, 503, 200])
        self.assertEqual(replies[0].headers["retry-after"], "2")
        self.assertEqual(replies[0].text, "Busy.")
        self.assertEqual(self.upstream.received, len(BODY))
        self.assertEqual(met, self.proxy.requests[:2])

    def test_a_status_that_http_does_not_know_is_answered(self):
        with self.proxy.fault("/", answer(522)):
            self.assertEqual(self.request().status, 522)

    def test_a_page_may_come_before_the_body(self):
        with self.proxy.fault("/upload", answer(413, reads=False)):
            client = self.begin()
            self.assertEqual(self.read_status(client), 413)

    def test_other_paths_are_passed_on(self):
        with self.proxy.fault("/upload", answer(502)):
            self.assertEqual(self.request(path="/other").status, 200)

    def test_an_answer_that_is_swallowed_did_reach_the_server(self):
        with (
            self.proxy.fault("/upload", swallow()),
            self.assertRaises(RemoteDisconnected),
        ):
            self.request("POST", "/upload", BODY)

        self.assertEqual(self.upstream.received, len(BODY))
        self.assertEqual(self.seen(), [("POST", "/upload", 200)])

    def test_a_reset_comes_after_so_many_bytes_which_the_server_has(self):
        with self.proxy.fault("/upload", reset(after=100_000)):
            client = self.begin()
            client.sendall(BODY[:100_000])
            with self.assertRaises(ConnectionResetError):
                client.recv(1)

        wait_for(lambda: self.upstream.ended)
        self.assertEqual(self.upstream.received, 100_000)
        self.assertEqual(self.seen(), [("POST", "/upload", None)])

    def test_a_reset_and_a_throttled_line_go_together(self):
        with (
            self.proxy.throttle("/upload", upload=1_000_000),
            self.proxy.fault("/upload", reset(after=500_000)),
            self.assertRaises(ConnectionResetError),
        ):
            self.request("POST", "/upload", BODY)

        wait_for(lambda: self.upstream.ended)
        self.assertEqual(self.upstream.received, 500_000)

    def test_a_request_hangs_until_the_block_ends(self):
        with self.proxy.fault("/upload", hang()) as met:
            client = self.begin()
            client.sendall(BODY)
            client.setblocking(False)
            with self.assertRaises(BlockingIOError):
                client.recv(1)

        client.settimeout(20)
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(len(met), 1)
