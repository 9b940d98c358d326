"""The base of the tests of real clients. Each client sends a photo, and a file that is not one."""

import hashlib
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.client import Answer, client_headers

from .rig import Entry, FaultTestCase

NAME = "Pissaladière à l'œuf 🍳 100 %.jpg"


def run_client(*command):
    """Run a program that prints an answer, and then its status in three digits."""
    output = subprocess.run(command, check=False, capture_output=True).stdout.decode()
    return Answer(int(output[-3:]), {}, output[:-3])


class ClientTestCase(FaultTestCase):
    def setUp(self):
        super().setUp()
        self.url = f"http://{self.http}/upload"
        self.headers = client_headers(self.http)
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.fields = {"id": str(self.dish.pk)}

    def assert_understood(self, send):
        """Send a photo, which must be kept, and a text, whose name must be in the refusal."""
        photo = self.photo + self.rng.randbytes(16)
        entry = Entry("none", hashlib.sha256(photo).hexdigest(), send(photo), whole=True)
        self.ledger.note(entry)
        self.assertTrue(entry.kept, entry)

        refused = Entry("none", "", send(b"A text. " * 100), whole=True)
        self.assertEqual(refused.answer.status, 415)
        self.assertEqual(refused.upload.find("error").get("file"), NAME)
        self.audit(self._testMethodName.removeprefix("test_").replace("_", " "), 1)

    def write_file(self, content):
        path = self.folder / NAME
        path.write_bytes(content)
        return path
