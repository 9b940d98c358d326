from pathlib import Path

from django.core.management.commands import migrate
from django.db import connections

from uploads.storage import list_folders


class Command(migrate.Command):
    def handle(self, *args, database, **options):
        """Make the folders of the pictures first. The database file goes into their parent.

        Hosts that start a release at the same time migrate one after another.
        """
        for folder in list_folders():
            Path(folder).mkdir(parents=True, exist_ok=True)
        with connections[database].hold_lock("migrate"):
            super().handle(*args, database=database, **options)
