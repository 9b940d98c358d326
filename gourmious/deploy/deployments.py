"""Deployments: each is a release with settings, and has a number.

`current` leads to the deployment that runs, also after a reboot. Each deployment keeps its files of
systemd and nginx, so that they can be put back.
"""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from .host import SERVICES, Failure, format_variables, link, read_variables, replace, tell
from .releases import get_python, validate_environment

# Read at once: while a command waits for another, `current` may come to lead to another release.
PREPARE = Path(__file__).with_name("prepare.py").read_text()


class Deployment:
    def __init__(self, host, number):
        self.host, self.number = host, int(number)
        self.folder = host.deployments / str(number)
        self.release = self.folder / "release"
        self.settings = self.folder / "gourmious.env"
        self.files = self.folder / "files"

    def __eq__(self, other):
        return isinstance(other, Deployment) and self.folder == other.folder

    def __hash__(self):
        return hash(self.folder)

    @property
    def release_name(self):
        return self.release.resolve().name

    @property
    def units(self):
        """The instances that serve this deployment."""
        return [f"{self.host.site}-{service}@{self.number}.service" for service in SERVICES]

    def get_python(self):
        """Return the release's Python; raise Failure if its virtual environment is broken."""
        validate_environment(self.release)
        return get_python(self.release)

    def run(self, *arguments, script=None):
        """Run this release's Python as the site's user, and return what it prints."""
        options = {"variables": read_variables(self.settings), "cwd": self.release}
        return self.host.run_as_site(self.get_python(), *arguments, script=script, **options)

    def manage(self, *arguments):
        return self.run("manage.py", *arguments)

    def read_files(self):
        """Return the files of systemd and nginx: their texts by their paths on the machine."""
        paths = (path for path in self.files.rglob("*") if path.is_file())
        return {path.relative_to(self.files): path.read_text() for path in paths}

    def find_different_files(self):
        """Return the paths of the files that are different, or missing, on the machine."""
        return [
            path
            for path, text in self.read_files().items()
            if read_if_exists(self.host.root / path) != text
        ]


def read_if_exists(path):
    return path.read_text() if path.exists() else None


def list_deployments(host):
    """Return all deployments that have a release, the newest last."""
    numbers = [int(path.name) for path in host.deployments.glob("*") if path.name.isdigit()]
    found = [Deployment(host, number) for number in sorted(numbers)]
    return [deployment for deployment in found if deployment.release.is_dir()]


def find_current(host):
    """Return the deployment that runs, or None before the first one does."""
    return Deployment(host, host.current.readlink().name) if host.current.is_symlink() else None


def get_current(host):
    """Return the deployment that runs; raise Failure if there is none."""
    current = find_current(host)
    if not current:
        raise Failure(f"{host.site} is not installed here: {host.current} is missing.")
    return current


def find_previous(host, current):
    """Return the last deployment of another release, or None."""
    older = [one for one in list_deployments(host) if one.number < current.number]
    others = [one for one in older if one.release_name != current.release_name]
    return others[-1] if others else None


def deploy(host, release):
    """Run a release with the current settings; if it does not start, undo everything."""
    current = find_current(host)
    deployment = Deployment(host, current.number + 1 if current else 1)
    resumes = host.unfinished.exists()
    host.unfinished.touch()
    try:
        write(deployment, release)
        prepare(deployment)
        bring_up(deployment)
        os.sync()  # After a power cut `current` must not lead to files that were not written.
        link(host.current, deployment.folder.relative_to(host.home))
    except BaseException:
        undo(host)
        if not resumes:
            host.unfinished.unlink()
        raise
    finish(deployment)


def write(deployment, release):
    host = deployment.host
    variables = read_variables(host.settings)
    validate_settings(host, variables)
    validate_environment(release)
    deployment.folder.mkdir(parents=True)
    deployment.release.symlink_to(os.path.relpath(release, deployment.folder))
    replace(deployment.settings, format_variables(variables), mode=0o640)
    host.give_to_site(deployment.settings, user=False)


def validate_settings(host, variables):
    """Raise Failure for settings with which the site would be lost from sight."""
    if (variables.get("GOURMIOUS_SITE") or "gourmious") != host.site:
        raise Failure(f"GOURMIOUS_SITE cannot be changed: set it to {host.site}.")
    current = find_current(host)
    before = read_variables(current.settings) if current else variables
    if host.get_run(before) != host.get_run(variables) and host.list_instances():
        raise Failure(f"To change GOURMIOUS_RUN_DIR, first stop the site: {host.site} stop")
    old, new = (host.get_data(one) / "db.sqlite3" for one in (before, variables))
    url = "GOURMIOUS_DATABASE_URL"
    if not variables.get(url) and (before.get(url) or old.exists()) and not new.exists():
        raise Failure(
            f"There is no database {new}. To move the data, first stop the site: {host.site} stop"
        )


def prepare(deployment):
    """Prepare the static files and the database, request pages, and write the deployment's files.

    Raise Failure if one of these fails.
    """
    tell("Preparing the static files and the database, and requesting pages.")
    try:
        files = json.loads(deployment.run("-", script=PREPARE))
    except Failure as error:
        name = deployment.release_name
        raise Failure(f"{name} cannot be run; the lines above tell why.") from error
    for path, text in files.items():
        replace(deployment.files / path, text)


