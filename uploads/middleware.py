import logging
import sqlite3

from django.contrib import messages
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import DataError
from django.shortcuts import redirect

logger = logging.getLogger(__name__)


class OddInputMiddleware:
    """Show a page of the admin without its query and form, if the database does not accept them.

    Django (5.2) does so for most queries of a list, but fails for a number, a date or a regular
    expression that no database accepts, and for an action on something with such an id.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        # If the page fails without a query, too, the error is one of the app.
        is_first = request.resolver_match.app_name == "admin" and ERROR_FLAG not in request.GET
        if not is_first or not is_about_a_value(exception):
            return None

        logger.warning("A page of the admin failed, perhaps for odd input.", exc_info=exception)
        messages.error(request, "A value in the address or in the form was not accepted.")
        return redirect(f"{request.path}?{ERROR_FLAG}=1")


def is_about_a_value(error):
    """Return whether the database, or the way to it, did not accept a value."""
    # SQLite has no code of its own for an invalid regular expression.
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return isinstance(error, (DataError, OverflowError, ValueError)) or code == sqlite3.SQLITE_ERROR
