/* Measures the speed of an upload. */
const MEMORY = 15000; // milliseconds, of a moving average: older measurements hardly count

export function measure(upload, uploaded) {
  const now = performance.now();
  const elapsed = now - upload.measuredAt;
  const added = uploaded - upload.uploaded;
  if (!upload.firstAt) { // Earlier bytes would count the time to connect, too.
    Object.assign(upload, {uploaded, firstAt: now, measuredAt: now});
  } else if (added || elapsed > MEMORY) { // The count rises in steps: a short pause is no stall.
    const weight = elapsed / Math.min(now - upload.firstAt, elapsed + MEMORY);
    upload.speed += weight * (added / elapsed - upload.speed);
    Object.assign(upload, {uploaded, measuredAt: now});
  }
}

/* Returns about how many bytes the server has by now. */
export const estimate = ({counted, speed, heardAt}) =>
  counted + speed * (performance.now() - heardAt);
