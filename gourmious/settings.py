"""Django's settings for Gourmious. The environment is read here and nowhere else."""

import ipaddress
import os
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from pymemcache.client.rendezvous import RendezvousHash

BASE_DIR = Path(__file__).resolve().parent.parent


def env_list(name, default="", required=False):
    """Return the items of a comma-separated variable; raise if required and empty in production."""
    value = os.environ.get(name) or default
    items = [item.strip() for item in value.split(",") if item.strip()]
    if required and not items and not DEBUG:
        raise ImproperlyConfigured(
            f"Set {name}, with commas between its items: it is required in production mode, which "
            "GOURMIOUS_SECRET_KEY turns on."
        )
    return items


def env_int(name, default=None, maximum=999999):
    """Return a variable that is a positive number, or its default; raise for anything else."""
    value = os.environ.get(name)
    if not value:
        return default
    if not re.fullmatch(r"[1-9][0-9]{0,5}", value) or int(value) > maximum:
        raise ImproperlyConfigured(
            f"{name} holds {value!r}; it must be a number from 1 to {maximum}."
        )
    return int(value)


def env_hosts(name, required=False):
    """Return the host names and IP addresses of a variable; raise for anything else."""
    items = env_list(name, required=required)
    for item in items:
        if not re.fullmatch(r"\*|\.?[\w-]+(\.[\w-]+)*|\[[0-9a-fA-F:]+\]", item, re.ASCII):
            raise ImproperlyConfigured(
                f"{name} holds {item!r}; it must be host names, without https:// and ports, "
                "separated by commas."
            )
    return items


def env_addresses(name, required=False):
    """Return the host:port items of a variable; raise for anything else."""
    items = env_list(name, required=required)
    for item in items:
        match = re.fullmatch(r"[^\s:]+:([0-9]{1,5})", item)
        if not match or not 0 < int(match[1]) < 65536:
            raise ImproperlyConfigured(
                f"{name} holds {item!r}; it must be host:port, separated by commas."
            )
    return items


def env_own_address(name, peers):
    """Return the one host:port item of a variable; raise for several. `peers` may have others."""
    items = env_addresses(name, required=True)
    if len(items) > 1:
        raise ImproperlyConfigured(
            f"{name} holds {','.join(items)!r}; it must be one host:port, that of this host's own "
            f"server, while {peers} lists those of the other hosts."
        )
    return items[0] if items else ""


def env_networks(name, default=""):
    """Return the IP addresses and networks of a variable; raise for anything else."""
    items = env_list(name, default)
    for item in items:
        try:
            ipaddress.ip_network(item)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name} holds {item!r}; it must be IP addresses, or networks such as 10.0.0.0/8, "
                "separated by commas."
            ) from error
    return items


def env_site(name):
    """Return the name of the site; raise if it cannot be that of a user, a unit or a folder."""
    value = os.environ.get(name) or "gourmious"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,20}", value):
        raise ImproperlyConfigured(
            f"{name} holds {value!r}; it must be at most 21 lower-case letters, digits and hyphens,"
            " and begin with a letter."
        )
    return value


def env_socket_folder(name, default):
    """Return a folder for Unix sockets; raise if their addresses would be too long."""
    folder = os.environ.get(name) or default
    if not folder.startswith("/") or len(os.fsencode(folder)) > 60:
        raise ImproperlyConfigured(
            f"{name} holds {folder!r}; it must be an absolute path of at most 60 bytes."
        )
    return Path(folder)


def env_mail(name):
    """Return a variable that is empty or a mail address; raise for anything else."""
    value = os.environ.get(name, "")
    if value and not re.fullmatch(r"[\w.+-]+(@[\w.-]+)?", value, re.ASCII):
        raise ImproperlyConfigured(f"{name} holds {value!r}; it must be a single mail address.")
    return value


def env_folder(name, default):
    """Return a folder that exists, or that `manage.py migrate` can make; raise for any other."""
    folder = Path(os.environ.get(name) or default).resolve()
    nearest = next(path for path in (folder, *folder.parents) if os.access(path, os.F_OK))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(
            f"{name} holds {str(folder)!r}; it must be a folder that the server can write to; "
            f"{nearest} is not."
        )
    return folder


def env_absolute_path(name):
    """Return an absolute path, or None where the variable is not set; raise for any other."""
    path = os.environ.get(name)
    if path and not path.startswith("/"):
        raise ImproperlyConfigured(f"{name} holds {path!r}; it must be an absolute path.")
    return Path(path) if path else None


