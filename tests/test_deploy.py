"""The command of the host, on a machine below a folder: see tests/machine.py."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from .cases import pages_requested
from .machine import Machine
from .photos import photo
from .servers import ROOT, requires
from .waiting import wait_for


def answer_nonsense(server):
    client, _ = server.accept()
    with client:
        client.recv(4096)
        client.sendall(b"\xff\r\n")


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

    def test_a_site_is_moved_with_the_edited_settings_before_they_are_applied(self):
        before = self.machine.host.settings.read_text()
        self.addCleanup(self.machine.host.settings.write_text, before)
        self.machine.edit_settings(GOURMIOUS_S3_ENDPOINT="nowhere")

        for command in ("copy_database", "move_files"):
            self.assert_fails(command, because="GOURMIOUS_S3_ENDPOINT is missing or cannot be ")
        self.run_command("diffsettings")

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
            ("GOURMIOUS_SITE", "bistro", "GOURMIOUS_SITE cannot be changed"),
            ("GOURMIOUS_RUN_DIR", "/run/bistro", "first stop the site"),
            ("GOURMIOUS_DATA_DIR", f"{self.machine.root}/var/lib/empty", "There is no database"),
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

    def test_files_that_cannot_be_written_are_named_and_nothing_changes(self):
        before = self.machine.host.settings.read_text()
        self.machine.edit_settings(GOURMIOUS_MAX_UPLOADS="66")
        unit = self.machine.root / "etc/systemd/system/.gourmious-uploads@.service.new"
        for path in (unit, self.machine.host.home / ".current.new"):
            with self.subTest(path.name):
                path.mkdir()
                self.addCleanup(path.rmdir)
                self.assert_fails("apply", because="gourmious apply failed: ")
                self.doCleanups()
        self.machine.host.settings.write_text(before)

    def test_folders_may_change_while_the_site_is_stopped(self):
        dish = self.machine.add_dish()
        moved = self.machine.host.data.with_name("moved")
        before = self.machine.host.settings.read_text()
        self.run_command("stop")
        self.machine.host.data.rename(moved)
        self.machine.edit_settings(GOURMIOUS_DATA_DIR=str(moved), GOURMIOUS_RUN_DIR="/run/moved")
        self.run_command("apply")
        self.assertEqual(self.machine.get(dish.get_absolute_url()).status, 200)

        self.run_command("stop")
        moved.rename(self.machine.host.data)
        self.machine.host.settings.write_text(before)
        self.run_command("apply")
        self.assertEqual(self.machine.get(dish.get_absolute_url()).status, 200)

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
        folder = self.machine.root / "two words"
        self.run_command("backup", "--keep", "2", str(folder))
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        shutil.rmtree(self.machine.host.data)
        self.run_command("restore", "--force", os.path.relpath(folder))

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

    def test_the_status_of_a_site_that_is_broken_has_a_line_for_each_fault(self):
        host, packages = self.machine.host, self.machine.host.current / "release/.venv"
        backups = self.machine.root / "backups"
        before = host.settings.read_text()
        with socket.create_server(("127.0.0.1", 0)) as foreign, ExitStack() as stack:
            foreign.settimeout(60)
            answering = threading.Thread(target=answer_nonsense, args=(foreign,))
            answering.start()
            stack.callback(answering.join)
            self.machine.edit_settings(
                GOURMIOUS_BACKUP_DIR=str(backups),
                GOURMIOUS_METRICS_PORT=str(foreign.getsockname()[1]),
            )
            self.run_command("apply")
            for path in (host.settings, host.data, packages.resolve()):
                path.rename(path.with_name("away"))
                stack.callback(path.with_name("away").rename, path)
            done = self.machine.run("status")
        host.settings.write_text(before)
        self.run_command("apply")

        self.assertEqual((done.returncode, done.stderr), (1, ""))
        for title in ("Release", "Uploads", "Disk", "Backup", "Settings"):
            self.assertRegex(done.stdout, rf"(?m)^{title}: +✗ .*\.?$")

    def test_arguments_that_cannot_be_used_are_a_sentence(self):
        for arguments in (("restore",), ("apply", "now"), ("upgrade", "one", "two")):
            with self.subTest(arguments):
                done = self.machine.run(*arguments)

                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, r"^gourmious .*--help\n$")

    def test_a_backup_that_is_impossible_is_a_sentence(self):
        done = self.machine.run("backup", "/proc/no/folder")

        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^CommandError: The backup failed.*\.\n$")


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

    def test_an_upload_outlasts_several_deployments(self):
        dish = self.machine.add_dish()
        with self.machine.upload(dish, photo()) as upload:
            for part in range(1, 4):
                upload.send(until=upload.length * part // 4)
                self.machine.edit_settings(GOURMIOUS_MAX_UPLOADS=str(80 + part))
                self.run_command("apply")

            self.assertEqual(upload.answer().status, 200)

    def test_an_unknown_revision_is_a_sentence(self):
        for revision in ("no-such", "--all"):
            because = f"The repository has no revision {revision}."
            self.assert_fails("upgrade", revision, because=because)

    def test_a_release_whose_command_fails_is_not_noticed(self):
        self.machine.upstream.write("gourmious/deploy/__main__.py", "raise RuntimeError\n")
        self.assert_fails("upgrade", because="gourmious.deploy --help")

    def test_a_release_that_lacks_the_command_is_not_noticed(self):
        self.machine.upstream.git("rm", "--quiet", "-r", "gourmious/deploy")
        self.machine.upstream.write("README.md", "An old release.\n")
        self.assert_fails("upgrade", because="gourmious.deploy --help")

    def test_cron_upgrades_without_the_variables_of_a_login(self):
        self.machine.upstream.change_title("By night")
        path = f"{self.machine.supervisor.folder}/bin:/usr/bin:/bin"
        environment = {**self.machine.upstream.environment, "PATH": path}
        command = [self.machine.host.command, "upgrade"]
        subprocess.run(command, check=True, cwd="/", env=environment, stdout=subprocess.DEVNULL)

        wait_for(lambda: self.read_title().startswith("By night"))

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


class InstallTests(SimpleTestCase):
    @requires("git", "memcached", "nginx", "openssl")
    def test_an_installation_that_fails_leaves_nginx_as_it_was(self):
        with Machine() as machine:
            machine.upstream.break_start()
            with self.assertRaisesRegex(AssertionError, "systemctl start gourmious-pages@"):
                machine.install()
            self.assertFalse(machine.site_file.exists())

            machine.upstream.restore()
            machine.install()
            self.assertEqual(machine.get("/").status, 200)


class UninstalledTests(SimpleTestCase):
    def test_without_a_site_a_command_says_so(self):
        with TemporaryDirectory(prefix="gourmious-") as root:
            command = [sys.executable, "-m", "gourmious.deploy", "--root", root, "status"]
            done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)

        self.assertEqual(done.returncode, 1)
        self.assertIn("gourmious is not installed here", done.stderr)
