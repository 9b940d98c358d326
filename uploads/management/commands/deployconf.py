import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from csp.utils import build_policy
from django.conf import settings
from django.core.cache import cache
from django.core.management.base import BaseCommand, CommandError
from django.template.loader import render_to_string
from django.urls import reverse

from uploads import refusals
from uploads.progress import PROGRESS_ID, cache_key
from uploads.responses import xml_response

# The units, as suffixes of the site's name, and their templates. Those of the backup are printed
# where its folder is set.
UNITS = {
    ".service": "start.service",
    "-pages.socket": "instance.socket",
    "-uploads.socket": "instance.socket",
    "-pages@.service": "instance.service",
    "-uploads@.service": "instance.service",
    "-prune.service": "prune.service",
    "-prune.timer": "prune.timer",
    "-backup.service": "backup.service",
    "-backup.timer": "backup.timer",
    "-metrics.service": "metrics.service",
    "-failed@.service": "failed@.service",
}

# Several sites may share a machine. This one has nginx's main file, and the server that
# refuses foreign hosts.
MAIN_SITE = "gourmious"

# The ports that nginx listens on if no other addresses are given.
HTTP = ("80", "[::]:80")
HTTPS = ("443", "[::]:443")

# A web host of the balancer, by its name or address: an IPv6 address is in brackets.
WEB_HOST = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\])(?::([0-9]{1,5}))?", re.ASCII)

# nginx has a directive for HTTP/2 since this version. It warns of the older parameter of `listen`.
HTTP2_DIRECTIVE = (1, 25, 1)

# In MB, twice the measured memory of a worker without uploads and renderers, of an upload, and of a
# renderer without a picture.
WORKER_MEMORY, UPLOAD_MEMORY, RENDERER_MEMORY = 512, 1, 128
# Threads of Granian, and of the decoders of a renderer.
SPARE_TASKS = 128

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

# The refusals that HAProxy itself sends, by the status.
BALANCER_ERRORS = {
    400: refusals.BAD_REQUEST,
    408: refusals.INTERRUPTED,
    **dict.fromkeys((500, 502, 503, 504), refusals.UNREACHABLE),
}

VARIABLE = re.compile(r"^(GOURMIOUS_\w+=)(.+)$", re.MULTILINE)


class Command(BaseCommand):
    help = "Print files of nginx, systemd or HAProxy, or that of the settings, from the settings."
    requires_system_checks = []

    def add_arguments(self, parser):
        kinds = parser.add_subparsers(dest="kind", required=True)
        kinds.add_parser("nginx-main", help="Print nginx's main file, nginx.conf.")
        nginx = kinds.add_parser("nginx", help="Print the site for nginx's sites-enabled.")
        nginx.add_argument(
            "--listen",
            metavar="ADDRESS",
            action="append",
            help="Listen only on this address. May be given more than once.",
        )
        nginx.add_argument(
            "--nginx-version",
            metavar="VERSION",
            type=read_version,
            help="Print the site for this version of nginx (default: the installed one).",
        )
        systemd = kinds.add_parser("systemd", help="Print the units of systemd.")
        systemd.add_argument("--unit", metavar="NAME", help="Print only this unit.")
        files = kinds.add_parser("files", help="Print all these files by their paths, as JSON.")
        for kind in (systemd, files):
            kind.add_argument(
                "--home",
                type=Path,
                metavar="DIR",
                default=Path("/srv", settings.SITE),
                help="The folder of the deployments (default: %(default)s).",
            )
        balancer = kinds.add_parser(
            "balancer", help="Print haproxy.cfg for a load balancer in front of several web hosts."
        )
        balancer.add_argument("hosts", metavar="HOST[:PORT]", nargs="+", help="A web host.")
        balancer.add_argument(
            "--certificate",
            metavar="FILE",
            help="The file with the certificate chain and the key, on the balancer.",
        )
        balancer.add_argument(
            "--listen",
            metavar="ADDRESS",
            action="append",
            help="Listen only on this address; without --certificate over plain HTTP. May be given "
            "more than once.",
        )
        kinds.add_parser("env", help="Print the environment file that holds the settings.")

    def handle(self, *, kind, **options):
        # A backup of a site in development has its settings, too.
        if settings.DEBUG and kind != "env":
            raise CommandError(
                "Set GOURMIOUS_SECRET_KEY, GOURMIOUS_ALLOWED_HOSTS and GOURMIOUS_MEMCACHED first: "
                "the files are made from the settings of production."
            )
        getattr(self, kind.replace("-", "_"))(**options)

    def nginx_main(self, **options):
        self.stdout.write(render_nginx_main())

    def nginx(self, *, listen, nginx_version, **options):
        self.stdout.write(render_nginx(listen, nginx_version))

    def systemd(self, *, unit, home, **options):
        units = render_units(home)
        if unit and unit not in units:
            raise CommandError(f"There is no unit {unit}, only these: {', '.join(units)}.")
        if unit:
            self.stdout.write(units[unit])
            return
        for name, text in units.items():
            self.stdout.write(f"# {name}\n{text}")

    def files(self, *, home, **options):
        files = {f"etc/systemd/system/{name}": text for name, text in render_units(home).items()}
        files[f"etc/nginx/sites-enabled/{settings.SITE}"] = render_nginx()
        if settings.SITE == MAIN_SITE:
            files["etc/nginx/nginx.conf"] = render_nginx_main()
        self.stdout.write(json.dumps(files))

    def balancer(self, *, hosts, certificate, listen, **options):
        if not settings.BALANCERS:
            raise CommandError(
                "Set GOURMIOUS_BALANCERS to the address of the balancer first: without it nginx "
                "takes the balancer for the client of all uploads."
            )
        if settings.TLS_CERTIFICATE:
            raise CommandError(
                "Empty GOURMIOUS_TLS_CERTIFICATE and GOURMIOUS_TLS_KEY first: HTTPS ends at the "
                "balancer."
            )
        if not certificate and not listen:
            raise CommandError("Give a --certificate, or --listen for plain HTTP.")
        self.stdout.write(render_balancer(list_web_hosts(hosts), certificate, listen))

    def env(self, **options):
        text = render_template("gourmious.env", {})
        # systemd and shells read quotes alike.
        self.stdout.write(VARIABLE.sub(lambda found: found[1] + shlex.quote(found[2]), text))


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


