from pathlib import Path

from django.conf import settings
from django.core.management.commands import migrate


class Command(migrate.Command):
    def handle(self, *args, **options):
        """Make the folders of the pictures first. The database file goes into their parent."""
        for folder in (settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT, settings.MEDIA_ROOT):
            Path(folder).mkdir(parents=True, exist_ok=True)
        super().handle(*args, **options)
