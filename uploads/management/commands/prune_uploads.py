import time
from pathlib import Path

from django.conf import settings
from django.core.files import locks
from django.core.management.base import BaseCommand, CommandError

from uploads.models import Picture

# Killed processes leave a few originals without a row. If more than this number, and more than this
# share of all, have none, the database was probably lost or replaced, and nothing is removed.
MAX_LEFT, MAX_SHARE = 10, 0.1


class Command(BaseCommand):
    help = "Remove the files that killed processes left, and report pictures without their files."

    def add_arguments(self, parser):
        parser.add_argument(
            "--force", action="store_true", help="Remove files even if many originals have no row."
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Only list what would be removed."
        )
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
        # Read the rows last: photos may be stored meanwhile.
        incoming = list(old_files(settings.FILE_UPLOAD_TEMP_DIR, before))
        originals = list(old_files(settings.ORIGINALS_ROOT, before))
        renditions = list(old_files(settings.MEDIA_ROOT, before))
        known = known_names()
        left = [path for path in originals + renditions if path.name not in known]
        self.remove(incoming, dry_run)
        if not (force or dry_run):
            validate_share(sum(path.name not in known for path in originals))
        self.remove(left, dry_run)
        self.report_losses()

    def remove(self, paths, dry_run):
        for path in paths:
            self.stdout.write(f"{'Would remove' if dry_run else 'Removed'} {path}.")
            if not dry_run:
                path.unlink(missing_ok=True)

    def report_losses(self):
        found = [picture.pk for picture in Picture.objects.iterator() if lost_files(picture)]
        for pk in found:
            # Read the row again: it may have been hidden, changed or deleted meanwhile.
            for picture in Picture.objects.filter(pk=pk):
                for file in lost_files(picture):
                    self.stderr.write(f"{picture} has lost {file.path}.")


def validate_share(left):
    """Raise CommandError if more originals have no row than killed processes leave."""
    count = sum(1 for _ in Path(settings.ORIGINALS_ROOT).iterdir())
    if left > max(MAX_LEFT, MAX_SHARE * count):
        raise CommandError(
            f"{left} of {count} originals have no row, so no photo was removed. Check that this is "
            "the right database. If they should go, for instance after a process was killed while "
            "it deleted a dish with many photos, use --force."
        )


def lost_files(picture):
    return [file for file in picture.files() if file and not file.storage.exists(file.name)]


def old_files(folder, before):
    """Yield the files of a folder that are older than this time and belong to no running upload."""
    for path in Path(folder).iterdir():
        try:
            if path.is_file() and path.stat().st_mtime < before and not in_use(path):
                yield path
        except FileNotFoundError:
            continue  # It was just stored, or deleted.


def in_use(path):
    """Tell whether an upload holds a lock on its file, which it does until it is answered."""
    with path.open("rb") as file:
        return not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB)


def known_names():
    rows = Picture.objects.values_list("original", "display", "thumbnail")
    return {name for names in rows.iterator() for name in names}
