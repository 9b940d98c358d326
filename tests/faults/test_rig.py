"""The audit finds each kind of broken promise."""

import shutil
import sqlite3
from contextlib import closing

from tests.client import add_dish

from .rig import Entry, FaultTestCase


class AuditTests(FaultTestCase):
    def setUp(self):
        super().setUp()
        self.ledger.entries.clear()
        self.change("DELETE FROM uploads_picture")
        for path in self.ledger.site.files():
            path.unlink()
        self.assert_uploads_work()
        [self.row] = self.ledger.site.read_rows()

    def change(self, statement):
        database = self.stack.data / "db.sqlite3"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)

    def assert_found(self, *sentences):
        broken = list(self.ledger.broken_promises())
        self.assertEqual(len(broken), len(sentences), broken)
        for sentence, found in zip(sentences, broken, strict=True):
            self.assertIn(sentence, found)

    def original(self):
        return self.stack.data / "originals" / self.row["original"]

    def rendition(self, name="display"):
        return self.stack.data / "media" / self.row[name]

    def test_nothing_is_found_when_all_is_well(self):
        self.assert_found()

    def test_a_lost_row_is_found(self):
        self.change("DELETE FROM uploads_picture")

        self.assert_found("answered ok, but has no row", *["belongs to no row"] * 3)

    def test_a_lost_original_is_found(self):
        self.original().unlink()

        self.assert_found("has lost a file")

    def test_a_truncated_original_is_found(self):
        self.original().write_bytes(self.original().read_bytes()[:-1])

        self.assert_found("is not what was sent")

    def test_a_truncated_rendition_is_found(self):
        self.rendition().write_bytes(self.rendition().read_bytes()[:1000])

        self.assert_found("has lost a file")

    def test_renditions_of_another_photo_are_found(self):
        self.assert_uploads_work()
        [other] = [row for row in self.ledger.site.read_rows() if row["id"] != self.row["id"]]
        for name in ("display", "thumbnail"):
            shutil.copy(self.stack.data / "media" / other[name], self.rendition(name))

        self.assert_found(
            *(
                f"{name} of picture {self.row['id']} shows another photo"
                for name in ("display", "thumbnail")
            )
        )

    def test_a_rendition_that_is_the_original_is_found(self):
        shutil.copy(self.original(), self.rendition())

        self.assert_found("is the original itself")

    def test_a_row_of_another_dish_is_found(self):
        other = add_dish(self.http, f"Other than {self.id()}"[-100:])
        self.change(f"UPDATE uploads_picture SET dish_id = {other.pk}")

        self.assert_found("answered ok, but has no row", "was not answered ok")

    def test_an_orphaned_file_is_found(self):
        (self.stack.data / "incoming" / "left.upload").touch()

        self.assert_found("left.upload belongs to no row")

    def test_a_file_in_another_folder_is_found(self):
        shutil.copy(self.original(), self.stack.data / "media")
        shutil.copy(self.rendition(), self.stack.data / "incoming")

        self.assert_found(*["belongs to no row"] * 2)

    def test_a_file_outside_the_folders_is_found(self):
        for folder in (self.stack.data, self.stack.http.folder / "client_body"):
            left = folder / "left"
            left.touch()
            self.assert_found(f"{left} does not belong there")
            left.unlink()

    def test_a_row_without_a_good_answer_is_found(self):
        [kept] = self.ledger.entries
        for answer, whole, sentences in (
            (None, True, []),
            (None, False, ["was not answered ok"]),
            (kept.answer._replace(status=500), True, ["as the contract says", "not answered ok"]),
        ):
            self.ledger.entries[:] = [kept._replace(answer=answer, whole=whole)]
            self.assert_found(*sentences)

    def test_a_record_that_outlives_its_upload_is_found(self):
        self.ledger.note(Entry("dish-1", "", None, whole=False))
        for seconds, at_once, sentences in (
            (60, True, ["dish-1 has a record"]),
            (60, False, []),
            (0, False, ["dish-1 has a record"]),
            (0, True, ["dish-1 has a record"]),
        ):
            self.stack.memcached.ask(f"set gourmious:1:127.0.0.1_dish-1 0 {seconds} 2\r\n{{}}")
            self.ledger.at_once = at_once
            self.assert_found(*sentences)

    def test_an_answer_that_is_not_xml_is_found(self):
        [kept] = self.ledger.entries
        self.ledger.entries[:] = [kept._replace(answer=kept.answer._replace(text="<html><br>"))]

        self.assert_found("was not answered in XML")
