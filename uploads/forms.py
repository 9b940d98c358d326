"""What a dish and an upload must satisfy; what is refused, with its code and sentence."""

import errno
import logging
import sqlite3
from typing import NamedTuple

from django import forms
from django.conf import settings
from django.core.exceptions import (
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.db import OperationalError
from django.http.multipartparser import MultiPartParserError
from django.template.defaultfilters import filesizeformat

from . import images
from .models import Dish, Picture
from .progress import content_length, get_progress_id
from .uploadhandler import UploadInterrupted, too_large

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """Why an upload was refused, or the one file of it that is named."""

    code: str
    message: str
    file: str = ""

    @classmethod
    def of(cls, error, file=""):
        """Return whatever ended an upload, or one file of it, as a refusal of the contract."""
        if isinstance(error, ValidationError):
            return cls(error.code, error.message, file)
        return cls(*code_and_message(error), file)


def code_and_message(error):
    match error:
        case UploadInterrupted():
            return "interrupted", "The upload broke off before all of it had arrived."
        case TooManyFilesSent():
            return "too_many", too_many().message
        case TooManyFieldsSent():
            return "too_many", "The upload has more form fields than are allowed."
        case RequestDataTooBig():
            return "too_large", "The upload's form fields are larger than is allowed."
        case MultiPartParserError():
            return "no_picture", "The upload is not a well-formed form with a photo in it."
        case (
            OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG)
            # Of a quota, or of no room for its index, SQLite says no more than what it was writing.
            | OperationalError(
                __cause__=sqlite3.Error(
                    sqlite_errorcode=sqlite3.SQLITE_FULL
                    | sqlite3.SQLITE_IOERR_WRITE
                    | sqlite3.SQLITE_IOERR_SHMSIZE
                )
            )
        ):
            return "storage_full", "There is no room for more photos; please try again later."
    logger.error("An upload failed.", exc_info=error)
    return "server_error", "The server could not keep the photo; please try again later."


def upload_too_large():
    return ValidationError(
        f"The upload is larger than the {filesizeformat(settings.UPLOAD_MAX_SIZE)} that are "
        "allowed.",
        code="too_large",
    )


def too_many():
    limit = settings.DATA_UPLOAD_MAX_NUMBER_FILES
    return ValidationError(f"At most {limit} photos are allowed in one upload.", code="too_many")


class DishForm(forms.ModelForm):
    class Meta:
        model = Dish
        fields = ["name", "restaurant"]


class DishField(forms.ModelChoiceField):
    def clean(self, value):
        try:
            return super().clean(value)
        except ValidationError as error:
            raise ValidationError("There is no such dish.", code="unknown_dish") from error


class PicturesInput(forms.FileInput):
    allow_multiple_selected = True

    def build_attrs(self, base_attrs, extra_attrs=None):
        """Add what the script can tell a diner before anything is sent, in the same words."""
        return super().build_attrs(base_attrs, extra_attrs) | {
            "accept": images.ACCEPT,
            "data-max-size": settings.PICTURE_MAX_SIZE,
            "data-too-large": too_large().message,
            "data-max-files": settings.DATA_UPLOAD_MAX_NUMBER_FILES,
            "data-too-many": too_many().message,
            "data-not-an-image": images.not_an_image().message,
        }


class PicturesField(forms.Field):
    """One file or several; whether each is a picture shows when it is stored."""

    widget = PicturesInput

    def clean(self, value):
        if self.required and not value:
            raise ValidationError("No photo was chosen; choose at least one.", code="no_picture")
        return value


class UploadForm(forms.Form):
    """The form `#form_upload`."""

    picture = PicturesField(label="Your photos of this dish")
    id = DishField(Dish.objects)

    def __init__(self, *args, refusals=(), **kwargs):
        """Take also the files that were refused on their way: pairs of an error and a name."""
        super().__init__(*args, **kwargs)
        self.refusals = [Refusal.of(error, file) for error, file in refusals]
        self.fields["picture"].required = not refusals

    def get_refusal(self):
        """Return why the upload is refused as a whole."""
        return Refusal.of(next(iter(self.errors.as_data().values()))[0])

    def save(self, diner=""):
        """Store each file by itself, and return the pictures and the refusals of the others."""
        pictures, refusals = [], [*self.refusals]
        for file in self.cleaned_data["picture"]:
            try:
                pictures.append(Picture.objects.store(self.cleaned_data["id"], file, diner))
            except Exception as error:  # noqa: BLE001
                refusals.append(Refusal.of(error, file.name))
        return pictures, refusals


def validate_before_reading(request):
    """Raise what is wrong with an upload, as far as it shows before the body is read."""
    query = request.GET  # Raises where it has too many fields.
    get_progress_id(request)
    if request.content_type != "multipart/form-data":
        raise MultiPartParserError
    # The script tells the size of its one file; the length of the body may be that of several.
    size = query.get("size", "")
    if size.isdecimal() and (len(size) > 20 or int(size) > settings.PICTURE_MAX_SIZE):
        raise too_large()
    if not request.headers.get("Content-Length"):
        raise ValidationError("The upload does not tell its length.", code="no_picture")
    if content_length(request) > settings.UPLOAD_MAX_SIZE:
        raise upload_too_large()
    if "id" in query:
        DishField(Dish.objects).clean(query["id"])
