import errno

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http.multipartparser import MultiPartParserError
from django.test import SimpleTestCase, override_settings

from uploads.forms import DishForm, UploadForm, refusal
from uploads.uploadhandler import UploadInterrupted

from .base import UploadTestCase, uploaded
from .photos import photo


class DishFormTests(UploadTestCase):
    def test_a_dish_that_is_there_already_is_refused_in_a_sentence(self):
        form = DishForm({"name": " Bouillabaisse ", "restaurant": "Chez Fonfon"})

        self.assertEqual(form.non_field_errors(), ["This dish of this restaurant is here already."])

    def test_both_fields_are_needed(self):
        self.assertEqual(set(DishForm({}).errors), {"name", "restaurant"})


class UploadFormTests(UploadTestCase):
    def test_an_id_that_is_no_dish_is_refused(self):
        for value in ("", "x", "0", "-1", "9" * 40, "../../etc/passwd", "1\0", "1 OR 1=1"):
            with self.subTest(value):
                form = UploadForm({"id": value}, {"picture": uploaded(photo())})
                self.assertEqual(form.get_refusal().code, "unknown_dish")

    def test_a_form_without_a_file_is_refused(self):
        form = UploadForm({"id": self.dish.pk}, {})

        self.assertEqual(form.get_refusal().code, "no_picture")

    @override_settings(PICTURE_MAX_SIZE=1000)
    def test_a_file_may_have_the_largest_size_and_not_a_byte_more(self):
        content = photo(16, 16)
        for size, code in ((1000, None), (1001, "too_large")):
            with self.subTest(size):
                file = uploaded(content.ljust(size, b"\0"))
                form = UploadForm({"id": self.dish.pk})
                form.cleaned_data = {"id": self.dish, "picture": [file]}
                pictures, refusals = form.save()
                self.assertEqual([refusal.code for refusal in refusals], [code] if code else [])
                self.assertEqual(len(pictures), 0 if code else 1)


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
        ):
            with self.subTest(error=error):
                self.assertEqual(refusal(error).code, code)
                self.assertRegex(refusal(error).message, r"^[A-Z].*\.$")

    def test_what_nobody_thought_of_is_logged(self):
        with self.assertLogs("uploads.forms", "ERROR"):
            self.assertEqual(refusal(KeyError(), "dish.jpg").code, "server_error")
