"""Helpers of the tests: the settings of production, empty folders, dishes and uploads."""

import hashlib
import os
import sqlite3
from contextlib import contextmanager, nullcontext
from functools import cache as remember
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch
from xml.etree import ElementTree

from django.conf import settings
from django.core.cache import cache
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import SimpleUploadedFile, TemporaryUploadedFile
from django.db import OperationalError, connection
from django.test import TestCase, override_settings
from psycopg import errors

from uploads.forms import read_banned_diners
from uploads.models import Dish, Picture

from . import buckets
from .environment import read_settings

PRODUCTION = {
    "GOURMIOUS_SECRET_KEY": "a secret of production",
    "GOURMIOUS_ALLOWED_HOSTS": "gourmious.example, www.gourmious.example",
    "GOURMIOUS_MEMCACHED": "127.0.0.1:11211",
}

FOLDERS = {"originals": "originals", "renditions": "media"}  # by the kind of a bucket


def make_dish(name="Bouillabaisse", restaurant="Chez Fonfon"):
    return Dish.objects.create(name=name, restaurant=restaurant)


def upload_file(content, name="dish.jpg"):
    return SimpleUploadedFile(name, content)


def store(dish, content, name="dish.jpg", **options):
    """Store a photo as the view does once it has been received."""
    with TemporaryUploadedFile(name, "image/jpeg", len(content), None) as file:
        file.write(content)
        file.flush()
        file.digest = hashlib.sha256(content).hexdigest()
        picture, _ = Picture.objects.get_or_store(dish, file, **options)
        return picture


def database_error(kind):
    """Return the exception that Django raises when the database is "full" or "unavailable"."""
    error = OperationalError()
    if connection.vendor == "sqlite":
        codes = {"full": sqlite3.SQLITE_FULL, "unavailable": sqlite3.SQLITE_BUSY}
        error.__cause__ = sqlite3.OperationalError()
        error.__cause__.sqlite_errorcode = codes[kind]
    else:
        causes = {"full": errors.DiskFull, "unavailable": errors.CannotConnectNow}
        error.__cause__ = causes[kind]()
    return error


def use_own_buckets():
    """Use empty buckets of this process alone during the block; without S3, do nothing."""
    if not settings.S3:
        return nullcontext()
    return use_buckets(make_own_buckets(settings.S3["endpoint"], os.getpid()))


@contextmanager
def use_buckets(environment):
    """Empty these buckets, and keep files in them, also those of programs that the block starts."""
    new = read_settings(**environment)
    buckets.empty(environment)
    field = Picture._meta.get_field("original")
    with (
        patch.dict(os.environ, environment),
        override_settings(S3=new["S3"], STORAGES=new["STORAGES"]),
        patch.object(field, "storage", storages["originals"]),
    ):
        yield


@remember
def make_own_buckets(endpoint, process):
    """Make the buckets of a process of the tests."""
    return buckets.make_buckets(endpoint, f"process-{process}")


class FoldersMixin:
    """Give each test empty folders for its files, empty buckets if there are any, and caches."""

    def setUp(self):
        super().setUp()
        self.enterContext(use_own_buckets())
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        notes = Path(self.enterContext(TemporaryDirectory(prefix="gourmious-")))
        for name in ("incoming", "originals", "media"):
            (self.folder / name).mkdir()
        self.enterContext(
            override_settings(
                FILE_UPLOAD_TEMP_DIR=self.folder / "incoming",
                ORIGINALS_ROOT=self.folder / "originals",
                MEDIA_ROOT=self.folder / "media",
                LOST_FILES=notes / "lost.json",
            )
        )
        cache.clear()
        read_banned_diners.cache_clear()

    def __reduce__(self):
        """Let a parallel run report a failed subtest, though its locks cannot be pickled."""
        return type(self), (self._testMethodName,)

    def files(self, folder="."):
        """Return the paths of files; those in buckets have the paths that they have in folders."""
        found = [path for path in (self.folder / folder).rglob("*") if path.is_file()]
        for kind, key in buckets.list_all(settings.S3):
            path = self.folder / FOLDERS[kind] / key
            if path.is_relative_to(self.folder / folder):
                found.append(path)
        return sorted(found)

    def path_of(self, file):
        """Return the path of a picture's file among files()."""
        folder = "originals" if file.field.name == "original" else "media"
        return self.folder / folder / file.name


def read(file):
    """Return the content of a picture's file."""
    with file.storage.open(file.name) as content:
        return content.read()


def lose(file):
    file.storage.delete(file.name)


def overwrite(file, content):
    lose(file)
    file.storage.save(file.name, ContentFile(content))


class UploadTestCase(FoldersMixin, TestCase):
    """Upload through the view with Django's test client."""

    def setUp(self):
        super().setUp()
        self.dish = make_dish()

    def post(self, *files, query="", accept="application/xml", **fields):
        data = {"id": self.dish.pk, "picture": list(files), **fields}
        return self.client.post(f"/upload{query}", data, headers={"accept": accept})

    def assert_refused(self, response, code, status):
        """Assert that the answer is an error with this code, and that nothing was kept."""
        upload = ElementTree.fromstring(response.content)
        self.assertEqual(response["Content-Type"], "application/xml")
        self.assertEqual(upload.findtext("status"), "error")
        self.assertEqual([error.get("code") for error in upload.iter("error")], [code])
        self.assertRegex(upload.findtext("error"), r"^[A-Z].*\.$")
        self.assertEqual(response.status_code, status)
        self.assertEqual(self.files(), [])
        self.assertFalse(self.dish.pictures.exists())
