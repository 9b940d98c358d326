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
from django.db import DatabaseError, connection, connections, transaction

from uploads.models import Dish, Picture

from .restore import answers

TARGET = "target"
BATCH_SIZE = 2000  # rows


class Command(BaseCommand):
    help = (
        "Copy all rows of the site's database to another one, which is empty: from SQLite to "
        "PostgreSQL, or back. The site must be stopped."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "target",
            metavar="URL",
            help="postgresql://user:password@host:port/name, or `sqlite` for the file in the data "
            "folder.",
        )

    def handle(self, *, target, **options):
        start = time.monotonic()
        if any(map(answers, settings.SOCKETS.values())):
            raise CommandError("The site is running. First stop it.")
        with connected(read_target(target)):
            try:
                call_command("migrate", database=TARGET, interactive=False, verbosity=0)
                validate_target()
                counts = copy_rows()
            except DatabaseError as error:
                raise CommandError(f"Nothing was copied: {error}.") from error
        others = counts.total() - counts[Dish] - counts[Picture]
        self.stdout.write(
            f"Copied {counts[Dish]} dishes, {counts[Picture]} pictures and {others} other rows in "
            f"{time.monotonic() - start:.1f} seconds."
        )


def read_target(text):
    """Return the settings of the target; raise CommandError if it is not another database."""
    if text == "sqlite":
        database = settings.SQLITE
    else:
        try:
            from gourmious.postgresql.url import read_url  # noqa: PLC0415

            database = read_url(text)
        except (ImportError, ValueError) as error:
            raise CommandError(
                "The target cannot be read; it must be postgresql://user:password@host:port/name "
                "or sqlite, and a URL needs the packages of gourmious/deploy/requirements.txt."
            ) from error
    place = ("ENGINE", "HOST", "PORT", "NAME")
    if all(database.get(name, "") == connection.settings_dict[name] for name in place):
        raise CommandError("The site has this database already.")
    return database


@contextmanager
def connected(database):
    """Give Django a further database while the block runs."""
    connections.settings[TARGET] = connections.configure_settings({"default": database})["default"]
    try:
        yield
    finally:
        connections[TARGET].close()
        del connections[TARGET], connections.settings[TARGET]


def validate_target():
    """Raise CommandError if the target has rows that somebody may miss."""
    for model in (Dish, Picture, get_user_model()):
        if model.objects.using(TARGET).exists():
            name = model._meta.verbose_name_plural
            raise CommandError(f"The target has {name} already. Copy to an empty database.")


def copy_rows():
    """Copy the rows of all models in one transaction, and return their numbers."""
    models = [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy
    ]
    with transaction.atomic(), transaction.atomic(using=TARGET):
        for model in models:  # Migrating has made some rows, such as permissions.
            model._base_manager.using(TARGET)._raw_delete(TARGET)
        counts = Counter({model: copy_model(model) for model in models})
        with connections[TARGET].cursor() as cursor:
            for command in connections[TARGET].ops.sequence_reset_sql(no_style(), models):
                cursor.execute(command)
    return counts


def copy_model(model):
    """Copy the rows of a model, and return how many there are."""
    rows = model._base_manager.using("default").order_by("pk").iterator(BATCH_SIZE)
    target = model._base_manager.using(TARGET)
    while batch := [*islice(rows, BATCH_SIZE)]:
        target.bulk_create(batch)
    count = target.count()
    if count != model._base_manager.using("default").count():
        raise CommandError(f"Nothing was copied: the rows of {model._meta.label} changed.")
    return count
