from xml.etree import ElementTree

from uploads.multipart import DEFAULT_NAME, MAX_HEADER_SIZE

from .base import UploadTestCase
from .client import BOUNDARY, FORM_END, FORM_TYPE
from .photos import photo

DELIMITER = f"--{BOUNDARY}".encode()
START = b"Content-Disposition: form-data; name=picture"
LONGEST_HEAD = MAX_HEADER_SIZE - len("\r\n\r\n\r\n")


class MultipartTestCase(UploadTestCase):
    def send(self, head, content=None):
        """Upload a file that has these headers."""
        field = b'Content-Disposition: form-data; name="id"\r\n\r\n%d' % self.dish.pk
        file = b"%b\r\n\r\n%b" % (head, content or photo(8, 8))
        body = b"\r\n".join([DELIMITER, field, DELIMITER, file]) + FORM_END
        return self.client.generic("POST", "/upload", body, FORM_TYPE)

    def assert_kept(self, head):
        with self.subTest(head[:99]):
            response = self.send(head)
            self.assertContains(response, "<status>ok</status>")

    def assert_named(self, parameters, name):
        """Assert that the refusal of a file with these parameters tells this name."""
        response = self.send(b"%b; %b" % (START, parameters), b"A text of some length.")
        error = ElementTree.fromstring(response.content).find("error")
        self.assertEqual((error.get("code"), error.get("file")), ("not_an_image", name))


class FileNameTests(MultipartTestCase):
    def test_a_photo_is_kept_in_whatever_charset_its_name_is(self):
        for parameters in (
            "filename=aïoli.jpg".encode("latin-1"),
            b'filename="%b"' % "aïoli.jpg".encode("utf-16"),
            b"filename=\xff\xfe\0",
            b"filename*=UTF-8''%FF%00",
            b"filename*=unknown''a",
            b"filename*=undefined'en'%FF",
            b"filename*=idna''%FF.xn--a; filename=a",
        ):
            self.assert_kept(b"%b; %b" % (START, parameters))

    def test_a_photo_is_kept_however_its_name_is_broken(self):
        for parameters in (
            b"filename*=''; filename=a",
            b"filename*0=a; filename*1*=b",
            b"filename*0=a; filename*=b",
            b"filename*x=a",
            b'filename="a',
            b'filename="a\\"',
            b'filename="a"b"; filename="',
            b"FileName = a",
            b"filename=..",
            b"filename=/",
            b'filename="C:\\photos\\"',
            b"filename=&#47;",
            b"filename=&amp;#47;",
            b"filename=\x01",
        ):
            self.assert_kept(b"%b; %b" % (START, parameters))

    def test_a_file_without_a_usable_name_gets_one(self):
        for name in (b"..", b"/", b"\x01", b"&#47;"):
            self.assert_named(b"filename=" + name, DEFAULT_NAME)

    def test_a_name_is_read_in_every_notation(self):
        for parameters, name in (
            (b"filename=menu.pdf", "menu.pdf"),
            (b'filename="a menu; the first.pdf"', "a menu; the first.pdf"),
            (b'filename="\\"menu\\".pdf"', '"menu".pdf'),
            (b"filename=a.pdf; filename*=UTF-8''%C3%A9%27.pdf", "é'.pdf"),
            (b"filename*=utf-8'fr'%C3%A9.pdf; filename=a.pdf", "é.pdf"),
            (b'filename="&#233;&amp;.pdf"', "é&.pdf"),
            (b'filename="&amp;lt;.pdf"', "&lt;.pdf"),
            (b'filename="\xe9.pdf"', "\ufffd.pdf"),
            (b'x="; filename=evil"; filename=a.pdf', "a.pdf"),
        ):
            with self.subTest(parameters):
                self.assert_named(parameters, name)


class HeaderTests(MultipartTestCase):
    def test_headers_may_have_4_kib_and_not_more(self):
        # Python raises for a number of more than 4,300 digits.
        head = (START + b"; filename=&#").ljust(LONGEST_HEAD, b"9")
        self.assert_kept(head)

        response = self.send(head + b"9")

        self.assertContains(response, 'code="no_picture"', status_code=400)
        self.assertEqual(self.dish.pictures.count(), 1)

    def test_parts_without_a_name_are_counted(self):
        part = b"\r\n%b\r\nContent-Disposition: form-data; filename=a\r\n\r\n" % DELIMITER

        response = self.send(START + b"; filename=a", photo(8, 8) + 1000 * part)

        self.assertContains(response, 'code="too_many"', status_code=400)

    def test_odd_headers_beside_it_do_not_matter(self):
        for header in (
            b"Content-Type: image/jpeg; charset*=unknown''a",
            b"Content-Type: text/plain; x*0=a; x*=b",
            b"\xff: \xff",
            b"no colon",
            b": no name",
            b"X: " + b";" * 3000,
        ):
            self.assert_kept(b"%b\r\n%b; filename=a" % (header, START))
