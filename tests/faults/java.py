"""Forms of a Java program. Run it by hand: `python manage.py test tests.faults.java`."""

from pathlib import Path

from tests.servers import requires

from .clients import ClientTestCase, run_client

PROGRAM = Path(__file__).with_name("Client.java")


class JavaTests(ClientTestCase):
    @requires("java")
    def test_java_can_upload(self):
        def send(content):
            headers = [word for header in self.headers.items() for word in header]
            arguments = [self.url, str(self.dish.pk), self.write_file(content), *headers]
            return run_client("java", PROGRAM, *arguments)

        self.assert_understood(send)
