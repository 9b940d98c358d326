"""Where the files of pictures live: in folders below the data folder."""

import errno
import logging
import os

from django.conf import settings
from django.core.files.storage import FileSystemStorage

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
    disk = os.statvfs(settings.DATA_DIR)
    return disk.f_bavail * disk.f_frsize > get_reserve(disk)


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
