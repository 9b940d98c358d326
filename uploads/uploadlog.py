"""One log line for each upload, as JSON, and its figures. They hold no whole address."""

import json
import logging
import time

from . import metrics
from .progress import progress_of
from .quota import get_network

logger = logging.getLogger(__name__)


def log_upload(request, dish, stored, refused):
    """Log and count the outcome of an upload, the bytes of its files, and the seconds it took.

    "receiving" is the time in which the body arrived, "processing" the time after it.
    """
    progress = progress_of(request)
    outcome = get_outcome(stored, refused)
    receiving, processing = progress.ended - progress.started, time.monotonic() - progress.ended
    metrics.count_upload(outcome, progress.uploaded, receiving, processing)
    logger.info(
        json.dumps(
            {
                "event": "upload",
                "outcome": outcome,
                "dish": dish and dish.pk,
                "files": len(stored) + sum(bool(refusal.file) for refusal in refused),
                "bytes": progress.uploaded,
                "receiving": round(receiving, 3),
                "processing": round(processing, 3),
                "network": get_network(request.META["REMOTE_ADDR"]),
            }
        )
    )


def get_outcome(stored, refused):
    """Return ok, partial, or the code of the first refusal."""
    if stored:
        return "partial" if refused else "ok"
    return refused[0].code
