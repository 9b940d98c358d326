"""Django's settings for Gourmious. The environment is read here and nowhere else."""

import ipaddress
import os
import re
from functools import partial
from pathlib import Path
from zlib import crc32

from csp.constants import NONE, SELF
from django.conf import global_settings
from django.core.exceptions import ImproperlyConfigured
from pymemcache.client.rendezvous import RendezvousHash

BASE_DIR = Path(__file__).resolve().parent.parent


def listed(name, default=""):
    """Return the items of a comma-separated variable."""
    value = os.environ.get(name) or default
    return [item.strip() for item in value.split(",") if item.strip()]


def required_in_production(name):
    """Return the items of a variable; raise where production mode has none."""
    items = listed(name)
    if not items and not DEBUG:
        raise ImproperlyConfigured(
            f"Set {name}, separated by commas: production mode needs it, which the "
            "GOURMIOUS_SECRET_KEY turns on."
        )
    return items


def number(name, default):
    """Return a variable that counts something, from 1 on, or raise."""
    value = os.environ.get(name) or str(default)
    if not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        raise ImproperlyConfigured(f"{name} holds {value!r}; it may be a number from 1 to 999999.")
    return int(value)


def optional_number(name):
    """Return a variable that counts something, or None where it is not set."""
    return number(name, 0) if os.environ.get(name) else None


def server_address(name, address, separated=""):
    """Return a server's host:port as it is, or raise."""
    match = re.fullmatch(r"[^\s:]+:([0-9]{1,5})", address)
    if not match or not 0 < int(match[1]) < 65536:
        raise ImproperlyConfigured(f"{name} holds {address!r}; it may be host:port{separated}.")
    return address


def socket_folder(name, default):
    """Return the folder for the Unix sockets, or raise: their addresses have a limit of length."""
    folder = os.environ.get(name) or default
    if not folder.startswith("/") or len(os.fsencode(folder)) > 80:
        raise ImproperlyConfigured(
            f"{name} holds {folder!r}; it may be an absolute path of at most 80 bytes."
        )
    return Path(folder)


def trusted_proxy(address):
    """Return a proxy's address as it is, or raise."""
    try:
        ipaddress.ip_network(address)
    except ValueError as error:
        raise ImproperlyConfigured(
            f"GOURMIOUS_TRUSTED_PROXIES holds {address!r}; it may be IP addresses or networks, "
            "separated by commas."
        ) from error
    return address


def crc32_of_text(text, seed):
    return crc32(text.encode(), seed)


def data_folder(*parts):
    """Return a folder below GOURMIOUS_DATA_DIR, made where it is missing."""
    folder = Path(os.environ.get("GOURMIOUS_DATA_DIR") or BASE_DIR / "var", *parts).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror
    else:
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
    if reason:
        raise ImproperlyConfigured(
            "GOURMIOUS_DATA_DIR must be a folder that the server can write to; "
            f"{folder} cannot be used: {reason}."
        )
    return folder


DEBUG = "GOURMIOUS_SECRET_KEY" not in os.environ
SECRET_KEY = os.environ.get("GOURMIOUS_SECRET_KEY", "django-insecure-for-development-only").strip()
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "GOURMIOUS_SECRET_KEY is empty; it may be any long random text, or unset for development."
    )

ALLOWED_HOSTS = required_in_production("GOURMIOUS_ALLOWED_HOSTS")

MEMCACHED = [
    server_address("GOURMIOUS_MEMCACHED", address, ", separated by commas")
    for address in required_in_production("GOURMIOUS_MEMCACHED")
]

TRUSTED_PROXIES = [
    trusted_proxy(address) for address in listed("GOURMIOUS_TRUSTED_PROXIES", "127.0.0.1,::1")
]

# Where the two servers listen, for nginx alone.
RUN_DIR = socket_folder("GOURMIOUS_RUN_DIR", "/run/gourmious")
SOCKETS = {service: RUN_DIR / service / "socket" for service in ("pages", "uploads")}

# In how many processes each of them works.
CORES = os.cpu_count() or 1
WORKERS = number("GOURMIOUS_WORKERS", CORES)

# Where the pages' server has its figures for Prometheus; those of the uploads' are one port higher.
METRICS_PORT = optional_number("GOURMIOUS_METRICS_PORT")

# How many uploads nginx lets in at once. Each holds a thread for as long as its line needs.
MAX_UPLOADS = number("GOURMIOUS_MAX_UPLOADS", 200)
MAX_UPLOADS_PER_ADDRESS = number("GOURMIOUS_MAX_UPLOADS_PER_ADDRESS", 30)
# Threads of each process. The system deals connections out to the processes without a look at how
# busy they are, so each one has a thread for every upload that there can be. Idle threads end.
THREADS = {"pages": 64, "uploads": MAX_UPLOADS + 16}
# So that these threads keep few heaps, and keep freed memory for the next upload.
MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
}

