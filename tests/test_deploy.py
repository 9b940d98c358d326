"""The command of the host, on a machine below a folder: see tests/machine.py."""

import os
import re
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from .cases import pages_requested
from .machine import Machine
from .photos import photo
from .servers import ROOT, requires
from .waiting import wait_for


@requires("git", "memcached", "nginx", "openssl")
class DeployTestCase(SimpleTestCase):
    """One site is installed for all tests of a class. Each test leaves it running."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine = cls.enterClassContext(Machine())
        cls.machine.install()

    def pages_requested(self):
        """Request a page ten times a second while the block runs; assert that each is answered."""
        address = self.machine.supervisor.https
        return pages_requested(self, address, clients=1, pause=0.1, secure=True)

    def run_command(self, *arguments, **options):
        """Run the command, and return what it prints."""
        done = self.machine.run(*arguments, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def assert_fails(self, *arguments, because, **options):
        """Assert that a command fails, says why in a sentence, and leaves everything as it was."""
        before = self.machine.describe()
        with self.pages_requested():
            done = self.machine.run(*arguments, **options)

        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(because, done.stderr)
        self.assertEqual(self.machine.describe(), before)

    def assert_succeeds_unnoticed(self, *arguments, **options):
        """Assert that no page fails while a command runs, and return what it prints."""
        with self.pages_requested():
            return self.run_command(*arguments, **options)


class SiteTests(DeployTestCase):
    def test_a_site_that_was_installed_answers(self):
        self.assertIn("Gourmious", self.machine.get("/").text)
        self.assertEqual(self.machine.get("/healthz").status, 200)

    def test_installing_again_changes_nothing(self):
        before = self.machine.describe()
        output = self.machine.install()

        self.assertEqual(self.machine.describe(), before)
        self.assertIn("is up", output)

    def test_commands_of_manage_py_run_with_the_settings_of_the_site(self):
        self.assertIn(f"{self.machine.host.data}/media", self.run_command("diffsettings"))

    def test_settings_are_applied_and_no_page_fails(self):
        before = self.machine.instances()
        self.machine.edit_settings(GOURMIOUS_MAX_UPLOADS="77")
        self.assert_succeeds_unnoticed("apply")

        self.assertIn("limit_conn gourmious_uploads 77;", self.machine.read_site())
        self.assertIn("MAX_UPLOADS = 77", self.run_command("diffsettings"))
        wait_for(lambda: before.isdisjoint(self.machine.instances()))

    def test_without_a_change_nothing_is_restarted(self):
        before = self.machine.describe()

        self.assertEqual(self.run_command("apply"), "Nothing has changed.\n")
        self.assertEqual(self.machine.describe(), before)

    def test_a_comment_is_no_change(self):
        self.machine.host.settings.write_text(
            f"# A comment.\n{self.machine.host.settings.read_text()}"
        )

        self.assertEqual(self.run_command("apply"), "Nothing has changed.\n")

    def test_a_setting_that_cannot_be_used_is_named_and_nothing_changes(self):
        good = self.machine.host.settings.read_text()
        for name, value, sentence in (
            ("GOURMIOUS_MAX_UPLOADS", "many", "GOURMIOUS_MAX_UPLOADS holds 'many'"),
            ("GOURMIOUS_MEMCACHED", "", "Set GOURMIOUS_MEMCACHED"),
            ("GOURMIOUS_TLS_CERTIFICATE", "/no/file", "/no/file"),
        ):
            with self.subTest(name):
                self.machine.edit_settings(**{name: value})
                self.assert_fails("apply", because=sentence)
            self.machine.host.settings.write_text(good)

    def test_a_file_that_was_edited_by_hand_is_written_again(self):
        site = self.machine.site_file
        printed = site.read_text()
        site.write_text(printed.replace("server_tokens off;", "server_tokens on;"))
        self.assertIn("was changed", self.machine.run("status").stdout)
        self.run_command("apply")

        self.assertEqual(site.read_text(), printed)

    def test_a_site_that_is_no_longer_backed_up_has_no_timer(self):
        timer = self.machine.root / "etc/systemd/system/gourmious-backup.timer"
        self.machine.edit_settings(GOURMIOUS_BACKUP_DIR=str(self.machine.root / "backups"))
        self.run_command("apply")
        self.assertTrue(timer.exists())
        self.assertIn(timer.name, self.machine.supervisor.enabled)
        self.machine.edit_settings(GOURMIOUS_BACKUP_DIR="")
        self.run_command("apply")

        self.assertFalse(timer.exists())
        self.assertNotIn(timer.name, self.machine.supervisor.enabled)

    def test_the_callers_umask_does_not_matter(self):
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        self.machine.upstream.change_title("A strict umask")
        self.run_command("upgrade")

        self.assertIn("A strict umask", self.machine.get("/").text)
        folder = self.machine.host.current / "release"
        self.assertEqual(folder.stat().st_mode & 0o777, 0o755)
        self.assertEqual((folder / "manage.py").stat().st_mode & 0o444, 0o444)

    def test_packages_for_another_python_are_named_and_an_upgrade_installs_them_again(self):
        packages = self.machine.host.current / "release/.venv/lib"
        packages.resolve().rename(packages.resolve().with_name("lib-of-another"))

        failed = self.machine.run("start")
        self.assertIn("are for another Python", failed.stderr)
        self.run_command("upgrade")
        self.assertEqual(self.machine.get("/").status, 200)

    def test_a_site_that_is_stopped_is_unreachable_until_it_starts_again(self):
        self.run_command("stop")
        self.assertEqual(self.machine.instances(), set())
        self.assertEqual(self.machine.get("/").status, 502)
        self.run_command("start")

        self.assertEqual(self.machine.get("/").status, 200)

    def test_after_a_start_of_the_machine_the_site_runs(self):
        self.machine.supervisor.reboot()

        wait_for(lambda: self.machine.get("/").status == 200)

    def test_a_backup_is_restored(self):
        dish = self.machine.add_dish()
        folder = self.machine.root / "backup"
        self.run_command("backup", str(folder))
        shutil.rmtree(self.machine.host.data)
        self.run_command("restore", str(folder))

        self.assertEqual(self.machine.get(dish.get_absolute_url()).status, 200)

    def test_a_restore_that_is_refused_leaves_the_site_as_it_is(self):
        done = self.machine.run("restore", str(self.machine.root / "no-backup"))

        self.assertEqual(done.returncode, 1)
        self.assertIn("There is no backup", done.stderr)
        self.assertEqual(self.machine.get("/").status, 200)

    def test_the_status_of_a_healthy_site_has_no_fault(self):
        wait_for(lambda: self.machine.run("status").returncode == 0)
        output = self.run_command("status")

        for words in ("is healthy", "gourmious-uploads@", "Django 5.2", "0 running", "is applied"):
            self.assertIn(words, output)

    def test_the_status_of_a_site_that_is_stopped_is_a_fault(self):
        self.run_command("stop")
        done = self.machine.run("status")
        self.run_command("start")

        self.assertEqual(done.returncode, 1)
        self.assertIn("does not answer", done.stdout)

    def test_a_missing_argument_is_a_sentence(self):
        done = self.machine.run("backup")

        self.assertEqual(done.returncode, 1)
        self.assertNotIn("Traceback", done.stderr)


class ReleaseTests(DeployTestCase):
    def tearDown(self):
        self.machine.upstream.restore()
        super().tearDown()

    def read_title(self):
        return self.machine.get("/").text.split("<title>")[1].split("</title>")[0]

    def test_the_newest_release_takes_over_and_no_page_fails(self):
        self.machine.upstream.change_title("Tavola")
        output = self.assert_succeeds_unnoticed("upgrade")

        self.assertIn("rollback", output)
        wait_for(lambda: "Tavola" in self.read_title())
        self.assertIn("runs already", self.run_command("upgrade"))

    def test_rolling_back_brings_back_code_and_static_files(self):
        self.run_command("upgrade", self.machine.upstream.change_title("Before"))
        self.machine.upstream.change_title("After")
        self.run_command("upgrade", self.machine.upstream.add_static_file())
        self.assert_succeeds_unnoticed("rollback")

        wait_for(lambda: "Before" in self.read_title())
        self.assertNotIn("new.", self.machine.get("/").text)

    def test_static_files_are_there_before_a_page_names_them(self):
        self.machine.upstream.add_static_file("uploads/later.css")
        with self.pages_requested():
            self.run_command("upgrade")
            wait_for(lambda: "later." in self.machine.get("/").text)
        [path] = re.findall(r'href="(/static/uploads/later\.[^"]+)"', self.machine.get("/").text)

        self.assertEqual(self.machine.get(path).status, 200)

    def test_uploads_that_run_are_finished_by_the_old_release(self):
        dish = self.machine.add_dish()
        old = self.machine.instances()
        with self.machine.upload(dish, photo()) as upload:
            upload.send(until=upload.length // 2)
            self.machine.upstream.change_title("While an upload runs")
            self.run_command("upgrade")
            self.assertTrue(old & self.machine.instances())

            self.assertEqual(upload.answer().status, 200)
        wait_for(lambda: old.isdisjoint(self.machine.instances()))

    def test_an_unknown_revision_is_a_sentence(self):
        self.assert_fails("upgrade", "no-such", because="The repository has no revision no-such.")

    def test_a_release_whose_views_fail_changes_nothing(self):
        self.machine.upstream.break_views()
        self.assert_fails("upgrade", because="/ answers: 500")

    def test_a_release_that_cannot_be_imported_changes_nothing(self):
        self.machine.upstream.break_wsgi()
        self.assert_fails("upgrade", because="gourmious.serve check")

    def test_a_release_whose_migration_fails_changes_nothing(self):
        self.machine.upstream.break_migration()
        self.assert_fails("upgrade", because="manage.py migrate")

    def test_a_release_whose_package_is_missing_changes_nothing(self):
        self.machine.upstream.lose_wheel()
        self.assert_fails("upgrade", because="requirements.lock")

    def test_a_release_whose_workers_do_not_start_changes_nothing(self):
        self.machine.upstream.break_start()
        self.assert_fails("upgrade", because="systemctl start gourmious-pages@")


class UninstalledTests(SimpleTestCase):
    def test_without_a_site_a_command_says_so(self):
        with TemporaryDirectory(prefix="gourmious-") as root:
            command = [sys.executable, "-m", "gourmious.deploy", "--root", root, "status"]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

        self.assertEqual(done.returncode, 1)
        self.assertIn("gourmious is not installed here", done.stderr)
