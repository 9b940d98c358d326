/* Measures the speed of an upload. */
const MEMORY = 15000; // milliseconds; older values hardly count

export function measure(upload, uploaded) {
  const now = Date.now();
  const elapsed = now - upload.measured || 1;
  const more = uploaded - upload.uploaded;
  if (more || elapsed > MEMORY) { // The server counts in lumps, so a short standstill is none.
    const weight = elapsed / Math.min(now - upload.started + 1, elapsed + MEMORY);
    upload.speed += weight * (more / elapsed - upload.speed);
    Object.assign(upload, {uploaded, measured: now});
  }
}
