"""Whether what the app stands on is there: the database, the cache and the disk."""

import os
import shutil

from django.conf import settings
from django.db import DatabaseError
from django.template.defaultfilters import filesizeformat

from .models import Dish
from .progress import cache_answers


def get_health():
    """Return a sentence about each: what is wrong with it, or "ok"."""
    faults = {"database": database_fault(), "cache": cache_fault(), "disk": disk_fault()}
    return {name: fault or "ok" for name, fault in faults.items()}


def database_fault():
    try:
        Dish.objects.exists()
    except DatabaseError as error:
        return f"The database cannot be read: {error}."
    return None


def cache_fault():
    return None if cache_answers() else "The cache does not keep what it is given."


def disk_fault():
    for folder in (settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT, settings.MEDIA_ROOT):
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"The folder {folder} cannot be written to."
        if shutil.disk_usage(folder).free < settings.UPLOAD_MAX_SIZE:
            return f"Less than {filesizeformat(settings.UPLOAD_MAX_SIZE)} are free in {folder}."
    return None
