from django.core.handlers.wsgi import WSGIRequest
from django.http.multipartparser import MultiPartParserError
from django.utils.functional import cached_property
from django.utils.http import parse_header_parameters


class Request(WSGIRequest):
    """A request whose headers may have parameters (RFC 2231) that nobody can parse.

    Python's email package, which Django (5.2) parses them with, raises nearly anything then, where
    Django expects nothing: before it has begun to answer, or when the photo is kept already.
    """

    def _set_content_type_params(self, meta):
        # Not its charset, by which Django would read the query as well: every form is in UTF-8.
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
        try:
            return super().parse_file_upload(META, post_data)
        except TypeError as error:
            raise MultiPartParserError("A part has a header that cannot be parsed.") from error
