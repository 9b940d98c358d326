/* Sends each photo in a request of its own. */
import {readCaption} from './caption.js';
import {showFailure, showUnreadable} from './failure.js';
import {isReadable} from './files.js';
import {startProgressBarUpdate, stopProgressBarUpdate} from './poll.js';
import {showSent} from './progress.js';
import {paintBar} from './row.js';
import {showDone, showState} from './show.js';
import {countSending, findUploads, forgetAttempts, isSending, startAttempt} from './state.js';
import {getToken} from './token.js';

const $form = $('#form_upload');

/* Over HTTP/1.1 a browser opens six connections to a site: two tabs must leave some for pages. */
const [{nextHopProtocol}] = performance.getEntriesByType('navigation');
const CONCURRENT_UPLOADS = /^h[23]/.test(nextHopProtocol) ? 3 : 2;

/* Uploads that are still being prepared are queued when they are ready. */
export function submit(uploads) {
  const dish = {id: $('#id').val(), ...$('#id').data()};
  uploads.forEach(upload => { upload.dish = dish; });
  uploads.filter(({state}) => state === 'ready').forEach(queue);
}

export function retry(upload) {
  if (upload.state === 'cancelled') {
    forgetAttempts(upload);
  }
  Object.assign(upload, {retries: 0, waits: 0});
  if (upload.isPrepared) {
    queue(upload);
  } else {
    showState(upload, 'preparing');
  }
}

export function queue(upload) {
  clearTimeout(upload.timer);
  upload.uploaded = 0;
  paintBar(upload, 0);
  showState(upload, 'waiting');
  sendNext();
}

function sendNext() {
  const free = CONCURRENT_UPLOADS - countSending();
  findUploads('waiting').slice(0, Math.max(0, free)).forEach(send);
}

async function send(upload) {
  startAttempt(upload);
  showState(upload, 'starting'); // From now on it takes one of the places.
  const {id, photo} = upload;
  const [token, canBeRead] = await Promise.all([getToken(), isReadable(photo)]);
  if (upload.id !== id || !isSending(upload)) { // It was cancelled meanwhile.
    sendNext();
    return;
  }
  if (canBeRead) {
    submitCopy(upload, copyForm(upload, token));
    startProgressBarUpdate(id);
  } else {
    showUnreadable(upload);
    sendNext();
  }
}

function copyForm(upload, token) {
  const $copy = $form.clone();
  const transfer = new DataTransfer();
  transfer.items.add(upload.photo);
  upload.caption = readCaption(upload);
  $copy.find('[name="picture"]')[0].files = transfer.files;
  $copy.find('[name="X-Progress-ID"]').val(upload.id);
  $copy.find('[name="id"]').val(upload.dish.id);
  $copy.find('[name="caption"]').val(upload.caption);
  $copy.find('[name="csrfmiddlewaretoken"]').val((index, old) => token || old);
  return $copy;
}

function submitCopy(upload, $copy) {
  const {id, dish, size} = upload;
  $copy.ajaxSubmit({
    dataType: 'xml',
    converters: {'text xml': parseXml},
    url: `${$form[0].action}?X-Progress-ID=${id}&id=${dish.id}&size=${size}`,
    beforeSubmit: () => showRequest(upload),
    uploadProgress: (event, position, total) => showSent(upload, position, total),
    success: xml => showResponse(upload, $('picture', xml)),
    error: (jqxhr, status) => status === 'abort' || handleFailure(upload, jqxhr),
    complete: () => endAttempt(upload)
  });
  upload.request = $copy.data('jqxhr');
}

/* Throws for anything but our XML, such as a proxy's HTML page: jQuery then calls `error`. */
const parseXml = text => $.parseXML(text.match(/<upload>.*/s)[0]);

function showRequest(upload) {
  paintBar(upload, 0);
}

function showResponse(upload, $answer) {
  showDone(upload, $answer);
}

async function handleFailure(upload, jqxhr) {
  await showFailure(upload, jqxhr, queue);
  sendNext();
}

function endAttempt(upload) {
  stopProgressBarUpdate(upload);
  sendNext();
}
