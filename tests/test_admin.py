from django.contrib.auth.models import User

from uploads.models import Picture

from .base import UploadTestCase, make_dish, uploaded
from .photos import photo


class AdminTests(UploadTestCase):
    def setUp(self):
        super().setUp()
        self.client.force_login(User.objects.create_superuser("cook"))
        self.picture = Picture.objects.store(self.dish, uploaded(photo()))

    def test_the_dishes_are_listed_with_their_covers(self):
        make_dish("Aïoli")

        response = self.client.get("/admin/uploads/dish/")

        self.assertContains(response, self.picture.thumbnail.url)
        self.assertContains(response, "Aïoli")

    def test_the_pictures_are_listed_with_their_thumbnails(self):
        response = self.client.get("/admin/uploads/picture/")

        self.assertContains(response, self.picture.thumbnail.url)

    def test_a_dish_and_a_picture_can_be_opened(self):
        for name, pk in (("dish", self.dish.pk), ("picture", self.picture.pk)):
            response = self.client.get(f"/admin/uploads/{name}/{pk}/change/")
            self.assertContains(response, "Bouillabaisse")

    def test_a_picture_comes_by_upload_alone(self):
        response = self.client.get("/admin/uploads/picture/add/")

        self.assertEqual(response.status_code, 403)

    def test_deleting_pictures_deletes_their_files(self):
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post(
                "/admin/uploads/picture/",
                {"action": "delete_selected", "_selected_action": self.picture.pk, "post": "yes"},
            )

        self.assertEqual((Picture.objects.count(), self.files()), (0, []))
