"""Report whether the site is healthy, what runs, and what an operator should do."""

import http.client
import json
import re
import shutil
import socket
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from .deployments import find_previous, get_current
from .host import Failure, has_all_data, read_variables
from .releases import is_for_this_python

VERSIONS = """
from importlib.metadata import version
from platform import python_version
names = ("Django", "granian", "Pillow")
print(f"Python {python_version()}", *(f"{name} {version(name)}" for name in names), sep=", ")
"""
TIMEOUT = 5  # seconds
IN_FLIGHT = re.compile(r"^gourmious_uploads_in_flight (\S+)$", re.MULTILINE)
BACKUP = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d")
MAX_AGE = 26 * 3600  # seconds; prometheus-rules.yml has the same


class Report:
    """Lines for an operator. Faults are marked and counted."""

    def __init__(self):
        self.lines, self.faults = [], 0

    def add(self, title, text):
        self.lines.append(f"{title + ':':12}{text}")

    def add_fault(self, title, text):
        self.faults += 1
        self.add(title, f"✗ {text}")

    def add_all(self, title, function, *arguments):
        """Let a function add its lines. A failure of it is a fault, too."""
        try:
            function(self, *arguments)
        except (Failure, OSError, ValueError, http.client.HTTPException) as error:
            self.add_fault(title, f"It cannot be told: {' '.join(str(error).split())}")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def report(host):
    """Return the Report of a site."""
    current = get_current(host)
    variables = read_variables(current.settings)
    lines = Report()
    lines.add_all("Health", add_health, host, variables)
    lines.add_all("Release", add_release, host, current)
    lines.add_all("Services", add_instances, host, current)
    lines.add_all("Uploads", add_uploads, variables)
    lines.add_all("Disk", add_disk, host, variables)
    lines.add_all("Backup", add_backup, variables)
    lines.add_all("Settings", add_changes, host, current)
    return lines


def add_health(lines, host, variables):
    name = variables["GOURMIOUS_ALLOWED_HOSTS"].split(",")[0].lstrip(".").replace("*", "localhost")
    path = host.root / host.get_run(variables).lstrip("/") / "pages/socket"
    try:
        health = json.loads(request(UnixConnection(path), "/healthz", Host=name))
    except (OSError, ValueError, http.client.HTTPException) as error:
        lines.add_fault("Health", f"{name} does not answer: {error}.")
        return
    faults = [text for text in health.values() if text != "ok"]
    for text in faults:
        lines.add_fault("Health", text)
    if not faults:
        lines.add("Health", f"{name} is healthy.")


def request(connection, path, **headers):
    """Return the text that a server answers."""
    with closing(connection):
        connection.request("GET", path, headers=headers)
        return connection.getresponse().read().decode()


def add_release(lines, host, current):
    lines.add("Release", f"{current.release_name}, deployment {current.number}")
    previous = find_previous(host, current)
    if previous and is_for_this_python(previous.release):
        lines.add("Roll back", f"to {previous.release_name}")
    lines.add("Versions", current.run("-c", VERSIONS).strip())


def add_instances(lines, host, current):
    running = host.list_instances()
    for unit in current.units:
        if unit not in running:
            lines.add_fault("Services", f"{unit} does not run.")
    for unit in running:
        is_old = unit not in current.units
        lines.add("Services", f"{unit} {'finishes its uploads' if is_old else 'runs'}.")


def add_uploads(lines, variables):
    port = variables.get("GOURMIOUS_METRICS_PORT")
    if not port:
        lines.add("Uploads", "not known; set GOURMIOUS_METRICS_PORT")
        return
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT)
    found = IN_FLIGHT.search(request(connection, "/metrics"))
    lines.add("Uploads", f"{float(found[1]) if found else 0:.0f} running")


def add_disk(lines, host, variables):
    folder = host.get_data(variables)
    disk = shutil.disk_usage(folder)
    lines.add("Disk", f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free in {folder}")


def add_backup(lines, variables):
    folder = variables.get("GOURMIOUS_BACKUP_DIR")
    if not has_all_data(variables):
        lines.add("Backup", "not made here; use pg_dump, and the tools of the store")
    elif not folder:
        lines.add("Backup", "none each night; set GOURMIOUS_BACKUP_DIR")
    elif date := find_last_backup(folder):
        is_old = (datetime.now(UTC) - date).total_seconds() > MAX_AGE
        (lines.add_fault if is_old else lines.add)("Backup", f"{date:%Y-%m-%d %H:%M} UTC, {folder}")
    else:
        lines.add_fault("Backup", f"There is none in {folder}.")


def find_last_backup(folder):
    """Return the time of the last complete backup of a folder, or None."""
    names = [path.name for path in Path(folder).iterdir() if BACKUP.fullmatch(path.name)]
    if not names:
        return None
    return datetime.strptime(max(names), "%Y-%m-%dT%H-%M-%S").replace(tzinfo=UTC)


def add_changes(lines, host, current):
    """Tell what `apply` would change."""
    if read_variables(host.settings) != read_variables(current.settings):
        lines.add_fault("Settings", f"{host.settings} was edited since. Run: {host.site} apply")
    else:
        lines.add("Settings", f"{host.settings} is applied.")
    for path in current.find_different_files():
        lines.add_fault("Files", f"/{path} was changed. To write it again, run: {host.site} apply")
