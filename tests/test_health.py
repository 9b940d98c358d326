import json
import shutil
from unittest.mock import patch

from django.conf import settings
from django.db import DatabaseError, connection
from django.test import TestCase, override_settings

from .base import PRODUCTION, FoldersMixin, read_settings
from .servers import Memcached, free_port, requires


class HealthTests(FoldersMixin, TestCase):
    def ask(self):
        response = self.client.get("/healthz")
        self.assertIn("no-store", response["Cache-Control"])
        return response.status_code, json.loads(response.content)

    def assert_ill(self, name):
        status, health = self.ask()
        self.assertEqual(status, 503)
        self.assertRegex(health.pop(name), r"^[A-Z].*\.$")
        self.assertEqual(set(health.values()), {"ok"})

    def test_all_is_well(self):
        self.assertEqual(self.ask(), (200, {"database": "ok", "cache": "ok", "disk": "ok"}))

    def test_a_database_that_cannot_be_read(self):
        with patch.object(connection, "cursor", side_effect=DatabaseError("disk I/O error")):
            self.assert_ill("database")

    def test_a_cache_that_is_down(self):
        environment = {**PRODUCTION, "GOURMIOUS_MEMCACHED": f"127.0.0.1:{free_port()}"}
        with override_settings(CACHES=read_settings(**environment)["CACHES"]):
            self.assert_ill("cache")

    @requires("memcached")
    def test_a_cache_that_is_up(self):
        with Memcached() as memcached:
            environment = {**PRODUCTION, "GOURMIOUS_MEMCACHED": memcached.address}
            with override_settings(CACHES=read_settings(**environment)["CACHES"]):
                self.assertEqual(self.ask()[0], 200)

    def test_a_folder_that_is_gone(self):
        shutil.rmtree(settings.MEDIA_ROOT)

        self.assert_ill("disk")

    def test_a_disk_that_is_full(self):
        with override_settings(MIN_FREE_SPACE=2**60):
            self.assert_ill("disk")
