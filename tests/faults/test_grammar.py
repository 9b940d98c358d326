"""Forms of every shape that the multipart grammar allows, and many malformed ones.

To send any number of them, by hand:

    REQUESTS=50000 SEED=1 python manage.py test tests.faults.test_grammar
"""

import os
import time
from base64 import b64encode
from collections import Counter
from random import Random

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.client import client_headers, connect, get_answer, poll
from tests.contract import REFUSALS
from tests.photos import photo
from tests.waiting import wait_for

from .rig import SEED, TIMES, Entry, FaultTestCase, check_answer

REQUESTS = int(os.environ.get("REQUESTS", 300 * TIMES))
PHOTO = photo(24, 16, randbytes=Random(SEED).randbytes)
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
    """Draw a part: usually a photo, or the id of its dish."""
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
    """Draw a boundary and a body. In some bodies, bytes are changed, cut out or doubled."""
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


def has_part(body, original):
    """Return whether the body has a part of exactly these bytes."""
    ends = (b"--", b"\n--", b"\r--", b"\r\n--")
    return any(original + end in body for end in ends) or b64encode(original)[:-4] in body


class GrammarTests(FaultTestCase):
    def setUp(self):
        super().setUp()
        self.connections = {}
        for address in (self.http, self.stack.uploads.address):
            self.connections[address] = connect(address)
            self.addCleanup(self.connections[address].close)
        self.outcomes, self.slowest, self.kept = Counter(), 0, {}

    def test_every_form_is_answered_and_leaves_only_kept_photos(self):
        @seed(SEED)
        @settings(
            max_examples=REQUESTS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.sampled_from(list(self.connections)),
            st.booleans(),
            bodies(str(self.dish.pk).encode()),
        )
        def send(address, has_id, drawn):
            progress_id = f"odd-{next(self.numbers)}" if has_id else None
            self.assert_contract(*drawn, self.send(address, progress_id, *drawn))
            if has_id:
                wait_for(lambda: poll(self.http, progress_id) is None)

        before = self.stack.uploads.memory("VmRSS")
        send()
        if "REQUESTS" in os.environ:
            growth = (self.stack.uploads.memory("VmRSS") - before) / 2**20
            print(f"\n{dict(self.outcomes)}; {self.slowest:.3f} s; {growth:+.1f} MiB", flush=True)
        self.note_kept()
        self.audit("a form of any shape", REQUESTS)

    def send(self, address, progress_id, mark, body):
        connection = self.connections[address]
        content_type = f'multipart/form-data; boundary="{mark.decode()}"'
        headers = {**client_headers(address), "Content-Type": content_type}
        query = f"?X-Progress-ID={progress_id}" if progress_id else ""
        started = time.monotonic()
        connection.request("POST", f"/upload{query}", body, headers)
        answer = get_answer(connection)
        self.slowest = max(self.slowest, time.monotonic() - started)
        return Entry("none", "", answer, whole=True)

    def assert_contract(self, mark, body, entry):
        """Assert that the answer to a form keeps the contract, and count it."""
        codes = [error.get("code") for error in entry.upload.iter("error")]
        self.outcomes[codes[0] if codes else "ok"] += 1
        self.assertNotIn("server_error", codes, (mark, body))
        if codes and entry.kept:
            self.assertEqual(entry.upload.findtext("status"), "partial", (mark, body))
        else:
            self.assertEqual(list(check_answer(entry)), [], (mark, body))
            self.assertEqual(entry.answer.status, REFUSALS[codes[0]][0] if codes else 200)
        pictures = [picture.get("id") for picture in entry.upload.iter("picture")]
        self.assertEqual(bool(pictures), entry.kept, (mark, body))
        self.kept |= dict.fromkeys(pictures, body)

    def note_kept(self):
        """Enter all pictures in the ledger. Each must be stored exactly as it was sent."""
        for row in self.ledger.site.read_rows():
            original = (self.stack.data / "originals" / row["original"]).read_bytes()
            self.assertTrue(has_part(self.kept[str(row["id"])], original), row["id"])
            self.ledger.note(Entry("none", row["digest"], None, whole=True))
        self.assertEqual(len(self.ledger.entries), len(self.kept))
        self.assertGreater(len(self.kept), REQUESTS // 20)
