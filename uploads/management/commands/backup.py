import sqlite3
import time
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat

from uploads.backups import back_up


class Command(BaseCommand):
    help = (
        "Back up the database, the originals and the settings to a folder on another disk, and "
        "check the backup. Originals of an earlier backup are not copied again."
    )

    def add_arguments(self, parser):
        parser.add_argument("folder", type=Path, metavar="DIR", help="The folder of all backups.")
        parser.add_argument(
            "--keep",
            type=int,
            default=30,
            choices=range(1, 1000),
            metavar="NUMBER",
            help="How many backups to keep (default: %(default)s).",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="Back up even if the site has lost more than a tenth since the last backup.",
        )

    def handle(self, *, folder, keep, force, **options):
        start = time.monotonic()
        try:
            backup = back_up(folder.absolute(), keep=keep, force=force)
        except (OSError, sqlite3.Error) as error:
            raise CommandError(
                f"The backup failed, and earlier backups are unchanged: {error}."
            ) from error
        self.stdout.write(
            f"Backed up {len(backup.pictures)} pictures to {backup.new} in "
            f"{time.monotonic() - start:.1f} seconds. New originals: {len(backup.copied)} "
            f"({filesizeformat(backup.copied_bytes)})."
        )
        if backup.losses:
            raise CommandError("\n".join(backup.losses))