def env_database(name, pool_size):
    """Return the database that a variable's URL names, or None if it is not set."""
    url = os.environ.get(name)
    if not url:
        return None
    try:
        from gourmious.postgresql.url import read_url  # noqa: PLC0415

        database = read_url(url)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{name} needs psycopg; install the packages of gourmious/deploy/requirements.txt."
        ) from error
    except ValueError as error:  # Do not tell the value: it has a password.
        raise ImproperlyConfigured(
            f"{name} cannot be read; it must be postgresql://user:password@host:port/name, with "
            "%40 for an @ in the password."
        ) from error
    database["OPTIONS"]["pool"] = {"max_size": pool_size}
    return database


# The parts of an endpoint that boto3 accepts: the labels of a host name, and a port up to 65535.
LABEL = r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)"
PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
BUCKET = (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "the name of a bucket")
S3_VARIABLES = {
    "endpoint": (
        rf"(?!https://[0-9.]+(:|$))https?://{LABEL}(\.{LABEL})*(:({PORT}))?",
        "http:// with a host, or https:// with a name, since nginx verifies no addresses",
    ),
    "originals": BUCKET,
    "renditions": BUCKET,
    "access_key": (r"[!-~]+", "the id of a key"),
    "secret_key": (r"[ -~]+", "the secret of that key"),
    "region": (r"[\w-]*", "the name of a region, or empty"),
    "ca": (r"(/.*)?", "an absolute path, or empty"),
}


def env_s3():
    """Return the values of the variables of the S3 store, or None if none is set.

    Raise if one is missing or cannot be used.
    """
    store = {name: os.environ.get(f"GOURMIOUS_S3_{name.upper()}", "") for name in S3_VARIABLES}
    if not any(store.values()):
        return None
    if not find_spec("boto3"):
        raise ImproperlyConfigured(
            "GOURMIOUS_S3_ENDPOINT needs boto3; install the packages of "
            "gourmious/deploy/requirements.txt."
        )
    validate_s3(store)
    return store | {"region": store["region"] or "us-east-1"}


def validate_s3(store):
    """Raise if a variable of the S3 store is missing or cannot be used."""
    for name, (pattern, meaning) in S3_VARIABLES.items():
        if not re.fullmatch(pattern, store[name], re.ASCII):
            raise ImproperlyConfigured(  # Do not tell the value: it may be the secret.
                f"GOURMIOUS_S3_{name.upper()} is missing or cannot be used; it must be {meaning}, "
                "as long as any variable that begins with GOURMIOUS_S3_ is set."
            )
    if store["originals"] == store["renditions"]:
        raise ImproperlyConfigured(
            "GOURMIOUS_S3_ORIGINALS and GOURMIOUS_S3_RENDITIONS name the same bucket; they must be "
            "two, since anybody may read the renditions."
        )


DEBUG = "GOURMIOUS_SECRET_KEY" not in os.environ
SECRET_KEY = os.environ.get("GOURMIOUS_SECRET_KEY", "django-insecure-for-development-only").strip()
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "GOURMIOUS_SECRET_KEY is empty; it must be any long random text, or unset for development."
    )

# The name of the site on its machine: its user, its units and its folders have this name.
SITE = env_site("GOURMIOUS_SITE")

# The files of nginx's certificate.
TLS_CERTIFICATE = os.environ.get("GOURMIOUS_TLS_CERTIFICATE", "")
TLS_KEY = os.environ.get("GOURMIOUS_TLS_KEY", "")
if bool(TLS_CERTIFICATE) != bool(TLS_KEY):
    raise ImproperlyConfigured(
        "Set both GOURMIOUS_TLS_CERTIFICATE and GOURMIOUS_TLS_KEY, or neither of them."
    )

# The proxies in front of nginx. It believes their X-Forwarded-For and X-Forwarded-Proto.
BALANCERS = env_networks("GOURMIOUS_BALANCERS")

ALLOWED_HOSTS = env_hosts("GOURMIOUS_ALLOWED_HOSTS", required=True)

# Where this host keeps the progress of its uploads, and where the other web hosts keep theirs.
MEMCACHED = env_own_address("GOURMIOUS_MEMCACHED", peers="GOURMIOUS_MEMCACHED_PEERS")
MEMCACHED_PEERS = env_addresses("GOURMIOUS_MEMCACHED_PEERS")

