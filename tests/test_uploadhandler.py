import json
from hashlib import sha256
from io import BytesIO
from unittest.mock import patch

from django.core.files.uploadhandler import StopFutureHandlers, TemporaryFileUploadHandler
from django.test import RequestFactory, SimpleTestCase, override_settings
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from uploads.progress import get_record
from uploads.refusals import UploadInterrupted
from uploads.uploadhandler import (
    PictureFileUploadHandler,
    UploadProgressCachedHandler,
    end_upload,
    get_refused_files,
)

from .base import FoldersMixin, upload_file
from .photos import photo
from .waiting import wait_for


class Line(BytesIO):
    """A body as a server hands it out: its bytes, and then the end, or an error."""

    def __init__(self, content, error=None, cut=0):
        super().__init__(content)
        self.error = error
        self.cut = cut  # where a packet ends
        self.on_read = lambda: None

    def read(self, size):
        self.on_read()
        data = super().read(min(size, max(0, self.cut - self.tell()) or size))
        if not data and self.error:
            raise self.error
        return data


JPEG = photo(8, 8)


def multipart(*contents):
    return encode_multipart(
        BOUNDARY, {"id": "1", "picture": [upload_file(content) for content in contents]}
    )


class HandlerTestCase(FoldersMixin, SimpleTestCase):
    def make_request(self, line, length):
        return RequestFactory().request(
            **{
                "REQUEST_METHOD": "POST",
                "PATH_INFO": "/upload",
                "QUERY_STRING": "X-Progress-ID=dish-1",
                "CONTENT_TYPE": MULTIPART_CONTENT,
                "CONTENT_LENGTH": str(length),
                "wsgi.input": line,
            }
        )

    def record(self, request):
        record = get_record(request, "dish-1")
        return record and json.loads(record)


class HandlerTests(HandlerTestCase):
    """The handler, called as Django's parser calls it."""

    def setUp(self):
        super().setUp()
        self.request = self.make_request(Line(b""), 1000)
        self.handler = UploadProgressCachedHandler(self.request)
        self.handler.handle_raw_input(self.request, self.request.META, 1000, b"boundary")
        self.addCleanup(self.handler.progress.end)

    def test_it_hands_each_chunk_on_and_counts_the_bytes_that_it_holds(self):
        self.assertEqual(self.handler.receive_data_chunk(b"x" * 7, 0), b"x" * 7)

        self.assertEqual(wait_for(self.read_record), {"length": 1000, "uploaded": 7})

    def read_record(self):
        return self.record(self.request)

    def test_it_counts_on_over_all_files_of_a_request(self):
        for _ in range(2):
            self.handler.new_file("picture", "dish.jpg", "image/jpeg", None)
            self.handler.receive_data_chunk(b"x" * 7, 0)
            self.assertIsNone(self.handler.file_complete(7))

        self.assertEqual(self.handler.progress.uploaded, 14)

    def test_the_record_is_deleted_when_the_body_is_in(self):
        self.handler.receive_data_chunk(b"x" * 7, 0)
        wait_for(self.read_record)
        self.handler.body.received, self.handler.body.tail = 1000, b"--boundary--"

        self.handler.upload_complete()

        wait_for(lambda: not self.read_record())


class ParserTests(HandlerTestCase):
    """The handler among Django's own, driven by Django's parser."""

    def test_every_byte_of_every_file_is_counted(self):
        contents = [JPEG + b"x" * 200_000, JPEG[:20], JPEG + b"y" * 70_001]
        body = multipart(*contents)
        request = self.make_request(Line(body), len(body))

        files = request.FILES.getlist("picture")

        self.assertTrue([file.read() for file in files] == contents)
        self.assertEqual(request.upload_handlers[0].progress.uploaded, 270_021 + 2 * len(JPEG))
        self.assertEqual(len(self.files("incoming")), 3)
        request.close()

    def test_the_count_never_falls_nor_exceeds_the_length(self):
        body = multipart(JPEG + b"x" * 2_000_000)
        line = Line(body)
        request = self.make_request(line, len(body))
        progress = request.upload_handlers[0].progress
        counts = []
        line.on_read = lambda: counts.append(progress.uploaded)
        request.FILES  # noqa: B018

        self.assertEqual(counts, sorted(counts))
        self.assertGreater(len(set(counts)), 5)
        self.assertLessEqual(counts[-1], progress.length)
        self.assertEqual(progress.length, len(body))
        request.close()

    def test_a_body_that_ends_early_anywhere_is_an_interrupted_upload(self):
        body = multipart(JPEG + b"x" * 1000, JPEG + b"y" * 1000)
        for error in (None, OSError("Connection reset by peer")):
            for kept in range(0, len(body), 13):
                with self.subTest(kept=kept, error=error):
                    request = self.make_request(Line(body[:kept], error), len(body))
                    with self.assertRaises(UploadInterrupted):
                        request.POST  # noqa: B018
                    self.assertEqual(self.files(), [])

    def test_a_body_without_its_last_boundary_is_an_interrupted_upload(self):
        body = multipart(JPEG + b"x" * 70_000)
        for cut in (3, 4, 20, 1000):
            request = self.make_request(Line(body[:-cut]), len(body) - cut)
            with self.assertRaises(UploadInterrupted):
                request.POST  # noqa: B018
            self.assertEqual(self.files(), [])

    def test_the_last_boundary_is_known_however_it_is_cut(self):
        body = multipart(JPEG + b"x" * 70_000)
        for place in range(len(body) - 50, len(body)):
            request = self.make_request(Line(body, cut=place), len(body))
            self.assertEqual(request.FILES["picture"].size, 70_000 + len(JPEG))
            request.close()

    def test_a_body_that_was_read_before_is_parsed_as_ever(self):
        body = multipart(JPEG.ljust(1000))
        request = self.make_request(Line(body), len(body))

        self.assertEqual(len(request.body), len(body))

        self.assertEqual(request.FILES["picture"].size, 1000)
        request.close()


