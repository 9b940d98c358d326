"""A dish on a running site, and the parts of an upload to it.

All uploads of a benchmark share the bytes of one photo, up to the last few: a dish keeps the same
photo only once.
"""

import os
from urllib.parse import urlencode
from urllib.request import Request, urlopen

TOKEN = "x" * 32  # a cookie and a header that agree are all that the check for forgery asks for
BOUNDARY = "----WebKitFormBoundarygourmious5678BcD"  # as long as Chromium's
OWN_LENGTH = 16  # the bytes of a photo that are its own


def add_dish(address):
    """Add the first dish of a site."""
    form = {"name": "Bouillabaisse", "restaurant": "Chez Fonfon", "csrfmiddlewaretoken": TOKEN}
    request = Request(f"http://{address}/dishes/new", urlencode(form).encode())
    request.add_header("Cookie", f"csrftoken={TOKEN}")
    with urlopen(request) as response:
        assert response.url.endswith("/dishes/1/")


def upload_head(host, length, **query):
    """Return the head of a request that uploads to the first dish, with a body of this length."""
    return (
        f"POST /upload?{urlencode({'id': 1, **query})} HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {length}\r\nCookie: csrftoken={TOKEN}\r\nX-CSRFToken: {TOKEN}\r\n\r\n"
    ).encode()


def body_head():
    """Return the part of the body before the photo."""
    part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
    return (
        f'{part}name="id"\r\n\r\n1\r\n'
        f'{part}name="picture"; filename="dish.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    ).encode()


def body_end():
    """Return the photo's own bytes, different each time, and what comes in the body after it."""
    return os.urandom(OWN_LENGTH) + f"\r\n--{BOUNDARY}--\r\n".encode()
