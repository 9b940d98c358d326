"""What Django's system check should say of settings that let uploads down in silence."""

from pathlib import Path

from django.conf import settings
from django.core.checks import Warning as CheckWarning
from django.core.checks import register

HANDLER = "uploads.uploadhandler.UploadProgressCachedHandler"


@register
def check_handler_is_first(**kwargs):
    if settings.FILE_UPLOAD_HANDLERS[:1] == [HANDLER]:
        return []
    return [
        CheckWarning(
            f"{HANDLER} is not the first of FILE_UPLOAD_HANDLERS.",
            hint="Put it first: a handler before it may stop those that follow.",
            id="uploads.W001",
        )
    ]


@register
def check_temporary_folder_is_on_the_pictures_disk(**kwargs):
    folders = [settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT, settings.MEDIA_ROOT]
    if None not in folders and len({device(folder) for folder in folders}) == 1:
        return []
    return [
        CheckWarning(
            "FILE_UPLOAD_TEMP_DIR is not on the file system of ORIGINALS_ROOT and MEDIA_ROOT.",
            hint="Put the three on one file system: storing a picture is then a rename, no copy.",
            id="uploads.W002",
        )
    ]


def device(folder):
    """Return the number of a folder's file system, or None where there is no such folder."""
    return Path(folder).stat().st_dev if Path(folder).is_dir() else None
