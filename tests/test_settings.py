from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import format_exception
from unittest.mock import patch

from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase

from . import buckets
from .base import PRODUCTION
from .environment import read_settings
from .servers import manage

UNUSABLE = (
    ("GOURMIOUS_ALLOWED_HOSTS", "https://gourmious.example"),
    ("GOURMIOUS_ALLOWED_HOSTS", "gourmious.example:443"),
    ("GOURMIOUS_ALLOWED_HOSTS", "gourmious.example www.gourmious.example"),
    ("GOURMIOUS_ALLOWED_HOSTS", "gourmious.example;"),
    ("GOURMIOUS_MEMCACHED", "localhost"),
    ("GOURMIOUS_MEMCACHED", "localhost:http"),
    ("GOURMIOUS_MEMCACHED", "localhost:65536"),
    ("GOURMIOUS_MEMCACHED_PEERS", "10.0.0.2"),
    ("GOURMIOUS_SITE", "My-Site"),
    ("GOURMIOUS_SITE", "1-site"),
    ("GOURMIOUS_SITE", "s" * 22),
    ("GOURMIOUS_TRUSTED_PROXIES", "nginx"),
    ("GOURMIOUS_TRUSTED_PROXIES", "10.0.0.0/33"),
    ("GOURMIOUS_BALANCERS", "balancer"),
    ("GOURMIOUS_TLS_CERTIFICATE", "/certificate.pem"),
    ("GOURMIOUS_TLS_KEY", "/key.pem"),
    ("GOURMIOUS_RUN_DIR", "run"),
    ("GOURMIOUS_RUN_DIR", "/" + "x" * 60),
    ("GOURMIOUS_BACKUP_DIR", "backup"),
    ("GOURMIOUS_METRICS_PORT", "http"),
    ("GOURMIOUS_METRICS_PORT", "65536"),
    ("GOURMIOUS_ALERT_MAIL", "ops@"),
    ("GOURMIOUS_ALERT_MAIL", "a@a.example, b@a.example"),
    ("GOURMIOUS_WORKERS", "0"),
    ("GOURMIOUS_MAX_UPLOADS", "many"),
    ("GOURMIOUS_MAX_MB_PER_DAY", "2G"),
    ("GOURMIOUS_MIN_FREE_MB", "-1"),
    ("GOURMIOUS_MAX_UPLOADS_PER_ADDRESS", "-1"),
    ("GOURMIOUS_UPLOADS_PER_MINUTE", "0"),
    ("GOURMIOUS_POSTS_PER_MINUTE", "1.5"),
)


