import time
from collections import Counter
from contextlib import contextmanager
from itertools import islice

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import no_style
from django.db import DatabaseError, connections, transaction

from uploads.models import Dish, Picture

from .restore import answers

SQLITE = "sqlite"
POSTGRESQL = "default"
BATCH_SIZE = 2000  # rows


class Command(BaseCommand):
    help = (
        "Copy all rows from SQLite, the file in the data folder, to an empty database of "
        "PostgreSQL, that of GOURMIOUS_DATABASE_URL. The site must be stopped."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--back",
            action="store_true",
            help="Copy them from PostgreSQL to SQLite, whose file must be moved away before.",
        )

    def handle(self, *, back, **options):
        start = time.monotonic()
        if not settings.DATABASE_URL:
            raise CommandError("The site has no PostgreSQL; first set GOURMIOUS_DATABASE_URL.")
        if any(map(answers, settings.SOCKETS.values())):
            raise CommandError("The site is running. First stop it.")
        source, target = (POSTGRESQL, SQLITE) if back else (SQLITE, POSTGRESQL)
        with sqlite_connected():
            try:
                call_command("migrate", database=target, interactive=False, verbosity=0)
                validate_target(target)
                counts = copy_rows(source, target)
            except DatabaseError as error:
                raise CommandError(f"Nothing was copied: {error}.") from error
        others = counts.total() - counts[Dish] - counts[Picture]
        self.stdout.write(
            f"Copied {counts[Dish]} dishes, {counts[Picture]} pictures and {others} other rows in "
            f"{time.monotonic() - start:.1f} seconds."
        )


@contextmanager
def sqlite_connected():
    """Give Django the file of SQLite as a second database while the block runs."""
    configured = connections.configure_settings({"default": settings.SQLITE})
    connections.settings[SQLITE] = configured["default"]
    try:
        yield
    finally:
        connections[SQLITE].close()
        del connections[SQLITE], connections.settings[SQLITE]


def validate_target(target):
    """Raise CommandError if the target has rows that somebody may miss."""
    for model in (Dish, Picture, get_user_model()):
        if model.objects.using(target).exists():
            name = model._meta.verbose_name_plural
            raise CommandError(f"The target has {name} already. Copy to an empty database.")


def copy_rows(source, target):
    """Copy the rows of all models in one transaction, and return their numbers."""
    models = [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy
    ]
    with transaction.atomic(using=source), transaction.atomic(using=target):
        for model in models:  # Migrating has made some rows, such as permissions.
            model._base_manager.using(target)._raw_delete(target)
        counts = Counter({model: copy_model(model, source, target) for model in models})
        with connections[target].cursor() as cursor:
            for command in connections[target].ops.sequence_reset_sql(no_style(), models):
                cursor.execute(command)
    return counts


def copy_model(model, source, target):
    """Copy the rows of a model, and return how many there are."""
    old, new = (model._base_manager.using(database) for database in (source, target))
    rows = old.order_by("pk").iterator(BATCH_SIZE)
    while batch := [*islice(rows, BATCH_SIZE)]:
        new.bulk_create(batch)
    count = new.count()
    if count != old.count():
        raise CommandError(f"Nothing was copied: the rows of {model._meta.label} changed.")
    return count
