import os
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.template.defaultfilters import filesizeformat

from uploads import snapshot
from uploads.backups import copy, find_generations, is_whole, set_umask
from uploads.storage import OriginalStorage

# Until a restore is complete, this file names the generation whose rows are restored.
RESTORING = settings.DATA_DIR / "restoring"


class Command(BaseCommand):
    help = (
        "Restore the database and the originals from a backup, and make the renditions. "
        "After an interruption, run it again."
    )

    def add_arguments(self, parser):
        parser.add_argument("folder", type=Path, metavar="DIR", help="The folder of all backups.")
        parser.add_argument(
            "generation",
            nargs="?",
            metavar="DATE",
            help="The backup to restore (default: the last).",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="Replace pictures that the site has, and accept a backup that lacks originals.",
        )

    def handle(self, *, folder, generation, force, **options):
        start = time.monotonic()
        snapshot.validate_site()
        generation = find_generation(folder.absolute(), generation)
        try:
            validate(generation, force)
            with set_umask(0o027):  # That of the services: nginx reads the renditions.
                originals, losses = self.restore(generation, force)
        except (OSError, sqlite3.Error, DatabaseError) as error:
            raise CommandError(f"The restore failed: {error}. Run it again.") from error
        size = sum(path.stat().st_size for path in originals)
        self.stdout.write(
            f"Restored {len(originals)} pictures ({filesizeformat(size)}) from {generation} in "
            f"{time.monotonic() - start:.1f} seconds. The settings of that day are in "
            f"{generation.settings}."
        )
        if losses:
            raise CommandError("\n".join(losses))

    def restore(self, generation, force):
        """Restore everything; return the originals, and a sentence for each loss."""
        RESTORING.parent.mkdir(parents=True, exist_ok=True)
        RESTORING.touch()
        originals, losses = restore_originals(generation)
        os.sync()
        # Keep the rows of an interrupted restore: they name the renditions that it has made.
        if force or RESTORING.read_text() != str(generation):
            snapshot.restore_database(generation.database)
            RESTORING.write_text(str(generation))
        call_command("migrate", interactive=False, verbosity=0)
        try:
            call_command("make_renditions", stdout=self.stdout, stderr=self.stderr)
        except CommandError as error:
            losses.append(str(error))
        if os.geteuid() == 0:
            give_to_owner(settings.DATA_DIR)
        os.sync()
        RESTORING.unlink()
        return originals, losses


def find_generation(folder, name):
    """Return the generation of this name, or the last one."""
    found = [one for one in find_generations(folder) if name in {None, one.folder.name}]
    if not found:
        raise CommandError(f"There is no backup {folder / (name or '')}.")
    return found[-1]


def validate(generation, force):
    """Raise CommandError unless the generation is whole, and the site is stopped and empty."""
    if any(map(answers, settings.SOCKETS.values())):
        raise CommandError("The site is running. First stop it.")
    if not (force or RESTORING.exists()) and snapshot.has_pictures():
        raise CommandError(
            f"{settings.DATA_DIR} has pictures already. To replace them, use --force."
        )
    snapshot.validate(generation.database)
    faults = generation.find_new_faults()
    if faults and not force:
        raise CommandError(
            f"{generation} lacks {len(faults)} originals, or has damaged ones: that of picture "
            f"{faults[0].pk} is one. Restore another backup, or use --force to leave them out."
        )


def answers(path):
    with closing(socket.socket(socket.AF_UNIX)) as client:
        return client.connect_ex(str(path)) == 0


def restore_originals(generation):
    """Copy the originals that the site does not have.

    Return the paths of all, and a sentence for each that is lost.
    """
    incoming, target = settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT
    for folder in (incoming, target):
        folder.mkdir(parents=True, exist_ok=True)
    originals, losses = [], []
    for picture in snapshot.read_pictures(generation.database):
        if not is_whole(target, picture):
            copy(generation.originals, picture, incoming)
            if not is_whole(incoming, picture):
                losses.append(f"The original of picture {picture.pk}, {picture.original}, is lost.")
                continue
            (incoming / picture.original).chmod(OriginalStorage.file_permissions_mode)
            (incoming / picture.original).replace(target / picture.original)
        originals.append(target / picture.original)
    return originals, losses


def give_to_owner(folder):
    """Give all files of a folder to its owner."""
    owner = folder.stat()
    for path in folder.rglob("*"):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
