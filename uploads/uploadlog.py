"""One line of the log for each upload: JSON, without a word on who the diner is."""

import ipaddress
import json
import logging
import time

from .progress import progress_of

# How much of an address is kept, in bits: what a provider gives to many, and not to one.
NETWORK_BITS = {4: 24, 6: 48}

logger = logging.getLogger(__name__)


def log_upload(request, dish, pictures, refusals):
    """Tell what became of an upload, how many bytes of files it had, and how many seconds it took.

    The seconds of receiving are the diner's line, those of processing are the server's own.
    """
    progress = progress_of(request)
    received = progress.received or progress.started
    logger.info(
        json.dumps(
            {
                "event": "upload",
                "outcome": get_outcome(pictures, refusals),
                "dish": dish and dish.pk,
                "files": len(pictures) + sum(bool(refusal.file) for refusal in refusals),
                "bytes": progress.uploaded,
                "receiving": round(received - progress.started, 3),
                "processing": round(time.monotonic() - received, 3),
                "network": get_network(request.META["REMOTE_ADDR"]),
            }
        )
    )


def get_outcome(pictures, refusals):
    """Return ok, partial, or the code of the first refusal."""
    if pictures:
        return "partial" if refusals else "ok"
    return refusals[0].code


def get_network(address):
    """Return the network that a client's address is in, or None where it has none."""
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return None
    return str(ipaddress.ip_network(f"{address}/{NETWORK_BITS[version]}", strict=False))
