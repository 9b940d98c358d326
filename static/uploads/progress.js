/* Decides what to show of an upload's progress. */
import {formatProgress} from './format.js';
import {estimate, measure} from './measure.js';
import {paintBar} from './row.js';
import {showError, showNewState, showState} from './show.js';

const {pollInterval} = $('#form_upload').data();

export function showProgress(upload, record) {
  if (!record) {
    showMissing(upload);
  } else if (!record.error) {
    upload.counted = record.uploaded;
    showUploaded(upload, record.uploaded / record.length);
  } else if (record.code !== 'csrf') { // A refused token is renewed when the answer comes.
    showError(upload, record.retry, record.error);
    upload.request.abort();
  }
}

/* The browser's count runs ahead of the server's: it is shown only while polls bring no record. */
export function showSent(upload, uploaded, length) {
  upload.isSent = uploaded === length;
  if (hasNoNews(upload)) {
    showUploaded(upload, uploaded / length);
  }
}

function showMissing(upload) {
  if (upload.isSent && (upload.speed && upload.counted ? hasArrived(upload) : hasNoNews(upload))) {
    paintBar(upload, false);
    showNewState(upload, 'processing');
  }
}

/* The record is deleted when all has arrived. But it may also have been evicted before. */
const hasArrived = upload => estimate(upload) >= upload.size;

const hasNoNews = upload => performance.now() - upload.heardAt > 3 * pollInterval;

function showUploaded(upload, fraction) {
  measure(upload, Math.max(upload.uploaded, fraction * upload.size));
  paintBar(upload, Math.floor(100 * upload.uploaded / upload.size));
  showState(upload, 'uploading', formatProgress(upload));
}
