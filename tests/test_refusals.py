import errno

from django.core.exceptions import (
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.http.multipartparser import MultiPartParserError
from django.test import SimpleTestCase, override_settings

from uploads import formats, refusals
from uploads.refusals import BY_CODE, Refusal, get_refusal

from .base import database_error
from .contract import REFUSALS


class TableTests(SimpleTestCase):
    rows = [row for row in vars(refusals).values() if type(row) is Refusal]

    def test_every_code_has_the_status_and_the_retry_of_the_contract(self):
        self.assertEqual({code: row[1:3] for code, row in BY_CODE.items()}, REFUSALS)

    def test_all_rows_of_a_code_agree_on_whether_to_retry(self):
        for row in self.rows:
            self.assertEqual(row.retry, REFUSALS[row.code][1])

    def test_every_message_is_a_sentence_once_its_placeholders_are_filled(self):
        values = {"formats": formats.LABELS, "kind": "PDF", "millions": "24", "format": "WebP"}
        values |= {"characters": 140, "megabytes": 1, "uploads": 20}
        for row in self.rows:
            self.assertRegex(row.fill(**values).message, r"^[A-Z][^%]*\.$")

    @override_settings(PICTURE_MAX_SIZE=2**20)
    def test_limits_come_from_the_settings(self):
        self.assertIn("1.0\xa0MB", refusals.TOO_LARGE.fill().message)


class GetRefusalTests(SimpleTestCase):
    def test_every_exception_that_ends_an_upload_has_its_code(self):
        for error, code in (
            (refusals.UploadInterrupted(refusals.INTERRUPTED), "interrupted"),
            (TooManyFilesSent(), "too_many"),
            (TooManyFieldsSent(), "too_many"),
            (RequestDataTooBig(), "too_large"),
            (MultiPartParserError(), "no_picture"),
            (OSError(errno.ENOSPC, "No space left on device"), "storage_full"),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), "storage_full"),
            (OSError(errno.EFBIG, "File too large"), "storage_full"),
            (database_error("full"), "storage_full"),
        ):
            with self.subTest(error=error):
                refusal = get_refusal(error)
                self.assertEqual(refusal.code, code)
                self.assertEqual(refusal[1:3], REFUSALS[code])
                self.assertRegex(refusal.message, r"^[A-Z][^%]*\.$")

    def test_an_upload_may_succeed_when_the_database_or_the_store_is_back(self):
        for error in (database_error("unavailable"), ConnectionResetError(), TimeoutError()):
            with self.subTest(error=error), self.assertLogs("uploads.refusals", "WARNING"):
                refusal = get_refusal(error, "dish.jpg")

            self.assertEqual(refusal[:3], ("server_error", 503, True))
            self.assertEqual(refusal.file, "dish.jpg")

    def test_any_other_exception_is_logged(self):
        with self.assertLogs("uploads.refusals", "ERROR"):
            refusal = get_refusal(KeyError(), "dish.jpg")

        self.assertEqual((refusal.code, refusal.file), ("server_error", "dish.jpg"))

    def test_a_code_of_a_forms_own_is_a_bad_request_with_its_sentence(self):
        error = ValidationError("At most %(limit)d letters.", "max_length", {"limit": 3})

        self.assertEqual(
            get_refusal(error, "dish.jpg"),
            Refusal("max_length", 400, False, "At most 3 letters.", "dish.jpg"),
        )

    def test_so_is_an_error_without_a_code(self):
        refusal = get_refusal(ValidationError("This is not valid."))

        self.assertEqual((refusal.code, refusal.status), ("invalid", 400))
