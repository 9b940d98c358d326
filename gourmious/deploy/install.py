"""The first deployment on a machine: user, folders, repository, settings and certificate."""

import argparse
import pwd
import re
import secrets
import shutil
from pathlib import Path

from . import deployments, releases
from .host import Host, has_all_data, read_variables, replace, tell

CHECKOUT = Path(__file__).resolve().parents[2]
# As in gourmious/settings.py, which needs Django.
SITE = re.compile(r"[a-z][a-z0-9-]{0,20}")
NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
CERTBOT = Path("/etc/letsencrypt")
CHALLENGES = Path("/var/www/html")  # nginx serves what certbot writes here
METRICS_PORT = "9717"


def install(host, *arguments):
    """Install a site, or complete its installation."""
    options = parse(arguments, host.site)
    host = Host(options.site, host.root)
    host.home.mkdir(parents=True, exist_ok=True)
    with host.lock():
        make_user(host)
        enable_security_updates(host)
        make_repository(host)
        write_command(host)
        if host.current.is_symlink():
            deployments.apply(host)
        else:
            deploy_first(host, options)
    tell(describe(host))


def parse(arguments, site):
    parser = argparse.ArgumentParser(
        prog="install", description="Install Gourmious on Debian 13 or 12, behind nginx."
    )
    parser.add_argument("name", help="the host name of the site, such as gourmious.example")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="its certificate chain")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the key of the certificate")
    parser.add_argument("--plain", action="store_true", help="HTTP only, for a private network")
    parser.add_argument("--site", default=site, help="its name on a machine with several")
    options = parser.parse_args(arguments)
    if not SITE.fullmatch(options.site):
        parser.error(f"--site {options.site}: use small letters, digits and hyphens.")
    if not NAME.fullmatch(options.name):
        parser.error(f"{options.name} is not a host name in small letters.")
    if bool(options.certificate) != bool(options.key) or (options.plain and options.key):
        parser.error("Give both --certificate and --key, or --plain, or none of them.")
    for path in filter(None, (options.certificate, options.key)):
        if not path.is_file():
            parser.error(f"There is no file {path}.")
    return options


def make_user(host):
    """Make the user of the site. nginx reads its pictures as a member of its group."""
    if not host.is_machine:
        return
    try:
        pwd.getpwnam(host.site)
    except KeyError:
        home = ("--home", str(host.data))
        host.run("adduser", "--quiet", "--system", "--group", *home, host.site)
        host.data.chmod(0o750)
    host.run("usermod", "--append", "--groups", host.site, "www-data")


def enable_security_updates(host):
    """Have Debian install its security updates every day: nginx reads what strangers send."""
    path = host.root / "etc/apt/apt.conf.d/20auto-upgrades"
    names = ("Update-Package-Lists", "Unattended-Upgrade")
    if not path.exists():
        replace(path, "".join(f'APT::Periodic::{name} "1";\n' for name in names))


def make_repository(host):
    """Clone the checkout of this file. Upgrades come from its origin."""
    if host.repository.exists():
        return
    new = host.home / ".repository.new"
    shutil.rmtree(new, ignore_errors=True)
    host.run("git", "clone", "--quiet", "--bare", CHECKOUT, new)
    config = ("git", "-C", CHECKOUT, "config", "--default", CHECKOUT)
    origin = host.run(*config, "--get", "remote.origin.url").strip()
    git = ("git", "--git-dir", new)
    host.run(*git, "remote", "set-url", "origin", origin)
    host.run(*git, "config", "remote.origin.fetch", "+refs/heads/*:refs/heads/*")
    new.rename(host.repository)


def write_command(host):
    """Write the command. It runs the code of the current release, with the system's Python."""
    run = "exec /usr/bin/python3 -BP -X utf8 -m gourmious.deploy"
    path = f"PYTHONPATH={host.current}/release"
    replace(host.command, f'#!/bin/sh\n{path} {run} --site {host.site} "$@"\n', mode=0o755)


def deploy_first(host, options):
    deployments.discard(host)  # An interrupted build leaves a part of a release.
    # The checkout may be newer than the repository, which an earlier attempt has cloned.
    host.run("git", "--git-dir", host.repository, "fetch", "--quiet", CHECKOUT, "HEAD")
    commit = host.run("git", "-C", CHECKOUT, "rev-parse", "HEAD").strip()
    release = releases.build(host, commit)
    if not host.settings.exists():
        write_settings(host, release, options)
    get_certificate(host)
    remove_default_site(host)
    deployments.deploy(host, release)


def write_settings(host, release, options):
    """Let the release print its settings, with those that this site needs."""
    certificate, key = find_certificate(options)
    variables = {
        "GOURMIOUS_SITE": host.site,
        "GOURMIOUS_SECRET_KEY": secrets.token_urlsafe(48),
        "GOURMIOUS_ALLOWED_HOSTS": options.name,
        "GOURMIOUS_TLS_CERTIFICATE": certificate,
        "GOURMIOUS_TLS_KEY": key,
        "GOURMIOUS_MEMCACHED": "127.0.0.1:11211",
        "GOURMIOUS_DATA_DIR": str(host.data),
        "GOURMIOUS_METRICS_PORT": METRICS_PORT if host.site == "gourmious" else "",
    }
    command = (releases.get_python(release), "manage.py", "deployconf", "env")
    text = host.run_as_site(*command, variables=variables, cwd=release)
    replace(host.settings, text, mode=0o640)
    host.give_to_site(host.settings, user=False)


def find_certificate(options):
    """Return the files of the certificate and its key: given ones, or those of certbot."""
    if options.plain:
        return "", ""
    if options.certificate:
        return str(options.certificate.absolute()), str(options.key.absolute())
    folder = CERTBOT / "live" / options.name
    return str(folder / "fullchain.pem"), str(folder / "privkey.pem")


def get_certificate(host):
    """Have certbot get the certificate, if the settings name one of its own that is missing."""
    variables = read_variables(host.settings)
    certificate = Path(variables.get("GOURMIOUS_TLS_CERTIFICATE", ""))
    if certificate.is_relative_to(CERTBOT) and not certificate.exists():
        webroot = ("certonly", "--webroot", "--webroot-path", CHALLENGES)
        hook = ("--deploy-hook", "systemctl reload nginx")
        names = (word for name in get_names(variables) for word in ("--domain", name))
        if not shutil.which("certbot"):
            host.run("apt-get", "install", "-qq", "--no-install-recommends", "certbot")
        host.run("certbot", *webroot, *hook, *names, stdout=None)


def get_names(variables):
    return variables["GOURMIOUS_ALLOWED_HOSTS"].split(",")


def remove_default_site(host):
    """Remove Debian's site: only one can answer requests for unknown hosts."""
    if host.site == "gourmious":
        (host.root / "etc/nginx/sites-enabled/default").unlink(missing_ok=True)


def describe(host):
    """Return what to do after the installation."""
    variables = read_variables(host.settings)
    scheme = "https" if variables.get("GOURMIOUS_TLS_CERTIFICATE") else "http"
    lines = [
        f"\n{scheme}://{get_names(variables)[0]}/ is up. Next:",
        f"  {host.site} createsuperuser    makes an account for /admin/",
        f"  {host.site} status             tells whether all is well",
    ]
    if has_all_data(variables):
        lines.append(
            f"For a backup each night set GOURMIOUS_BACKUP_DIR in {host.settings}, and run: "
            f"{host.site} apply"
        )
    return "\n".join(lines)
