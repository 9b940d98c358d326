"""The forms of a dish and of an upload."""

import json
import re
import time
from functools import lru_cache

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError

from . import formats, images, refusals
from .body import body_of
from .models import CAPTION_MAX_LENGTH, Dish, Picture
from .progress import get_progress_id
from .quota import find_lack

# Control characters, and what else XML 1.0 cannot hold: surrogates, U+FFFE and U+FFFF.
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class DishForm(forms.ModelForm):
    class Meta:
        model = Dish
        fields = ["name", "restaurant"]


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
            "data-max-length": 2 * images.DISPLAY_SIZE,
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


class CaptionField(forms.CharField):
    """A line of text, without unsafe characters and with single spaces."""

    def __init__(self, **kwargs):
        super().__init__(required=False, **kwargs)

    def to_python(self, value):
        return " ".join(UNSAFE.sub(" ", super().to_python(value)).split())

    def validate(self, value):
        if len(value) > CAPTION_MAX_LENGTH:
            raise refusals.BAD_CAPTION.error(characters=CAPTION_MAX_LENGTH)

    def widget_attrs(self, widget):
        return {**super().widget_attrs(widget), "maxlength": CAPTION_MAX_LENGTH}


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
    if error := find_lack(body.network):
        raise error
    if "id" in query:
        validate_dish(query["id"], minute=int(time.time() / 60))


@lru_cache(maxsize=1000)
def validate_dish(pk, minute):
    """Raise ValidationError if there is no such dish.

    A dish that was found is remembered for the rest of the minute: most uploads then start without
    a database query. The form checks again when the body has arrived.
    """
    DishField(Dish.objects).clean(pk)