# The proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted.
TRUSTED_PROXIES = env_networks("GOURMIOUS_TRUSTED_PROXIES", "127.0.0.1,::1")

# Where the two services listen, for nginx alone.
RUN_DIR = env_socket_folder("GOURMIOUS_RUN_DIR", f"/run/{SITE}")
SOCKETS = {service: RUN_DIR / service / "socket" for service in ("pages", "uploads")}

# The number of processes of each service.
CORES = os.cpu_count() or 1
WORKERS = env_int("GOURMIOUS_WORKERS", CORES)

# The port of loopback where Prometheus finds the figures of the app, which the workers of the
# uploads keep in this folder.
METRICS_PORT = env_int("GOURMIOUS_METRICS_PORT", maximum=65535)
METRICS_DIR = RUN_DIR / "metrics"

# The address that is told of each unit that fails.
ALERT_MAIL = env_mail("GOURMIOUS_ALERT_MAIL")

# How many uploads nginx accepts at once. Each holds a thread until it is answered.
MAX_UPLOADS = env_int("GOURMIOUS_MAX_UPLOADS", 1000)
MAX_UPLOADS_PER_ADDRESS = env_int("GOURMIOUS_MAX_UPLOADS_PER_ADDRESS", 30)
# How many MB an address may send in a day.
MAX_MB_PER_DAY = env_int("GOURMIOUS_MAX_MB_PER_DAY", 2048)
MAX_BYTES_PER_DAY = MAX_MB_PER_DAY * 2**20
# How many MB of the disk uploads leave to the database and to staff; see storage.get_reserve().
MIN_FREE_MB = env_int("GOURMIOUS_MIN_FREE_MB", 0)
MIN_FREE_SPACE = MIN_FREE_MB * 2**20  # bytes
# How many uploads or cancellations, and posts of each other form, nginx accepts from an address in
# a minute.
UPLOADS_PER_MINUTE = env_int("GOURMIOUS_UPLOADS_PER_MINUTE", 300)
POSTS_PER_MINUTE = env_int("GOURMIOUS_POSTS_PER_MINUTE", 20)
# Threads of each process. The kernel may give all connections to one process, so each has a thread
# for every upload. Idle threads end.
THREADS = {"pages": 64, "uploads": MAX_UPLOADS + 16}
# Few heaps for many threads; freed memory is kept for the next upload.
MALLOC = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
}

# How many renderers a process has, and how much memory each may take, in bytes.
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
    "gourmious.cookies.HostCookieMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "uploads.middleware.OddInputMiddleware",
]

ROOT_URLCONF = "gourmious.urls"
WSGI_APPLICATION = "gourmious.wsgi.application"
CSRF_FAILURE_VIEW = "uploads.views.csrf_failure"

# nginx limits how often an address logs in, but many addresses may guess: passwords are long.
PASSWORDS = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{PASSWORDS}.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": f"{PASSWORDS}.CommonPasswordValidator"},
    {"NAME": f"{PASSWORDS}.NumericPasswordValidator"},
    {"NAME": f"{PASSWORDS}.UserAttributeSimilarityValidator"},
]

# No inline scripts and nothing from other sites: a script that a diner injects does not run.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    },
}

