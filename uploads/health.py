"""The health of what the app depends on: the database, the cache, the disk and the files."""

import os

from django.conf import settings
from django.db import DatabaseError, connection

from .models import Dish
from .progress import cache_answers
from .storage import find_faults, has_room, list_folders, read_lost_files

# The original and the renditions of each photo.
FILES_OF_UPLOAD = 3 * settings.DATA_UPLOAD_MAX_NUMBER_FILES


def get_health(host_only=False):
    """Return "ok" for the database, the cache, the disk and the files, or a sentence for a fault.

    With `host_only`, leave out what all hosts share: asking another host would not help.

    Anybody may read the sentences, so they name no path of the server.
    """
    faults = {"disk": disk_fault()}
    if not host_only:
        faults |= {
            "database": database_fault(),
            "cache": cache_fault(),
            "storage": storage_fault(),
        }
    return {name: fault or "ok" for name, fault in faults.items()}


def database_fault():
    try:
        Dish.objects.exists()
        return connection.find_fault()
    except DatabaseError as error:
        if connection.is_unavailable(error):
            return "The database is not available."
        return f"The database cannot be read: {error}."


def cache_fault():
    return None if cache_answers() else "The cache does not keep what it is given."


def disk_fault():
    for folder in list_folders():
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"The folder {folder.name} cannot be written to."
        disk = os.statvfs(folder)
        if disk.f_files and disk.f_favail < FILES_OF_UPLOAD:  # Some file systems do not count.
            return f"Less than {FILES_OF_UPLOAD} files can be added to {folder.name}."
    return None if has_room() else "The disk has less free space than uploads must leave."


def storage_fault():
    """Return whether the store can be reached, and which files prune_uploads has not found.

    To look for all files now would take too long.
    """
    if fault := next(find_faults(), None):
        return fault
    lost = read_lost_files()
    if not lost.count:
        return None
    others = lost.count - len(lost.names)
    return f"Lost files: {', '.join(lost.names)}{f' and {others} more' if others else ''}."
