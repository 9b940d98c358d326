from django.core.management.base import BaseCommand, CommandError

from uploads.models import Picture

WIDTH = 40  # characters of the progress bar


class Command(BaseCommand):
    help = (
        "Make new renditions of the pictures whose renditions are lost or have outdated sizes. "
        "After an interruption, run it again: without --all it continues where it stopped."
    )

    def add_arguments(self, parser):
        parser.add_argument("--all", action="store_true", help="Renew all renditions.")

    def handle(self, **options):
        pictures = Picture.objects.shown().order_by("pk")
        # Keep only the keys: a picture may be hidden or deleted before its turn.
        keys = [
            picture.pk
            for picture in pictures.iterator()
            if options["all"] or not picture.has_present_renditions()
        ]

        failed = 0
        for number, pk in enumerate(keys, 1):
            failed += not self.make(pk)
            self.show_progress(number, len(keys))

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

    def show_progress(self, number, count):
        if self.stdout.isatty():
            done = WIDTH * number // count
            bar = f"{'█' * done}{'░' * (WIDTH - done)}"
            self.stdout.write(f"\r{bar} {number} of {count}", ending="\n" * (number == count))
            self.stdout.flush()
