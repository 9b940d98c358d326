/* Shows the state of an upload: in its row, in the summary, and to screen readers. */
import {announce, announceState} from './announce.js';
import {sendCaption} from './caption.js';
import {paintPage} from './page.js';
import {paintPicture} from './picture.js';
import {paintBar, paintRow, removeRow} from './row.js';

const {captionLost} = $('#form_upload').data();

export function showState(upload, state, detail = '') {
  Object.assign(upload, {state, detail});
  paintRow(upload);
  paintPage();
}

export function showNewState(upload, state, detail) {
  if (upload.state !== state) {
    showState(upload, state, detail);
    announceState(upload);
  }
}

/* An earlier attempt may have stored what this one failed to send. */
export function showError(upload, retry, sentence) {
  const state = retry ? 'failed' : 'refused';
  showNewState(upload, upload.wasSent ? 'uncertain' : state, sentence);
}

export async function showDone(upload, $answer) {
  const isKnown = !upload.wasSent && Boolean($answer.attr('known')); // not by an earlier attempt
  Object.assign(upload, {$answer, isKnown, uploaded: upload.size});
  paintBar(upload, 100);
  paintPicture(upload);
  showState(upload, 'done');
  try {
    await sendCaption(upload) && paintPicture(upload);
    removeRow(upload);
  } catch {
    showState(upload, 'done', captionLost);
    announce(`${upload.file.name}: ${captionLost}`);
  }
}
