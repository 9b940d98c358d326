import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from django.conf import settings
from django.core.files import File
from django.core.management.base import BaseCommand, CommandError

from uploads import storage
from uploads.management.progressbar import show_progress
from uploads.models import Picture

THREADS = 8  # files that are copied at once


class Command(BaseCommand):
    help = (
        "Copy the files of all pictures from the data folder to the buckets of the S3 store, and "
        "verify them. It deletes nothing. It leaves out what is there already: run it while the "
        "site runs, after an interruption, and once more when the site is stopped."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--back", action="store_true", help="Copy them from the buckets to the data folder."
        )

    def handle(self, *, back, **options):
        if not settings.S3:
            raise CommandError(
                "The site has no S3 store; first set the variables that begin with GOURMIOUS_S3_."
            )
        from uploads import s3  # noqa: PLC0415

        kinds = {
            "original": (storage.OriginalStorage(), s3.OriginalStorage()),
            "display": (storage.RenditionStorage(), s3.RenditionStorage()),
            "thumbnail": (storage.RenditionStorage(), s3.RenditionStorage()),
        }
        self.count = sum(Picture.objects.exclude(**{field: ""}).count() for field in kinds)
        self.present = self.copied = self.failed = 0
        with ThreadPoolExecutor(THREADS) as self.pool:
            for field, (folder, bucket) in kinds.items():
                source, target = (bucket, folder) if back else (folder, bucket)
                for pictures in Picture.objects.in_batches(field):
                    self.move(source, target, pictures, field)

        self.stdout.write(f"{self.copied} files were copied, {self.present} were there already.")
        if self.failed:
            raise CommandError(f"{self.failed} files could not be copied.")

    def move(self, source, target, pictures, field):
        """Copy those files of some pictures that the target does not have in their full size."""
        files = {getattr(picture, field).name: picture for picture in pictures}
        sizes, present = source.get_sizes(files), target.get_sizes(files)
        missing = {
            name: picture
            for name, picture in files.items()
            if name not in present or sizes.get(name, present[name]) != present[name]
        }
        self.present += len(files) - len(missing)
        copying = partial(self.try_to_copy, source, target, field)
        for is_copied in self.pool.map(copying, missing.items()):
            self.copied += is_copied
            self.failed += not is_copied
            done = self.present + self.copied + self.failed
            show_progress(self.stdout, min(done, self.count), self.count)

    def try_to_copy(self, source, target, field, item):
        name, picture = item
        try:
            copy(source, target, name, picture.digest if field == "original" else None)
        except OSError as error:
            self.stderr.write(f"The {field} of picture {picture.pk}, {name}: {error}")
            return False
        return True


def copy(source, target, name, digest):
    """Copy a file; raise OSError if its digest is another than this one."""
    with source.open_path(name) as path, Path(path).open("rb") as file:
        content = File(file, name)
        content.digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest and digest != content.digest:
            raise OSError("The file is damaged.")
        target.delete(name)  # An interrupted copy may have left a part.
        target.save(name, content)