# How many pictures a process renders at once, and how much memory each may take, in bytes.
RENDERERS = max(1, CORES // WORKERS)
RENDERER_MAX_MEMORY = 2**30

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "csp",
    "uploads",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "gourmious.urls"
WSGI_APPLICATION = "gourmious.wsgi.application"
CSRF_FAILURE_VIEW = "uploads.views.csrf_failure"

# Nothing slows down who guesses the passwords of staff; so none is short, or easily thought of.
PASSWORDS = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{PASSWORDS}.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": f"{PASSWORDS}.CommonPasswordValidator"},
    {"NAME": f"{PASSWORDS}.NumericPasswordValidator"},
    {"NAME": f"{PASSWORDS}.UserAttributeSimilarityValidator"},
]

# Nothing inline, nothing from elsewhere: what a diner manages to smuggle into a page does not run.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    },
}

# Cookies go over HTTPS alone, and browsers are told to come by it alone, for a month from their
# last visit: a certificate that lapses locks nobody out for longer.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
SECURE_HSTS_SECONDS = 0 if DEBUG else 30 * 24 * 3600
SECURE_REFERRER_POLICY = SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # Other names of the domain may not have HTTPS; that is not for an app to say.
    "security.W008",  # nginx redirects to HTTPS before a request comes here.
    "security.W021",  # A place on the browsers' own lists is asked for by the domain's owner.
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATA_DIR = data_folder()

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        "OPTIONS": {
            # Pages can be read while an upload's row is written.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
            # A transaction that turns to writing late fails at once, without a wait, where another
            # has written since it began; so each waits its turn at its beginning.
            "transaction_mode": "IMMEDIATE",
            # Seconds. Another writer, a migration say, only delays an upload for so long; a page
            # that writes gives up before nginx does, after 60.
            "timeout": 45,
        },
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if MEMCACHED:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": MEMCACHED,
            "OPTIONS": {
                # A server that is down or hung costs fractions of a second, and raises nothing.
                "connect_timeout": 0.2,
                "timeout": 0.2,
                "ignore_exc": True,
                # Left alone at once: after retries pymemcache (4.0) does so at the next use, which
                # may come minutes later, when the server has long been there again.
                "retry_attempts": 0,
                # Seconds in which others take over. A silent server that is asked again too soon
                # costs half of all records. A single one is asked again at once.
                "dead_timeout": 30 if len(MEMCACHED) > 1 else 0,
                # pymemcache's own hash, in Python, takes most of the time of a write.
                "hasher": partial(RendezvousHash, hash_function=crc32_of_text),
                # Text goes in and out as it is. memcached has no passwords, and a pickle that
                # somebody planted there would run as this process.
                "serde": None,
            },
        },
    }
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# Ours come before Django's own list, whose memory handler stops those that follow it.
FILE_UPLOAD_HANDLERS = [
    "uploads.uploadhandler.UploadProgressCachedHandler",
    "uploads.uploadhandler.PictureFileUploadHandler",
    *global_settings.FILE_UPLOAD_HANDLERS,
]
# Every upload goes to the disk, so that memory does not depend on its size; and to the disk that
# the pictures live on, so that storing it is a rename.
FILE_UPLOAD_MAX_MEMORY_SIZE = 0
FILE_UPLOAD_TEMP_DIR = data_folder("incoming")
DATA_UPLOAD_MAX_NUMBER_FILES = 10

# The originals, as they were sent. No URL leads there.
ORIGINALS_ROOT = data_folder("originals")
# The renditions, which anybody may see.
MEDIA_ROOT = data_folder("media")
MEDIA_URL = "media/"

PICTURE_MAX_SIZE = 25 * 2**20  # bytes
UPLOAD_MAX_SIZE = (DATA_UPLOAD_MAX_NUMBER_FILES + 1) * PICTURE_MAX_SIZE  # bytes, fields and all
UPLOAD_STALL_TIMEOUT = 60  # seconds; a client that sends nothing for so long is gone

# How often a page asks for the progress of an upload, in milliseconds.
PROGRESS_POLL_INTERVAL = 1000

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]

STORAGES = {
    **global_settings.STORAGES,
    # Names with hashes: a browser may keep the files for ever, and gets those of a new release.
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "gourmious.staticfiles.StaticFilesStorage"
    },
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    # Named without handlers, it loses Django's own, which are silent in production.
    "loggers": {
        "django": {"level": "INFO"},
        # nginx's log has the answers below 500, and each upload has a line of its own.
        "django.request": {"level": "ERROR"},
        # Whoever asks by another name would fill the log with tracebacks.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
    },
}

TEST_RUNNER = "tests.runner.Runner"
