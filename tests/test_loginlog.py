import re

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.test import TestCase

from .servers import ROOT

LOGIN = "/admin/login/"


class LoginLogTests(TestCase):
    def setUp(self):
        User.objects.create_superuser("cook", password="aïoli for all of us")

    def log_in(self, address="192.0.2.7", **fields):
        fields = {"username": "cook", "password": "wrong", **fields}
        return self.client.post(LOGIN, fields, REMOTE_ADDR=address)

    def read_line(self, **fields):
        """Fail to log in, and return the line that this leaves in the log."""
        with self.assertLogs("uploads.loginlog", "WARNING") as logs:
            self.log_in(**fields)
        [record] = logs.records
        return record.getMessage()

    def test_a_failed_login_is_a_line_with_the_address(self):
        for address in ("192.0.2.7", "2001:db8::7"):
            self.assertEqual(self.read_line(address=address), f"Login failed from {address}.")

    def test_the_line_does_not_depend_on_the_name(self):
        for name in ("nobody", "\nLogin failed from 192.0.2.8.", "%s", "x" * 150):
            self.assertEqual(self.read_line(username=name), "Login failed from 192.0.2.7.")

    def test_a_login_and_a_failure_in_a_script_leave_no_line(self):
        with self.assertNoLogs("uploads.loginlog"):
            self.assertEqual(self.log_in(password="aïoli for all of us").status_code, 302)
            self.assertIsNone(authenticate(username="cook", password="wrong"))

    def test_fail2ban_reads_the_address_as_the_readme_sets_it_up(self):
        readme = (ROOT / "gourmious/deploy/README.md").read_text()
        [pattern] = re.findall(r"failregex = ([^']+)'", readme)
        pattern = pattern.replace("<ADDR>", "(?P<address>[0-9a-f.:]+)")

        line = f"web python[812]: {self.read_line(address='2001:db8::7')}"

        self.assertEqual(re.search(pattern, line)["address"], "2001:db8::7")
        self.assertIsNone(re.search(pattern, f"web python[812]: {line}"))
