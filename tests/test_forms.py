import errno
import sqlite3

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.db import OperationalError
from django.http.multipartparser import MultiPartParserError
from django.test import SimpleTestCase, override_settings

from uploads.forms import DishForm, Refusal, UploadForm
from uploads.uploadhandler import UploadInterrupted

from .base import UploadTestCase, upload_file
from .photos import photo


class DishFormTests(UploadTestCase):
    def test_a_dish_that_is_there_already_is_refused_in_a_sentence(self):
        form = DishForm({"name": " Bouillabaisse ", "restaurant": "Chez Fonfon"})

        self.assertEqual(form.non_field_errors(), ["This dish of this restaurant is here already."])

    def test_both_fields_are_needed(self):
        self.assertEqual(set(DishForm({}).errors), {"name", "restaurant"})


class UploadFormTests(UploadTestCase):
    def test_the_limits_and_their_sentences_are_told_to_the_script(self):
        with override_settings(PICTURE_MAX_SIZE=2**20, DATA_UPLOAD_MAX_NUMBER_FILES=3):
            field = str(UploadForm()["picture"])

        for attribute in (
            'data-max-size="1048576"',
            'data-too-large="This file is larger than the 1.0\xa0MB that are allowed."',
            'data-max-files="3"',
            'data-too-many="At most 3 photos are allowed in one upload."',
            'data-not-an-image="This file is not a picture, ',
        ):
            self.assertIn(attribute, field)

    def test_an_id_that_is_no_dish_is_refused(self):
        for value in ("", "x", "0", "-1", "9" * 40, "../../etc/passwd", "1\0", "1 OR 1=1"):
            with self.subTest(value):
                form = UploadForm({"id": value}, {"picture": upload_file(photo())})
                self.assertEqual(form.get_refusal().code, "unknown_dish")

    def test_a_form_without_a_file_is_refused(self):
        form = UploadForm({"id": self.dish.pk}, {})

        self.assertEqual(form.get_refusal().code, "no_picture")


def database_error(code):
    error = OperationalError()
    error.__cause__ = sqlite3.OperationalError()
    error.__cause__.sqlite_errorcode = code
    return error


class RefusalTests(SimpleTestCase):
    def test_whatever_ends_an_upload_has_its_code(self):
        for error, code in (
            (UploadInterrupted(), "interrupted"),
            (TooManyFilesSent(), "too_many"),
            (TooManyFieldsSent(), "too_many"),
            (RequestDataTooBig(), "too_large"),
            (MultiPartParserError(), "no_picture"),
            (OSError(errno.ENOSPC, "No space left on device"), "storage_full"),
            (OSError(errno.EDQUOT, "Disk quota exceeded"), "storage_full"),
            (OSError(errno.EFBIG, "File too large"), "storage_full"),
            (database_error(sqlite3.SQLITE_FULL), "storage_full"),
            (database_error(sqlite3.SQLITE_IOERR_WRITE), "storage_full"),
            (database_error(sqlite3.SQLITE_IOERR_SHMSIZE), "storage_full"),
        ):
            with self.subTest(error=error):
                self.assertEqual(Refusal.of(error).code, code)
                self.assertRegex(Refusal.of(error).message, r"^[A-Z].*\.$")

    def test_what_nobody_thought_of_is_logged(self):
        with self.assertLogs("uploads.forms", "ERROR"):
            self.assertEqual(Refusal.of(KeyError(), "dish.jpg").code, "server_error")
