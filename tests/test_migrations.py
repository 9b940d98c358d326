"""Migrations only add to the database, so that an older release still works on it."""

from math import inf

from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader
from django.test import SimpleTestCase

ADDITIONS = (
    migrations.CreateModel,
    migrations.AddIndex,
    migrations.AlterModelOptions,
    migrations.AlterModelManagers,
)
DATA = (migrations.RunPython, migrations.RunSQL)
# The options of a field that may change. Those of WIDTH may only become wider.
WIDTH = ("null", "max_length", "db_default")
CHANGEABLE = {*models.Field.non_db_attrs, *WIDTH, "db_index", "default"} - {"db_column"}


def find_breaks(migration, state):
    """Return the operations of a migration that may break an older release.

    `state` has the models before the migration, and is advanced to those after it.
    """
    new_models, breaks = set(), []
    for operation in migration.operations:
        if isinstance(operation, migrations.CreateModel):
            new_models.add(operation.name_lower)
        if getattr(operation, "model_name_lower", None) not in new_models:
            breaks += [operation] if is_break(operation, state) else []
        operation.state_forwards("uploads", state)
    return breaks


def is_break(operation, state):
    if isinstance(operation, migrations.SeparateDatabaseAndState):
        return any(is_break(part, state) for part in operation.database_operations)
    if isinstance(operation, migrations.AddField):
        return not can_be_omitted(operation.field)
    if isinstance(operation, migrations.AlterField):
        return narrows(read_field(operation, state), operation.field)
    if isinstance(operation, DATA):
        return not operation.reversible
    return not isinstance(operation, ADDITIONS)


def can_be_omitted(field):
    """Return whether an INSERT may leave out a field: Django's own defaults are not enough."""
    return field.null or field.has_db_default() or field.many_to_many


def read_field(operation, state):
    return state.models["uploads", operation.model_name_lower].get_field(operation.name)


def narrows(old, new):
    """Return whether a field refuses what it accepted before, or changes in another way."""
    return (
        old.null > new.null
        or (old.max_length or inf) > (new.max_length or inf)
        or (can_be_omitted(old) and not can_be_omitted(new))
        or describe(old) != describe(new)
    )


def describe(field):
    """Return what may not change of a field."""
    _, path, args, options = field.deconstruct()
    fixed = {name: value for name, value in options.items() if name not in CHANGEABLE}
    return path, args, fixed


class ExpandTests(SimpleTestCase):
    def setUp(self):
        self.loader = MigrationLoader(None)

    def test_no_migration_takes_anything_from_an_older_release(self):
        keys = self.loader.graph.forwards_plan(*self.loader.graph.leaf_nodes("uploads"))
        for key in [key for key in keys if key[0] == "uploads"]:
            with self.subTest(key):
                migration = self.loader.get_migration(*key)
                before = self.loader.project_state(key, at_end=False)
                self.assertEqual(find_breaks(migration, before), [])

    def is_break(self, operation):
        state = self.loader.project_state(self.loader.graph.leaf_nodes("uploads"))
        return is_break(operation, state)

    def test_what_may_break_an_older_release_is_found(self):
        name = models.UniqueConstraint(fields=["name"], name="unique_name")
        for operation in (
            migrations.RemoveField("dish", "restaurant"),
            migrations.RenameField("dish", "restaurant", "place"),
            migrations.DeleteModel("ban"),
            migrations.RenameModel("ban", "exclusion"),
            migrations.AddConstraint("dish", name),
            migrations.AddField("dish", "price", models.TextField(default="")),
            migrations.AlterField("dish", "name", models.CharField(max_length=99)),
            migrations.AlterField("dish", "name", models.TextField()),
            migrations.AlterField("dish", "name", models.CharField(max_length=100, unique=True)),
            migrations.AlterField("dish", "search_text", models.TextField(default="")),
            migrations.RunPython(migrations.RunPython.noop),
            migrations.RunSQL("DELETE FROM uploads_ban"),
        ):
            with self.subTest(operation):
                self.assertTrue(self.is_break(operation))

    def test_what_only_adds_is_allowed(self):
        leave = migrations.RemoveField("dish", "restaurant")
        for operation in (
            migrations.CreateModel("Menu", [("id", models.BigAutoField(primary_key=True))]),
            migrations.AddField("dish", "price", models.TextField(db_default="")),
            migrations.AddField("dish", "price", models.TextField(null=True)),
            migrations.AlterField("dish", "name", models.CharField(max_length=101, blank=True)),
            migrations.AlterField("dish", "name", models.CharField(max_length=100, db_default="")),
            migrations.RunPython(migrations.RunPython.noop, migrations.RunPython.noop),
            migrations.SeparateDatabaseAndState(state_operations=[leave]),
        ):
            with self.subTest(operation):
                self.assertFalse(self.is_break(operation))
