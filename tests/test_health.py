import json
import shutil
from unittest.mock import patch

from django.conf import settings
from django.db import DatabaseError, connection
from django.test import TestCase, override_settings

from uploads.storage import note_lost_files

from .base import PRODUCTION, FoldersMixin
from .environment import read_settings
from .only import local_only
from .servers import Memcached, free_port, requires


class HealthTests(FoldersMixin, TestCase):
    def ask(self, query=""):
        response = self.client.get(f"/healthz{query}")
        self.assertIn("no-store", response["Cache-Control"])
        return response.status_code, json.loads(response.content)

    def assert_ill(self, name):
        status, health = self.ask()
        self.assertEqual(status, 503)
        self.assertRegex(health.pop(name), r"^[A-Z].*\.$")
        self.assertEqual(set(health.values()), {"ok"})

    def test_all_is_well(self):
        parts = ("disk", "database", "cache", "storage")
        self.assertEqual(self.ask(), (200, dict.fromkeys(parts, "ok")))

    def test_lost_files_are_named_without_their_paths(self):
        note_lost_files(13, [f"original of picture {number}" for number in range(1, 11)])

        status, health = self.ask()

        self.assertEqual(status, 503)
        self.assertRegex(health["storage"], r"^Lost files: original of picture 1, .* and 3 more\.$")
        self.assertNotIn("/", health["storage"])
        note_lost_files(0, [])
        self.assertEqual(self.ask()[0], 200)

    def test_a_balancer_is_told_of_this_host_alone(self):
        note_lost_files(1, ["original of picture 1"])

        self.assertEqual(self.ask("?host"), (200, {"disk": "ok"}))
        with override_settings(MIN_FREE_SPACE=2**60):
            self.assertEqual(self.ask("?host")[0], 503)

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

    @local_only
    def test_a_folder_that_is_gone(self):
        shutil.rmtree(settings.MEDIA_ROOT)

        self.assert_ill("disk")

    def test_a_disk_that_is_full(self):
        with override_settings(MIN_FREE_SPACE=2**60):
            self.assert_ill("disk")
