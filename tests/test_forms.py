from django import forms
from django.core.exceptions import ValidationError
from django.test import SimpleTestCase, override_settings

from uploads.forms import CaptionField, DishForm, ReportForm, UploadForm

from .base import UploadTestCase, make_dish, upload_file
from .photos import photo


class DishFormTests(UploadTestCase):
    def test_a_dish_that_is_there_already_is_refused_in_a_sentence(self):
        form = DishForm({"name": " Bouillabaisse ", "restaurant": "Chez Fonfon"})

        self.assertEqual(form.non_field_errors(), ["This dish of this restaurant is here already."])

    def test_both_fields_are_needed(self):
        self.assertEqual(set(DishForm({}).errors), {"name", "restaurant"})

    def test_a_name_without_anything_visible_is_refused(self):
        for name in (
            *"\u200b\u2800\u3164\ufe0f\xad\u0301\u05b0\ue000\0",
            *("\U000e0041\U000e007f", "\u202e\u2069", "\u115f\u1160", "\u200d \u2003\u3000"),
        ):
            with self.subTest(ascii(name)):
                errors = DishForm({"name": name, "restaurant": f"{name} {name}"}).errors
                self.assertEqual(set(errors), {"name", "restaurant"})

    def test_a_name_that_can_be_seen_is_taken(self):
        for name in ("é", "7", "…", "🍲", "茶", "שוקו", "x\u0301", "شاي", "_"):
            with self.subTest(name):
                self.assertTrue(DishForm({"name": name, "restaurant": name}).is_valid())

    def test_names_that_look_the_same_are_one_dish(self):
        make_dish("Aïoli 🍲")
        for name in (
            *("Ai\u0308oli 🍲", "Aï\u200boli \u2003🍲", "\u202eAïoli\u2069 🍲", "Aï\xadoli\n🍲"),
            *("Aï\u200doli 🍲\u200d", "A\U000e0041ïoli 🍲", "Aïoli\0🍲"),
        ):
            with self.subTest(ascii(name)):
                form = DishForm({"name": name, "restaurant": "\ufeffChez Fonfon"})
                self.assertIn("is here already", str(form.non_field_errors()))

    def test_a_name_may_have_100_characters_once_it_is_clean(self):
        name = "e\u0301" * 100
        self.assertTrue(DishForm({"name": f" {name}\u200b", "restaurant": "x"}).is_valid())
        self.assertFalse(DishForm({"name": f"{name}e", "restaurant": "x"}).is_valid())


class CaptionFieldTests(SimpleTestCase):
    def test_what_xml_cannot_hold_and_all_white_space_become_single_spaces(self):
        unsafe = [*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF]
        for code in (*unsafe, 0x20, 0xA0, 0x2003, 0x2028, 0x3000):
            self.assertEqual(CaptionField().clean(f" a{chr(code) * 2}b "), "a b")

    def test_anything_else_stays(self):
        for text in (
            *("aéb", "a<b", 'a"b', "a\ue000b", "a\ufffdb", "a\U0010fffdb", "a\U0001fae8b"),
            *("🍲", "☕\ufe0f", "👩🏽\u200d🍳", "❤\ufe0f\u200d🔥", "🏳\ufe0f\u200d🌈", "🇫🇷"),
            "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            *("شوربة", "מרק שָׁלוֹם", "می\u200cخواهم", "ක්\u200dරීම්", "phở", "Ελλάς", "ラーメン"),  # noqa: RUF001
        ):
            with self.subTest(text):
                self.assertEqual(CaptionField().clean(text), text)

    def test_what_cannot_be_seen_or_turns_the_text_around_goes(self):
        for code in (
            *(0xAD, 0x34F, 0x61C, 0x115F, 0x180E, 0x2060, 0x2800, 0x3164, 0xFE00, 0xFEFF, 0xFFA0),
            *range(0x200B, 0x2010),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            *(0xFE0F, 0xE0001, 0xE0041, 0xE007F, 0xE0100),
        ):
            with self.subTest(hex(code)):
                self.assertEqual(CaptionField().clean(f"a{chr(code)}b {chr(code)}"), "ab")

    def test_a_joiner_that_joins_nothing_goes(self):
        for text in (
            "🍲\u200d",
            "\u200d🍲",
            "🍲\u200d ",
            "\ufe0f🍲",
            "🍲\u200d\u200d",
            "🍲\U000e0067",
        ):
            self.assertEqual(CaptionField().clean(text), "🍲")

    def test_three_marks_may_stand_on_a_letter(self):
        self.assertEqual(CaptionField().clean("x" + "\u0316" * 99 + "y"), "x" + "\u0316" * 3 + "y")

    def test_a_text_of_marks_is_cut_before_it_is_normalized(self):
        text = "\u05b0\u0591" * 500_000

        with self.assertRaisesMessage(ValidationError, "at most 140 characters"):
            CaptionField().clean(text)

    def test_the_browser_is_told_the_limit(self):
        self.assertIn('maxlength="140"', str(UploadForm()["caption"]))
        self.assertNotIn("required", str(UploadForm()["caption"]))
        self.assertIn('maxlength="140"', str(ReportForm()["reason"]))
        self.assertIn("required", str(ReportForm()["reason"]))


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
