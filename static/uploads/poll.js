/* Polls the progress of an upload. */
import {showProgress} from './progress.js';
import {SENDING, findUploads} from './state.js';

const TIMEOUT = 10000; // milliseconds
const LONGEST_PAUSE = 16000;
const {pollInterval, progressUrl} = $('#form_upload').data();

export function startProgressBarUpdate(progressId) {
  const upload = findUploads('starting').find(({id}) => id === progressId);
  pollAfter(upload, pollInterval);
}

export function stopProgressBarUpdate(upload) {
  upload.pollRequest?.abort();
  clearTimeout(upload.pollTimer);
}

function pollAfter(upload, pause) {
  upload.pollPause = pause;
  upload.pollTimer = setTimeout(poll, pause, upload);
}

function poll(upload) {
  upload.pollRequest = $.ajax({
    dataType: 'json',
    url: progressUrl,
    data: {'X-Progress-ID': upload.id},
    timeout: TIMEOUT,
    success: record => showRecord(upload, record),
    complete: (jqxhr, status) => pollAgain(upload, status)
  });
}

function showRecord(upload, record) {
  upload.heardAt = record ? Date.now() : upload.heardAt;
  showProgress(upload, record);
}

function pollAgain(upload, status) {
  if (SENDING.includes(upload.state)) {
    const longerPause = Math.min(2 * upload.pollPause, LONGEST_PAUSE);
    pollAfter(upload, status === 'success' ? pollInterval : longerPause);
  }
}
