"""A site moves to PostgreSQL, and back."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from .servers import ROOT, PostgreSQL, listening, manage, prepare_data, requires

PICTURES = 2100  # more than one batch
FILL = f"""
from django.contrib.auth.models import Group, Permission, User
from uploads.models import *
dish = Dish.objects.create(name="Aïoli", restaurant="Chez Fonfon")
Picture.objects.bulk_create(
    Picture(
        dish=dish, original=f"{{number}}.jpg", display=f"{{number}}-1600.jpg", digest=number,
        thumbnail=f"{{number}}-480.jpg", width=4000, height=3000, diner="diner", caption="Garlic'",
    )
    for number in range({PICTURES})
)
Picture.objects.last().report("diner", "Not food")
Picture.objects.first().delete()
group = Group.objects.create(name="Staff")
group.permissions.set(Permission.objects.all()[:5])
User.objects.create_user("chef", password="a long password").groups.add(group)
"""
ADD = "from uploads.models import *; print(Dish.objects.create(name='Pistou', restaurant='y').pk)"


@requires("postgres")
class CopyTests(SimpleTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.enterClassContext(PostgreSQL())

    def setUp(self):
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        self.name = self.id().rpartition(".")[2][-60:]
        self.postgresql = {
            "GOURMIOUS_DATA_DIR": str(self.folder / "data"),
            "GOURMIOUS_RUN_DIR": str(self.folder / "run"),
            "GOURMIOUS_DATABASE_URL": self.server.create_database(self.name),
        }
        self.sqlite = self.postgresql | {"GOURMIOUS_DATABASE_URL": ""}
        prepare_data(self.folder / "data")

    def assert_refused(self, sentence, environment):
        done = subprocess.run(
            [sys.executable, "manage.py", "copy_database"],
            check=False,
            cwd=ROOT,
            env=os.environ | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (1, f"CommandError: {sentence}\n"))

    def test_all_rows_are_copied_to_postgresql_and_back(self):
        manage("shell", "--command", FILL, **self.sqlite)
        rows = manage("dumpdata", **self.sqlite)

        output = manage("copy_database", **self.postgresql)

        self.assertRegex(output, rf"Copied 1 dishes, {PICTURES - 1} pictures and \d+ other rows in")
        self.assertEqual(manage("dumpdata", **self.postgresql), rows)
        self.assertEqual(manage("shell", "--command", ADD, **self.postgresql), "2\n")
        rows = manage("dumpdata", **self.postgresql)
        (self.folder / "data/db.sqlite3").rename(self.folder / "old.sqlite3")

        manage("copy_database", "--back", **self.postgresql)

        self.assertEqual(manage("dumpdata", **self.sqlite), rows)

    def test_a_target_with_rows_is_refused(self):
        manage("migrate", **self.postgresql)
        manage("shell", "--command", ADD, **self.postgresql)

        self.assert_refused(
            "The target has dishes already. Copy to an empty database.", self.postgresql
        )

    def test_without_the_url_of_postgresql_nothing_is_copied(self):
        self.assert_refused(
            "The site has no PostgreSQL; first set GOURMIOUS_DATABASE_URL.", self.sqlite
        )

    def test_a_site_that_runs_is_not_copied(self):
        with listening(self.folder / "run/pages/socket"):
            self.assert_refused("The site is running. First stop it.", self.postgresql)

    def test_nothing_is_copied_where_a_row_does_not_fit(self):
        long = ADD.replace("'y'", "'y' * 101")
        manage("shell", "--command", long, **self.sqlite)

        self.assert_refused(
            "Nothing was copied: value too long for type character varying(100).", self.postgresql
        )

        self.assertEqual(self.server.execute("TABLE uploads_dish", self.name), [])
