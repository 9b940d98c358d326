import time
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from uploads.models import Cancellation, Dish, Picture
from uploads.storage import is_locked, note_lost_files

# A killed process leaves a few orphaned originals. If there are more than this number and more than
# this share of all, the database was probably lost or replaced: no photo is removed.
MAX_ORPHANS, MAX_SHARE = 10, 0.1


class Command(BaseCommand):
    help = (
        "Remove the files and old cancellations that nothing needs any more, and report pictures "
        "that have lost a file."
    )

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
        # Read the rows last: photos may be stored in the meantime.
        incoming = list(find_old_files(settings.FILE_UPLOAD_TEMP_DIR, before))
        originals = list(find_old_files(settings.ORIGINALS_ROOT, before))
        renditions = list(find_old_files(settings.MEDIA_ROOT, before))
        known = read_known_names()
        orphans = [path for path in originals + renditions if path.name not in known]
        self.remove(incoming, dry_run)
        if not (force or dry_run):
            validate_share(sum(path.name not in known for path in originals))
        self.remove(orphans, dry_run)
        lost = self.report_lost_files()
        if not dry_run:  # On a full disk nothing can be written before files are removed.
            note_lost_files(lost)
            prune_cancellations(hours)
            fill_search_text()
        if lost:
            raise CommandError(f"Files of pictures are lost: {len(lost)}.")

    def remove(self, paths, dry_run):
        for path in paths:
            self.stdout.write(f"{'Would remove' if dry_run else 'Removed'} {path}.")
            if not dry_run:
                path.unlink(missing_ok=True)

    def report_lost_files(self):
        """Return the names of the files that pictures have lost, those of originals first."""
        names = []
        keys = [picture.pk for picture in Picture.objects.iterator() if find_lost_files(picture)]
        for pk in keys:
            # Read the row again: it may have been hidden, changed or deleted in the meantime.
            for picture in Picture.objects.filter(pk=pk):
                for file in find_lost_files(picture):
                    self.stderr.write(f"{picture} has lost {file.path}.")
                    names.append(f"{file.field.name} of picture {pk}")
        return sorted(names, key=lambda name: not name.startswith("original"))


def prune_cancellations(hours):
    """Repeat all cancellations, since a killed process may have left a picture. Delete old ones."""
    for diner, progress_id in Cancellation.objects.values_list("diner", "progress_id"):
        Picture.objects.cancel(diner, [progress_id])
    old = Cancellation.objects.filter(created__lt=timezone.now() - timedelta(hours=hours))
    if old.exists():  # Otherwise the command would wait for a locked database in vain.
        old.delete()


def fill_search_text():
    """Let dishes be found that a process of an older release added, without its search_text."""
    for dish in Dish.objects.filter(search_text=""):
        dish.save(update_fields=["search_text"])


def validate_share(orphans):
    """Raise CommandError if too many originals have no row."""
    count = sum(1 for _ in Path(settings.ORIGINALS_ROOT).iterdir())
    if orphans > max(MAX_ORPHANS, MAX_SHARE * count):
        raise CommandError(
            f"{orphans} of {count} originals have no row, so no photo was removed. Check that this "
            "is the right database. To remove these originals, use --force, for example after a "
            "process was killed while it deleted a dish with many photos."
        )


def find_lost_files(picture):
    return [file for file in picture.files() if file and not file.storage.exists(file.name)]


def find_old_files(folder, before):
    """Yield the files of a folder that are older than this time and that no upload has locked.

    An upload releases the locks when it is answered.
    """
    for path in Path(folder).iterdir():
        try:
            if path.is_file() and path.stat().st_mtime < before and not is_locked(path):
                yield path
        except FileNotFoundError:
            continue  # It was moved or deleted in the meantime.


def read_known_names():
    rows = Picture.objects.values_list("original", "display", "thumbnail")
    return {name for names in rows.iterator() for name in names}
