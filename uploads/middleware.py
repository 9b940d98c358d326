import logging

from django.contrib import messages
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import ProgrammingError, connection
from django.shortcuts import redirect

logger = logging.getLogger(__name__)

VALUE_ERRORS = (IndexError, OverflowError, ProgrammingError, ValueError)


class OddInputMiddleware:
    """Redirect to a page of the admin without its query if the database does not accept a value.

    Django (5.2) does so for most queries of a list. It raises for a number, a date or a regular
    expression that the database does not accept, and for an action on such an id.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        # A page that fails without its query, too, has an error of its own.
        is_first = request.resolver_match.app_name == "admin" and ERROR_FLAG not in request.GET
        if not is_first or not is_value_error(exception):
            return None

        logger.warning("A page of the admin failed, perhaps for odd input.", exc_info=exception)
        messages.error(request, "A value in the address or in the form was not accepted.")
        return redirect(f"{request.path}?{ERROR_FLAG}=1")


def is_value_error(error):
    """Return whether Django, the database or its driver did not accept a value."""
    return isinstance(error, VALUE_ERRORS) or connection.is_value_error(error)
