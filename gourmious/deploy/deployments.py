"""Deployments: each is a release with settings, and has a number.

`current` leads to the deployment that runs, also after a reboot. Each deployment keeps its files of
systemd and nginx, so that they can be put back.
"""

import json
import os
import shutil

from .host import SERVICES, Failure, format_variables, link, read_variables, replace
from .releases import get_python, validate_environment


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
        return self.release.readlink().name

    @property
    def units(self):
        """The instances that serve this deployment."""
        return [f"{self.host.site}-{service}@{self.number}.service" for service in SERVICES]

    def get_python(self):
        """Return the release's Python; raise Failure if its virtual environment is broken."""
        validate_environment(self.release)
        return get_python(self.release)

    def run(self, *arguments):
        """Run this release's Python as the site's user, and return what it prints."""
        command, variables = (self.get_python(), *arguments), read_variables(self.settings)
        return self.host.run_as_site(*command, variables=variables, cwd=self.release)

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
    """Return all deployments, the newest last."""
    numbers = [int(path.name) for path in host.deployments.glob("*") if path.name.isdigit()]
    return [Deployment(host, number) for number in sorted(numbers)]


def get_current(host):
    """Return the deployment that runs; raise Failure if there is none."""
    if not host.current.is_symlink():
        raise Failure(f"{host.site} is not installed here: {host.current} is missing.")
    return Deployment(host, host.current.readlink().name)


def find_previous(host, current):
    """Return the last deployment of another release, or None."""
    older = [one for one in list_deployments(host) if one.number < current.number]
    others = [one for one in older if one.release_name != current.release_name]
    return others[-1] if others else None


def deploy(host, release):
    """Run a release with the current settings; if it does not start, undo everything."""
    numbers = [deployment.number for deployment in list_deployments(host)]
    deployment = Deployment(host, max(numbers, default=0) + 1)
    host.unfinished.touch()
    try:
        write(deployment, release)
        prepare(deployment)
        bring_up(deployment)
    except BaseException:
        undo(deployment)
        raise
    os.sync()  # After a power cut `current` must not lead to files that were not written.
    link(host.current, deployment.folder.relative_to(host.home))
    finish(deployment)


def write(deployment, release):
    host = deployment.host
    variables = read_variables(host.settings)
    deployment.folder.mkdir(parents=True)
    deployment.release.symlink_to(os.path.relpath(release, deployment.folder))
    replace(deployment.settings, format_variables(variables), mode=0o640)
    host.give_to_site(deployment.settings, user=False)
    for path, text in json.loads(deployment.manage("deployconf", "files")).items():
        replace(deployment.files / path, text)


def prepare(deployment):
    """Prepare the static files and the database, and request pages; raise Failure if one fails.

    Static files and migrations only add: they do not disturb the release that runs.
    """
    print("Collecting the static files, and migrating the database.", flush=True)
    deployment.manage("collectstatic", "--no-input", "--verbosity", "0")
    deployment.manage("migrate", "--no-input", "--verbosity", "0")
    print("Requesting pages from the new deployment.", flush=True)
    deployment.run("-m", "gourmious.serve", "check")
    deployment.manage("check", "--deploy")


def apply(host):
    """Run the site with the current settings; return whether anything had changed."""
    recover(host)
    current = get_current(host)
    if read_variables(host.settings) != read_variables(current.settings):
        deploy(host, current.release.resolve())
    elif current.find_different_files():
        install_files(current)
    else:
        return False
    return True


def bring_up(deployment):
    """Install the files of a deployment, and start its instances beside those that run."""
    host = deployment.host
    install_files(deployment)
    for unit in deployment.units:
        print(f"Starting {unit}.", flush=True)
        host.systemctl("start", unit)


def undo(deployment):
    """Restore the machine to its state before a deployment that has failed."""
    host = deployment.host
    print("Undoing this deployment.", flush=True)
    try:
        if running := {*deployment.units} & {*host.list_instances()}:
            host.systemctl("stop", *running)
        if host.current.is_symlink():
            current = get_current(host)
            install_files(current)
            print(f"Nothing has changed: {current.release_name} still runs.", flush=True)
        host.unfinished.unlink()
    finally:
        sweep(host)


def install_files(deployment):
    """Write the files that differ, and let systemd and nginx read theirs again."""
    host = deployment.host
    files, different = deployment.read_files(), deployment.find_different_files()
    for path in different:
        print(f"Writing /{path}.", flush=True)
        replace(host.root / path, files[path])
    if any("systemd" in path.parts for path in different):
        host.systemctl("daemon-reload")
    if any("nginx" in path.parts for path in different):
        host.run("nginx", "-t", "-q")
        host.systemctl("reload-or-restart", "nginx")


def finish(deployment):
    """End the instances of other deployments, and run everything else from this one."""
    host = deployment.host
    for unit in host.list_instances():
        if unit not in deployment.units:
            print(f"{unit} ends when its uploads are finished.", flush=True)
            # Not `stop`: that would give them only a minute.
            host.systemctl("kill", "--signal=SIGTERM", "--kill-whom=main", unit)
    enabled = list_enabled(deployment)
    host.systemctl("enable", "--quiet", *enabled)
    host.systemctl("start", *(name for name in enabled if name.endswith(".timer")))
    host.systemctl("restart", f"{host.site}-metrics.service")
    remove_old_files(deployment)
    sweep(host)
    host.unfinished.unlink(missing_ok=True)


def remove_old_files(deployment):
    """Remove files that only earlier deployments have, such as the timer of backups."""
    host = deployment.host
    known = {path for one in list_deployments(host) for path in one.read_files()}
    old = [path for path in known - {*deployment.read_files()} if (host.root / path).exists()]
    if timers := [path.name for path in old if path.suffix == ".timer"]:
        host.systemctl("disable", "--quiet", "--now", *timers)
    for path in old:
        (host.root / path).unlink()
    if old:
        host.systemctl("daemon-reload")


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


def recover(host):
    """Return to the current deployment if a command was interrupted, as by a power cut."""
    if host.unfinished.exists():
        start(host)


def stop(host):
    """Stop everything of the site. Running uploads have a minute."""
    host.systemctl("stop", *list_enabled(get_current(host)), *host.instance_patterns)


def sweep(host):
    """Remove all deployments and releases but those that run, and those to roll back to."""
    kept = set()
    if host.current.is_symlink():
        current = get_current(host)
        kept = {current, find_previous(host, current)}
    running = set(host.list_instances())
    for deployment in list_deployments(host):
        if deployment not in kept and running.isdisjoint(deployment.units):
            shutil.rmtree(deployment.folder)
    used = {deployment.release_name for deployment in list_deployments(host)}
    for release in host.releases.glob("*"):
        if release.name not in used:
            shutil.rmtree(release)
