from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from unittest.mock import patch

from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection
from django.test import SimpleTestCase, override_settings

from .base import PRODUCTION, FoldersMixin
from .servers import Memcached, free_port, manage, requires


def ids(**options):
    checks = run_checks(**options)
    return [message.id for message in checks if message.id.startswith("uploads.")]


class CheckTests(FoldersMixin, SimpleTestCase):
    def test_the_settings_as_they_are_pass(self):
        self.assertEqual(ids(), [])

    def test_the_handlers_may_be_a_tuple(self):
        with override_settings(FILE_UPLOAD_HANDLERS=tuple(settings.FILE_UPLOAD_HANDLERS)):
            self.assertEqual(ids(), [])

    def test_a_handler_that_is_not_first_or_not_there_is_warned_of(self):
        first, second = settings.FILE_UPLOAD_HANDLERS
        for handlers in ([second, first], [first], [second], []):
            with override_settings(FILE_UPLOAD_HANDLERS=handlers):
                self.assertEqual(ids(), ["uploads.W001"])

    def test_static_files_of_another_release_or_none_are_warned_of(self):
        storage = {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}
        storages = {**settings.STORAGES, "staticfiles": storage}
        with override_settings(STORAGES=storages, STATIC_ROOT=self.folder / "static"):
            self.assertEqual(ids(), ["uploads.W003"])
            call_command("collectstatic", interactive=False, verbosity=0)
            self.assertEqual(ids(), [])

            manifest = self.folder / "static" / "staticfiles.json"
            manifest.write_text(manifest.read_text().replace("uploads/upload.js", "upload.js"))
            self.assertEqual(ids(), ["uploads.W003"])

    def test_no_temporary_folder_of_our_own_is_warned_of(self):
        with override_settings(FILE_UPLOAD_TEMP_DIR=None):
            self.assertEqual(ids(), ["uploads.W002"])

    def test_a_temporary_folder_may_be_missing_as_migrate_makes_it(self):
        with override_settings(FILE_UPLOAD_TEMP_DIR=self.folder / "missing"):
            self.assertEqual(ids(), [])

    def test_a_temporary_folder_on_another_file_system_is_warned_of(self):
        shared_memory = Path("/dev/shm")
        here = self.folder.stat().st_dev
        if not shared_memory.is_dir() or shared_memory.stat().st_dev == here:
            self.skipTest("There is no second file system to test this with.")
        with (
            TemporaryDirectory(dir=shared_memory) as folder,
            override_settings(FILE_UPLOAD_TEMP_DIR=Path(folder, "missing")),
        ):
            self.assertEqual(ids(), ["uploads.W002"])


@override_settings(BALANCERS=["10.0.0.0/8"])
class DeployCheckTests(FoldersMixin, SimpleTestCase):
    def assert_warned(self, *expected):
        self.assertEqual(ids(include_deployment_checks=True), [*expected])

    def test_the_settings_as_they_are_pass(self):
        self.assert_warned()

    @requires("memcached")
    def test_memcached_that_does_not_answer_is_warned_of(self):
        with Memcached() as memcached, override_settings(MEMCACHED=memcached.address):
            self.assert_warned()
            with memcached.hung():
                self.assert_warned("uploads.W004")
        with override_settings(MEMCACHED=f"127.0.0.1:{free_port()}"):
            self.assert_warned("uploads.W004")

    @requires("memcached")
    def test_a_peer_that_does_not_answer_is_warned_of_by_its_setting(self):
        with (
            Memcached() as memcached,
            override_settings(
                MEMCACHED=memcached.address, MEMCACHED_PEERS=[f"127.0.0.1:{free_port()}"]
            ),
        ):
            hints = [message.hint for message in run_checks(include_deployment_checks=True)]
        self.assertIn("GOURMIOUS_MEMCACHED_PEERS", " ".join(filter(None, hints)))

    def test_a_folder_that_cannot_be_written_to_is_warned_of(self):
        with override_settings(ORIGINALS_ROOT=self.folder / "missing"):
            self.assert_warned("uploads.W005")

    def test_limits_that_contradict_each_other_are_warned_of(self):
        for limits in (
            {"UPLOAD_MAX_SIZE": settings.PICTURE_MAX_SIZE - 1},
            {"MAX_UPLOADS_PER_ADDRESS": settings.MAX_UPLOADS + 1},
        ):
            with override_settings(**limits):
                self.assert_warned("uploads.W006")

    @override_settings(BALANCERS=[])
    def test_a_site_over_plain_http_is_warned_of(self):
        self.assert_warned("uploads.W007")
        with override_settings(TLS_CERTIFICATE="/certificate.pem"):
            self.assert_warned()

    def test_an_address_for_mails_without_a_program_that_sends_them_is_warned_of(self):
        with override_settings(ALERT_MAIL="ops@gourmious.example"):
            with patch("shutil.which", return_value=None):
                self.assert_warned("uploads.W008")
            with patch("shutil.which", return_value="/usr/sbin/sendmail"):
                self.assert_warned()

    @requires("memcached")
    def test_more_connections_than_the_database_allows_are_warned_of(self):
        with (
            Memcached() as peer,
            override_settings(WORKERS=2, DATABASE_POOL=8, MEMCACHED_PEERS=[peer.address]),
            patch.object(connection, "get_max_connections", return_value=64) as allowed,
        ):
            self.assert_warned()
            allowed.return_value = 63
            self.assert_warned("uploads.W010")

    @requires("memcached")
    def test_a_server_that_is_set_up_as_the_readme_says_has_no_warning(self):
        with Memcached() as memcached:
            environment = {
                **PRODUCTION,
                "GOURMIOUS_SECRET_KEY": token_urlsafe(48),
                "GOURMIOUS_MEMCACHED": memcached.address,
                "GOURMIOUS_BALANCERS": "10.0.0.0/8",
                "GOURMIOUS_DATA_DIR": str(self.folder),
            }
            manage("collectstatic", "--no-input", **environment)
            manage("check", "--deploy", "--fail-level=WARNING", **environment)
