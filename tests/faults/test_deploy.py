"""Commands of the host that are killed, and workers that die while one runs."""

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
        wait_for(lambda: self.machine.run("status").returncode == 0)
        self.assertLessEqual(len(self.machine.describe()["folders"]), 4)

    def test_an_upgrade_that_is_killed_while_it_builds_is_mended(self):
        self.machine.upstream.change_title("Later")
        self.kill("Building", "upgrade")
        self.assert_mended_by("upgrade")

        self.assertIn("Later", self.machine.get("/").text)

    def test_a_command_that_is_killed_at_any_step_is_mended(self):
        self.machine.upstream.change_units()
        self.run_command("upgrade")
        pages, uploads = (f"Starting gourmious-{service}" for service in ("pages", "uploads"))
        for step in ("Collecting", "Requesting", "Writing", pages, uploads, "gourmious-pages"):
            with self.subTest(step):
                self.kill(step, "rollback")
                self.assert_mended_by("start")

    def test_workers_that_die_at_every_step_come_up_whole(self):
        self.machine.upstream.change_title("After all")
        with self.machine.begin("upgrade") as program:
            with program.process.stdout as lines:
                for _ in lines:
                    self.machine.kill_workers()
            self.assertEqual(program.process.wait(), 0)

        wait_for(lambda: self.machine.get("/").status == 200)
        self.assertIn("After all", self.machine.get("/").text)
