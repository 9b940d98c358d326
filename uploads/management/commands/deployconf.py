import json
import re
import shlex
from pathlib import Path

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from uploads.management.configuration import render_template
from uploads.management.haproxy import list_web_hosts, render_balancer
from uploads.management.nginx import MAIN_SITE, read_version, render_nginx, render_nginx_main
from uploads.management.systemd import render_units

VARIABLE = re.compile(r"^(GOURMIOUS_\w+=)(.+)$", re.MULTILINE)


class Command(BaseCommand):
    help = "Print files of nginx, systemd or HAProxy, or that of the settings, from the settings."
    requires_system_checks = []

    def add_arguments(self, parser):
        kinds = parser.add_subparsers(dest="kind", required=True)
        kinds.add_parser("nginx-main", help="Print nginx's main file, nginx.conf.")
        add_nginx_arguments(
            kinds.add_parser("nginx", help="Print the site for nginx's sites-enabled.")
        )
        systemd = kinds.add_parser("systemd", help="Print the units of systemd.")
        systemd.add_argument("--unit", metavar="NAME", help="Print only this unit.")
        files = kinds.add_parser("files", help="Print all these files by their paths, as JSON.")
        for kind in (systemd, files):
            add_home(kind)
        add_balancer_arguments(
            kinds.add_parser(
                "balancer",
                help="Print haproxy.cfg for a load balancer in front of several web hosts.",
            )
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
            raise CommandError(
                "HTTPS needs a certificate: give --certificate, or --listen for plain HTTP."
            )
        self.stdout.write(render_balancer(list_web_hosts(hosts), certificate, listen))

    def env(self, **options):
        text = render_template("gourmious.env", {})
        # systemd and shells read quotes alike.
        self.stdout.write(VARIABLE.sub(lambda found: found[1] + shlex.quote(found[2]), text))


def add_nginx_arguments(parser):
    add_listen(parser, "Listen only on this address.")
    parser.add_argument(
        "--nginx-version",
        metavar="VERSION",
        type=read_version,
        help="Print the site for this version of nginx (default: the installed one).",
    )


def add_balancer_arguments(parser):
    parser.add_argument("hosts", metavar="HOST[:PORT]", nargs="+", help="A web host.")
    parser.add_argument(
        "--certificate",
        metavar="FILE",
        help="The file with the certificate chain and the key, on the balancer.",
    )
    add_listen(parser, "Listen only on this address; without --certificate over plain HTTP.")


def add_listen(parser, text):
    parser.add_argument(
        "--listen", metavar="ADDRESS", action="append", help=f"{text} May be given more than once."
    )


def add_home(parser):
    parser.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        default=Path("/srv", settings.SITE),
        help="The folder of the deployments (default: %(default)s).",
    )
