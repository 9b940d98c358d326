"""The lists and look-ups find their rows by an index, and sort nothing."""

from unittest import skipUnless

from django.db import connection
from django.test import TestCase

from uploads.models import Dish, Picture

DISHES, PICTURES = 200, 2000


class IndexTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        names = (f"Soup {number}" for number in range(DISHES))
        dishes = Dish.objects.bulk_create(
            Dish(name=name, restaurant="Chez Fonfon", search_text=name) for name in names
        )
        Picture.objects.bulk_create(
            Picture(
                dish=dishes[0] if number % 2 else dishes[number % DISHES],
                original=f"{number}.jpg",
                display=f"{number}-d.jpg",
                thumbnail=f"{number}-t.jpg",
                width=4,
                height=3,
                digest=number,
                diner=number % 500,
                caption=f"With aïoli {number}",
                hidden=not number % 100,
            )
            for number in range(PICTURES)
        )
        cls.dish = dishes[0]
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def explain(self, rows):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # It reads so few rows faster without an index.
                cursor.execute("SET LOCAL enable_seqscan = off")
        return rows.explain()

    def assert_found_by(self, index, rows):
        plan = self.explain(rows)
        self.assertIn(index, plan)
        self.assertNotRegex(plan, r"\bSort\b|TEMP B-TREE")

    def test_the_pictures_of_a_dish(self):
        self.assert_found_by("picture_shown", self.dish.pictures.shown()[:24])

    def test_the_cover_and_the_count_of_each_dish_in_the_list(self):
        rows = Dish.objects.with_cover()[:12]

        self.assert_found_by("picture_shown", rows)
        self.assertEqual(self.explain(rows).count("picture_shown"), 6)

    def test_the_hidden_pictures(self):
        self.assert_found_by("picture_hidden", Picture.objects.filter(hidden=True)[:50])

    def test_the_pictures_of_a_diner(self):
        self.assert_found_by("picture_diner", Picture.objects.filter(diner="7")[:50])

    def test_the_pictures_that_files_belong_to(self):
        for field in ("original", "display", "thumbnail"):
            with self.subTest(field):
                rows = Picture.objects.filter(**{f"{field}__in": ["1.jpg", "2.jpg"]})
                self.assert_found_by(f"picture_{field}", rows.order_by())

    @skipUnless(connection.vendor == "postgresql", "Only PostgreSQL has trigram indexes.")
    def test_the_words_of_a_search(self):
        self.assertIn("dish_search_text", self.explain(Dish.objects.search("soup 7")))
        plan = self.explain(Picture.objects.search("aïoli"))
        self.assertIn("dish_search_text", plan)
        self.assertIn("picture_caption", plan)