class RefusalTests(HandlerTestCase):
    """PictureFileUploadHandler among the others, driven by Django's parser."""

    def parse(self, *contents):
        body = multipart(*contents)
        self.line = Line(body)
        request = self.make_request(self.line, len(body))
        self.addCleanup(request.close)
        return request

    def codes(self, request):
        return [error.code for error, _ in get_refused_files(request)]

    def test_what_is_no_picture_never_comes_to_the_disk(self):
        request = self.parse(b"A text.\n" * 50_000)
        sizes = []
        self.line.on_read = lambda: sizes.extend(path.stat().st_size for path in self.files())

        self.assertNotIn("picture", request.FILES)

        self.assertEqual(set(sizes), set())
        self.assertEqual(self.codes(request), ["not_an_image"])
        self.assertEqual(self.files(), [])

    def test_the_record_tells_it_while_the_rest_is_read(self):
        request = self.parse(b"A text.\n" * 50_000)
        records = []

        def poll():
            if get_refused_files(request):
                records.append(wait_for(lambda: self.record(request)))

        self.line.on_read = poll

        request.FILES  # noqa: B018

        self.assertIn("not a picture", records[-1]["error"])
        self.assertGreater(records[-1]["length"], 400_000)
        wait_for(lambda: not self.record(request))

    @override_settings(PICTURE_MAX_SIZE=100_000)
    def test_a_file_that_grows_too_large_is_given_up(self):
        request = self.parse(JPEG.ljust(300_000, b"\0"))
        sizes = []
        self.line.on_read = lambda: sizes.extend(path.stat().st_size for path in self.files())

        self.assertNotIn("picture", request.FILES)

        self.assertEqual(self.codes(request), ["too_large"])
        self.assertLessEqual(max(sizes), 100_000)
        self.assertEqual(self.files(), [])

    @override_settings(PICTURE_MAX_SIZE=100_000)
    def test_the_good_files_of_a_request_are_kept_whatever_their_place(self):
        bad, large = b"A text.\n" * 5000, JPEG.ljust(300_000, b"\0")
        for contents in ([bad, JPEG, large], [JPEG, bad, JPEG], [large, bad, JPEG], [JPEG, large]):
            request = self.parse(*contents)
            kept = [file.read() for file in request.FILES.getlist("picture")]
            self.assertEqual(kept, [content for content in contents if content is JPEG])
            self.assertEqual(len(self.codes(request)), len(contents) - len(kept))
            self.assertEqual(len(self.files("incoming")), len(kept))
            request.close()

    def test_the_first_bytes_are_judged_however_they_are_cut(self):
        for cut in range(1, 20):
            handler = PictureFileUploadHandler(self.make_request(Line(b""), 1000))
            with self.assertRaises(StopFutureHandlers):
                handler.new_file("picture", "dish.jpg", "image/jpeg", None)
            for start in range(0, len(JPEG), cut):
                handler.receive_data_chunk(JPEG[start : start + cut], start)
            with handler.file_complete(len(JPEG)) as file:
                self.assertTrue(file.read() == JPEG)

    def test_a_complete_file_has_the_digest_of_its_bytes(self):
        contents = [JPEG + b"x" * 200_000, JPEG]
        request = self.parse(*contents)

        digests = [file.digest for file in request.FILES.getlist("picture")]

        self.assertEqual(digests, [sha256(content).hexdigest() for content in contents])

    def test_no_part_of_the_clients_name_is_in_a_path(self):
        request = self.parse(JPEG)

        file = request.FILES["picture"]

        self.assertEqual(file.name, "dish.jpg")
        self.assertNotIn("jpg", file.temporary_file_path())


class EndTests(HandlerTestCase):
    def begin(self, body, length):
        """Return a request whose parser was stopped in the middle of a file."""
        request = self.make_request(Line(body), length)
        with (
            patch.object(TemporaryFileUploadHandler, "receive_data_chunk", side_effect=KeyError),
            self.assertRaises(KeyError),
        ):
            request.FILES  # noqa: B018
        return request

    def test_nothing_is_left_of_an_upload_whose_parser_raised(self):
        body = multipart(JPEG + b"x" * 500_000)
        request = self.begin(body, len(body))
        self.assertEqual(len(self.files("incoming")), 1)

        end_upload(request)

        self.assertEqual(self.files(), [])
        self.assertEqual(request.upload_body.received, len(body))
        self.assertTrue(request.upload_progress.ended)

    def test_the_files_of_a_whole_upload_stay(self):
        body = multipart(JPEG)
        request = self.make_request(Line(body), len(body))
        [file] = request.FILES.values()

        end_upload(request)

        self.assertEqual(file.read(), JPEG)
        request.close()

    def test_a_broken_line_ends_it_too(self):
        body = multipart(JPEG + b"x" * 500_000)
        request = self.make_request(Line(body[:1000], OSError("reset")), len(body))

        end_upload(request)

        self.assertTrue(request.upload_progress.ended)
