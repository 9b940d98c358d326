"""The URL of a database, as libpq reads it."""

import re

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

FIELDS = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}


def read_url(url):
    """Return Django's settings of the database that a URL names; raise ValueError for any other.

    The URL may hold the folder of a Unix socket, and libpq's parameters, such as sslmode. The error
    holds nothing of it: a traceback must not show the password.
    """
    try:
        parameters = conninfo_to_dict(url)
    except ProgrammingError:
        raise ValueError from None
    found = {field: parameters.pop(name, "") for field, name in FIELDS.items()}
    has_port = re.fullmatch(r"[0-9,]*", str(found["PORT"]))
    if not (url.startswith("postgresql://") and found["NAME"] and has_port):
        raise ValueError
    return {"ENGINE": "gourmious.postgresql", **found, "OPTIONS": parameters}
