import re

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.utils.functional import cached_property
from django.utils.http import parse_header_parameters

MAX_TYPE_LENGTH = 200  # characters; a browser's Accept header has up to 135

ODD_IN_COOKIES = re.compile(r"[^ -\[\]-~]")  # backslashes, and all but printable ASCII


class Request(WSGIRequest):
    """A request whose headers may be malformed, or long and slow to parse.

    Django (5.2) parses parameters (RFC 2231) with Python's email package, which raises many kinds
    of exceptions. Django does not catch them: one request would get no answer, and another would
    fail after its photo was stored.
    """

    def __init__(self, environ):
        """Drop a Content-Type or Accept header that is too long, and replace odd bytes of cookies.

        8,000 semicolons in a header took 25 to 165 ms. 8,000 backslashes in a quoted cookie took
        280 ms (Python 3.11). Django strips Unicode spaces from a cookie's name, so a sibling
        subdomain could plant a cookie called U+2000 and __Host-csrftoken. No cookie of this site
        has such bytes. They are replaced: removing them could change a name, too.
        """
        for name in ("CONTENT_TYPE", "HTTP_ACCEPT"):
            if len(environ.get(name, "")) > MAX_TYPE_LENGTH:
                del environ[name]
        if "HTTP_COOKIE" in environ:
            environ["HTTP_COOKIE"] = ODD_IN_COOKIES.sub("?", environ["HTTP_COOKIE"])
        super().__init__(environ)

    def _set_content_type_params(self, meta):
        # Private in Django (5.2): after an upgrade, check that __init__() still calls this method.
        # Ignore the charset: Django would also decode the query with it. All forms are in UTF-8.
        try:
            parsed = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (LookupError, TypeError, ValueError):
            parsed = "", {}
        self.content_type, self.content_params = parsed

    @cached_property
    def accepted_types(self):
        try:
            return super().accepted_types
        except (LookupError, TypeError, ValueError):
            return []

    def parse_file_upload(self, META, post_data):
        # Django does not parse a body that does not state its length. If it is chunked, the server
        # marks its end, and the upload handler reads it.
        if not META.get("CONTENT_LENGTH") and META.get("wsgi.input_terminated"):
            META = {**META, "CONTENT_LENGTH": settings.UPLOAD_MAX_SIZE}  # noqa: N806
        return super().parse_file_upload(META, post_data)
