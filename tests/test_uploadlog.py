import json

from django.test import override_settings

from .base import UploadTestCase, upload_file
from .photos import photo

JPEG = photo(64, 48)


class UploadLogTests(UploadTestCase):
    def line(self, *files, **fields):
        """Upload files, and return the line that this leaves in the log."""
        with self.assertLogs("uploads.uploadlog", "INFO") as logs:
            self.post(*files, **fields)
        [record] = logs.records
        return json.loads(record.getMessage())

    def test_an_upload_leaves_one_line(self):
        line = self.line(upload_file(JPEG, "secret.jpg"))

        self.assertEqual(line["event"], "upload")
        self.assertEqual((line["outcome"], line["dish"]), ("ok", self.dish.pk))
        self.assertEqual((line["files"], line["bytes"]), (1, len(JPEG)))
        self.assertEqual(line["network"], "127.0.0.0/24")
        self.assertGreaterEqual(line["receiving"], 0)
        self.assertGreater(line["processing"], 0)

    def test_the_outcome_is_the_status_or_the_reason(self):
        menu = b"A text.\n" * 10
        self.assertEqual(self.line(upload_file(menu))["outcome"], "not_an_image")
        partial = self.line(upload_file(JPEG), upload_file(menu))
        self.assertEqual((partial["outcome"], partial["files"]), ("partial", 2))
        self.assertEqual(self.line(upload_file(JPEG), id=0)["outcome"], "unknown_dish")
        with override_settings(UPLOAD_MAX_SIZE=10):
            self.assertEqual(self.line(upload_file(JPEG))["outcome"], "too_large")

    def test_nothing_tells_who_the_diner_is(self):
        line = self.line(upload_file(JPEG, "anna-in-paris.jpg"))

        self.assertNotIn("anna", json.dumps(line))
        self.assertNotIn("127.0.0.1", json.dumps(line))
