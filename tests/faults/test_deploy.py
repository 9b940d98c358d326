"""Commands of the host that are killed, and workers that die while one runs."""

import signal

from ..test_deploy import DeployTestCase
from ..waiting import wait_for


class KilledCommandTests(DeployTestCase):
    def kill(self, step, *arguments):
        """Kill a command when it prints a line that begins so; the site answers all the while."""
        with self.pages_requested(), self.machine.begin(*arguments) as program:
            with program.process.stdout as lines:
                self.assertTrue(any(line.startswith(step) for line in lines), step)
            program.stop()

    def assert_mended_by(self, *arguments):
        self.run_command(*arguments)
        self.assert_mended()

    def assert_mended(self):
        wait_for(lambda: self.machine.run("status").returncode == 0)
        self.assertLessEqual(len(self.machine.describe()["folders"]), 4)

    def test_upgrades_that_were_killed_or_only_begun_are_mended_by_one_that_has_no_output(self):
        self.machine.upstream.change_title("Later")
        self.kill("Building", "upgrade")
        (self.machine.host.deployments / "99").mkdir()
        with self.machine.begin("upgrade") as program:
            program.process.stdout.close()
            self.assertEqual(program.process.wait(), 0)

        self.assert_mended()
        self.assertIn("Later", self.machine.get("/").text)

    def test_a_command_that_is_killed_at_any_step_is_mended(self):
        """A kill during a migration has a test of its own: see below."""
        host = self.machine.host
        pages, uploads = (f"Starting gourmious-{service}" for service in ("pages", "uploads"))
        for step in ("Preparing", "Writing", pages, uploads, "gourmious-pages"):
            with self.subTest(step):
                self.machine.edit_settings(GOURMIOUS_MAX_UPLOADS="77")
                self.kill(step, "apply")
                # Settings that are not applied would be a fault.
                host.settings.write_text((host.current / "gourmious.env").read_text())
                self.assert_mended_by("start")

    def test_a_second_signal_does_not_interrupt_what_undoes_the_command(self):
        self.machine.upstream.change_title("Interrupted")
        before = self.machine.describe()
        with self.machine.begin("upgrade") as program:
            with program.process.stdout as lines:
                for line in lines:
                    if line.startswith(("Starting", "Undoing")):
                        program.process.send_signal(signal.SIGHUP)
            self.assertEqual(program.process.wait(), 1)

        self.assertEqual(self.machine.describe(), before)

    def test_a_command_waits_for_what_a_killed_one_has_started(self):
        path = self.machine.upstream.slow_migration()
        with self.machine.begin("upgrade") as program:
            wait_for(path.exists)
            program.process.kill()
            program.process.wait()
            program.process.stdout.close()
            with self.machine.begin("apply") as waiting, waiting.process.stdout as lines:
                self.assertIn("Waiting", lines.readline())
                path.unlink()
                self.assertEqual(waiting.process.wait(), 0)

        self.assert_mended_by("apply")

    def test_packages_for_another_python_are_named_and_an_upgrade_installs_them_again(self):
        """Also if the site fails again and again, and the command before was interrupted."""
        packages = (self.machine.host.current / "release/.venv/lib").resolve()
        packages.rename(packages.with_name("lib-of-another"))
        supervisor = self.machine.supervisor
        [pages] = [name for name, _ in self.machine.instances() if "pages" in name]
        supervisor.run("systemctl", "restart", pages)
        wait_for(lambda: supervisor.unit(pages).active == "activating")
        self.assertIn("are for another Python", self.machine.run("start").stderr)
        self.machine.host.unfinished.touch()
        self.assert_mended_by("upgrade")

        self.assertFalse(self.machine.host.unfinished.exists())

    def test_workers_that_die_at_every_step_come_up_whole(self):
        self.machine.upstream.change_title("After all")
        with self.machine.begin("upgrade") as program:
            with program.process.stdout as lines:
                for _ in lines:
                    self.machine.kill_workers()
            self.assertEqual(program.process.wait(), 0)

        wait_for(lambda: self.machine.get("/").status == 200)
        self.assertIn("After all", self.machine.get("/").text)