def apply(host):
    """Run the site with the current settings; return whether anything had changed."""
    current = get_current(host)
    discard(host)
    if read_variables(host.settings) != read_variables(current.settings):
        deploy(host, current.release.resolve())
        return True
    if not current.find_different_files():
        resume(host)
        return False
    start(host)
    return True


def bring_up(deployment):
    """Install the files of a deployment, and start its instances beside those that run."""
    host = deployment.host
    install_files(deployment)
    for unit in deployment.units:
        tell(f"Starting {unit}.")
        host.systemctl("start", unit)


def undo(host):
    """Restore the machine to its state before a deployment that has failed."""
    tell("Undoing this deployment.")
    try:
        stop_begun(host)
        if current := find_current(host):
            install_files(current)
            tell(f"Nothing has changed: {current.release_name} still runs.")
        remove_other_files(host)
    finally:
        sweep(host)


def discard(host):
    """Stop and remove what an earlier command has begun, and did not finish."""
    stop_begun(host)
    sweep(host)


def stop_begun(host):
    """Stop the instances of deployments that are newer than the current one."""
    current = find_current(host)
    last = current.number if current else 0
    units = host.list_instances()
    if begun := [unit for unit in units if int(re.search(r"@(\d+)", unit)[1]) > last]:
        host.systemctl("stop", *begun)


def install_files(deployment):
    """Write the files that differ, and let systemd and nginx read theirs again."""
    host = deployment.host
    files, different = deployment.read_files(), deployment.find_different_files()
    if different:
        host.unfinished.touch()
    for path in different:
        tell(f"Writing /{path}.")
        replace(host.root / path, files[path])
    # A command that was killed may have written files that were not read again.
    if host.unfinished.exists():
        reload_files(host)


def reload_files(host):
    host.systemctl("daemon-reload")
    host.run("nginx", "-t", "-q")
    host.systemctl("reload-or-restart", "nginx")


def finish(deployment):
    """End the instances of other deployments, and run everything else from this one."""
    host = deployment.host
    end_others(deployment)
    enabled = list_enabled(deployment)
    host.systemctl("enable", "--quiet", *enabled)
    host.systemctl("start", *(name for name in enabled if name.endswith(".timer")))
    host.systemctl("restart", f"{host.site}-metrics.service")
    remove_other_files(host)
    sweep(host)
    host.unfinished.unlink(missing_ok=True)


def end_others(deployment):
    """Let the instances of other deployments finish their uploads."""
    host = deployment.host
    for unit, state in host.list_instances().items():
        if unit in deployment.units:
            continue
        if state == "active":
            tell(f"{unit} ends when its uploads are finished.")
            # Not `stop`: that would give them only a minute.
            with suppress(Failure):  # It may just have ended.
                host.systemctl("kill", "--signal=SIGTERM", "--kill-whom=main", unit)
        else:
            # It fails, and systemd starts it again and again: it has no process for a signal.
            host.systemctl("stop", unit)


def remove_other_files(host):
    """Remove files that only other deployments have, such as the timer of backups."""
    current = find_current(host)
    kept = current.read_files() if current else ()
    known = {path for one in list_deployments(host) for path in one.read_files()}
    # Debian's own nginx.conf is not there any more.
    removable = {path for path in known.difference(kept) if path.name != "nginx.conf"}
    old = [path for path in removable if (host.root / path).exists()]
    if timers := [path.name for path in old if path.suffix == ".timer"]:
        host.systemctl("disable", "--quiet", "--now", *timers)
    for path in old:
        (host.root / path).unlink()
    if old:
        reload_files(host)


def list_enabled(deployment):
    """Return the units that start with the machine. The site's own starts the instances."""
    names = [path.name for path in deployment.read_files()]
    site = deployment.host.site
    kinds = (".socket", ".timer", "-metrics.service")
    return [name for name in names if name == f"{site}.service" or name.endswith(kinds)]


def start(host):
    """Run the current deployment alone, whatever was interrupted before."""
    current = get_current(host)
    validate_environment(current.release)
    bring_up(current)
    finish(current)


def resume(host):
    """Return to the current deployment if a command was interrupted, as by a power cut."""
    if host.unfinished.exists():
        start(host)


def stop(host):
    """Stop everything of the site. Running uploads have a minute."""
    host.systemctl("stop", *list_enabled(get_current(host)), *host.instance_patterns)


def sweep(host):
    """Remove all deployments and releases but those that run, and those to roll back to."""
    running = {*host.list_instances()}
    kept = [one for one in list_deployments(host) if running.intersection(one.units)]
    if current := find_current(host):
        kept += filter(None, (current, find_previous(host, current)))
    remove_all_but(host.deployments, {one.folder.name for one in kept})
    remove_all_but(host.releases, {one.release_name for one in kept})


def remove_all_but(folder, names):
    for path in folder.glob("*/"):
        if path.name not in names:
            shutil.rmtree(path)
