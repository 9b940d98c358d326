/* Formats sizes and times. */
export const formatSize = (bytes, total = bytes) =>
  total < 2 ** 20 ? Math.ceil(bytes / 2 ** 10) + '\xa0kB' : (bytes / 2 ** 20).toFixed(1) + '\xa0MB';

const formatTime = seconds =>
  seconds > 90 ? Math.round(seconds / 60) + '\xa0min' : 5 * Math.ceil(seconds / 5) + '\xa0s';

export function formatProgress({uploaded, size, speed}) {
  const text = `${formatSize(uploaded, size).split('\xa0')[0]} of ${formatSize(size)}`;
  const seconds = (size - uploaded) / speed / 1000;
  const rest = `${formatSize(1000 * speed)}/s · ${formatTime(seconds)}\xa0left`;
  return seconds < 3600 ? `${text} · ${rest}` : text;
}
