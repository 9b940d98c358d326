from django.contrib.auth.models import User

from uploads.models import Picture

from .base import UploadTestCase, upload_file
from .photos import photo

PLAIN = {"csrftoken", "diner"}
PREFIXED = {"__Host-csrftoken", "__Host-diner"}


class CookieTests(UploadTestCase):
    def get_page(self, secure):
        return self.client.get(self.dish.get_absolute_url(), secure=secure)

    def upload(self, secure):
        data = {"id": self.dish.pk, "picture": upload_file(photo())}
        self.client.post("/upload", data, secure=secure, headers={"accept": "*/*"})
        return Picture.objects.get()

    def test_over_https_they_belong_to_the_host_alone(self):
        response = self.get_page(secure=True)

        self.assertEqual(set(response.cookies), PREFIXED)
        for cookie in response.cookies.values():
            self.assertEqual((cookie["secure"], cookie["path"], cookie["domain"]), (True, "/", ""))
        self.assertContains(response, 'data-csrf-cookie="__Host-csrftoken"')

    def test_over_plain_http_they_have_plain_names(self):
        response = self.get_page(secure=False)

        self.assertEqual(set(response.cookies), PLAIN)
        self.assertFalse(any(cookie["secure"] for cookie in response.cookies.values()))
        self.assertContains(response, 'data-csrf-cookie="csrftoken"')

    def test_a_browser_keeps_its_id_and_its_login(self):
        self.get_page(secure=True)
        User.objects.create_superuser("cook", password="aioli")
        login = {"username": "cook", "password": "aioli"}
        self.client.post("/admin/login/", login, secure=True)

        self.assertIn("__Host-sessionid", self.client.cookies)
        self.assertEqual(self.client.get("/admin/", secure=True).status_code, 200)
        self.assertNotIn("__Host-diner", self.get_page(secure=True).cookies)

    def test_over_https_a_planted_cookie_is_ignored(self):
        self.get_page(secure=False)
        token = self.client.cookies["csrftoken"].value
        self.client.handler.enforce_csrf_checks = True
        data = {"name": "Aïoli", "restaurant": "Chez Fonfon", "csrfmiddlewaretoken": token}
        headers = {"origin": "https://testserver"}

        with self.assertLogs("django.security.csrf", "WARNING"):
            response = self.client.post("/dishes/new", data, secure=True, headers=headers)

        self.assertEqual(response.status_code, 403)

    def test_a_diner_with_an_old_cookie_can_still_take_a_photo_back(self):
        self.get_page(secure=False)
        picture = self.upload(secure=False)

        self.assertContains(self.get_page(secure=True), "Take it back")
        response = self.client.post(f"/pictures/{picture.pk}/take_back", secure=True)
        self.assertRedirects(response, self.dish.get_absolute_url(), fetch_redirect_response=False)

    def test_a_planted_old_cookie_does_not_own_later_photos(self):
        self.get_page(secure=False)
        planted = self.client.cookies["diner"].value.split(":")[0]
        self.get_page(secure=True)

        picture = self.upload(secure=True)

        self.assertTrue(picture.diner)
        self.assertNotEqual(picture.diner, planted)

    def test_a_forged_old_cookie_is_ignored(self):
        self.client.cookies["diner"] = "a:b:c"

        self.assertEqual(self.get_page(secure=True).status_code, 200)
