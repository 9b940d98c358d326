"""Forms of every shape that the grammar of multipart allows, and of many that it does not.

By hand, as many as one likes:

    REQUESTS=50000 SEED=1 python manage.py test tests.faults.test_grammar
"""

import os
import time
from base64 import b64encode
from collections import Counter

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.client import client_headers, connect, get_answer
from tests.photos import photo

from .rig import CODES, SEED, TIMES, Entry, FaultTestCase

REQUESTS = int(os.environ.get("REQUESTS", 300 * TIMES))
PHOTO = photo(24, 16)
DISPOSITION = b'Content-Disposition: form-data; name="picture"; filename="dish.jpg"'
GOOD_PART = DISPOSITION + b"\r\n\r\n" + PHOTO.replace(b"%", b"%%") + b"%b\r\n"

odd_text = st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))
name = (
    st.sampled_from([b"picture", b"picture", b"id", b"X-Progress-ID", b"", b"pic\0ture"]) | odd_text
)
boundary = st.sampled_from([b"b", b"b", b"b", b"--", b"b b", b"b'()+_,-./:=?", b"b" * 70])


@st.composite
def parameters(draw):
    """Draw the parameters of a Content-Disposition, quoted, bare, extended or continued."""
    value = draw(name)
    file = draw(st.sampled_from([b"dish.jpg", b"..\\..\\dish", b"", b"a;b", b'a\\"b']) | odd_text)
    charset = draw(st.sampled_from([b"utf-8", b"UTF-16", b"undefined", b"hex", b"idna", b""]))
    forms = [
        b'name="%b"; filename="%b"' % (value, file),
        b"name=%b; filename=%b" % (value, file),
        b"name=%b; filename*=%b''%b" % (value, charset, file),
        b"name=%b; filename*0=%b; filename*1=b" % (value, file),
        b"name=%b; filename*0=%b; filename*=b" % (value, file),
        b"name*=%b''%b; filename=dish.jpg" % (charset, value),
        b'name="%b"' % value,
        b"filename=dish.jpg",
        b"",
    ]
    return draw(st.sampled_from(forms))


@st.composite
def part(draw, dish):
    """Draw a part: mostly a photo, or the dish that it is of."""
    encoding = draw(st.sampled_from([b"", b"", b"base64", b"quoted-printable", b"7bit", b"\xff"]))
    content = draw(st.sampled_from([PHOTO, PHOTO, PHOTO[:99], dish, b""]) | st.binary(max_size=99))
    content = b64encode(content) if encoding == b"base64" and draw(st.booleans()) else content
    headers = [b"Content-Disposition: form-data; " + draw(parameters())]
    headers += draw(
        st.lists(
            st.sampled_from(
                [
                    b"Content-Type: image/jpeg",
                    b"Content-Type: multipart/mixed; boundary=c",
                    b"Content-Type: text/plain; charset*=undefined''x",
                    b"Content-Length: 99999999999999999999",
                    b"Content-Disposition: attachment",
                    b" folded",
                    b"no colon",
                    b": no name",
                ]
            ),
            max_size=3,
        )
    )
    headers += [b"Content-Transfer-Encoding: " + encoding] if encoding else []
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    return end.join([*headers, b"", content]) + end


@st.composite
def bodies(draw, dish):
    """Draw a boundary and a body; some bodies have bytes changed, cut out or doubled."""
    mark = draw(boundary)
    parts = [b'Content-Disposition: form-data; name="id"\r\n\r\n%b\r\n' % dish]
    if draw(st.booleans()):
        parts.append(GOOD_PART % draw(st.binary(min_size=4, max_size=4)))
    parts += draw(st.lists(part(dish), max_size=draw(st.sampled_from([0, 1, 4]))))
    body = b"".join(b"--%b\r\n%b" % (mark, one) for one in parts) + b"--%b--\r\n" % mark
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        start = draw(st.integers(0, len(body)))
        end = start + draw(st.sampled_from([1, 2, 10, 1000]))
        new = draw(st.binary(max_size=3) | st.just(2 * body[start:end]))
        body = body[:start] + new + body[end:]
    return mark, body


class GrammarTests(FaultTestCase):
    def setUp(self):
        super().setUp()
        self.connection = connect(self.http)
        self.addCleanup(self.connection.close)
        self.outcomes, self.slowest, self.kept = Counter(), 0, set()

    def test_every_form_is_answered_and_leaves_nothing_but_what_is_kept(self):
        @seed(SEED)
        @settings(
            max_examples=REQUESTS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(bodies(str(self.dish.pk).encode()))
        def send(drawn):
            self.send(*drawn)

        before = self.stack.granian.memory("VmRSS")
        send()
        if "REQUESTS" in os.environ:
            grown = (self.stack.granian.memory("VmRSS") - before) / 2**20
            print(f"\n{dict(self.outcomes)}; {self.slowest:.3f} s; {grown:+.1f} MiB", flush=True)
        self.note_kept()
        self.audit("a form of any shape", REQUESTS)

    def send(self, mark, body):
        content_type = f'multipart/form-data; boundary="{mark.decode()}"'
        headers = {**client_headers(self.http), "Content-Type": content_type}
        started = time.monotonic()
        self.connection.request("POST", "/upload", body, headers)
        entry = Entry("none", "", get_answer(self.connection), whole=True)
        self.slowest = max(self.slowest, time.monotonic() - started)

        codes = [error.get("code") for error in entry.upload.iter("error")]
        self.outcomes[codes[0] if codes else "ok"] += 1
        self.assertLessEqual(set(codes), CODES - {"server_error", "busy"}, (mark, body))
        self.kept |= {picture.get("id") for picture in entry.upload.iter("picture")}

    def note_kept(self):
        """Write the pictures into the ledger: each must be there, and no other."""
        for row in self.ledger.read_rows():
            self.assertIn(str(row["id"]), self.kept)
            self.ledger.note(Entry("none", row["digest"], None, whole=True))
        self.assertEqual(len(self.ledger.entries), len(self.kept))
