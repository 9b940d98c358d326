import re
import secrets
import shlex
import sys
from pathlib import Path

from csp.utils import build_policy
from django.conf import settings
from django.core.cache import cache
from django.core.management.base import BaseCommand, CommandError
from django.template.loader import render_to_string
from django.urls import reverse

from uploads import refusals
from uploads.progress import PROGRESS_ID, cache_key

# The units and their templates.
UNITS = {
    "gourmious-pages.service": "gourmious.service",
    "gourmious-uploads.service": "gourmious.service",
    "gourmious-prune.service": "gourmious-prune.service",
    "gourmious-prune.timer": "gourmious-prune.timer",
}

VARIABLE = re.compile(r"^(GOURMIOUS_\w+=)(.+)$", re.MULTILINE)


class Command(BaseCommand):
    help = "Print nginx's site, systemd's units or the environment file, made from the settings."
    requires_system_checks = []

    def add_arguments(self, parser):
        kinds = parser.add_subparsers(dest="kind", required=True)
        nginx = kinds.add_parser("nginx", help="Print the site for nginx's sites-available.")
        nginx.add_argument("--tls-certificate", metavar="FILE", help="Serve HTTPS with this chain.")
        nginx.add_argument("--tls-key", metavar="FILE", help="The key of the certificate.")
        nginx.add_argument(
            "--listen",
            metavar="ADDRESS",
            action="append",
            help="Listen only on this address. May be given more than once.",
        )
        systemd = kinds.add_parser("systemd", help=f"Print the units {', '.join(UNITS)}.")
        systemd.add_argument("--unit", choices=[*UNITS], help="Print only this unit.")
        kinds.add_parser("env", help="Print the environment file that holds the settings.")

    def handle(self, *, kind, **options):
        if settings.DEBUG and kind != "env":
            raise CommandError(
                "Set GOURMIOUS_SECRET_KEY and the other variables of `manage.py deployconf env` "
                "first: the configuration is made from them."
            )
        getattr(self, kind)(**options)

    def nginx(self, *, tls_certificate, tls_key, listen, **options):
        if bool(tls_certificate) != bool(tls_key):
            raise CommandError("Give both --tls-certificate and --tls-key, or neither.")
        context = {
            "tls_certificate": tls_certificate and clean_path(tls_certificate),
            "tls_key": tls_key and clean_path(tls_key),
            "listen": listen,
            "server_names": ["_" if host == "*" else host for host in settings.ALLOWED_HOSTS],
            "static_root": clean_path(settings.STATIC_ROOT),
            "media_root": clean_path(settings.MEDIA_ROOT),
            "upload_url": reverse("upload"),
            "progress_url": reverse("get_upload_progress"),
            "progress_id": PROGRESS_ID.pattern,
            "cache_key": cache.make_key(cache_key("${remote_addr}", "${gourmious_progress_id}")),
            "bad_progress_id": refusals.BAD_PROGRESS_ID.message,
            "refusals": [
                ("default", refusals.UNREACHABLE),
                ("413", refusals.UPLOAD_TOO_LARGE.fill()),
                ("429", refusals.BUSY),
            ],
            "sockets": {name: clean_path(path) for name, path in settings.SOCKETS.items()},
            "content_security_policy": "; ".join(sorted(build_policy().split("; "))),
        }
        self.stdout.write(render_template("nginx.conf", context))

    def systemd(self, *, unit, **options):
        if not settings.RUN_DIR.is_relative_to("/run"):
            raise CommandError("GOURMIOUS_RUN_DIR must be below /run, where systemd creates it.")
        if unit:
            self.stdout.write(render_unit(unit))
            return
        for name in UNITS:
            self.stdout.write(f"# {name}\n{render_unit(name)}")

    def env(self, **options):
        text = render_template("gourmious.env", {"new_key": secrets.token_urlsafe(48)})
        # systemd and shells read quotes alike.
        self.stdout.write(VARIABLE.sub(lambda found: found[1] + shlex.quote(found[2]), text))


def render_unit(name):
    paths = {
        "python": sys.executable,
        "base_dir": settings.BASE_DIR,
        "data_dir": settings.DATA_DIR,
        "run_dir": settings.RUN_DIR,
    }
    context = {key: clean_path(path).replace("%", "%%") for key, path in paths.items()}
    context["service"] = name.removeprefix("gourmious-").removesuffix(".service")
    context["run_dir"] = context["run_dir"].removeprefix("/run/")
    return render_template(UNITS[name], context)


def render_template(name, context):
    return render_to_string(f"deploy/{name}", {"settings": settings, **context})


def clean_path(path):
    """Return the absolute path; raise CommandError if it would be misread, even in quotes."""
    path = str(Path(path).absolute())
    if any(character in path for character in '$"\\'):
        raise CommandError(f'The path {path} cannot be used here: it must not hold $, " or \\.')
    return path
