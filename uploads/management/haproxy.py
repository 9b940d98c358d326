"""The configuration of HAProxy, the load balancer in front of several web hosts."""

import re

from django.conf import settings
from django.core.management.base import CommandError
from django.urls import reverse

from uploads import refusals
from uploads.responses import xml_response

from .configuration import clean_path, render_template
from .nginx import SPARE_CONNECTIONS, get_upload_burst, list_headers, list_limited_posts

# A web host of the balancer, by its name or address: an IPv6 address is in brackets.
WEB_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\])(?::([0-9]{1,5}))?", re.ASCII)

# The refusals that HAProxy itself sends, by the status.
BALANCER_ERRORS = {
    400: refusals.BAD_REQUEST,
    408: refusals.INTERRUPTED,
    **dict.fromkeys((500, 502, 503, 504), refusals.UNREACHABLE),
}


def list_web_hosts(hosts):
    """Return the addresses of web hosts with their ports; raise CommandError for anything else."""
    addresses = []
    for host in hosts:
        match = WEB_HOST.fullmatch(host)
        if not match or not 0 < int(match[2] or 80) < 65536:
            raise CommandError(
                f"{host!r} is not a web host; it must be HOST or HOST:PORT, with an IPv6 "
                "address in brackets."
            )
        addresses.append(f"{match[1]}:{match[2] or 80}")
    if len(set(addresses)) < len(addresses):
        raise CommandError("A web host is given twice; give each of them once.")
    return addresses


def render_balancer(addresses, certificate=None, listen=None):
    tls = f' ssl crt "{clean_path(certificate)}" alpn h2,http/1.1' if certificate else ""
    context = {
        "addresses": addresses,
        "certificate": certificate,
        "listens": [f"{address}{tls}" for address in listen or (":443", ":::443 v6only")],
        "redirect_listens": () if listen else (":80", ":::80 v6only"),
        "connections": len(addresses) * settings.MAX_UPLOADS + SPARE_CONNECTIONS,
        "hosts_pattern": make_hosts_pattern(),
        # For a wildcard any name that it covers.
        "host": settings.ALLOWED_HOSTS[0].lstrip(".").replace("*", "localhost"),
        "progress_url": reverse("get_upload_progress"),
        "health_url": reverse("healthz"),
        "limits": list_limits(),
        "upload_backends": ("uploads", "plain_uploads"),
        "xml_errors": {status: quote_xml(row) for status, row in BALANCER_ERRORS.items()},
        "page_errors": {status: quote_page(row) for status, row in BALANCER_ERRORS.items()},
        "busy_xml": quote_xml(refusals.BUSY),
        "busy_page": quote_page(refusals.BUSY),
        "too_often_page": quote_page(refusals.TOO_OFTEN),
        "headers": list_headers(),
    }
    return render_template("haproxy.cfg", context)


def make_hosts_pattern():
    """Return the pattern of the Host headers that belong to the site, for HAProxy."""
    names = [
        ".*" if host == "*" else re.sub(r"^\\\.", r"(.+\\.)?", re.escape(host))
        for host in settings.ALLOWED_HOSTS
    ]
    return quote(f"^({'|'.join(names)})(:[0-9]+)?$")


def list_limits():
    """Return how many requests HAProxy lets a client send to a path in so many seconds."""
    uploads = {"count": get_upload_burst(), "seconds": 20}
    posts = {"count": settings.POSTS_PER_MINUTE, "seconds": 60, "method": "POST"}
    return {
        "upload": {"path": reverse("upload"), **uploads},
        "cancel": {"path": reverse("cancel_upload"), **uploads},
        **{name: {"path": path, **posts} for name, path in list_limited_posts().items()},
    }


def quote_xml(refusal):
    """Return a refusal as the XML of an upload, in quotes for HAProxy."""
    return quote(xml_response([], [refusal], [], refusal.status).content.decode())


def quote_page(refusal):
    """Return a refusal as a page, in quotes for HAProxy."""
    return quote(render_template("refusal.html", {"sentence": refusal.message}))


def quote(text):
    """Return a text in quotes, in which HAProxy finds nothing to replace."""
    for character in ("\\", '"', "$"):
        text = text.replace(character, f"\\{character}")
    return '"{}"'.format(text.replace("\n", "\\n"))
