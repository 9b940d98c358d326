"""The units of systemd."""

import ipaddress
import re
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError

from .configuration import clean_path, is_ip_address, render_template

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

# In MB, at least twice the measured memory of a worker without uploads and renderers, of an upload,
# and of a renderer without a picture.
WORKER_MEMORY, UPLOAD_MEMORY, RENDERER_MEMORY = 512, 1, 128
# Threads of Granian, and of the decoders of a renderer.
SPARE_TASKS = 128


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
