"""Helpers of the configurations of nginx, HAProxy and systemd."""

import ipaddress
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError
from django.template.loader import render_to_string


def render_template(name, context):
    return render_to_string(f"deploy/{name}", {"settings": settings, **context})


def clean_path(path):
    """Return the absolute path; raise CommandError if it would be misread, even in quotes."""
    path = str(Path(path).absolute())
    if any(character in path for character in '$"\\'):
        raise CommandError(f'The path {path} cannot be used here: it must not hold $, " or \\.')
    return path


def is_ip_address(host):
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
