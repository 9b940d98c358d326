from itertools import chain

from django.core.files.storage import default_storage
from django.core.management.base import BaseCommand, CommandError

from uploads.management.progressbar import show_progress
from uploads.models import Picture


class Command(BaseCommand):
    help = (
        "Make new renditions of the pictures whose renditions are lost or have outdated sizes. "
        "After an interruption, run it again: without --all it continues where it stopped."
    )

    def add_arguments(self, parser):
        parser.add_argument("--all", action="store_true", help="Renew all renditions.")

    def handle(self, **options):
        # Keep only the keys: a picture may be hidden or deleted before its turn.
        keys = [
            picture.pk
            for pictures in Picture.objects.shown().in_batches("display")
            for picture in (pictures if options["all"] else find_outdated(pictures))
        ]

        failed = 0
        for number, pk in enumerate(keys, 1):
            failed += not self.make(pk)
            show_progress(self.stdout, number, len(keys))

        self.stdout.write(f"{len(keys) - failed} of {len(keys)} pictures are up to date now.")
        if failed:
            raise CommandError(f"{failed} pictures got no new renditions.")

    def make(self, pk):
        """Make the renditions of one picture, if it is still shown; return False if that fails."""
        try:
            Picture.objects.shown().get(pk=pk).show()
        except Exception as error:  # noqa: BLE001
            if Picture.objects.shown().filter(pk=pk).exists():
                self.stderr.write(f"Picture {pk}: {error}")
                return False
        return True


def find_outdated(pictures):
    """Return the pictures that lack a rendition, or have one of another than the present size."""
    names = {picture: [file.name for file in picture.renditions()] for picture in pictures}
    present = default_storage.get_sizes(chain(*names.values()))
    return [
        picture
        for picture in pictures
        if not picture.has_present_sizes() or not present.keys() >= {*names[picture]}
    ]
