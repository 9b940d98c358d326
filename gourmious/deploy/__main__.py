"""The command of the host: `gourmious COMMAND`. Run it as root."""

import argparse
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

from . import deployments, releases, status
from .host import SIGNALS, UMASK, Failure, Host, read_variables, tell
from .install import install

# These commands of manage.py run with the edited settings: `apply` comes after them.
MOVES = ("copy_database", "move_files")

USAGE = """\
  apply               validate the settings, and run the site with them
  upgrade [REVISION]  build and start a release (default: the newest)
  rollback            return to the previous release
  start, stop         start or stop the site, as a boot and a shutdown do
  backup DIR          add a backup to a folder
  restore DIR [DATE]  restore a backup (default: the last)
  status              tell whether the site is healthy, what runs, and what to do
  COMMAND …           one of manage.py, such as createsuperuser"""


def apply(host):
    with host.lock():
        changed = deployments.apply(host)
    tell("The settings are applied." if changed else "Nothing has changed.")


def upgrade(host, revision="HEAD"):
    with host.lock():
        deployments.discard(host)
        commit = releases.find_commit(host, revision)
        current = deployments.get_current(host)
        if releases.is_built_from(current.release, commit):
            deployments.resume(host)
            tell(f"{current.release_name} runs already.")
            return
        deployments.deploy(host, releases.build(host, commit))
        name = deployments.get_current(host).release_name
        tell(f"{name} runs. To return to the previous release: {host.site} rollback")


def rollback(host):
    with host.lock():
        deployments.discard(host)
        previous = deployments.find_previous(host, deployments.get_current(host))
        if not previous:
            raise Failure("There is no other release to return to.")
        release = previous.release.resolve()
        deployments.deploy(host, release)
        tell(f"{release.name} runs.")


def start(host):
    with host.lock():
        deployments.start(host)


def stop(host):
    with host.lock():
        deployments.stop(host)


def backup(host, *arguments):
    """Make the folder, which the site's user may not; manage.py does the rest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--keep")
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_known_args(arguments)[0].folder
    if folder and not folder.exists() and folder.parent.is_dir():
        folder.mkdir(mode=0o700)
        host.give_to_site(folder)
    return manage(host, "backup", *arguments)


def restore(host, folder, *options):
    with host.lock():
        current = deployments.get_current(host)
        deployments.stop(host)
        try:
            # The folder of the data may be a new one. It also has the static files.
            current.manage("collectstatic", "--no-input", "--verbosity", "0")
            return manage(host, "restore", folder, *options)
        finally:
            start_restored(host, current)


def start_restored(host, current):
    # manage.py removes this file when the restore is complete.
    if (host.get_data(read_variables(current.settings)) / "restoring").exists():
        raise Failure("The site is only partly restored, and stopped. Restore it again.")
    deployments.start(host)


def show_status(host):
    report = status.report(host)
    tell("\n".join(report.lines))
    return 1 if report.faults else 0


def manage(host, *arguments):
    """Run manage.py on this terminal, and return its exit status."""
    current = deployments.get_current(host)
    settings = host.settings if arguments[0] in MOVES else current.settings
    # In the caller's folder: arguments may be relative paths.
    command = [current.get_python(), current.release / "manage.py", *arguments]
    options = host.as_site(read_variables(settings))
    return subprocess.call(command, **options)  # noqa: S603


COMMANDS = {
    "apply": apply,
    "upgrade": upgrade,
    "rollback": rollback,
    "start": start,
    "stop": stop,
    "backup": backup,
    "restore": restore,
    "status": show_status,
    "install": install,
}


def parse():
    parser = argparse.ArgumentParser(
        prog="gourmious",
        usage="%(prog)s COMMAND …",
        epilog=USAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--site", default="gourmious", help=argparse.SUPPRESS)
    parser.add_argument("--root", default="/", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("command", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    host = Host(options.site, options.root)
    os.umask(UMASK)
    # nohup, and `&` in a script, have reasons to ignore signals.
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        sys.exit(run(host, options.command, options.arguments))
    except Failure as failure:
        sys.exit(str(failure))
    except OSError as error:
        sys.exit(f"{host.site} {options.command} failed: {error}.")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")


def interrupt(*args):
    """Raise KeyboardInterrupt, and ignore further signals while the command is undone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(host, name, arguments):
    if host.is_machine and os.geteuid() != 0:
        raise Failure(f"Run this as root: sudo {host.site} {name}")
    if name not in COMMANDS:
        return manage(host, name, *arguments)
    try:
        inspect.signature(COMMANDS[name]).bind(host, *arguments)
    except TypeError as error:
        raise Failure(
            f"{host.site} {name}: {error}. To see how it is used: {host.site} --help"
        ) from error
    return COMMANDS[name](host, *arguments)


if __name__ == "__main__":
    main()
