"""The forms of a dish, of an upload and of a report."""

import json
import re
import time
import unicodedata
from functools import lru_cache

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError

from . import formats, refusals, sizes
from .body import body_of
from .models import CAPTION_MAX_LENGTH, REASON_MAX_LENGTH, Ban, Dish, Picture
from .progress import get_progress_id
from .quota import find_shortage

# Control characters, and what else XML 1.0 cannot hold: surrogates, U+FFFE and U+FFFF.
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# Unicode's Default_Ignorable_Code_Point, among them the bidi overrides, and two blank symbols.
INVISIBLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    r"\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Emoji need joiners, presentation selectors and tags. Persian and Indic words need joiners.
NON_LATIN = rf"[^\x00-\u02ff\s{INVISIBLE}]"
NEEDED = (
    rf"(?<={NON_LATIN})"
    rf"(?: [\ufe0e\ufe0f]?[\u200c\u200d](?={NON_LATIN}) | [\ufe0e\ufe0f]"
    r"| [\U000e0020-\U000e007e]{1,8}\U000e007f )"
)
NEEDED_OR_INVISIBLE = re.compile(rf"({NEEDED}) | [{INVISIBLE}]", re.VERBOSE)

MARK = r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
STACKED_MARKS = re.compile(rf"({MARK}{{3}}){MARK}+")

# Normalizing takes a time that grows with the square of the number of marks in a row.
RAW_MAX_LENGTH = 1000  # characters


class LineField(forms.CharField):
    """A line of text: in NFC, with single spaces, and without characters that mislead."""

    # Django's message counts the characters, but only RAW_MAX_LENGTH are left.
    default_error_messages = {"max_length": "At most %(limit_value)s characters are allowed."}

    def to_python(self, value):
        text = UNSAFE.sub(" ", super().to_python(value)[:RAW_MAX_LENGTH])
        text = NEEDED_OR_INVISIBLE.sub(r"\1", text)
        text = STACKED_MARKS.sub(r"\1", unicodedata.normalize("NFC", text))
        return " ".join(text.split())


class NameField(LineField):
    """A name with at least one letter, digit, punctuation mark or symbol."""

    default_error_messages = {"required": "A name needs at least one visible character."}

    def validate(self, value):
        if not any(unicodedata.category(character)[0] in "LNPS" for character in value):
            raise ValidationError(self.error_messages["required"], "required")


class DishForm(forms.ModelForm):
    class Meta:
        model = Dish
        fields = ["name", "restaurant"]
        field_classes = {"name": NameField, "restaurant": NameField}


class DishField(forms.ModelChoiceField):
    def clean(self, value):
        try:
            return super().clean(value)
        except ValidationError as error:
            raise refusals.UNKNOWN_DISH.error() from error


class PicturesInput(forms.FileInput):
    allow_multiple_selected = True

    def build_attrs(self, base_attrs, extra_attrs=None):
        """Add what the script needs to reduce a photo, or to refuse it before it is sent."""
        return super().build_attrs(base_attrs, extra_attrs) | {
            "accept": formats.ACCEPT,
            "data-max-size": settings.PICTURE_MAX_SIZE,
            "data-too-large": refusals.TOO_LARGE.fill().message,
            "data-max-length": 2 * sizes.DISPLAY_SIZE,
            "data-animated": formats.ANIMATED,
            "data-animated-length": formats.ANIMATED_LENGTH,
            "data-unreadable": "This file can no longer be read. Please choose it again.",
            "data-empty-file": refusals.EMPTY_FILE.message,
            "data-not-an-image": refusals.NOT_AN_IMAGE.fill(formats=formats.LABELS).message,
            "data-signature-length": formats.SIGNATURE_LENGTH,
            "data-kinds": json.dumps([*describe_kinds()]),
        }


def describe_kinds():
    """Generate each known kind of file: its signature, and its refusal, empty if it is accepted."""
    for kind in formats.KINDS:
        values = {"kind": kind.label, "formats": formats.LABELS}
        refusal = refusals.OTHER_FORMAT.fill(**values)
        yield kind.signature, "" if kind in formats.FORMATS else refusal.message


