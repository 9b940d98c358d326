"""The command of the host, on a machine below a folder: see tests/machine.py."""

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory

from django.test import SimpleTestCase

from gourmious.deploy.host import format_variables, read_variables

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

    takes_minutes = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine = cls.enterClassContext(Machine())
        cls.install()

    @classmethod
    def install(cls):
        cls.machine.install()

    def setUp(self):
        super().setUp()
        self.settle()

    def settle(self):
        """Wait until one server of pages and one of uploads are left; replaced ones end later."""
        wait_for(lambda: len(self.machine.instances()) == 2)

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
        """Assert that a command fails, says why in a sentence, and leaves everything as it was.

        Return all that it says.
        """
        before = self.machine.describe()
        with self.pages_requested():
            done = self.machine.run(*arguments, **options)

        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(because, done.stderr)
        self.assertEqual(self.machine.describe(), before)
        return done.stderr

    def assert_succeeds_unnoticed(self, *arguments, **options):
        """Assert that no page fails while a command runs, and return what it prints."""
        with self.pages_requested():
            return self.run_command(*arguments, **options)


class SiteTests(DeployTestCase):
    @classmethod
    def install(cls):
        """Install the site after an installation that fails."""
        cls.machine.upstream.break_start()
        cls.failed = cls.machine.try_to_install()
        cls.failed_with_site = cls.machine.site_file.exists()
        cls.machine.upstream.restore()
        cls.machine.install()

    def test_an_installation_that_fails_leaves_nginx_as_it_was(self):
        self.assertEqual(self.failed.returncode, 1)
        self.assertIn("systemctl start gourmious-pages@", self.failed.stderr)
        self.assertFalse(self.failed_with_site)

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
        """A setting with a file of its own, such as the timer of backups, takes it along."""
        timer = self.machine.root / "etc/systemd/system/gourmious-backup.timer"
        folder = str(self.machine.root / "backups")
        before = self.machine.instances()
        self.machine.edit_settings(GOURMIOUS_MAX_UPLOADS="77", GOURMIOUS_BACKUP_DIR=folder)
        self.assert_succeeds_unnoticed("apply")

        self.assertIn("limit_conn gourmious_uploads 77;", self.machine.read_site())
        self.assertIn("MAX_UPLOADS = 77", self.run_command("diffsettings"))
        wait_for(lambda: before.isdisjoint(self.machine.instances()))
        self.assertTrue(timer.exists())
        self.assertIn(timer.name, self.machine.supervisor.enabled)

        self.machine.edit_settings(GOURMIOUS_BACKUP_DIR="")
        self.run_command("apply")

        self.assertFalse(timer.exists())
        self.assertNotIn(timer.name, self.machine.supervisor.enabled)

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
        self.run_command("stop")
        self.machine.host.data = self.machine.host.data.rename(moved)
        self.machine.edit_settings(GOURMIOUS_DATA_DIR=str(moved), GOURMIOUS_RUN_DIR="/run/moved")
        self.run_command("apply")

        self.assertEqual(self.machine.get(dish.get_absolute_url()).status, 200)

    def test_a_site_that_is_stopped_is_unreachable_and_a_fault_until_it_starts_again(self):
        self.run_command("stop")
        self.assertEqual(self.machine.instances(), set())
        self.assertEqual(self.machine.get("/").status, 502)
        done = self.machine.run("status")
        self.assertEqual(done.returncode, 1)
        self.assertIn("does not answer", done.stdout)
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

    def test_the_status_of_a_site_that_is_broken_has_a_line_for_each_fault(self):
        host, settings = self.machine.host, self.machine.host.current / "gourmious.env"
        packages = (host.current / "release/.venv").resolve()
        variables = read_variables(settings)
        variables["GOURMIOUS_BACKUP_DIR"] = str(self.machine.root / "no-backups")
        with ExitStack() as stack:
            stack.callback(self.run_command, "start")
            stack.enter_context(self.foreign_figures(int(variables["GOURMIOUS_METRICS_PORT"])))
            for path in (host.settings, host.data, packages, settings.resolve()):
                away = path.with_name("away")
                path.rename(away)
                stack.callback(away.rename, path)
            settings.write_text(format_variables(variables))
            done = self.machine.run("status")

        self.assertEqual((done.returncode, done.stderr), (1, ""))
        for title in ("Release", "Uploads", "Disk", "Backup", "Settings"):
            self.assertRegex(done.stdout, rf"(?m)^{title}: +✗ .*\.?$")

    @contextmanager
    def foreign_figures(self, port):
        """Let another program answer nonsense on the port of the figures."""
        self.machine.supervisor.run("systemctl", "stop", "gourmious-metrics.service")
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(60)
            answering = threading.Thread(target=answer_nonsense, args=(server,))
            answering.start()
            yield
            answering.join()

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

    def test_a_new_release_and_its_rollback_bring_code_and_static_files_and_no_page_fails(self):
        before = self.read_title()
        self.machine.upstream.change_title("Tavola")
        self.machine.upstream.add_static_file()
        self.machine.upstream.print_in_migration()
        with self.pages_requested():
            output = self.run_command("upgrade")
            self.settle()
        self.assertIn("rollback", output)
        self.assertIn("Tavola", self.read_title())
        [path] = re.findall(r'href="(/static/uploads/new\.[^"]+)"', self.machine.get("/").text)
        self.assertEqual(self.machine.get(path).status, 200)
        self.assertIn("runs already", self.run_command("upgrade"))

        self.assert_succeeds_unnoticed("rollback")
        self.settle()
        self.assertEqual(self.read_title(), before)
        self.assertNotIn("new.", self.machine.get("/").text)

    def test_an_upload_is_finished_by_the_old_release_whatever_is_deployed_meanwhile(self):
        dish = self.machine.add_dish()
        old = self.machine.instances()
        with self.machine.upload(dish, photo()) as upload:
            upload.send(until=upload.length // 3)
            self.machine.upstream.change_title("While an upload runs")
            self.run_command("upgrade")
            upload.send(until=upload.length * 2 // 3)
            self.machine.edit_settings(GOURMIOUS_MAX_UPLOADS="81")
            self.run_command("apply")
            self.assertTrue(old & self.machine.instances())

            self.assertEqual(upload.answer().status, 200)
        wait_for(lambda: old.isdisjoint(self.machine.instances()))

    def test_an_unknown_revision_is_a_sentence(self):
        for revision in ("no-such", "--all"):
            because = f"The repository has no revision {revision}."
            self.assert_fails("upgrade", revision, because=because)

    def test_a_release_that_lacks_the_command_is_not_noticed(self):
        self.machine.upstream.git("rm", "--quiet", "-r", "gourmious/deploy")
        self.machine.upstream.write("README.md", "An old release.\n")
        self.assert_fails("upgrade", because="No module named 'gourmious.deploy'")

    def test_neither_the_variables_nor_the_umask_of_the_caller_matter(self):
        """cron has hardly any variables, and a login may have a strict umask."""
        self.machine.upstream.change_title("By night")
        path = f"{self.machine.supervisor.folder}/bin:/usr/bin:/bin"
        environment = {**self.machine.upstream.environment, "PATH": path}
        command = [self.machine.host.command, "upgrade"]
        options = {"cwd": "/", "env": environment, "umask": 0o077}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)

        wait_for(lambda: self.read_title().startswith("By night"))
        folder = self.machine.host.current / "release"
        self.assertEqual(folder.stat().st_mode & 0o777, 0o755)
        self.assertEqual((folder / "manage.py").stat().st_mode & 0o444, 0o444)

    def test_a_release_whose_views_fail_changes_nothing(self):
        self.machine.upstream.break_views()
        self.assertIn(
            "gourmious.serve check", self.assert_fails("upgrade", because="/ answers: 500")
        )

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
