/* Cancels an upload: whatever the server has of it is never shown, or shown no longer. */
import {estimate} from './measure.js';
import {showNewState} from './show.js';
import {mayBeStored} from './state.js';
import {post} from './token.js';

const PAUSES = [1000, 3000, 9000, 27000]; // milliseconds
const MOST_AT_ONCE = 20; // The server accepts no more.
const {cancelUrl} = $('#form_upload').data();

export function cancel(upload) {
  clearTimeout(upload.timer);
  showNewState(upload, isArriving(upload) ? 'cancelled' : 'cancelling');
  upload.request?.abort();
  if (upload.ids.length) {
    tellServer(upload, upload.ids);
  }
}

/* The server cannot store what it has not received. What the browser has handed over says little:
   all of a small photo may wait in the system's buffers, and the system sends it after an abort. */
const isArriving = upload =>
  !mayBeStored(upload) || !upload.wasSent && upload.counted && estimate(upload) < upload.size;

async function tellServer(upload, ids, pauses = PAUSES) {
  const fields = ids.slice(-MOST_AT_ONCE).map(id => ['X-Progress-ID', id]);
  try {
    await post(cancelUrl, fields);
    finish(upload, 'cancelled');
  } catch {
    if (pauses.length) {
      setTimeout(tellServer, pauses[0], upload, ids, pauses.slice(1));
    } else if (mayBeStored(upload)) {
      finish(upload, 'uncertain');
    }
  }
}

function finish(upload, state) {
  if (['cancelling', 'cancelled'].includes(upload.state)) { // The diner may have sent it again.
    showNewState(upload, state);
  }
}
