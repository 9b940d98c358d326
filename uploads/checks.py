"""What Django's system check should say of settings that let uploads down in silence."""

from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import ManifestFilesMixin, staticfiles_storage
from django.core.checks import Warning as CheckWarning
from django.core.checks import register

HANDLERS = [
    "uploads.uploadhandler.UploadProgressCachedHandler",
    "uploads.uploadhandler.PictureFileUploadHandler",
]


@register
def check_handlers_are_first(**kwargs):
    if list(settings.FILE_UPLOAD_HANDLERS[:2]) == HANDLERS:
        return []
    return [
        CheckWarning(
            f"FILE_UPLOAD_HANDLERS does not begin with {' and '.join(HANDLERS)}.",
            hint="Put them first, in this order: a handler may stop those that follow it.",
            id="uploads.W001",
        )
    ]


@register
def check_temporary_folder_is_on_the_pictures_disk(**kwargs):
    folders = [settings.FILE_UPLOAD_TEMP_DIR, settings.ORIGINALS_ROOT, settings.MEDIA_ROOT]
    devices = {device(folder) for folder in folders}
    if None not in devices and len(devices) == 1:
        return []
    return [
        CheckWarning(
            "FILE_UPLOAD_TEMP_DIR is not on the file system of ORIGINALS_ROOT and MEDIA_ROOT.",
            hint="Put the three on one file system: storing a picture is then a rename, no copy.",
            id="uploads.W002",
        )
    ]


@register
def check_static_files_are_collected(**kwargs):
    if not isinstance(staticfiles_storage, ManifestFilesMixin):
        return []
    hashed, _ = staticfiles_storage.load_manifest()
    found = {path for finder in get_finders() for path, _ in finder.list([])}
    if found <= set(hashed):
        return []
    return [
        CheckWarning(
            "The static files are not those of this release; pages that name them will fail.",
            hint="Run collectstatic, then restart the server.",
            id="uploads.W003",
        )
    ]


def device(folder):
    """Return the number of a folder's file system, or None where there is no such folder."""
    return Path(folder).stat().st_dev if folder and Path(folder).is_dir() else None
