"""The figures for Prometheus, as its exporter adds them up from real workers."""

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from .cases import GranianTestCase
from .client import Upload, get
from .photos import photo
from .servers import ADDRESS, ROOT, Exporter, free_port
from .waiting import wait_for

DEPLOY = ROOT / "gourmious" / "deploy"


class ExporterTestCase(GranianTestCase):
    def setUp(self):
        super().setUp()
        self.environment["GOURMIOUS_METRICS_PORT"] = str(free_port())

    def export(self):
        self.exporter = self.enterContext(Exporter(**self.environment))

    def read(self):
        """Return the served figures by their names, with the values of their labels."""
        families = text_string_to_metric_families(get(self.exporter.address, "/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        names = [sample.name.removeprefix("gourmious_") for sample in samples]
        return {
            " ".join([name, *sample.labels.values()]): sample.value
            for name, sample in zip(names, samples, strict=True)
        }


class FiguresTests(ExporterTestCase):
    def setUp(self):
        super().setUp()
        self.server, self.dish = self.serve_a_dish()
        self.export()

    def test_uploads_are_counted_by_their_outcome(self):
        content, text = photo(), b"A text.\n" * 10
        for body in (content, text, text):
            self.send(self.server, self.dish, body).answer()

        figures = self.read()
        self.assertEqual(figures["uploads_total ok"], 1)
        self.assertEqual(figures["uploads_total not_an_image"], 2)
        self.assertEqual(figures["uploads_total server_error"], 0)
        self.assertEqual(figures["received_bytes_total"], len(content) + 2 * len(text))
        for name in ("receiving_seconds", "processing_seconds"):
            self.assertEqual(figures[f"{name}_count"], 3)
            self.assertEqual(figures[f"{name}_bucket +Inf"], 3)
            self.assertGreater(figures[f"{name}_sum"], 0)

    def test_uploads_in_flight_and_pictures_that_wait_for_a_renderer_are_told(self):
        with self.server.rendering_held_back():
            renderers = len(self.server.renderers())
            uploads = [self.send(self.server, self.dish, photo()) for _ in range(renderers + 2)]
            wait_for(lambda: self.read()["waiting_pictures"] == 2)
            self.assertEqual(self.read()["uploads_in_flight"], renderers + 2)
        for upload in uploads:
            self.assertEqual(upload.answer().status, 200)

        wait_for(lambda: self.read()["uploads_in_flight"] == 0)
        self.assertEqual(self.read()["waiting_pictures"], 0)

    def test_a_worker_that_is_killed_leaves_its_counts_and_takes_its_uploads_along(self):
        self.send(self.server, self.dish, photo()).answer()
        upload = Upload(self.server.address, self.dish, photo(1600, 1200), "dish-1")
        self.enterContext(upload).send(100_000)
        wait_for(lambda: self.read()["uploads_in_flight"] == 1)

        self.server.signal_workers(signal.SIGKILL)

        wait_for(lambda: not self.read().get("uploads_in_flight"))
        self.assertEqual(self.read()["uploads_total ok"], 1)
        wait_for(self.server.listens)
        wait_for(lambda: self.read()["upload_workers"] == 1)
        self.send(self.server, self.dish, photo()).answer()
        self.assertEqual(self.read()["uploads_total ok"], 2)

    def test_a_server_that_starts_again_leaves_its_counts(self):
        self.send(self.server, self.dish, photo()).answer()

        self.server.stop()
        self.server.start()
        self.send(self.server, self.dish, photo()).answer()

        self.assertEqual(self.read()["uploads_total ok"], 2)


class MachineTests(ExporterTestCase):
    def test_without_a_worker_the_figures_of_the_machine_are_served(self):
        self.prepare()
        lost = {"count": 12, "names": ["original of picture 1"]}
        (self.folder / "lost.json").write_text(json.dumps(lost))
        self.export()

        figures = self.read()

        self.assertEqual((figures["upload_workers"], figures["max_uploads"]), (0, 1000))
        self.assertGreater(figures["disk_free_bytes"], figures["disk_reserve_bytes"])
        self.assertEqual(figures["lost_files"], 12)
        noted = (self.folder / "lost.json").stat().st_mtime
        self.assertAlmostEqual(figures["prune_timestamp_seconds"], noted, delta=1)

    def test_the_date_of_the_last_backup_is_told_where_backups_have_a_folder(self):
        backups = self.export_backups()
        for name in ("2026-11-26T23-00-00", "2026-11-27T02-30-00", "unfinished"):
            (backups / name).mkdir()

        last = datetime(2026, 11, 27, 2, 30, tzinfo=UTC)
        self.assertEqual(self.read()["backup_timestamp_seconds"], last.timestamp())

    def test_backups_that_are_not_there_or_cannot_be_read_have_no_date(self):
        backups = self.export_backups()
        self.assertEqual(self.read()["backup_timestamp_seconds"], 0)

        (backups / "2026-99-99T00-00-00").mkdir()
        self.assertEqual(self.read()["backup_timestamp_seconds"], 0)
        backups.rename(self.folder / "away")
        self.assertEqual(self.read()["backup_timestamp_seconds"], 0)
        backups.symlink_to("x" * 300)  # The system refuses to look for such a name.
        self.assertEqual(self.read()["backup_timestamp_seconds"], 0)

    def export_backups(self):
        """Start the exporter, and return the folder of the backups, which is empty."""
        backups = self.folder / "backups"
        backups.mkdir()
        self.environment["GOURMIOUS_BACKUP_DIR"] = str(backups)
        self.export()
        return backups

    def test_a_site_that_is_backed_up_in_another_way_tells_no_date(self):
        self.export()

        self.assertNotIn("backup_timestamp_seconds", self.read())

    def test_the_alerts_and_the_dashboard_use_figures_that_are_served(self):
        self.environment["GOURMIOUS_BACKUP_DIR"] = str(self.folder)
        self.serve()
        self.export()
        served = {name.split()[0] for name in self.read()}

        for file in ("prometheus-rules.yml", "grafana-dashboard.json"):
            used = set(re.findall(r"gourmious_(\w+)", (DEPLOY / file).read_text()))
            self.assertTrue(used)
            self.assertLessEqual(used, served)


class PortTests(ExporterTestCase):
    def run_exporter(self, port):
        """Return the status of an exporter that does not serve, and the lines that it prints."""
        environment = {**self.environment, "GOURMIOUS_METRICS_PORT": port}
        command = [sys.executable, "-m", "gourmious.exporter"]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment, **options)
        return done.returncode, done.stdout.splitlines()

    def test_a_port_that_is_taken_is_told_in_a_line_and_stops_nothing_else(self):
        taken = self.enterContext(closing(socket.create_server((ADDRESS, 0))))
        port = str(taken.getsockname()[1])

        status, [line] = self.run_exporter(port)

        self.assertEqual(status, 1)
        self.assertRegex(line, rf"^No figures .* port {port} of GOURMIOUS_METRICS_PORT: .*\.$")
        server, dish = self.serve_a_dish(GOURMIOUS_METRICS_PORT=port)
        self.assertEqual(self.send(server, dish, photo()).answer().status, 200)

    def test_a_port_that_cannot_be_used_is_told_in_a_line(self):
        status, [line] = self.run_exporter("http")

        self.assertEqual(status, 1)
        self.assertRegex(line, r"^GOURMIOUS_METRICS_PORT holds 'http'; .*\.$")

    def test_without_a_port_it_ends_at_once(self):
        status, [line] = self.run_exporter("")

        self.assertEqual(status, 0)
        self.assertIn("GOURMIOUS_METRICS_PORT is not set", line)

    def test_it_listens_on_loopback_alone(self):
        self.export()

        lines = Path("/proc/net/tcp").read_text().splitlines()
        local = [line.split()[1] for line in lines if line.split()[3] == "0A"]
        self.assertIn(f"0100007F:{self.exporter.port:04X}", local)
