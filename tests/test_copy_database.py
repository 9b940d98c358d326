"""A site moves to PostgreSQL, and back."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from .servers import ROOT, PostgreSQL, listening, manage, requires

PICTURES = 10_000
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
        self.environment = {
            "GOURMIOUS_DATA_DIR": str(self.folder / "data"),
            "GOURMIOUS_RUN_DIR": str(self.folder / "run"),
            "GOURMIOUS_DATABASE_URL": "",
        }
        self.name = self.id().rpartition(".")[2][-60:]
        self.url = self.server.create_database(self.name)
        self.manage("migrate")

    def manage(self, *arguments, **environment):
        return manage(*arguments, **{**self.environment, **environment})

    def assert_refused(self, sentence, target, **environment):
        done = subprocess.run(
            [sys.executable, "manage.py", "copy_database", target],
            check=False,
            cwd=ROOT,
            env={**os.environ, **self.environment, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (1, f"CommandError: {sentence}\n"))

    def test_all_rows_are_copied_to_postgresql_and_back(self):
        self.manage("shell", "--command", FILL)
        rows = self.manage("dumpdata")

        output = self.manage("copy_database", self.url)

        self.assertRegex(output, rf"Copied 1 dishes, {PICTURES - 1} pictures and \d+ other rows in")
        there = {"GOURMIOUS_DATABASE_URL": self.url}
        self.assertEqual(self.manage("dumpdata", **there), rows)
        self.assertEqual(self.manage("shell", "--command", ADD, **there), "2\n")
        rows = self.manage("dumpdata", **there)
        (self.folder / "data/db.sqlite3").rename(self.folder / "old.sqlite3")

        self.manage("copy_database", "sqlite", **there)

        self.assertEqual(self.manage("dumpdata"), rows)

    def test_a_target_with_rows_is_refused(self):
        there = {"GOURMIOUS_DATABASE_URL": self.url}
        self.manage("migrate", **there)
        self.manage("shell", "--command", ADD, **there)

        self.assert_refused("The target has dishes already. Copy to an empty database.", self.url)

    def test_a_target_that_is_no_other_database_is_refused(self):
        there = {"GOURMIOUS_DATABASE_URL": self.url}
        for target, environment in (("sqlite", {}), (self.url, there)):
            self.assert_refused("The site has this database already.", target, **environment)
        self.assert_refused(
            "The target cannot be read; it must be postgresql://user:password@host:port/name or "
            "sqlite, and a URL needs the packages of gourmious/deploy/requirements.txt.",
            "mysql://db.example/menu",
        )

    def test_a_site_that_runs_is_not_copied(self):
        with listening(self.folder / "run/pages/socket"):
            self.assert_refused("The site is running. First stop it.", self.url)

    def test_nothing_is_copied_where_a_row_does_not_fit(self):
        long = ADD.replace("'y'", "'y' * 101")
        self.manage("shell", "--command", long)

        self.assert_refused(
            "Nothing was copied: value too long for type character varying(100).", self.url
        )

        self.assertEqual(self.server.execute("TABLE uploads_dish", self.name), [])
