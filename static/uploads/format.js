/* Formats numbers, sizes and times. */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;

export const formatSize = (bytes, total = bytes) =>
  total < 2 ** 20 ? Math.ceil(bytes / 2 ** 10) + '\xa0kB' : (bytes / 2 ** 20).toFixed(1) + '\xa0MB';

const formatTime = seconds => seconds > 90
  ? Math.round(seconds / 60) + '\xa0min'
  : Math.max(5, 5 * Math.round(seconds / 5)) + '\xa0s';

export function formatProgress({uploaded, size, speed}) {
  const text = `${formatSize(uploaded, size).split('\xa0')[0]} of ${formatSize(size)}`;
  const left = formatTimeLeft(size - uploaded, speed);
  return left ? `${text} · ${formatSize(1000 * speed)}/s · ${left}` : text;
}

/* Returns '' if the time is unknown or too long to be believed. */
export function formatTimeLeft(bytes, speed) {
  const seconds = bytes / speed / 1000;
  return seconds < 3600 ? `${formatTime(seconds)}\xa0left` : '';
}