class SettingsTests(SimpleTestCase):
    def assert_improper(self, name, **environment):
        with self.assertRaisesRegex(ImproperlyConfigured, f"{name}.*\\.$"):
            read_settings(**environment)

    def test_development_needs_no_variable(self):
        settings = read_settings()

        self.assertTrue(settings["DEBUG"])
        self.assertIn("LocMemCache", settings["CACHES"]["default"]["BACKEND"])

    def test_production_takes_its_values_from_the_environment(self):
        settings = read_settings(**PRODUCTION)

        self.assertFalse(settings["DEBUG"])
        self.assertEqual(settings["ALLOWED_HOSTS"], ["gourmious.example", "www.gourmious.example"])
        self.assertEqual(settings["CACHES"]["default"]["LOCATION"], "127.0.0.1:11211")

    def test_production_is_for_https_alone(self):
        settings = read_settings(**PRODUCTION)

        self.assertTrue(settings["SECURE_HSTS_SECONDS"])
        self.assertFalse(read_settings()["SECURE_HSTS_SECONDS"])

    def test_production_stops_without_a_required_variable_and_names_it(self):
        for name in ("GOURMIOUS_ALLOWED_HOSTS", "GOURMIOUS_MEMCACHED"):
            with self.subTest(name):
                self.assert_improper(name, **{**PRODUCTION, name: ""})

    def test_a_value_that_cannot_be_used_stops_the_start_and_is_named(self):
        for name, value in UNUSABLE:
            with self.subTest(value):
                self.assert_improper(name, **{name: value})

    def test_the_store_is_set_as_a_whole_or_not_at_all(self):
        store = buckets.describe_buckets("http://s3.example:9000", "gourmious")
        self.assertEqual(read_settings(**store)["S3"]["region"], "us-east-1")
        self.assertIsNone(read_settings(**dict.fromkeys(store, ""))["S3"])

        for name in store:
            with self.subTest(name):
                self.assert_improper(name, **{**store, name: ""})

    def test_a_value_of_the_store_that_cannot_be_used_stops_the_start_and_is_named(self):
        store = buckets.describe_buckets("https://s3.example", "gourmious")
        for name, value in (
            ("GOURMIOUS_S3_ENDPOINT", "s3.example:9000"),
            ("GOURMIOUS_S3_ENDPOINT", "https://s3.example/bucket"),
            ("GOURMIOUS_S3_ENDPOINT", "https://key@s3.example"),
            ("GOURMIOUS_S3_ENDPOINT", "http://my_store:9000"),
            ("GOURMIOUS_S3_ENDPOINT", "https://s3.example:65536"),
            ("GOURMIOUS_S3_ENDPOINT", "https://s3..example"),
            ("GOURMIOUS_S3_ENDPOINT", "https://10.0.0.20:8333"),
            ("GOURMIOUS_S3_ORIGINALS", "Originals"),
            ("GOURMIOUS_S3_ORIGINALS", "originals/2026"),
            ("GOURMIOUS_S3_RENDITIONS", "gourmious-originals"),
            ("GOURMIOUS_S3_ACCESS_KEY", "a key"),
            ("GOURMIOUS_S3_REGION", "eu west"),
            ("GOURMIOUS_S3_CA", "ca.pem"),
        ):
            with self.subTest(value):
                self.assert_improper(name, **{**store, name: value})

    def test_without_the_packages_of_the_store_the_start_stops_and_names_them(self):
        store = buckets.describe_buckets("https://s3.example", "gourmious")

        with patch.dict("sys.modules", boto3=None):
            self.assert_improper("gourmious/deploy/requirements.txt", **store)

    def test_hosts_may_be_names_wildcards_and_ip_addresses(self):
        hosts = ["gourmious.example", ".example", "*", "localhost", "127.0.0.1", "[::1]"]

        settings = read_settings(GOURMIOUS_ALLOWED_HOSTS=",".join(hosts))

        self.assertEqual(settings["ALLOWED_HOSTS"], hosts)

    def test_sites_share_neither_their_sockets_nor_their_records(self):
        for environment, site in (({}, "gourmious"), ({"GOURMIOUS_SITE": "my-site"}, "my-site")):
            settings = read_settings(**PRODUCTION, **environment)

            self.assertEqual(settings["RUN_DIR"], Path("/run", site))
            self.assertEqual(settings["CACHES"]["default"]["KEY_PREFIX"], site)

    def test_the_renderers_of_all_processes_are_as_many_as_the_cores(self):
        for cores, workers, renderers in ((2, 2, 1), (8, 2, 4), (2, 8, 1)):
            with patch("os.cpu_count", return_value=cores):
                settings = read_settings(GOURMIOUS_WORKERS=str(workers))
            self.assertEqual(settings["RENDERERS"], renderers)

    def test_a_second_memcached_of_the_host_is_sent_to_the_setting_for_those_of_others(self):
        servers = "127.0.0.1:11211,10.0.0.2:11211"

        self.assert_improper(
            "GOURMIOUS_MEMCACHED holds .*GOURMIOUS_MEMCACHED_PEERS",
            **{**PRODUCTION, "GOURMIOUS_MEMCACHED": servers},
        )

    def test_a_data_folder_that_cannot_be_made_stops_the_start(self):
        for folder in (__file__, f"{__file__}/below"):
            self.assert_improper("GOURMIOUS_DATA_DIR", GOURMIOUS_DATA_DIR=folder)

    def test_the_data_folder_holds_everything_that_is_kept(self):
        with TemporaryDirectory() as folder:
            data = Path(folder, "data")
            settings = read_settings(GOURMIOUS_DATA_DIR=str(data))

            for name in ("FILE_UPLOAD_TEMP_DIR", "ORIGINALS_ROOT", "MEDIA_ROOT", "STATIC_ROOT"):
                self.assertEqual(settings[name].parent, data)
            self.assertEqual(settings["DATABASES"]["default"]["NAME"].parent, data)

    def test_only_migrate_makes_the_folders(self):
        with TemporaryDirectory() as folder:
            data = Path(folder, "data")

            manage("check", GOURMIOUS_DATA_DIR=str(data))
            self.assertFalse(data.exists())
            manage("migrate", GOURMIOUS_DATA_DIR=str(data))
            self.assertEqual(
                {path.name for path in data.iterdir() if path.is_dir()},
                {"incoming", "originals", "media"},
            )

    def test_a_url_names_the_database(self):
        for url, expected in (
            (
                "postgresql://chef:p%40ss@db.example:5433/menu",
                ["chef", "p@ss", "db.example", "5433"],
            ),
            ("postgresql://[2001:db8::1]/menu", ["", "", "2001:db8::1", ""]),
            ("postgresql:///menu?host=/run/postgresql", ["", "", "/run/postgresql", ""]),
        ):
            with self.subTest(url):
                database = read_settings(GOURMIOUS_DATABASE_URL=url)["DATABASES"]["default"]
                self.assertEqual(database["NAME"], "menu")
                parts = [database[name] for name in ("USER", "PASSWORD", "HOST", "PORT")]
                self.assertEqual(parts, expected)

    def test_the_url_may_have_parameters_and_another_variable_sizes_the_pool(self):
        url = "postgresql://db.example/menu?sslmode=verify-full"
        settings = read_settings(GOURMIOUS_DATABASE_URL=url, GOURMIOUS_DATABASE_POOL="3")

        options = settings["DATABASES"]["default"]["OPTIONS"]
        self.assertEqual(options, {"sslmode": "verify-full", "pool": {"max_size": 3}})

    def test_the_password_of_an_unreadable_url_is_not_told(self):
        for url in (
            "mysql://chef:secret@db.example/menu",
            "postgresql://chef:secret@db.example",
            "postgresql://chef:secret@db.example:port/menu",
            "postgresql://chef:secret%@db.example/menu",
            "postgresql://chef:secret@db.example/menu?speed=high",
            "host=db.example password=secret dbname=menu",
        ):
            with self.subTest(url):
                with self.assertRaises(ImproperlyConfigured) as caught:
                    read_settings(GOURMIOUS_DATABASE_URL=url)
                self.assertRegex(str(caught.exception), r"^GOURMIOUS_DATABASE_URL .*\.$")
                self.assertNotIn("secret", "".join(format_exception(caught.exception)))

    def test_a_site_without_the_packages_of_postgresql_is_told_so(self):
        url = "postgresql://db.example/menu"
        missing = {"psycopg": None, "gourmious.postgresql.url": None}
        with (
            patch.dict("sys.modules", missing),
            self.assertRaisesRegex(ImproperlyConfigured, r"deploy/requirements\.txt\.$"),
        ):
            read_settings(GOURMIOUS_DATABASE_URL=url)

    def test_the_daily_backup_is_for_local_rows_and_files(self):
        database = {"GOURMIOUS_DATABASE_URL": "postgresql://db.example/menu"}
        for environment in (database, buckets.describe_buckets("https://s3.example", "gourmious")):
            self.assert_improper(
                "GOURMIOUS_BACKUP_DIR", GOURMIOUS_BACKUP_DIR="/backup", **environment
            )