# HSTS lasts only a month from the last visit, so that an expired certificate locks nobody out for
# longer.
SECURE_HSTS_SECONDS = 0 if DEBUG else 30 * 24 * 3600
SECURE_REFERRER_POLICY = SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SILENCED_SYSTEM_CHECKS = [
    "files.E001",  # migrate makes the folder, and so does the handler of an upload.
    "security.W005",  # Subdomains may not have HTTPS; the app does not know.
    "security.W012",  # HostCookieMiddleware makes the session's cookie secure over HTTPS,
    "security.W016",  # and the cookie of the forms' token.
    "security.W008",  # nginx redirects to HTTPS before a request comes here.
    "security.W021",  # Only the domain's owner can ask for HSTS preloading.
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

DATA_DIR = env_folder("GOURMIOUS_DATA_DIR", BASE_DIR / "var")

# The folder of the daily backups. The site starts without it: its disk may be away.
BACKUP_DIR = env_absolute_path("GOURMIOUS_BACKUP_DIR")

# The URL of PostgreSQL, and how many connections each process may open to it. Without a URL the
# rows are in SQLite.
DATABASE_URL = os.environ.get("GOURMIOUS_DATABASE_URL", "")
DATABASE_POOL = env_int("GOURMIOUS_DATABASE_POOL", 8)
SQLITE = {"ENGINE": "gourmious.sqlite", "NAME": DATA_DIR / "db.sqlite3"}
DATABASES = {"default": env_database("GOURMIOUS_DATABASE_URL", DATABASE_POOL) or SQLITE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if MEMCACHED:
    CACHE = {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "KEY_PREFIX": SITE,  # Several sites may share a memcached.
        "OPTIONS": {
            # A server that is down or hung costs fractions of a second, and raises nothing.
            "connect_timeout": 0.2,
            "timeout": 0.2,
            "ignore_exc": True,
            # Drop a failed server at once, and ask it again at the next use. After retries
            # pymemcache (4.0) would drop it only at its next use: perhaps minutes later, when it
            # is back.
            "retry_attempts": 0,
            "dead_timeout": 0,
            # With one server any hash will do. pymemcache's own is written in Python, and takes
            # most of a write's time.
            "hasher": partial(RendezvousHash, hash_function=lambda text, seed: seed),
            # Text is stored as it is. memcached has no passwords, and unpickling what somebody
            # planted there would execute it.
            "serde": None,
        },
    }
    # Records are written to the default alone. A poll that this process answers reads all.
    CACHES = {"default": {**CACHE, "LOCATION": MEMCACHED}}
    CACHES |= {peer: {**CACHE, "LOCATION": peer} for peer in MEMCACHED_PEERS}
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# The tutorial adds Django's own. Here they would get no files: PictureFileUploadHandler takes all.
FILE_UPLOAD_HANDLERS = [
    "uploads.uploadhandler.UploadProgressCachedHandler",
    "uploads.uploadhandler.PictureFileUploadHandler",
]
# On the disk of the pictures: a picture is stored by renaming.
FILE_UPLOAD_TEMP_DIR = DATA_DIR / "incoming"
DATA_UPLOAD_MAX_NUMBER_FILES = 10
DATA_UPLOAD_MAX_MEMORY_SIZE = 2**16  # bytes of a form's fields, which are held in memory

# The S3 store of the pictures' files; without it they are in folders. The originals have a bucket
# of their own, so that no policy that publishes renditions can publish them.
S3 = env_s3()
if BACKUP_DIR and (DATABASE_URL or S3):
    raise ImproperlyConfigured(
        "GOURMIOUS_BACKUP_DIR is for SQLite and local files; leave it empty, and back up "
        "PostgreSQL with pg_dump, and the buckets with the tools of their store."
    )

# The originals, as they were sent. They have no public URL.
ORIGINALS_ROOT = DATA_DIR / "originals"
# Which files of pictures are lost, as prune_uploads has found.
LOST_FILES = DATA_DIR / "lost.json"
# The renditions, which anybody may see.
MEDIA_ROOT = DATA_DIR / "media"
MEDIA_URL = "media/"

PICTURE_MAX_SIZE = 64 * 2**20  # bytes; a phone's photo of 200 megapixels has 30 million or more
UPLOAD_MAX_SIZE = 5 * PICTURE_MAX_SIZE  # bytes, with the fields
UPLOAD_STALL_TIMEOUT = 60  # seconds; a client that sends nothing for this long is cut off
# An upload that is slower than this, on average over one to two periods, is refused.
UPLOAD_MIN_SPEED = 1000  # bytes a second
UPLOAD_SPEED_PERIOD = 30  # seconds

# How often a page asks for the progress of an upload, in milliseconds.
PROGRESS_POLL_INTERVAL = 1000

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]

STORAGES = {
    "default": {"BACKEND": f"uploads.{'s3' if S3 else 'storage'}.RenditionStorage"},
    "originals": {"BACKEND": f"uploads.{'s3' if S3 else 'storage'}.OriginalStorage"},
    # Names with hashes: a browser may cache the files for ever, and gets those of a new release.
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
    "loggers": {
        # Naming this logger removes Django's own handlers, which log nothing in production.
        "django": {"level": "INFO"},
        # nginx's log has the answers below 500, and each upload has a line of its own.
        "django.request": {"level": "ERROR"},
        # Requests with a foreign Host header would fill the log with tracebacks.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        # The pool would log each use of a connection.
        "psycopg.pool": {"level": "WARNING"},
    },
}

TEST_RUNNER = "tests.runner.Runner"
