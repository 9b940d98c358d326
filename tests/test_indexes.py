"""The lists and look-ups find their rows by an index."""

from django.db import connection
from django.test import TestCase

from uploads.models import COVER_FIELDS, Dish, Picture

from .only import postgresql_only

DISHES, PICTURES = 400, 2000


class IndexTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        names = (f"Soup {number}" for number in range(DISHES))
        dishes = Dish.objects.bulk_create(
            Dish(name=name, restaurant="Chez Fonfon", search_text=name) for name in names
        )
        Picture.objects.bulk_create(
            Picture(
                dish=dishes[number % DISHES],
                original=f"{number}.jpg",
                display=f"{number}-d.jpg",
                thumbnail=f"{number}-t.jpg",
                width=4,
                height=3,
                digest=number,
                diner=number % 300,
                caption=f"With aïoli {number}",
                hidden=not number % 99,
            )
            for number in range(PICTURES)
        )
        cls.dish = dishes[0]
        if connection.vendor == "postgresql":  # It does so now and then; SQLite never does.
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")

    def assert_found_by(self, *indexes, rows):
        plan = rows.explain()
        for index in indexes:
            self.assertIn(index, plan)

    def test_the_pictures_of_a_dish(self):
        self.assert_found_by("picture_shown", rows=self.dish.pictures.shown()[:24])

    def test_the_cover_and_the_count_of_each_dish_in_the_list(self):
        plan = Dish.objects.with_cover()[:12].explain()

        self.assertEqual(plan.count("picture_shown"), len(COVER_FIELDS) + 1)

    def test_the_hidden_pictures(self):
        self.assert_found_by("picture_hidden", rows=Picture.objects.filter(hidden=True)[:50])

    def test_the_pictures_of_a_diner(self):
        self.assert_found_by("picture_diner", rows=Picture.objects.filter(diner="7")[:50])

    def test_the_pictures_that_files_belong_to(self):
        for field in ("original", "display", "thumbnail"):
            with self.subTest(field):
                rows = Picture.objects.filter(**{f"{field}__in": ["1.jpg", "2.jpg"]})
                self.assert_found_by(f"picture_{field}", rows=rows)

    @postgresql_only
    def test_the_words_of_a_search(self):
        with connection.cursor() as cursor:  # In so few rows it reads all.
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")

        self.assert_found_by("dish_search_text", rows=Dish.objects.search("soup 7"))
        indexes = ("dish_search_text", "picture_caption")
        self.assert_found_by(*indexes, rows=Picture.objects.search("aïoli"))
