from django.test import RequestFactory, SimpleTestCase

from gourmious.cookies import PREFIX
from gourmious.request import Request

FORM = "multipart/form-data; boundary="
TYPES = ["application/xml", "text/html"]


class RequestTests(SimpleTestCase):
    def make_request(self, **headers):
        return Request(RequestFactory().get("/", headers=headers).environ)

    def test_a_content_type_of_200_characters_is_parsed_and_a_longer_one_is_none(self):
        boundary = "b" * (200 - len(FORM))

        request = self.make_request(content_type=FORM + boundary)
        self.assertEqual(request.content_type, "multipart/form-data")
        self.assertEqual(request.content_params, {"boundary": boundary})

        request = self.make_request(content_type=f"{FORM}{boundary}b")
        self.assertEqual((request.content_type, request.content_params), ("", {}))

    def test_an_accept_header_of_200_characters_is_parsed_and_a_longer_one_is_none(self):
        accept = "text/html;q=0.5".ljust(200, ";")

        self.assertEqual(self.make_request(accept=accept).get_preferred_type(TYPES), "text/html")

        request = self.make_request(accept=f"{accept};")
        self.assertEqual(request.get_preferred_type(TYPES), "application/xml")
        self.assertNotIn("Accept", request.headers)

    def test_no_cookie_is_unescaped(self):
        request = self.make_request(cookie=r'a="\101\"b"; csrftoken=c')

        self.assertEqual(request.COOKIES, {"a": '?101?"b', "csrftoken": "c"})

    def test_no_planted_cookie_turns_into_one_with_the_prefix(self):
        # A browser takes cookies with these names from a sibling subdomain.
        for name in (r"\__Host-a", r"__Host\-a", "\u2000__Host-a", "\xa0__Host-a", "\x85__Host-a"):
            header = f"{name}=b".encode().decode("latin-1")  # as WSGI has it
            [found] = self.make_request(cookie=header).COOKIES
            self.assertFalse(found.startswith(PREFIX), name)