def list_web_hosts(hosts):
    """Return the addresses of web hosts with their ports; raise CommandError for anything else."""
    addresses = []
    for host in hosts:
        match = WEB_HOST.fullmatch(host)
        if not match or not 0 < int(match[2] or 80) < 65536:
            raise CommandError(f"{host!r} is not a web host: it must be HOST or HOST:PORT.")
        addresses.append(f"{match[1]}:{match[2] or 80}")
    if len(set(addresses)) < len(addresses):
        raise CommandError("A web host is given twice.")
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
        "xml_errors": {status: print_xml(row) for status, row in BALANCER_ERRORS.items()},
        "page_errors": {status: print_page(row) for status, row in BALANCER_ERRORS.items()},
        "busy_xml": print_xml(refusals.BUSY),
        "busy_page": print_page(refusals.BUSY),
        "too_often_page": print_page(refusals.TOO_OFTEN),
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


def print_xml(refusal):
    """Return a refusal as the XML of an upload, in quotes for HAProxy."""
    return quote(xml_response([], [refusal], [], refusal.status).content.decode())


def print_page(refusal):
    """Return a refusal as a page, in quotes for HAProxy."""
    return quote(render_template("refusal.html", {"sentence": refusal.message}))


def quote(text):
    for character in ("\\", '"', "$"):
        text = text.replace(character, f"\\{character}")
    return '"{}"'.format(text.replace("\n", "\\n"))


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


def is_ip_address(host):
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


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


def render_units(home):
    """Return the units by their names; each deployment is in a folder of its own below `home`."""
    if not settings.RUN_DIR.is_relative_to("/run"):
        raise CommandError("GOURMIOUS_RUN_DIR must be below /run, where systemd creates it.")
    return {
        f"{settings.SITE}{suffix}": render_unit(suffix, home)
        for suffix in UNITS
        if settings.BACKUP_DIR or "backup" not in suffix
    }


def render_unit(suffix, home):
    paths = {
        "home": home,
        "data_dir": settings.DATA_DIR,
        "run_dir": settings.RUN_DIR,
        "backup_dir": settings.BACKUP_DIR or "",
    }
    context = {key: clean_path(path).replace("%", "%%") for key, path in paths.items()}
    folder = "deployments/%i" if UNITS[suffix] == "instance.service" else "current"
    context |= {
        "site": settings.SITE,
        "service": re.search(r"\w+", suffix)[0],
        "runtime_dir": context["run_dir"].removeprefix("/run/"),
        "deployment": f"{context['home']}/{folder}",
        "python": f"{context['home']}/{folder}/release/.venv/bin/python",
        "server_addresses": list_server_addresses(),
    }
    return render_template(UNITS[suffix], context | describe_limits(context["service"]))


def describe_limits(service):
    """Return the memory, in MB, and the tasks that the workers of a service may take.

    Each worker of the pages has renderers, too: staff may show a hidden picture.
    """
    uploads = settings.MAX_UPLOADS if service == "uploads" else 0
    renderer = RENDERER_MEMORY + settings.RENDERER_MAX_MEMORY // 2**20
    memory = settings.WORKERS * (WORKER_MEMORY + settings.RENDERERS * renderer)
    tasks = settings.THREADS.get(service, 0) + SPARE_TASKS * (1 + settings.RENDERERS)
    return {
        "max_memory": memory + uploads * UPLOAD_MEMORY,
        "max_tasks": settings.WORKERS * tasks,
    }


def list_server_addresses():
    """Return the IP addresses of the servers on other machines, or None if one has only a name."""
    memcached = [settings.MEMCACHED, *settings.MEMCACHED_PEERS]
    hosts = {address.rpartition(":")[0] for address in memcached}
    hosts.update(settings.DATABASES["default"].get("HOST", "").split(","))
    if settings.S3:
        hosts.add(urlsplit(settings.S3["endpoint"]).hostname)
    hosts = {host for host in hosts if not host.startswith("/")} - {"", "localhost"}
    if not all(map(is_ip_address, hosts)):
        return None
    return sorted(host for host in hosts if not ipaddress.ip_address(host).is_loopback)


def render_template(name, context):
    return render_to_string(f"deploy/{name}", {"settings": settings, **context})


def clean_path(path):
    """Return the absolute path; raise CommandError if it would be misread, even in quotes."""
    path = str(Path(path).absolute())
    if any(character in path for character in '$"\\'):
        raise CommandError(f'The path {path} cannot be used here: it must not hold $, " or \\.')
    return path
