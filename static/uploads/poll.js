/* Polls the progress of uploads. */
import {showProgress} from './progress.js';
import {findUploads, isSending} from './state.js';

const TIMEOUT = 10000; // milliseconds
const LONGEST_PAUSE = 16000;
const {pollInterval, progressUrl} = $('#form_upload').data();

let polls = Promise.resolve(); // one at a time: each takes a connection

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
  upload.pollTimer = setTimeout(poll, pause, upload, upload.id);
}

function poll(upload, id) {
  polls = polls.then(() => upload.id === id && isSending(upload) && request(upload)).catch($.noop);
}

function request(upload) {
  upload.pollRequest = $.ajax({
    dataType: 'json',
    url: progressUrl,
    data: {'X-Progress-ID': upload.id},
    timeout: TIMEOUT,
    success: record => showRecord(upload, record),
    complete: (jqxhr, status) => pollAgain(upload, status)
  });
  return upload.pollRequest;
}

function showRecord(upload, record) {
  upload.heardAt = record ? performance.now() : upload.heardAt;
  showProgress(upload, record);
}

function pollAgain(upload, status) {
  if (isSending(upload) && status !== 'abort') {
    const longerPause = Math.min(2 * upload.pollPause, LONGEST_PAUSE);
    pollAfter(upload, status === 'success' ? pollInterval : longerPause);
  }
}
