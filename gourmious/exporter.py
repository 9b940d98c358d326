"""Serve the figures of the app for Prometheus: `python -m gourmious.exporter`.

A process of its own: whatever happens to it, or to its port, disturbs no upload. The workers of the
uploads keep their figures in files; see serve.keep_figures(). The files of a worker that has ended
stay, since its uploads still count.
"""

import os
import sys

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from uploads.backups import read_last_time
from uploads.storage import is_locked, measure_disk, read_lost_files

ADDRESS = "127.0.0.1"


class FiguresCollector:
    """Add up the figures of all workers, and add those of the machine."""

    def collect(self):
        running = {path.stem for path in settings.METRICS_DIR.glob("*.lock") if is_locked(path)}
        files = [path for path in settings.METRICS_DIR.glob("*.db") if is_valid(path, running)]
        yield from MultiProcessCollector.merge(map(str, files))
        for name, help_text, value in list_figures(running):
            yield GaugeMetricFamily(f"gourmious_{name}", help_text, value)


def is_valid(path, running):
    """Return whether the figures in a file still count: gauges do while their worker runs."""
    kind, *_, number = path.stem.split("_")
    return kind != "gauge" or number in running


def list_figures(running):
    """Return the name, the help text and the value of each figure that no worker keeps."""
    free, reserve = measure_disk()
    lost = read_lost_files()
    figures = [
        ("upload_workers", "Running workers of the uploads.", len(running)),
        ("max_uploads", "Uploads that nginx accepts at once.", settings.MAX_UPLOADS),
        ("disk_free_bytes", "Free space of the disk with the photos.", free),
        ("disk_reserve_bytes", "Free space below which uploads are refused.", reserve),
        ("lost_files", "Files of pictures that prune_uploads did not find.", lost.count),
        ("prune_timestamp_seconds", "When prune_uploads last looked for files.", lost.time),
    ]
    if folder := settings.BACKUP_DIR:
        time = read_last_time(folder)
        figures.append(("backup_timestamp_seconds", "When the last backup began.", time))
    return figures


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gourmious.settings")
    try:
        port = settings.METRICS_PORT
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    if not port:
        print("GOURMIOUS_METRICS_PORT is not set: there are no figures to serve.")  # noqa: T201
        return
    registry = CollectorRegistry()
    registry.register(FiguresCollector())
    try:
        _, thread = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        fault = error.strerror
        sys.exit(f"No figures can be served on the port {port} of GOURMIOUS_METRICS_PORT: {fault}.")
    thread.join()


if __name__ == "__main__":
    main()
