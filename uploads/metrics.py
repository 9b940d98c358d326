"""Figures of the uploads for Prometheus. gourmious/exporter.py serves the sums over all workers."""

from prometheus_client import Counter, Gauge, Histogram

from . import refusals
from .renderer import renderers

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)  # the upper limits of the buckets
OUTCOMES = ("ok", "partial", *refusals.BY_CODE)

UPLOADS = Counter("gourmious_uploads", "Uploads that were answered, by outcome.", ["outcome"])
RECEIVED = Counter("gourmious_received_bytes", "Bytes of files in uploads that were answered.")
RECEIVING = Histogram(
    "gourmious_receiving_seconds", "Time in which the body of an upload arrived.", buckets=SECONDS
)
PROCESSING = Histogram(
    "gourmious_processing_seconds",
    "Time from the end of the body of an upload to its answer.",
    buckets=SECONDS,
)
# A worker that has ended has no uploads any more, but its counts stay.
IN_FLIGHT = Gauge(
    "gourmious_uploads_in_flight",
    "Uploads that have begun and are not answered yet.",
    multiprocess_mode="livesum",
)
WAITING = Gauge(
    "gourmious_waiting_pictures",
    "Pictures that wait for a renderer.",
    multiprocess_mode="livesum",
)

# Start each outcome at 0: Prometheus sees an increase only between two values.
for outcome in OUTCOMES:
    UPLOADS.labels(outcome)

# The main process of the server imports the queue. It must not import this module: only a worker
# knows where its figures are kept.
renderers.track_waiting = WAITING.track_inprogress


def count_upload(outcome, size, receiving, processing):
    """Count an upload that ends: the bytes of its files, and the seconds that it took."""
    UPLOADS.labels(outcome).inc()
    RECEIVED.inc(size)
    RECEIVING.observe(receiving)
    PROCESSING.observe(processing)
