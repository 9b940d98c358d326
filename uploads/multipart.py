"""The headers of a form's parts. A photo is kept whatever its file is called.

Django (5.2) loses a photo whose file has a name in Latin-1, or in a charset that Python does not
know. It loses the whole form if the headers of a part have 1,024 bytes. It parses them with
Python's email package, which takes a time that grows with the square of the number of semicolons.
"""

import html
import re
from email.utils import unquote
from urllib.parse import unquote as unquote_percent

from django.http.multipartparser import FIELD, FILE, RAW, MultiPartParser, MultiPartParserError

# Bytes, for all headers of a part. A name of 255 characters may take 3,100, in two parameters.
# Python (3.11) unescapes no number that has more than 4,300 digits.
MAX_HEADER_SIZE = 4 * 2**10

READ_SIZE = 2**10  # bytes

# A value ends at a semicolon outside quotes. The possessive quantifiers never backtrack.
PARAMETER = re.compile(
    r"""; \s* ([^\s=;"]+) \s* = ( (?: "(?:[^"\\]|\\.)*+" | \\" | [^;] )*+ )""",
    re.DOTALL | re.VERBOSE,
)

DEFAULT_NAME = "photo"  # for a file without a usable name


def parse_part(stream, max_header_size):
    """Return the kind of a part, its headers and the stream of its content.

    This replaces Django's parse_boundary_stream().
    """
    start = read_up_to(b"\r\n\r\n", stream, max_header_size)
    head, end, content = start.partition(b"\r\n\r\n")
    if not end and len(start) == max_header_size:
        raise MultiPartParserError("The headers of a part are too long.")
    stream.unget(content if end else start)
    if not end:
        return RAW, {}, stream

    headers = dict(map(parse_header, head.decode(errors="replace").split("\r\n")))
    if "content-disposition" not in headers:
        return RAW, {}, stream
    _, parameters = headers["content-disposition"]
    if "name" not in parameters:
        return RAW, {}, stream  # Django would count no file that has a file name, but no name.
    parameters["filename"] = get_file_name(parameters)
    return FILE if parameters["filename"] else FIELD, headers, stream


def read_up_to(end, stream, max_size):
    """Return the start of a stream: at least up to `end`, and at most max_size bytes."""
    # On a slow connection, reading max_size bytes at once would delay the refusal of a bad file.
    start = stream.read(READ_SIZE)
    while end not in start and len(start) < max_size and (data := stream.read(READ_SIZE)):
        start += data
    return start


def parse_header(line):
    """Return the name of a header, and a pair of its value and its parameters."""
    name, _, value = line.partition(":")
    parameters = {key.lower(): unquote(text.strip()) for key, text in PARAMETER.findall(value)}
    return name.strip().lower(), (value.partition(";")[0].strip().lower(), parameters)


def get_file_name(parameters):
    """Return the name of a part's file, as Django accepts it, or "" if the part is no file."""
    names = {key: text for key, text in parameters.items() if key.partition("*")[0] == "filename"}
    # RFC 8187: charset'language'text. All clients use UTF-8.
    name = unquote_percent(names.get("filename*", "").split("'", 2)[-1])
    name = name or names.get("filename") or "".join(names.values())
    # Django sanitizes the name again, and would skip a file without one. It keeps an escaped name.
    return name and html.escape(MultiPartParser.sanitize_file_name(None, name) or DEFAULT_NAME)
