from hashlib import sha256

from django.test import SimpleTestCase

from .servers import ROOT

# The released files of axe-core 4.14.1, jquery 3.8.0, jquery-form 4.3.0 and jquery-ui 1.14.2.
RELEASED = {
    "axe-core/LICENSE": "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
    "axe-core/LICENSE-3RD-PARTY.txt": (
        "4f8563870d0fca38bbc3e00b6f670cb7fa9f380ba9f26a7f7d1184a6b18b1653"
    ),
    "axe-core/axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
    "jquery/LICENSE.txt": "d4db9ebe6f29f5168eac45ad713f055623ac5d0dcd5ba92da23d650ae012020d",
    "jquery/jquery.min.js": "42c9beb67d11f78edb63796d0d9bfb074d0fc1a20b47ad72fcb7fb0f3dc6a6fe",
    "jquery-form/LICENSE-MIT": "9125a97bd7989d171b86af7958140f93135f9ada49636c5bf45542f1c5429d50",
    "jquery-form/jquery.form.min.js": (
        "dd329c644951f3c041200e8279e3c90063ac5b5c8861fe253fca48df7dd8b99c"
    ),
    "jquery-form/jquery.form.min.js.map": (
        "b65eab3a07e8b7b62bb3a0ff6742b8493ff916e59f955a22b776585ca34f4ad5"
    ),
    "jquery-ui/LICENSE.txt": "f649025cf65c8dcd8588b0937883ba7a52bdb6d35129464a36a1602eb00250f1",
    "jquery-ui/progressbar.css": (
        "ccb9f86ba2f9992c94334a88a7af9646446163d9f25b35fe02fbf6b071876f53"
    ),
    "jquery-ui/progressbar.js": "0342bdfa69f7135400e25309ce90cd1456652a39b71564401f6474cc1dddc7f2",
    "jquery-ui/version.js": "36b25d2e6fbd9b3ebb836207885bd3c701803b222b1d2ced4ccbfa44e2f8a451",
    "jquery-ui/widget.js": "d50b39d3a03aed723335188a428bca4a783b211368e8b13ae024fea22cad34f3",
}


class VendorTests(SimpleTestCase):
    def test_the_vendored_files_are_those_that_were_released(self):
        found = {
            path.relative_to(vendor).as_posix(): sha256(path.read_bytes()).hexdigest()
            for vendor in (ROOT / "static" / "vendor", ROOT / "tests" / "vendor")
            for path in vendor.rglob("*")
            if path.is_file()
        }

        self.assertEqual(found, RELEASED)
