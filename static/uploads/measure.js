/* Measures the speed of an upload. */
const MEMORY = 15000; // milliseconds, of a moving average: older measurements hardly count

export function measure(upload, uploaded) {
  const now = Date.now();
  const elapsed = now - upload.measuredAt || 1;
  const added = uploaded - upload.uploaded;
  if (added || elapsed > MEMORY) { // The count rises in steps: a short pause is no stall.
    const weight = elapsed / Math.min(now - upload.startedAt + 1, elapsed + MEMORY);
    upload.speed += weight * (added / elapsed - upload.speed);
    Object.assign(upload, {uploaded, measuredAt: now});
  }
}
