from io import BytesIO
from unittest.mock import patch

from django.test import RequestFactory, SimpleTestCase, override_settings

from uploads.body import MIN_READ_SIZE, Body
from uploads.quota import Quota


class Connection(BytesIO):
    """A client's connection. Its clock moves as bytes arrive, at a chosen speed."""

    def __init__(self, speed, length):
        super().__init__(bytes(length))
        self.speed = speed  # bytes a second
        self.now = 0  # seconds
        self.sizes = []  # how many bytes were requested, read by read

    def read(self, size):
        self.sizes.append(size)
        data = super().read(size)
        self.now += len(data) / self.speed
        return data


class BodyTestCase(SimpleTestCase):
    def setUp(self):
        super().setUp()
        self.quota = self.enterContext(patch("uploads.body.quota", Quota()))

    def connect(self, speed, length=10**7, **environ):
        """Return a body whose bytes arrive at this speed."""
        self.connection = Connection(speed, length)
        self.enterContext(patch("time.monotonic", lambda: self.connection.now))
        environ = {"CONTENT_LENGTH": str(length), **environ}
        request = RequestFactory().request(**environ, **{"wsgi.input": self.connection})
        return Body(request)

    def read(self, body, seconds=float("inf")):
        """Read for some seconds, or until the body ends; return how many bytes arrived."""
        end, before = self.connection.now + seconds, body.received
        while self.connection.now < end and body.read(2**16):
            pass
        return body.received - before


class SpeedTests(BodyTestCase):
    def assert_too_slow(self, body, earliest, latest):
        self.read(body)
        self.assertEqual(body.refusal.code, "too_slow")
        self.assertGreaterEqual(self.connection.now, earliest)
        self.assertLess(self.connection.now, latest)

    def test_a_body_below_the_least_speed_is_given_up_after_half_a_minute(self):
        for speed in (10, 100, 990):
            self.assert_too_slow(self.connect(speed), 30, 35)

    def test_the_first_bytes_may_come_at_once(self):
        body = self.connect(10**6)
        self.read(body, seconds=0.001)
        self.connection.speed = 10

        self.assert_too_slow(body, 30, 60)

    def test_a_body_that_slows_down_is_given_up_within_two_minutes(self):
        body = self.connect(20_000)
        self.read(body, seconds=100)
        self.connection.speed = 900

        self.assert_too_slow(body, 130, 220)

    def test_a_slow_body_above_the_least_speed_is_read_to_its_end(self):
        body = self.connect(1100, length=10**6)

        self.assertEqual(self.read(body), 10**6)
        self.assertIsNone(body.refusal)

    def test_a_body_may_pause_for_fifty_seconds(self):
        body = self.connect(20_000, length=4 * 10**6)
        for _ in range(2):
            self.read(body, seconds=70)
            self.connection.now += 50

        self.read(body)
        self.assertIsNone(body.refusal)

    def test_a_body_that_was_given_up_is_read_no_further(self):
        body = self.connect(100)
        self.read(body)
        reads = len(self.connection.sizes)

        body.drain()

        self.assertEqual(len(self.connection.sizes), reads)


class ReadTests(BodyTestCase):
    def largest_read(self, speed, seconds):
        self.read(self.connect(speed), seconds)
        return max(self.connection.sizes)

    def test_a_fast_body_is_read_in_pieces_as_large_as_django_requests(self):
        self.assertEqual(self.largest_read(10**6, seconds=9), 2**16)

    def test_a_slow_body_is_read_in_smaller_pieces(self):
        self.assertEqual(self.largest_read(5000, seconds=60), MIN_READ_SIZE)

    def test_a_body_that_is_almost_too_slow_is_read_four_times_a_second(self):
        self.assertLess(self.largest_read(1500, seconds=60), 400)

    def test_each_byte_is_counted_for_the_network_of_the_client(self):
        self.read(self.connect(10**6, 5000, REMOTE_ADDR="192.0.2.7"))
        self.read(self.connect(10**6, 7000, REMOTE_ADDR="2001:db8:1:2::3"))

        counts = {"192.0.2.7/32": 5000, "2001:db8:1::/48": 7000}
        self.assertEqual(self.quota.pending, counts)


@override_settings(UPLOAD_MAX_SIZE=100_000)
class LengthTests(BodyTestCase):
    def find_refusal(self, length, **environ):
        body = self.connect(10**6, length, CONTENT_LENGTH="", **environ)
        self.read(body)
        refusal = body.find_refusal(b"\0")
        return refusal and refusal.code

    def test_a_body_that_does_not_state_its_length_is_read_if_the_server_marks_its_end(self):
        self.assertIsNone(self.find_refusal(100_000, **{"wsgi.input_terminated": True}))

    def test_a_body_that_does_not_state_its_length_may_not_be_larger_than_others(self):
        refusal = self.find_refusal(100_001, **{"wsgi.input_terminated": True})

        self.assertEqual(refusal, "too_large")

    def test_a_body_that_does_not_state_its_length_is_not_read_if_nobody_marks_its_end(self):
        self.find_refusal(100_000)

        self.assertEqual(self.connection.tell(), 0)
