"""A dish on a running site, and what an upload to it needs in its head."""

from urllib.parse import urlencode
from urllib.request import Request, urlopen

TOKEN = "x" * 32  # a cookie and a header that agree are all that the check for forgery asks for
BOUNDARY = "a-photo-of-the-dish"


def add_dish(address):
    """Add the first dish of a site."""
    form = {"name": "Bouillabaisse", "restaurant": "Chez Fonfon", "csrfmiddlewaretoken": TOKEN}
    request = Request(f"http://{address}/dishes/new", urlencode(form).encode())
    request.add_header("Cookie", f"csrftoken={TOKEN}")
    with urlopen(request) as response:
        assert response.url.endswith("/dishes/1/")


def upload_head(address, length, **query):
    """Return the head of a request that uploads to the first dish, with a body of this length."""
    return (
        f"POST /upload?{urlencode({'id': 1, **query})} HTTP/1.1\r\nHost: {address}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {length}\r\nCookie: csrftoken={TOKEN}\r\nX-CSRFToken: {TOKEN}\r\n\r\n"
    ).encode()


def body_head():
    """Return what comes in the body before the photo."""
    part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
    return (
        f'{part}name="id"\r\n\r\n1\r\n'
        f'{part}name="picture"; filename="dish.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    ).encode()


def body_end():
    return f"\r\n--{BOUNDARY}--\r\n".encode()
