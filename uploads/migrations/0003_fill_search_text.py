from itertools import islice

from django.db import migrations

from uploads.models import fold

BATCH = 500


def fill_search_text(apps, schema_editor):
    Dish = apps.get_model('uploads', 'Dish')
    dishes = Dish.objects.order_by('pk').iterator(BATCH)
    while batch := list(islice(dishes, BATCH)):
        for dish in batch:
            dish.search_text = fold(f'{dish.name} {dish.restaurant}')
        Dish.objects.bulk_update(batch, ['search_text'])


class Migration(migrations.Migration):

    dependencies = [
        ('uploads', '0002_caption_search_and_cancellation'),
    ]

    operations = [
        migrations.RunPython(fill_search_text, migrations.RunPython.noop),
    ]
