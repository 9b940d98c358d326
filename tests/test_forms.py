from django import forms
from django.test import SimpleTestCase, override_settings

from uploads.forms import CaptionField, DishForm, UploadForm

from .base import UploadTestCase, upload_file
from .photos import photo


class DishFormTests(UploadTestCase):
    def test_a_dish_that_is_there_already_is_refused_in_a_sentence(self):
        form = DishForm({"name": " Bouillabaisse ", "restaurant": "Chez Fonfon"})

        self.assertEqual(form.non_field_errors(), ["This dish of this restaurant is here already."])

    def test_both_fields_are_needed(self):
        self.assertEqual(set(DishForm({}).errors), {"name", "restaurant"})


class CaptionFieldTests(SimpleTestCase):
    def test_what_xml_cannot_hold_and_all_white_space_become_single_spaces(self):
        unsafe = [*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF]
        for code in (*unsafe, 0x20, 0xA0, 0x2003, 0x2028, 0x3000):
            self.assertEqual(CaptionField().clean(f" a{chr(code) * 2}b "), "a b")

    def test_anything_else_stays(self):
        for character in (
            "é",
            "<",
            '"',
            "\ue000",
            "\ufffd",
            "\U0010ffff",
            "\u202e",
            "\u200d",
            "🍲",
        ):
            self.assertEqual(CaptionField().clean(f"a{character}b"), f"a{character}b")

    def test_the_browser_is_told_the_limit(self):
        self.assertIn('maxlength="140"', str(UploadForm()["caption"]))
        self.assertNotIn("required", str(UploadForm()["caption"]))


class UploadFormTests(UploadTestCase):
    def test_the_limits_and_their_sentences_are_told_to_the_script(self):
        with override_settings(PICTURE_MAX_SIZE=2**20):
            field = str(UploadForm()["picture"])

        for attribute in (
            'data-max-size="1048576"',
            'data-too-large="This file is larger than the 1.0\xa0MB that are allowed."',
            'data-max-length="3200"',
            'data-empty-file="This file is empty."',
            'data-not-an-image="This file is not a picture; ',
            "&quot;%PDF-&quot;, &quot;PDF files are not allowed; ",
            "&quot;GIF8[79]a&quot;, &quot;&quot;",
        ):
            self.assertIn(attribute, field)

    def test_an_id_that_is_no_dish_is_refused(self):
        for value in ("", "x", "0", "-1", "9" * 40, "../../etc/passwd", "1\0", "1 OR 1=1"):
            with self.subTest(value):
                form = UploadForm({"id": value}, {"picture": upload_file(photo())})
                self.assertEqual(form.get_first_refusal().code, "unknown_dish")

    def test_a_form_without_a_file_is_refused(self):
        form = UploadForm({"id": self.dish.pk}, {})

        self.assertEqual(form.get_first_refusal().code, "no_picture")

    def test_a_field_that_is_added_has_its_own_errors(self):
        class FormWithNote(UploadForm):
            note = forms.CharField(max_length=3)

        form = FormWithNote(
            {"id": self.dish.pk, "note": "Soup"}, {"picture": [upload_file(photo())]}
        )

        refusal = form.get_first_refusal()
        self.assertEqual((refusal.code, refusal.status), ("max_length", 400))
        self.assertRegex(refusal.message, "at most 3 characters")
