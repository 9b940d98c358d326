"""One line of the log for each upload: JSON, without a word on who the diner is."""

import ipaddress
import json
import logging
import time

from .progress import progress_of

logger = logging.getLogger(__name__)


def log_upload(request, dish, pictures, refused):
    """Tell what became of an upload, how many bytes of files it had, and how many seconds it took.

    The seconds of receiving are the diner's line, those of processing are the server's own.
    """
    progress = progress_of(request)
    logger.info(
        json.dumps(
            {
                "event": "upload",
                "outcome": get_outcome(pictures, refused),
                "dish": dish and dish.pk,
                "files": len(pictures) + sum(bool(refusal.file) for refusal in refused),
                "bytes": progress.uploaded,
                "receiving": round(progress.ended - progress.started, 3),
                "processing": round(time.monotonic() - progress.ended, 3),
                "network": get_network(request.META["REMOTE_ADDR"]),
            }
        )
    )


def get_outcome(pictures, refused):
    """Return ok, partial, or the code of the first refusal."""
    if pictures:
        return "partial" if refused else "ok"
    return refused[0].code


def get_network(address, ipv4_bits=24):
    """Return the network that a client's address is in, or None where it has no address.

    A provider gives an IPv4 /24 to many clients, and an IPv6 /48 to one.
    """
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return None
    bits = ipv4_bits if version == 4 else 48
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))
