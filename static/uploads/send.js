/* Sends each photo in a request of its own. */
import {takeBack} from './cancel.js';
import {startProgressBarUpdate, stopProgressBarUpdate} from './poll.js';
import {showSent} from './progress.js';
import {paintBar} from './row.js';
import {showDone, showError, showNewState, showState} from './show.js';
import {SENDING, findUploads, startAttempt} from './state.js';

const CONCURRENT_UPLOADS = 3; // a browser opens six connections, and polls need some
const RETRY_PAUSES = [1000, 3000, 9000]; // milliseconds
const TEMPORARY = [0, 429, 502, 503, 504]; // statuses: no connection, or a busy server

const $form = $('#form_upload');

export function submit(upload) {
  upload.dish = $('#id').val();
  upload.$copy = copyForm(upload);
  queue(upload);
}

export function retry(upload) {
  upload.retries = 0;
  queue(upload);
}

export function resume(upload) {
  if (navigator.onLine && upload.state === 'paused') {
    queue(upload);
  }
}

function copyForm({file, $row}) {
  const $copy = $form.clone().prop('hidden', true);
  const transfer = new DataTransfer();
  transfer.items.add(file);
  $copy.find('[id]').addBack().removeAttr('id');
  $copy.find('[name="picture"]')[0].files = transfer.files;
  return $copy.appendTo($row);
}

function queue(upload) {
  showState(upload, 'waiting');
  sendNext();
}

function sendNext() {
  const free = CONCURRENT_UPLOADS - findUploads(...SENDING).length;
  findUploads('waiting').slice(0, free).forEach(send);
}

function send(upload) {
  const {id} = startAttempt(upload);
  clearTimeout(upload.retryTimer);
  upload.$copy.find('[name="X-Progress-ID"]').val(id);
  upload.$copy.ajaxSubmit({
    dataType: 'xml',
    converters: {'text xml': parseXml},
    url: `${$form[0].action}?X-Progress-ID=${id}&id=${upload.dish}&size=${upload.size}`,
    beforeSubmit: () => showRequest(upload),
    uploadProgress: (event, position, total) => showSent(upload, position, total),
    success: xml => showResponse(upload, $('picture', xml)),
    error: (jqxhr, status) => status === 'abort' || showFailure(upload, jqxhr),
    complete: () => endAttempt(upload)
  });
  startProgressBarUpdate(id);
}

/* Throws for anything but our XML, such as a proxy's HTML page: jQuery then calls `error`. */
const parseXml = text => $.parseXML(text.match(/<upload>.*/s)[0]);

function showRequest(upload) {
  paintBar(upload, 0);
  showState(upload, 'starting');
}

function showResponse(upload, $answer) {
  if (upload.state === 'cancelling') {
    takeBack(upload, $answer).then(sendNext);
  } else {
    showDone(upload, $answer);
  }
}

function showFailure(upload, {status, responseXML}) {
  const $error = $('error', responseXML);
  const pause = RETRY_PAUSES[upload.retries];
  if (pause && TEMPORARY.includes(status) && upload.state !== 'cancelling') {
    upload.retries += 1;
    showNewState(upload, 'paused');
    upload.retryTimer = setTimeout(resume, pause, upload);
  } else {
    showError(upload, !$error[0] || $error.attr('retry'), $error.text());
  }
}

function endAttempt(upload) {
  stopProgressBarUpdate(upload);
  sendNext();
}
