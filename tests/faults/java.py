"""Forms as a Java program writes them: `python manage.py test tests.faults.java`, by hand."""

from pathlib import Path

from tests.servers import requires

from .clients import ClientTestCase, printed

PROGRAM = Path(__file__).with_name("Client.java")


class JavaTests(ClientTestCase):
    @requires("java")
    def test_java(self):
        def send(content):
            headers = [word for header in self.headers.items() for word in header]
            arguments = [self.url, str(self.dish.pk), self.file(content), *headers]
            return printed("java", PROGRAM, *arguments)

        self.assert_understood(send)
