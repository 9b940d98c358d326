"""Where the files of pictures live: in folders below the data folder."""

import errno
import json
import logging
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from django.conf import settings
from django.core.files import locks
from django.core.files.storage import FileSystemStorage

MAX_NAMES = 10  # lost files that are named

logger = logging.getLogger(__name__)


class OriginalStorage(FileSystemStorage):
    """Store the originals below ORIGINALS_ROOT, without URLs, and readable only by the server."""

    base_url = None
    file_permissions_mode = 0o600

    @property
    def base_location(self):
        return settings.ORIGINALS_ROOT


def has_room():
    """Return whether more of the disk is free than is kept for the database and for staff."""
    free, reserve = measure_disk()
    return free > reserve


def measure_disk():
    """Return how much of the disk is free, and how much uploads must leave free, in bytes."""
    disk = os.statvfs(settings.DATA_DIR)
    return disk.f_bavail * disk.f_frsize, get_reserve(disk)


def get_reserve(disk):
    """Return how much of a disk is kept free, in bytes: 1 GiB, or 5 % of a small disk."""
    return settings.MIN_FREE_SPACE or min(2**30, disk.f_blocks * disk.f_frsize // 20)


def move(source, target):
    """Store a temporary file by renaming; raise OSError if the stored file is shorter.

    Between two file systems Django (5.2) copies the file, and does not notice when a full disk
    takes only a part of the last write.
    """
    target.storage.save(target.name, source)
    if target.size != source.size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target.path)


def delete_files(files):
    """Delete what can be deleted; prune_uploads removes the rest, which no row names."""
    for file in filter(None, files):
        try:
            file.storage.delete(file.name)
        except OSError:
            logger.exception("A file could not be deleted.")


def is_locked(path):
    """Return whether a process has locked a file. The lock ends with the process at the latest."""
    with path.open("rb") as file:
        return not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB)


class LostFiles(NamedTuple):
    """The files of pictures that prune_uploads did not find when it last looked."""

    count: int = 0
    names: tuple = ()  # at most MAX_NAMES, such as "original of picture 12"
    time: float = 0  # when it looked, in seconds since 1970


def note_lost_files(names):
    """Note the names of all lost files, for read_lost_files()."""
    text = json.dumps({"count": len(names), "names": names[:MAX_NAMES]})
    with NamedTemporaryFile("w", dir=settings.FILE_UPLOAD_TEMP_DIR, delete=False) as file:
        file.write(text)
    Path(file.name).replace(settings.LOST_FILES)


def read_lost_files():
    """Return the LostFiles; none, if nobody has looked yet."""
    try:
        noted = json.loads(settings.LOST_FILES.read_text())
        time = settings.LOST_FILES.stat().st_mtime
    except (FileNotFoundError, ValueError):  # A power cut may have emptied it.
        return LostFiles()
    return LostFiles(**noted, time=time)
