import re
import time
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile

from django.conf import settings
from django.core.files.storage import default_storage, storages
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from uploads.models import Cancellation, Dish, Picture
from uploads.storage import MAX_NAMES, FolderStorage, note_lost_files

# A killed process leaves a few orphaned originals. If there are more than this number and more than
# this share of all, the database was probably lost or replaced: no photo is removed.
MAX_ORPHANS, MAX_SHARE = 10, 0.1

# The app gives files such names. Files with other names, perhaps of other programs, are left alone.
NAME = re.compile(r"[\w.-]+", re.ASCII)

# Bytes of orphans' names that are held in memory: on a full disk nothing can be written before
# files are removed.
MAX_MEMORY = 2**20


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
        incoming = FolderStorage(settings.FILE_UPLOAD_TEMP_DIR)
        self.remove(incoming, find_orphans(incoming, [], before), dry_run)
        with connection.hold_lock("prune_uploads", wait=False) as held:
            if held:
                self.prune(before, dry_run, force)
            else:  # The other host tells of lost files from now on.
                note_lost_files(0, [])
                self.stdout.write("Another process, perhaps on another host, prunes the rest.")

    def prune(self, before, dry_run, force):
        """Prune what all hosts share."""
        self.remove_originals(before, dry_run, force)
        renditions = find_orphans(default_storage, ["display", "thumbnail"], before)
        self.remove(default_storage, renditions, dry_run)
        count, names = self.report_lost_files()
        if not dry_run:  # On a full disk nothing can be written before files are removed.
            note_lost_files(count, names)
            prune_cancellations(before)
            fill_search_text()
        if count:
            raise CommandError(f"Files of pictures are lost: {count}.")

    def remove_originals(self, before, dry_run, force):
        """Remove the originals that have no row. Count them first."""
        storage, count = storages["originals"], 0
        folder = settings.FILE_UPLOAD_TEMP_DIR
        with SpooledTemporaryFile(MAX_MEMORY, "w+", dir=folder) as orphans:
            for name in find_orphans(storage, ["original"], before):
                orphans.write(f"{name}\n")
                count += 1
            if not (force or dry_run):
                validate_share(count)
            orphans.seek(0)
            self.remove(storage, (line.rstrip("\n") for line in orphans), dry_run)

    def remove(self, storage, names, dry_run):
        for name in names:
            self.stdout.write(f"{'Would remove' if dry_run else 'Removed'} {storage.locate(name)}.")
            if not dry_run:
                storage.delete(name)

    def report_lost_files(self):
        """Return the number of files that pictures have lost, and the names of the first.

        Those of originals come first.
        """
        count, names = 0, []
        for picture, file in find_lost_files():
            self.stderr.write(f"{picture} has lost {file.storage.locate(file.name)}.")
            count += 1
            if len(names) < MAX_NAMES:
                names.append(f"{file.field.name} of picture {picture.pk}")
        return count, names


def prune_cancellations(before):
    """Repeat all cancellations, since a killed process may have left a picture. Delete old ones."""
    for diner, progress_id in Cancellation.objects.values_list("diner", "progress_id"):
        Picture.objects.cancel(diner, [progress_id])
    old = Cancellation.objects.filter(created__lt=datetime.fromtimestamp(before, UTC))
    if old.exists():  # Otherwise the command would wait for a locked database in vain.
        old.delete()


def fill_search_text():
    """Let dishes be found that a process of an older release added, without its search_text."""
    for dish in Dish.objects.filter(search_text=""):
        dish.save(update_fields=["search_text"])


def validate_share(orphans):
    """Raise CommandError if too many originals have no row."""
    count = Picture.objects.count() + orphans
    if orphans > max(MAX_ORPHANS, MAX_SHARE * count):
        raise CommandError(
            f"{orphans} of {count} originals have no row, so no photo was removed. Check that this "
            "is the right database. To remove these originals, use --force, for example after a "
            "process was killed while it deleted a dish with many photos."
        )


def find_orphans(storage, fields, before):
    """Yield the names of old files that no upload uses, and that no row has in these fields."""
    for listed in storage.list_old(before):
        names = [*filter(NAME.fullmatch, listed)]
        unknown = set(names) - read_known_names(fields, names)
        unused = [name for name in unknown if not storage.is_in_use(name)]
        # Read the rows again: an upload may have written one, and released its lock.
        yield from set(unused) - read_known_names(fields, unused)


def read_known_names(fields, names):
    """Return those names that a row has in one of the fields."""
    return {
        name
        for field in fields
        for name in Picture.objects.filter(**{f"{field}__in": names}).values_list(field, flat=True)
    }


def find_lost_files():
    """Yield each picture that has lost a file, with that file: first those of originals."""
    for fields in (["original"], ["display", "thumbnail"]):
        for pictures in Picture.objects.in_batches(fields[0]):
            files = [(one, getattr(one, field)) for one in pictures for field in fields]
            storage = files[0][1].storage
            sizes = storage.get_sizes([file.name for _, file in files])
            for picture, file in files:
                if file.name not in sizes and is_lost(picture, file):
                    yield picture, file


def is_lost(picture, file):
    """Look again: the picture may have been hidden, changed or deleted in the meantime."""
    row = Picture.objects.filter(pk=picture.pk, **{file.field.name: file.name})
    return row.exists() and not file.storage.exists(file.name)
