/* Shows the state of an upload: in its row, in the page's title, and to screen readers. */
import {announceState} from './announce.js';
import {paintPage} from './page.js';
import {paintPicture} from './picture.js';
import {paintBar, paintRow} from './row.js';

const {failure} = $('#form_upload').data();

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

export function showDone(upload, $answer) {
  upload.uploaded = upload.size;
  paintBar(upload, 100);
  showNewState(upload, 'done');
  paintPicture(upload.dish, $answer);
}

export function showError(upload, retry, sentence) {
  showNewState(upload, retry ? 'failed' : 'refused', sentence || failure);
}
