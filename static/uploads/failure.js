/* Decides what a failed attempt means: to try again, to wait for the server, or to give up. */
import {isReadable} from './files.js';
import {showError, showNewState} from './show.js';
import {isSending, mayBeStored} from './state.js';
import {renewToken} from './token.js';

const RETRY_PAUSES = [1000, 3000, 9000, 27000]; // milliseconds
const LONGEST_WAIT = 60000;
const LOST = [0, 408, 502, 504, 520, 521, 522, 523, 524]; // statuses: a connection broke somewhere
const BUSY = [429, 503];
const NOTHING_STORED = ['csrf', 'too_slow']; // codes

const sentences = $('#form_upload').data();

/* `queue` sends an upload again. */
export async function showFailure(upload, jqxhr, queue) {
  const {id} = upload;
  const decision = await decide(upload, jqxhr, queue);
  if (upload.id === id && isSending(upload)) { // It was not cancelled meanwhile.
    decision();
  }
}

/* Returns a function that carries the decision out. */
async function decide(upload, jqxhr, queue) {
  const {status, responseXML} = jqxhr;
  const $error = $('error', responseXML);
  const code = $error.attr('code');
  if (NOTHING_STORED.includes(code)) {
    forgetAttempt(upload);
  }
  if (!status && !await isReadable(upload.photo)) {
    return () => showUnreadable(upload);
  }
  if (code === 'csrf' && !upload.hasNewToken) {
    upload.hasNewToken = true;
    await renewToken();
    return () => queue(upload);
  }
  if (BUSY.includes(status)) {
    return () => wait(upload, jqxhr.getResponseHeader('Retry-After'), queue);
  }
  if (LOST.includes(status)) {
    return () => tryAgain(upload, $error.text(), queue);
  }
  return () => giveUp(upload, status, $error);
}

export function showUnreadable(upload) {
  showError(upload, false, $('#picture').data('unreadable'));
}

function wait(upload, retryAfter, queue) {
  const pause = 1000 * (retryAfter ?? 2 ** upload.waits * (1 + Math.random() / 2));
  upload.waits += 1;
  forgetAttempt(upload);
  const isNumber = pause >= 0; // Retry-After may also be a date.
  pauseFor(upload, 'busy', isNumber ? Math.min(pause, LONGEST_WAIT) : LONGEST_WAIT, queue);
}

/* The server has answered that it stored nothing of this attempt. */
function forgetAttempt(upload) {
  upload.ids.pop();
  upload.isSent = false;
}

function tryAgain(upload, sentence, queue) {
  const pause = RETRY_PAUSES[upload.retries];
  upload.retries += 1;
  if (pause) {
    pauseFor(upload, 'paused', pause, queue);
  } else if (mayBeStored(upload)) {
    showNewState(upload, 'uncertain', sentences.unanswered);
  } else {
    showError(upload, true, sentence || sentences.failure);
  }
}

function pauseFor(upload, state, milliseconds, queue) {
  showNewState(upload, state);
  upload.timer = setTimeout(queue, milliseconds, upload);
}

function giveUp(upload, status, $error) {
  const {intercepted, networkLimit} = sentences;
  if ($error[0]) {
    showError(upload, $error.attr('retry'), $error.text());
  } else {
    showError(upload, true, status === 413 ? networkLimit : intercepted);
  }
}
