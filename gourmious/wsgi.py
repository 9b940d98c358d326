import os
from contextlib import suppress
from functools import cache

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import request_started
from django.core.wsgi import get_wsgi_application
from django.db import DatabaseError, connection
from django.dispatch import receiver
from django.http.multipartparser import MultiPartParserError
from django.utils.functional import cached_property
from django.utils.http import parse_header_parameters
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")


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
        except Exception as error:
            # The parser raises without a word to its handlers, one of which may hold a file.
            for handler in self.upload_handlers:
                with suppress(OSError):
                    handler.upload_interrupted()
            if isinstance(error, TypeError):
                raise MultiPartParserError("A part has a header that cannot be parsed.") from error
            raise


django_application = get_wsgi_application()
django_application.request_class = Request

# Behind nginx every connection comes from nginx. The client's address, half of a progress record's
# key, is in X-Forwarded-For; anybody can send that header, so these peers alone are believed.
application = wrap_wsgi_with_proxy_headers(
    django_application, trusted_hosts=settings.TRUSTED_PROXIES
)


@receiver(request_started)
def prepare_for_a_full_disk(**kwargs):
    with suppress(DatabaseError):  # A view that reads meets it, too; the next request tries anew.
        keep_database_open()


@cache
def keep_database_open():
    """Return a connection that has read, which is to stay open.

    SQLite needs the WAL and its index even to read, and whoever closes last deletes them: on a full
    or read-only disk they could not be made anew, and no page could be read.
    """
    keeper = connection.copy()
    keeper.introspection.table_names()
    return keeper


prepare_for_a_full_disk()  # By the first request it may be full already.
