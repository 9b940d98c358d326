import json
from io import BytesIO

from django.http import UnreadablePostError
from django.test import RequestFactory, SimpleTestCase
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from uploads.progress import get_record
from uploads.uploadhandler import UploadInterrupted, UploadProgressCachedHandler

from .base import FoldersMixin, uploaded


class Line(BytesIO):
    """A body as a server hands it out: its bytes, and then the end, or an error."""

    def __init__(self, content, error=None):
        super().__init__(content)
        self.error = error

    def read(self, size):
        data = super().read(size)
        if not data and self.error:
            raise self.error
        return data


def multipart(*contents):
    return encode_multipart(
        BOUNDARY, {"id": "1", "picture": [uploaded(content) for content in contents]}
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
        self.handler.handle_raw_input(None, self.request.META, 1000, b"boundary")

    def test_it_hands_each_chunk_on_and_counts_the_bytes_that_it_holds(self):
        self.assertEqual(self.handler.receive_data_chunk(b"x" * 7, 0), b"x" * 7)

        self.assertEqual(self.record(self.request), {"length": 1000, "uploaded": 7})

    def test_it_counts_on_over_all_files_of_a_request(self):
        for _ in range(2):
            self.handler.new_file("picture", "dish.jpg", "image/jpeg", None)
            self.handler.receive_data_chunk(b"x" * 7, 0)
            self.assertIsNone(self.handler.file_complete(7))

        self.assertEqual(self.handler.progress.uploaded, 14)

    def test_the_record_is_gone_when_the_upload_is_complete_or_interrupted(self):
        for end in (self.handler.upload_complete, self.handler.upload_interrupted):
            self.handler.receive_data_chunk(b"x" * 7, 0)
            end()
            self.assertIsNone(self.record(self.request))


class ParserTests(HandlerTestCase):
    """The handler among Django's own, driven by Django's parser."""

    def test_every_byte_of_every_file_is_counted(self):
        contents = [b"x" * 200_000, b"", b"y" * 70_001]
        body = multipart(*contents)
        request = self.make_request(Line(body), len(body))

        files = request.FILES.getlist("picture")

        self.assertTrue([file.read() for file in files] == contents)
        self.assertEqual(request.upload_handlers[0].progress.uploaded, 270_001)
        self.assertEqual(len(self.files("incoming")), 3)
        request.close()

    def test_the_count_never_falls_nor_exceeds_the_length(self):
        body = multipart(b"x" * 500_000)
        request = self.make_request(Line(body), len(body))
        progress = request.upload_handlers[0].progress
        counts = []
        read = request.read

        def watched_read(*args):
            counts.append(progress.uploaded)
            return read(*args)

        request.read = watched_read
        request.FILES  # noqa: B018

        self.assertEqual(counts, sorted(counts))
        self.assertGreater(len(set(counts)), 5)
        self.assertLessEqual(counts[-1], progress.length)
        self.assertEqual(progress.length, len(body))
        request.close()

    def test_a_body_that_ends_early_anywhere_is_an_interrupted_upload(self):
        body = multipart(b"x" * 1000, b"y" * 1000)
        for error in (None, OSError("Connection reset by peer")):
            for kept in range(0, len(body), 13):
                with self.subTest(kept=kept, error=error):
                    request = self.make_request(Line(body[:kept], error), len(body))
                    with self.assertRaises(UploadInterrupted):
                        request.POST  # noqa: B018
                    self.assertIsNone(self.record(request))
                    self.assertEqual(self.files(), [])

    def test_without_the_handler_a_broken_line_is_an_error_of_the_parser(self):
        body = multipart(b"x" * 1000)
        request = self.make_request(Line(body[:500], OSError()), len(body))
        request.upload_handlers = request.upload_handlers[1:]

        with self.assertRaises(UnreadablePostError):
            request.POST  # noqa: B018

    def test_a_body_that_was_read_before_is_parsed_as_ever(self):
        body = multipart(b"x" * 1000)
        request = self.make_request(Line(body), len(body))

        self.assertEqual(len(request.body), len(body))

        self.assertEqual(request.FILES["picture"].size, 1000)
        request.close()