class PicturesField(forms.Field):
    """One or more files. Whether they are pictures is checked when they are stored."""

    widget = PicturesInput

    def clean(self, value):
        if self.required and not value:
            raise refusals.NO_PICTURE.error()
        return value


class CaptionField(LineField):
    """A line of text that may be empty."""

    def __init__(self, **kwargs):
        super().__init__(required=False, **kwargs)

    def validate(self, value):
        if len(value) > CAPTION_MAX_LENGTH:
            raise refusals.BAD_CAPTION.error(characters=CAPTION_MAX_LENGTH)

    def widget_attrs(self, widget):
        return {**super().widget_attrs(widget), "maxlength": CAPTION_MAX_LENGTH}


class ReportForm(forms.Form):
    reason = LineField(label="What is wrong with it?", max_length=REASON_MAX_LENGTH)


class UploadForm(forms.Form):
    """The form `#form_upload`."""

    picture = PicturesField(label="Choose photos")
    id = DishField(Dish.objects)
    caption = CaptionField(label="Caption (optional)")

    def __init__(self, *args, refused=(), **kwargs):
        """Also take the files that the handler refused: pairs of an error and a file name."""
        super().__init__(*args, **kwargs)
        self.refused = [refusals.get_refusal(error, file) for error, file in refused]
        self.fields["picture"].required = not refused

    def get_first_refusal(self):
        """Return the refusal for the first error of the form; it refuses the whole upload."""
        return refusals.get_refusal(next(iter(self.errors.as_data().values()))[0])

    def save(self, network="", **fields):
        """Store the files one by one; a refused one does not affect the others.

        `fields` are those of a new picture that the form does not know: diner and progress_id.
        Return pairs of a picture and whether it is new, and the refusals of the other files.
        """
        stored, refused = [], [*self.refused]
        for file in self.cleaned_data["picture"]:
            try:
                stored.append(self._save_file(file, network, fields))
            except Exception as error:  # noqa: BLE001
                refused.append(refusals.get_refusal(error, file.name))
        return stored, refused

    def _save_file(self, file, network, fields):
        dish, caption = self.cleaned_data["id"], self.cleaned_data["caption"]
        picture, created = Picture.objects.get_or_store(
            dish, file, network, caption=caption, **fields
        )
        if picture.hidden:
            raise refusals.HIDDEN.error()
        return picture, created


def validate_before_reading(request):
    """Raise an exception for an upload that can be refused before its body is read."""
    query = request.GET  # May raise TooManyFieldsSent.
    get_progress_id(request)
    if request.content_type != "multipart/form-data":
        raise refusals.NO_FORM.error()
    # The script sends one file, and its size in the query. Content-Length says less: a form without
    # the script may have several files.
    size = query.get("size", "")
    if size.isdecimal() and (len(size) > 20 or int(size) > settings.PICTURE_MAX_SIZE):
        raise refusals.TOO_LARGE.error()
    body = body_of(request)
    if not body.max_length:
        raise refusals.NO_LENGTH.error()
    if (body.length or 0) > settings.UPLOAD_MAX_SIZE:
        raise refusals.UPLOAD_TOO_LARGE.error()
    if error := find_shortage(body.network):
        raise error
    if "id" in query:
        validate_dish(query["id"], get_minute())


@lru_cache(maxsize=1000)
def validate_dish(pk, minute):
    """Raise ValidationError if there is no such dish.

    A dish that was found is remembered for the rest of the minute: most uploads then start without
    a database query. The form checks again when the body has arrived.
    """
    DishField(Dish.objects).clean(pk)


def validate_diners(diners):
    """Raise ValidationError if staff have banned one of a browser's ids."""
    if not read_banned_diners(get_minute()).isdisjoint(diners):
        raise refusals.BANNED.error()


@lru_cache(maxsize=1)
def read_banned_diners(minute):
    """Return the banned diners. They are few, and are remembered for the rest of the minute."""
    return frozenset(Ban.objects.values_list("diner", flat=True))


def get_minute():
    return int(time.time() / 60)
