"""Why an upload, or one file of it, is not kept: the table of codes, statuses and sentences.

Every other module may import this one, and this one imports none of them.
"""

import errno
import logging
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import (
    RequestDataTooBig,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.db import connection
from django.http.multipartparser import MultiPartParserError
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.template.defaultfilters import filesizeformat

logger = logging.getLogger(__name__)


class UploadInterrupted(MultiPartParserError):
    """The body of an upload ended before all of it had arrived; the refusal says why.

    After a MultiPartParserError Django does not try to parse the body again.
    """

    def __init__(self, refusal):
        super().__init__(refusal.message)
        self.refusal = refusal


class Refusal(NamedTuple):
    """Why an upload was refused or, if `file` is named, only that file."""

    code: str
    status: int
    retry: bool  # whether the same upload may succeed later
    message: str  # in the table, with placeholders
    file: str = ""

    def error(self, **values):
        """Return a ValidationError with these values in the placeholders of its message.

        The limits of the settings are filled in already.
        """
        limits = {
            "picture_size": filesizeformat(settings.PICTURE_MAX_SIZE),
            "upload_size": filesizeformat(settings.UPLOAD_MAX_SIZE),
            "files": settings.DATA_UPLOAD_MAX_NUMBER_FILES,
            "quota": filesizeformat(settings.MAX_BYTES_PER_DAY),
            "speed": filesizeformat(settings.UPLOAD_MIN_SPEED),
        }
        return ValidationError(self.message, self.code, {**limits, **values})

    def fill(self, **values):
        """Return the refusal with these values in the placeholders of its message."""
        return self._replace(message=self.error(**values).messages[0])


# fmt: off
NO_PICTURE = Refusal("no_picture", 400, False, "No photo was chosen; choose at least one.")
NO_FORM = Refusal("no_picture", 400, False, "The upload is not a well-formed form with a photo in it.")
BAD_PROGRESS_ID = Refusal("bad_progress_id", 400, False, "The X-Progress-ID of an upload must be 1 to 64 characters long: letters, digits, _ and - are allowed.")
TOO_MANY = Refusal("too_many", 400, False, "At most %(files)s photos are allowed in one upload.")
TOO_MANY_CANCELLED = Refusal("too_many", 400, False, "At most %(uploads)s uploads can be cancelled at once.")
TOO_MANY_FIELDS = Refusal("too_many", 400, False, "The upload has more form fields than are allowed.")
BAD_CAPTION = Refusal("bad_caption", 400, False, "A caption may have at most %(characters)s characters.")
BAD_REQUEST = Refusal("bad_request", 400, False, "The server does not understand the request.")
INTERRUPTED = Refusal("interrupted", 400, True, "The upload broke off before all of it had arrived.")
OLD_FORM = Refusal("csrf", 403, False, "This form is too old; please reload the page.")
NO_COOKIE = Refusal("csrf", 403, False, "Cookies are off in your browser; please allow them for this site, and reload the page.")
FOREIGN_FORM = Refusal("csrf", 403, False, "This form was sent from another site, or your browser hides where it came from.")
UNTRUSTED_PROXY = Refusal("csrf", 403, False, "A proxy in front of this site is not trusted; the site's operator must set GOURMIOUS_BALANCERS to its address.")
BAD_HOST = Refusal("csrf", 403, False, "This address does not belong to this site; please reload the page.")
OVER_QUOTA = Refusal("over_quota", 403, False, "Your network has sent %(quota)s today, as much as is allowed; please come back tomorrow.")
HIDDEN = Refusal("hidden", 403, False, "Our staff took this photo off the page.")
BANNED = Refusal("hidden", 403, False, "Our staff do not accept photos from this browser.")
UNKNOWN_DISH = Refusal("unknown_dish", 404, False, "There is no such dish.")
DELETED_DISH = Refusal("unknown_dish", 404, False, "This dish was deleted while its photo arrived.")
TOO_SLOW = Refusal("too_slow", 408, True, "The upload was too slow: it sent less than %(speed)s a second.")
CANCELLED = Refusal("cancelled", 409, False, "This upload was cancelled.")
NO_LENGTH = Refusal("no_length", 411, False, "The upload does not state its length.")
TOO_LARGE = Refusal("too_large", 413, False, "This file is larger than the %(picture_size)s that are allowed.")
UPLOAD_TOO_LARGE = Refusal("too_large", 413, False, "The upload is larger than the %(upload_size)s that are allowed.")
FORM_TOO_LARGE = Refusal("too_large", 413, False, "The form is larger than is allowed.")
FIELDS_TOO_LARGE = Refusal("too_large", 413, False, "The upload's form fields are larger than is allowed.")
ADDRESS_TOO_LONG = Refusal("bad_request", 414, False, "The address of the request is too long.")
EMPTY_FILE = Refusal("empty_file", 415, False, "This file is empty.")
NOT_AN_IMAGE = Refusal("not_an_image", 415, False, "This file is not a picture; %(formats)s files are allowed.")
OTHER_FORMAT = Refusal("other_format", 415, False, "%(kind)s files are not allowed; %(formats)s files are.")
DAMAGED = Refusal("damaged", 415, False, "This picture is damaged, not complete, or of a rare variant that cannot be shown.")
TOO_MANY_PIXELS = Refusal("too_many_pixels", 415, False, "This picture has too many pixels; %(millions)s million are allowed in %(format)s files of its size.")
EXTRA_DATA = Refusal("extra_data", 415, False, "Besides its picture, this file holds more than the %(megabytes)s MB of other data that are allowed.")
TOO_COMPLEX = Refusal("too_complex", 415, False, "This picture takes more time or memory to decode than is allowed.")
BUSY = Refusal("busy", 429, True, "Too many photos are being uploaded at the moment; please try again in a minute.")
TOO_OFTEN = Refusal("busy", 429, True, "Too many forms came from your address; please try again in a minute.")
HEADERS_TOO_LARGE = Refusal("bad_request", 431, False, "The headers of the request are too large; please delete the cookies of this site.")
SERVER_ERROR = Refusal("server_error", 500, True, "The server could not keep the photo; please try again later.")
UNKNOWN_ENCODING = Refusal("bad_request", 501, False, "The server does not know the transfer encoding of the request.")
UNREACHABLE = Refusal("server_error", 502, True, "The server cannot be reached at the moment; please try again in a minute.")
UNAVAILABLE = Refusal("server_error", 503, True, "The server is not available at the moment; please try again in a minute.")
STORAGE_FULL = Refusal("storage_full", 507, True, "There is no room for more photos; please try again later.")
NOTHING_SAVED = Refusal("storage_full", 507, True, "The server has no room to save anything; please try again later.")
# fmt: on

# The first row of each code: get_refusal() takes the status and `retry` from it.
BY_CODE = {row.code: row for row in reversed([*globals().values()]) if type(row) is Refusal}

# The most specific class comes first.
PARSER_ERRORS = {
    TooManyFilesSent: TOO_MANY,
    TooManyFieldsSent: TOO_MANY_FIELDS,
    RequestDataTooBig: FIELDS_TOO_LARGE,
    MultiPartParserError: NO_FORM,
}


def get_refusal(error, file=""):
    """Return the refusal for an exception. If a file is named, only that file is refused.

    A code that is not in the table comes from a form field, and gets the status 400.
    """
    if not isinstance(error, ValidationError):
        return classify(error)._replace(file=file)
    unknown = (error.code or "invalid", 400, False)
    code, status, retry = BY_CODE.get(error.code, unknown)[:3]
    return Refusal(code, status, retry, error.messages[0], file)


def classify(error):
    """Return the row for an exception of the parser, the database, the disk or the store.

    Log any other exception, and return SERVER_ERROR.
    """
    if isinstance(error, UploadInterrupted):
        return error.refusal
    for kind, row in PARSER_ERRORS.items():
        if isinstance(error, kind):
            return row.fill()
    if is_out_of_space(error):
        return STORAGE_FULL
    if is_unavailable(error):
        logger.warning("An upload failed: %s", error)
        return UNAVAILABLE
    logger.error("An upload failed.", exc_info=error)
    return SERVER_ERROR


def get_csrf_refusal(request, reason):
    """Return the refusal for a request that Django's CSRF check refused for this reason."""
    # A browser that sends other cookies accepts them: its page is of an older release.
    if reason == REASON_NO_CSRF_COOKIE and not request.headers.get("Cookie"):
        return NO_COOKIE
    if not reason.startswith(("Origin checking failed", "Referer checking failed")):
        return OLD_FORM
    # The browser uses HTTPS, which ends at a proxy whose X-Forwarded-Proto is not believed.
    is_own = request.headers.get("Origin") == f"https://{request.get_host()}"
    return UNTRUSTED_PROXY if is_own and not request.is_secure() else FOREIGN_FORM


def is_out_of_space(error):
    """Return whether there is no room for a file or for the database."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return connection.is_full(error)


def is_unavailable(error):
    """Return whether the database or the store is away, and may be back in a moment."""
    return isinstance(error, (ConnectionError, TimeoutError)) or connection.is_unavailable(error)
