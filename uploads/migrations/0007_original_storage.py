from django.db import migrations, models

import uploads.storage


class Migration(migrations.Migration):
    """Note that originals live in the storage of the settings. The database stays as it is."""

    dependencies = [("uploads", "0006_trigram_indexes")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    "picture",
                    "original",
                    models.FileField(
                        editable=False,
                        storage=uploads.storage.get_original_storage,
                        upload_to="",
                    ),
                ),
            ]
        )
    ]
