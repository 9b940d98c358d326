import time
from pathlib import Path

from django.conf import settings
from django.core.files import locks
from django.core.management.base import BaseCommand, CommandError

from uploads.models import Picture

# A database that was lost, or is an older one, makes rubbish of many photos; killed processes leave
# a few. So of more originals than this, and than this share of all, none is removed.
MAX_LEFT, MAX_SHARE = 10, 0.1


class Command(BaseCommand):
    help = "Remove the files that killed processes left, and report pictures without their files."

    def add_arguments(self, parser):
        parser.add_argument(
            "--force", action="store_true", help="Remove them even if most photos have no row."
        )
        parser.add_argument("--dry-run", action="store_true", help="Only tell what there is.")
        parser.add_argument(
            "--hours",
            type=int,
            default=24,
            choices=range(1, 1000),
            metavar="HOURS",
            help="How old a file must be to be removed (default: %(default)s).",
        )

    def handle(self, *, dry_run, force, hours, **options):
        before = time.time() - 3600 * hours
        # The rows are read last: what is stored meanwhile is among them.
        incoming = list(old_files(settings.FILE_UPLOAD_TEMP_DIR, before))
        originals = list(old_files(settings.ORIGINALS_ROOT, before))
        renditions = list(old_files(settings.MEDIA_ROOT, before))
        known = known_names()
        left = incoming + [path for path in originals + renditions if path.name not in known]
        lost = sum(path.name not in known for path in originals)
        if lost > max(MAX_LEFT, MAX_SHARE * len(originals)) and not (force or dry_run):
            raise CommandError(
                f"{lost} of {len(originals)} originals have no row, so nothing was removed. See "
                "that the database is the right one; if they are to go, use --force."
            )

        for path in left:
            self.stdout.write(f"{'Would remove' if dry_run else 'Removed'} {path}.")
            if not dry_run:
                path.unlink(missing_ok=True)
        self.report_losses()

    def report_losses(self):
        for picture in Picture.objects.select_related("dish").iterator():
            for file in filter(None, picture.files()):
                if not file.storage.exists(file.name):
                    self.stderr.write(f"{picture} has lost {file.path}.")


def old_files(folder, before):
    """Yield the files of a folder that are older than this time, and of no running upload."""
    for path in Path(folder).iterdir():
        try:
            if path.is_file() and path.stat().st_mtime < before and not in_use(path):
                yield path
        except FileNotFoundError:
            continue  # It was just stored, or deleted.


def in_use(path):
    """Tell whether an upload holds the lock that it takes on its file, until it is answered."""
    with path.open("rb") as file:
        return not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB)


def known_names():
    rows = Picture.objects.values_list("original", "display", "thumbnail")
    return {name for names in rows.iterator() for name in names}
