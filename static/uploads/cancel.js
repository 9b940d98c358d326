/* Cancels an upload: the server deletes what it has stored of it, and stores nothing more. */
import {estimate} from './measure.js';
import {showNewState} from './show.js';
import {mayBeStored} from './state.js';
import {post} from './token.js';

const PAUSES = [1000, 3000, 9000, 27000]; // milliseconds
const {cancelUrl, maxCancelled} = $('#form_upload').data();

export function cancel(upload) {
  clearTimeout(upload.timer);
  showNewState(upload, isStored(upload) ? 'cancelling' : 'cancelled');
  upload.request?.abort();
  if (upload.ids.length) {
    tellServer(upload, upload.ids);
  }
}

/* Tells whether the server may have all of the photo. What the browser has handed over says little:
   it may wait in the system's buffers, and the system goes on sending it after an abort. */
function isStored(upload) {
  const isArriving = upload.state === 'uploading' && upload.counted && upload.speed;
  return upload.wasSent || upload.isSent && !(isArriving && estimate(upload) < upload.size);
}

async function tellServer(upload, ids, pauses = PAUSES) {
  try {
    await postIds(ids);
    finish(upload, ids, 'cancelled');
  } catch {
    if (pauses.length) {
      setTimeout(tellServer, pauses[0], upload, ids, pauses.slice(1));
    } else if (mayBeStored(upload)) {
      finish(upload, ids, 'uncertain');
    }
  }
}

async function postIds(ids) {
  for (let start = 0; start < ids.length; start += maxCancelled) {
    const part = ids.slice(start, start + maxCancelled);
    await post(cancelUrl, part.map(id => ['X-Progress-ID', id]));
  }
}

function finish(upload, ids, state) {
  const isCancelled = ['cancelling', 'cancelled'].includes(upload.state);
  if (isCancelled && upload.ids === ids) { // The diner has not sent it again.
    showNewState(upload, state);
  }
}
