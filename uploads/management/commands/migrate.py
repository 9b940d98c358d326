from pathlib import Path

from django.conf import settings
from django.core.management.commands import migrate


class Command(migrate.Command):
    def handle(self, *args, **options):
        """Make the folders first: the database lies beside those of the pictures."""
        for folder in (settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT, settings.MEDIA_ROOT):
            Path(folder).mkdir(parents=True, exist_ok=True)
        super().handle(*args, **options)
