"""What a dish and an upload must satisfy; what is refused, with its code and sentence."""

import errno
import logging
from typing import NamedTuple

from django import forms
from django.conf import settings
from django.core.exceptions import (
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.http.multipartparser import MultiPartParserError
from django.template.defaultfilters import filesizeformat

from .models import Dish, Picture
from .uploadhandler import UploadInterrupted

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """Why an upload was refused, or the one file of it that is named."""

    code: str
    message: str
    file: str = ""


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


class PicturesField(forms.Field):
    """One file or several; whether each is a picture shows when it is stored."""

    widget = PicturesInput

    def clean(self, value):
        if not value:
            raise ValidationError("No photo was chosen; choose at least one.", code="no_picture")
        return value


class UploadForm(forms.Form):
    """The form `#form_upload`."""

    picture = PicturesField()
    id = DishField(Dish.objects)

    def get_refusal(self):
        """Return why the upload is refused as a whole."""
        [error], *_ = self.errors.as_data().values()
        return refusal(error)

    def save(self):
        """Store each file by itself, and return the pictures and the refusals of the others."""
        pictures, refusals = [], []
        for file in self.cleaned_data["picture"]:
            try:
                validate_size(file)
                pictures.append(Picture.objects.store(self.cleaned_data["id"], file))
            except Exception as error:  # noqa: BLE001
                refusals.append(refusal(error, file.name))
        return pictures, refusals


def validate_size(file):
    if file.size > settings.PICTURE_MAX_SIZE:
        raise ValidationError(
            f"This file has {filesizeformat(file.size)}; "
            f"at most {filesizeformat(settings.PICTURE_MAX_SIZE)} are allowed.",
            code="too_large",
        )


def refusal(error, file=""):
    """Return whatever ended an upload, or one file of it, as a refusal of the contract."""
    match error:
        case ValidationError():
            return Refusal(error.code, error.message, file)
        case UploadInterrupted():
            code, message = "interrupted", "The upload broke off before all of it had arrived."
        case TooManyFilesSent():
            limit = settings.DATA_UPLOAD_MAX_NUMBER_FILES
            code, message = "too_many", f"At most {limit} photos are allowed in one upload."
        case TooManyFieldsSent():
            code, message = "too_many", "The upload has more form fields than are allowed."
        case RequestDataTooBig():
            code, message = "too_large", "The upload's form fields are larger than is allowed."
        case MultiPartParserError():
            code, message = "no_picture", "The upload is no well-formed form, so it has no photo."
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            code, message = "storage_full", "There is no room for more photos; try again later."
        case _:
            logger.error("An upload failed.", exc_info=error)
            code, message = "server_error", "The server could not keep the photo; try again later."
    return Refusal(code, message, file)
