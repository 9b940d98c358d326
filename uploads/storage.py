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
