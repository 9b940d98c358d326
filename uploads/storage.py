"""Where the files of pictures live: in folders below the data folder, or in buckets (see s3.py)."""

import errno
import json
import logging
import os
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from django.conf import settings
from django.core.files import locks
from django.core.files.storage import FileSystemStorage, storages
from django.http import FileResponse

BATCH_SIZE = 1000  # files; a page of S3's listing has as many
MAX_NAMES = 10  # lost files that are named

logger = logging.getLogger(__name__)


class FolderStorage(FileSystemStorage):
    """Store files in one folder, each by renaming."""

    def _save(self, name, content):
        """Raise OSError if the stored file is shorter than the temporary file.

        Between two file systems Django (5.2) copies the file, and does not notice when a full disk
        takes only a part of the last write.
        """
        name = super()._save(name, content)
        if self.size(name) != content.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path(name))
        return name

    def open_path(self, name):
        """Return a context manager that gives the path of a file for as long as its block runs."""
        return nullcontext(self.path(name))

    def send(self, name):
        """Return a response that lets a browser download a file."""
        return FileResponse(self.open(name), as_attachment=True)

    def locate(self, name):
        """Return where an operator finds a file."""
        return self.path(name)

    def get_sizes(self, names):
        """Return the sizes of those files that exist, by their names."""
        sizes = {}
        for name in names:
            with suppress(FileNotFoundError):
                sizes[name] = self.size(name)
        return sizes

    def list_old(self, before):
        """Yield batches of the names of all files that are older than a time."""
        with os.scandir(self.location) as entries:
            yield from batched(entry.name for entry in entries if is_old_file(entry, before))

    def is_in_use(self, name):
        """Return whether an upload has locked a file. It releases the lock when it is answered."""
        try:
            return is_locked(Path(self.path(name)))
        except FileNotFoundError:  # It was moved or deleted in the meantime.
            return True

    def find_fault(self):
        """Return None: health.disk_fault() tells of folders."""


class RenditionStorage(FolderStorage):
    """Store the renditions below MEDIA_ROOT."""


class OriginalStorage(FolderStorage):
    """Store the originals below ORIGINALS_ROOT, without URLs, and readable only by the server."""

    base_url = None
    file_permissions_mode = 0o600

    @property
    def base_location(self):
        return settings.ORIGINALS_ROOT


def get_original_storage():
    return storages["originals"]


def list_folders():
    """Return the folders that uploads write to."""
    if settings.S3:
        return [settings.FILE_UPLOAD_TEMP_DIR]
    return [settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT, settings.MEDIA_ROOT]


def find_faults():
    """Yield a sentence for each storage that cannot be reached."""
    for alias in ("originals", "default"):
        if fault := storages[alias].find_fault():
            yield fault


def batched(items):
    """Yield the items in lists, like itertools.batched(), which Python has since 3.12."""
    items = iter(items)
    while batch := list(islice(items, BATCH_SIZE)):
        yield batch


def is_old_file(entry, before):
    with suppress(FileNotFoundError):  # It was moved or deleted in the meantime.
        return entry.is_file() and entry.stat().st_mtime < before
    return False


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


def delete_files(files):
    """Delete what can be deleted; prune_uploads removes the rest, which no row names."""
    for file in filter(None, files):
        try:
            file.storage.delete(file.name)
        except OSError as error:
            logger.exception("A file could not be deleted.")
            if isinstance(error, (ConnectionError, TimeoutError)):
                return  # The store is away, and each attempt takes seconds.


def is_locked(path):
    """Return whether a process has locked a file. The lock ends with the process at the latest."""
    with path.open("rb") as file:
        return not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB)


class LostFiles(NamedTuple):
    """The files of pictures that prune_uploads did not find when it last looked."""

    count: int = 0
    names: tuple = ()  # at most MAX_NAMES, such as "original of picture 12"
    time: float = 0  # when it looked, in seconds since 1970


def note_lost_files(count, names):
    """Note how many files are lost, and the names of the first, for read_lost_files()."""
    text = json.dumps({"count": count, "names": names})
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
