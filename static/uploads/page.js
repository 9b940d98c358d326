/* Paints the page's title, and tells the form whether a photo is still required. */
import {PENDING, findUploads} from './state.js';

const {title} = document;

export function paintPage() {
  const isPending = findUploads(...PENDING).length > 0;
  document.title = document.hidden && isPending ? `(${getPercent()} %) Gourmious` : title;
  $('#picture').prop('required', !isPending && !findUploads('ready').length);
}

function getPercent() {
  const uploads = findUploads('done', ...PENDING);
  const sum = field => uploads.reduce((total, upload) => total + upload[field], 0);
  return Math.floor(100 * sum('uploaded') / sum('size'));
}
