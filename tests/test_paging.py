from django.test import TestCase

from uploads.models import Dish
from uploads.paging import get_page

from .base import make_dish


class PagingTests(TestCase):
    def setUp(self):
        self.ids = [make_dish(str(number)).pk for number in range(7)][::-1]

    def read(self, **place):
        page = get_page(Dish.objects.all(), 3, **place)
        return [dish.pk for dish in page], page.newer, page.older

    def test_the_first_page_has_the_newest_rows(self):
        self.assertEqual(self.read(), (self.ids[:3], None, self.ids[2]))

    def test_older_pages_lead_to_the_oldest_row(self):
        second, last = self.read(before=self.ids[2]), self.read(before=self.ids[5])

        self.assertEqual(second, (self.ids[3:6], self.ids[3], self.ids[5]))
        self.assertEqual(last, (self.ids[6:], self.ids[6], None))

    def test_newer_pages_lead_back_to_the_whole_first_page(self):
        second, first = self.read(after=self.ids[6]), self.read(after=self.ids[2])

        self.assertEqual(second, (self.ids[3:6], self.ids[3], self.ids[5]))
        self.assertEqual(first, self.read())

    def test_a_last_page_that_is_full_leads_to_nothing_older(self):
        Dish.objects.filter(pk=self.ids[6]).delete()

        self.assertEqual(self.read(before=self.ids[2])[2], None)

    def test_a_page_stays_when_newer_rows_come(self):
        second = self.read(before=self.ids[2])
        make_dish("newest")

        self.assertEqual(self.read(before=self.ids[2]), second)

    def test_a_page_is_found_after_the_row_was_deleted_that_leads_to_it(self):
        Dish.objects.filter(pk__in=(self.ids[2], self.ids[6])).delete()

        self.assertEqual(self.read(before=self.ids[2])[0], self.ids[3:6])
        self.assertEqual(self.read(after=self.ids[6])[0], self.ids[3:6])

    def test_an_odd_id_leads_to_the_first_page(self):
        for value in ("", "x", "1.5", "-1", "0", "\0", "9" * 5000):
            with self.subTest(value[:9]):
                self.assertEqual(self.read(before=value), self.read())
        for value in ("", "x", "9" * 30, str(self.ids[0])):
            with self.subTest(value):
                self.assertEqual(self.read(after=value), self.read())

    def test_without_rows_the_page_is_empty(self):
        Dish.objects.all().delete()

        for place in ({}, {"before": "5"}, {"after": "0"}):
            self.assertEqual(self.read(**place), ([], None, None))

    def test_a_page_takes_one_query(self):
        for place in ({}, {"before": self.ids[2]}, {"after": self.ids[6]}):
            with self.assertNumQueries(1):
                self.read(**place)
