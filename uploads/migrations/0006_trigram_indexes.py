from django.db import migrations

# PostgreSQL lets the owner of a database add this extension, which it trusts.
EXTENSION = 'CREATE EXTENSION IF NOT EXISTS pg_trgm'
# Of what DishQuerySet.search and PictureQuerySet.search compare.
INDEXES = {
    'dish_search_text': 'uploads_dish USING gin (search_text gin_trgm_ops)',
    'picture_caption': 'uploads_picture USING gin (UPPER(caption) gin_trgm_ops)',
}


def add_indexes(apps, schema_editor):
    """Let PostgreSQL find words of three letters and more in any place. SQLite reads all rows."""
    if schema_editor.connection.vendor == 'postgresql':
        schema_editor.execute(EXTENSION)
        for name, target in INDEXES.items():
            schema_editor.execute(f'CREATE INDEX {name} ON {target}')


def remove_indexes(apps, schema_editor):
    if schema_editor.connection.vendor == 'postgresql':
        for name in INDEXES:
            schema_editor.execute(f'DROP INDEX {name}')


class Migration(migrations.Migration):

    dependencies = [
        ('uploads', '0005_indexes'),
    ]

    operations = [
        migrations.RunPython(add_indexes, remove_indexes),
    ]
