"""The parts of the host's command: environment files, files and links."""

import os
import select
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

from gourmious.deploy.host import Failure, format_variables, link, read_variables, replace, run

ODD_VALUES = {"EMPTY": "", "BLANKS": " a  b ", "QUOTES": 'it\'s "so"', "SIGNS": "#;$HOME\\n`id`"}


class FolderTestCase(TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.file = self.folder / "gourmious.env"


class VariablesTests(FolderTestCase):
    def read(self, text):
        self.file.write_text(text)
        return read_variables(self.file)

    def test_comments_and_empty_lines_are_left_out(self):
        self.assertEqual(self.read("# A=1\n\n; B=2\n  C=3\nD=\n"), {"C": "3", "D": ""})

    def test_odd_values_stay_what_they_are(self):
        self.assertEqual(self.read(format_variables(ODD_VALUES)), ODD_VALUES)

    def test_a_shell_reads_the_same(self):
        self.file.write_text(format_variables(ODD_VALUES))
        script = f". {self.file} && printf '%s\\n' " + " ".join(f'"${name}"' for name in ODD_VALUES)
        output = subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.PIPE, text=True)

        self.assertEqual(output.stdout.split("\n")[:-1], [*ODD_VALUES.values()])

    def test_a_line_that_is_no_variable_is_named(self):
        for line, reason in (
            ("GOURMIOUS_SITE", "write NAME=value"),
            ("A=one two", "write NAME=value"),
            ("export A=1", "write NAME=value"),
            ("A='one", "a quotation mark is missing"),
            ("A=one\\", "a quotation mark is missing"),
            ("A=\0", "a value must not hold control characters"),
            ("Ä=1", "write NAME=value"),
        ):
            with self.subTest(line), self.assertRaisesRegex(Failure, f"env, line 2: {reason}"):
                self.read(f"B=1\n{line}\n")

    def test_files_of_windows_are_read_too(self):
        self.file.write_bytes(b"\xef\xbb\xbfA=1\r\nB=2\r\n")

        self.assertEqual(read_variables(self.file), {"A": "1", "B": "2"})

    def test_a_file_that_is_not_in_utf_8_is_named(self):
        self.file.write_bytes(b"# Caf\xe9\n")
        with self.assertRaisesRegex(Failure, "gourmious.env is not a text in UTF-8"):
            read_variables(self.file)

    def test_a_file_that_is_missing_is_named(self):
        with self.assertRaisesRegex(Failure, "gourmious.env cannot be read: No such file"):
            read_variables(self.file)


class FileTests(FolderTestCase):
    def test_a_file_is_replaced_as_a_whole(self):
        self.file.write_text("old")
        with self.file.open() as old:
            replace(self.file, "new", mode=0o640)

            self.assertEqual(old.read(), "old")
        self.assertEqual(self.file.read_text(), "new")
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)
        self.assertEqual([path.name for path in self.folder.iterdir()], [self.file.name])

    def test_the_leftovers_of_an_interruption_are_replaced(self):
        new = self.folder / ".gourmious.env.new"
        new.write_text("half")
        replace(self.file, "whole")
        new.symlink_to("half")
        link(self.folder / "gourmious.env", "target")

        self.assertEqual(self.file.readlink(), Path("target"))
        self.assertEqual([path.name for path in self.folder.iterdir()], [self.file.name])


class RunTests(TestCase):
    def test_a_program_that_fails_is_a_failure_that_names_it(self):
        with self.assertRaisesRegex(Failure, "This command failed: sh -c 'exit 3'"):
            run(["sh", "-c", "exit 3"])

    def test_a_program_that_is_missing_is_a_failure_that_names_it(self):
        with self.assertRaisesRegex(Failure, "/no/program cannot be run: No such file"):
            run([Path("/no/program")])

    def test_a_program_that_is_interrupted_at_its_start_is_ended(self):
        before = signal.signal(signal.SIGHUP, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        reader, writer = map(os.fdopen, os.pipe(), "rw")
        with reader:
            with self.assertRaises(KeyboardInterrupt), writer:
                # The child sends the signal while Popen waits for the program to start.
                run(
                    ["sleep", "60"],
                    preexec_fn=lambda: os.kill(os.getppid(), signal.SIGHUP),
                    pass_fds=(writer.fileno(),),
                )

            self.assertEqual(select.select([reader], [], [], 0)[0], [reader])
