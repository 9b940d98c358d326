/* Decides what to show of an upload's progress. */
import {announceQuarter} from './announce.js';
import {formatProgress} from './format.js';
import {measure} from './measure.js';
import {paintBar} from './row.js';
import {showError, showNewState, showState} from './show.js';

const {pollInterval} = $('#form_upload').data();

export function showProgress(upload, record) {
  if (record?.error) {
    showError(upload, record.retry, record.error);
    upload.$copy.data('jqxhr').abort();
  } else if (record) {
    showUploaded(upload, record.uploaded / record.length);
  } else if (upload.sent && (upload.uploaded || hasNoNews(upload))) { // Probably all has arrived.
    showProcessing(upload);
  }
}

/* The browser's count runs ahead of the server's: it is shown only while polls bring no record. */
export function showSent(upload, uploaded, length) {
  upload.sent = uploaded === length;
  if (hasNoNews(upload) && upload.sent) {
    showProcessing(upload);
  } else if (hasNoNews(upload)) {
    showUploaded(upload, uploaded / length);
  }
}

const hasNoNews = upload => Date.now() - upload.heardAt > 3 * pollInterval;

function showUploaded(upload, fraction) {
  measure(upload, Math.max(upload.uploaded, fraction * upload.size));
  const percent = Math.floor(100 * upload.uploaded / upload.size);
  paintBar(upload, percent);
  showState(upload, 'uploading', formatProgress(upload));
  announceQuarter(upload, percent);
}

function showProcessing(upload) {
  paintBar(upload, false);
  showNewState(upload, 'processing');
}
