"""Whether the audit sees what it is there to see."""

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
        for path in self.ledger.files():
            path.unlink()
        self.assert_still_kept()
        [self.row] = self.ledger.read_rows()

    def change(self, statement):
        database = self.stack.data / "db.sqlite3"
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement)

    def assert_seen(self, *sentences):
        broken = list(self.ledger.broken_promises())
        self.assertEqual(len(broken), len(sentences), broken)
        for sentence, found in zip(sentences, broken, strict=True):
            self.assertIn(sentence, found)

    def original(self):
        return self.stack.data / "originals" / self.row["original"]

    def rendition(self, name="display"):
        return self.stack.data / "media" / self.row[name]

    def test_nothing_is_said_where_all_is_well(self):
        self.assert_seen()

    def test_a_row_that_is_lost(self):
        self.change("DELETE FROM uploads_picture")

        self.assert_seen("answered ok, and has no row", *["belongs to no row"] * 3)

    def test_an_original_that_is_lost(self):
        self.original().unlink()

        self.assert_seen("has lost a file")

    def test_an_original_that_is_cut_short(self):
        self.original().write_bytes(self.original().read_bytes()[:-1])

        self.assert_seen("is not what was sent")

    def test_a_rendition_that_is_cut_short(self):
        self.rendition().write_bytes(self.rendition().read_bytes()[:1000])

        self.assert_seen("has lost a file")

    def test_renditions_of_another_photo(self):
        self.assert_still_kept()
        [other] = [row for row in self.ledger.read_rows() if row["id"] != self.row["id"]]
        for name in ("display", "thumbnail"):
            shutil.copy(self.stack.data / "media" / other[name], self.rendition(name))

        self.assert_seen(
            *(
                f"{name} of picture {self.row['id']} shows another photo"
                for name in ("display", "thumbnail")
            )
        )

    def test_a_rendition_that_is_the_original(self):
        shutil.copy(self.original(), self.rendition())

        self.assert_seen("is the original itself")

    def test_a_row_of_another_dish(self):
        other = add_dish(self.http, f"Other than {self.id()}"[-100:])
        self.change(f"UPDATE uploads_picture SET dish_id = {other.pk}")

        self.assert_seen("answered ok, and has no row", "was not answered ok")

    def test_a_file_that_is_left(self):
        (self.stack.data / "incoming" / "left.upload").touch()

        self.assert_seen("left.upload belongs to no row")

    def test_a_file_in_the_folder_of_others(self):
        shutil.copy(self.original(), self.stack.data / "media")
        shutil.copy(self.rendition(), self.stack.data / "incoming")

        self.assert_seen(*["belongs to no row"] * 2)

    def test_a_file_outside_of_the_folders(self):
        for folder in (self.stack.data, self.stack.http.folder / "body"):
            left = folder / "left"
            left.touch()
            self.assert_seen(f"{left} does not belong there")
            left.unlink()

    def test_a_row_that_nobody_was_promised(self):
        [kept] = self.ledger.entries
        for answer, whole, sentences in (
            (None, True, []),
            (None, False, ["was not answered ok"]),
            (kept.answer._replace(status=500), True, ["as the contract says", "not answered ok"]),
        ):
            self.ledger.entries[:] = [kept._replace(answer=answer, whole=whole)]
            self.assert_seen(*sentences)

    def test_a_record_that_lasts(self):
        self.ledger.note(Entry("dish-1", "", None, whole=False))
        for seconds, at_once, sentences in (
            (60, True, ["dish-1 has a record"]),
            (60, False, []),
            (0, False, ["dish-1 has a record"]),
            (0, True, ["dish-1 has a record"]),
        ):
            self.stack.memcached.ask(f"set :1:127.0.0.1_dish-1 0 {seconds} 2\r\n{{}}")
            self.ledger.at_once = at_once
            self.assert_seen(*sentences)

    def test_an_answer_that_is_no_xml(self):
        [kept] = self.ledger.entries
        self.ledger.entries[:] = [kept._replace(answer=kept.answer._replace(text="<html><br>"))]

        self.assert_seen("was not answered in XML")
