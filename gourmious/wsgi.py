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
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")


class Request(WSGIRequest):
    """A request whose headers may have parameters (RFC 2231) that nobody can parse.

    Python's email package, which Django (5.2) parses them with, raises nearly anything then, where
    Django expects nothing: before it has begun to answer, or when the photo is kept already.
    """

    def _set_content_type_params(self, meta):
        try:
            super()._set_content_type_params(meta)
        except (LookupError, TypeError, ValueError):
            self.content_type, self.content_params = "", {}

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
