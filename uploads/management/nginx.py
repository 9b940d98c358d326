"""The configuration of nginx: its main file, and the site."""

import os
import re
import shutil
import subprocess
from urllib.parse import urlsplit

from csp.utils import build_policy
from django.conf import settings
from django.core.cache import cache
from django.urls import reverse

from uploads import refusals
from uploads.progress import PROGRESS_ID, cache_key

from .configuration import clean_path, is_ip_address, render_template

# Several sites may share a machine. This one has nginx's main file, and the server that refuses
# foreign hosts.
MAIN_SITE = "gourmious"

# The ports that nginx listens on if no other addresses are given.
HTTP = ("80", "[::]:80")
HTTPS = ("443", "[::]:443")

# nginx has a directive for HTTP/2 since this version. It warns of the older parameter of `listen`.
HTTP2_DIRECTIVE = (1, 25, 1)

# Connections of each nginx worker besides those of uploads.
SPARE_CONNECTIONS = 8192

# Headers of S3 stores that are no business of a browser.
STORE_HEADERS = [
    "Content-Disposition",
    "Seaweed-X-Amz-ETag",
    "Seaweed-X-Amz-Owner",
    "Set-Cookie",
    "Vary",
    "X-Amz-Bucket-Region",
    "X-Amz-Checksum-CRC32",
    "X-Amz-Checksum-CRC64NVME",
    "X-Amz-Checksum-SHA256",
    "X-Amz-Checksum-Type",
    "X-Amz-Expiration",
    "X-Amz-Id-2",
    "X-Amz-Replication-Status",
    "X-Amz-Request-Id",
    "X-Amz-Server-Side-Encryption",
    "X-Amz-Storage-Class",
    "X-Amz-Version-Id",
    "X-Ratelimit-Limit",
    "X-Ratelimit-Remaining",
    "X-Rgw-Object-Type",
    "X-XSS-Protection",
]


def render_nginx_main():
    connections = 2 * settings.MAX_UPLOADS + SPARE_CONNECTIONS
    context = {"connections": connections, "open_files": 2 * connections}
    return render_template("nginx-main.conf", context)


def render_nginx(listen=None, version=None):
    site = settings.SITE.replace("-", "_")  # for nginx's variables
    version = version or find_nginx_version() or HTTP2_DIRECTIVE
    context = {
        **describe_listening(listen, has_directive=version >= HTTP2_DIRECTIVE),
        "site": site,
        "tls_certificate": settings.TLS_CERTIFICATE and clean_path(settings.TLS_CERTIFICATE),
        "tls_key": settings.TLS_KEY and clean_path(settings.TLS_KEY),
        "static_root": clean_path(settings.STATIC_ROOT),
        "media_root": clean_path(settings.MEDIA_ROOT),
        "upload_url": reverse("upload"),
        "cancel_url": reverse("cancel_upload"),
        "upload_burst": get_upload_burst(),
        "limited_posts": list_limited_posts(),
        "progress_url": reverse("get_upload_progress"),
        "progress_id": PROGRESS_ID.pattern,
        "cache_key": cache.make_key(cache_key("${remote_addr}", f"${{{site}_progress_id}}")),
        "bad_progress_id": refusals.BAD_PROGRESS_ID.message,
        "refusals": list_refusals(),
        "sockets": {name: clean_path(path) for name, path in settings.SOCKETS.items()},
        "headers": list_headers(),
        **describe_store(),
        "sentence": f"${site}_sentence",
    }
    return render_template("nginx.conf", context)


def list_limited_posts():
    """Return the forms whose posts are limited: the patterns of their paths by their names."""
    return {
        "new_dish": reverse("dish_new"),
        "login": reverse("admin:login"),
        "report": reverse("report", args=[0]).replace("0", "[0-9]+"),
    }


def get_upload_burst():
    """Return how many of a minute's uploads may come at once."""
    return max(1, settings.UPLOADS_PER_MINUTE // 3)


def read_version(text):
    return tuple(map(int, text.split(".")))


def find_nginx_version():
    """Return the version of the installed nginx, or None if there is none."""
    # Debian's nginx is in a folder where ordinary users do not look.
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if not nginx:
        return None
    done = subprocess.run([nginx, "-v"], check=True, stderr=subprocess.PIPE, text=True)  # noqa: S603
    return read_version(re.search(r"nginx/([0-9.]+)", done.stderr)[1])


def describe_listening(addresses, has_directive):
    """Return the addresses that each server of nginx listens on, and the names that it has.

    `has_directive` tells whether nginx knows `http2 on`.
    """
    tls = (" ssl" if has_directive else " ssl http2") if settings.TLS_CERTIFICATE else ""
    listens = [f"{address}{tls}" for address in addresses or (HTTPS if tls else HTTP)]
    redirect_listens = HTTP if tls and not addresses else ()
    server_names = ["_" if host == "*" else host for host in settings.ALLOWED_HOSTS]
    default = [f"{address} default_server" for address in (*redirect_listens, *listens)]
    has_default = settings.SITE == MAIN_SITE and "_" not in server_names
    return {
        "listens": listens,
        "has_http2_directive": has_directive,
        "redirect_listens": redirect_listens,
        # A server that takes every name needs no default server.
        "default_listens": default if has_default else [],
        "server_names": server_names,
        # For a wildcard only the request tells the host.
        "redirects": {
            name: "$host" if name.startswith((".", "_")) else name
            for name in server_names
            if redirect_listens
        },
        "without_sni": any(map(is_ip_address, settings.ALLOWED_HOSTS)),
    }


def list_headers():
    """Return the name, the name in variables, and the value of each header of every answer."""
    headers = {
        # django-csp does not always write the directives in the same order.
        "Content-Security-Policy": "; ".join(sorted(build_policy().split("; "))),
        "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
        "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
    }
    return [(name, name.lower().replace("-", "_"), value) for name, value in headers.items()]


def describe_store():
    """Return how nginx reaches the S3 store, if there is one."""
    if not settings.S3:
        return {}
    endpoint = urlsplit(settings.S3["endpoint"])
    port = endpoint.port or {"http": 80, "https": 443}[endpoint.scheme]
    return {
        "store_scheme": endpoint.scheme,
        "store_host": endpoint.netloc,
        "store_name": endpoint.hostname,
        "store_address": f"{endpoint.hostname}:{port}",
        "store_ca": clean_path(settings.S3["ca"] or "/etc/ssl/certs/ca-certificates.crt"),
        "store_headers": STORE_HEADERS,
    }


def list_refusals():
    """Return nginx's own refusals by the patterns of its maps, which match "target status"."""
    for_both = [
        refusals.BAD_REQUEST,
        refusals.ADDRESS_TOO_LONG,
        refusals.HEADERS_TOO_LARGE,
        refusals.UNKNOWN_ENCODING,
    ]
    return {
        "default": refusals.UNREACHABLE,
        "upload 413": refusals.UPLOAD_TOO_LARGE.fill(),
        "upload 429": refusals.BUSY,
        "page 413": refusals.FORM_TOO_LARGE,
        "page 429": refusals.TOO_OFTEN,
        **{f"~ {row.status}$": row for row in for_both},
    }
