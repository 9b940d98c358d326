"""System checks for settings that break uploads without an error.

`manage.py check --deploy` also runs those that matter only on a server.
"""

import os
import shutil
from contextlib import closing
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.contrib.staticfiles.storage import ManifestFilesMixin, staticfiles_storage
from django.core.checks import Warning as CheckWarning
from django.core.checks import register
from django.db import connection
from pymemcache import Client, MemcacheError

from .health import disk_fault
from .storage import find_faults, list_folders

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
    devices = {get_device(folder) for folder in list_folders()}
    if None not in devices and len(devices) == 1:
        return []
    return [
        CheckWarning(
            "FILE_UPLOAD_TEMP_DIR is not on the file system of ORIGINALS_ROOT and MEDIA_ROOT.",
            hint="Put the three on one file system: then a picture is stored by renaming.",
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


@register(deploy=True)
def check_memcached_answers(**kwargs):
    own = {settings.MEMCACHED: "GOURMIOUS_MEMCACHED"} if settings.MEMCACHED else {}
    peers = dict.fromkeys(settings.MEMCACHED_PEERS, "GOURMIOUS_MEMCACHED_PEERS")
    return [
        CheckWarning(
            f"memcached does not answer at {address}: {fault}.",
            hint=f"Start it, or correct {setting}. The uploads of its host succeed without it, but "
            "their bars may show only what the browsers have sent.",
            id="uploads.W004",
        )
        for address, setting in {**peers, **own}.items()
        if (fault := memcached_fault(address))
    ]


@register(deploy=True)
def check_folders_can_be_written_to(**kwargs):
    if not (fault := disk_fault()):
        return []
    return [
        CheckWarning(
            fault,
            hint="Make room, or give the folder to the user that the server runs as.",
            id="uploads.W005",
        )
    ]


@register(deploy=True)
def check_limits_agree(**kwargs):
    pairs = [
        ("PICTURE_MAX_SIZE", "UPLOAD_MAX_SIZE"),
        ("MAX_UPLOADS_PER_ADDRESS", "MAX_UPLOADS"),
    ]
    return [
        CheckWarning(
            f"{lower} is larger than {upper}: the second refuses what the first allows.",
            hint="Raise the second, or lower the first.",
            id="uploads.W006",
        )
        for lower, upper in pairs
        if getattr(settings, lower) > getattr(settings, upper)
    ]


@register(deploy=True)
def check_site_is_served_over_https(**kwargs):
    if settings.TLS_CERTIFICATE or settings.BALANCERS:
        return []
    return [
        CheckWarning(
            "The site is served over plain HTTP: others can read its cookies and passwords.",
            hint="Set GOURMIOUS_TLS_CERTIFICATE and GOURMIOUS_TLS_KEY, or set GOURMIOUS_BALANCERS "
            "if HTTPS ends in front of nginx.",
            id="uploads.W007",
        )
    ]


@register(deploy=True)
def check_failures_can_be_mailed(**kwargs):
    if not settings.ALERT_MAIL or shutil.which("sendmail", path=f"{os.defpath}:/usr/sbin"):
        return []
    return [
        CheckWarning(
            "GOURMIOUS_ALERT_MAIL is set, but there is no program named sendmail.",
            hint="Install one, such as Debian's package msmtp-mta.",
            id="uploads.W008",
        )
    ]


@register(deploy=True)
def check_files_can_be_reached(**kwargs):
    return [
        CheckWarning(
            fault,
            hint="Correct the variables that begin with GOURMIOUS_S3, or the store.",
            id="uploads.W009",
        )
        for fault in find_faults()
    ]


@register(deploy=True)
def check_database_accepts_the_connections_of_all_hosts(**kwargs):
    processes = (1 + len(settings.MEMCACHED_PEERS)) * len(settings.SOCKETS) * settings.WORKERS
    needed, allowed = processes * settings.DATABASE_POOL, connection.get_max_connections()
    if needed <= allowed:
        return []
    return [
        CheckWarning(
            f"The {processes} processes of all hosts may open {needed} connections to the "
            f"database, which allows {allowed}.",
            hint="Raise max_connections of PostgreSQL, or lower GOURMIOUS_DATABASE_POOL.",
            id="uploads.W010",
        )
    ]


def memcached_fault(address):
    try:
        with closing(Client(address, connect_timeout=1, timeout=1)) as client:
            client.version()
    except (OSError, MemcacheError) as error:
        return error
    return None


def get_device(folder):
    """Return the number of the file system that a folder is on, or will be; None for no folder."""
    if folder is None:
        return None
    folder = Path(folder).absolute()
    return next(path for path in (folder, *folder.parents) if path.exists()).stat().st_dev
