/* Adds a row for each chosen file, and finds out why the server would refuse it. */
import {isReadable, readStart} from './files.js';
import {formatSize} from './format.js';
import {getPhoto} from './originals.js';
import {paintPage} from './page.js';
import {drawPhoto} from './reduce.js';
import {createRow, findGroup, removeRow} from './row.js';
import {queue} from './send.js';
import {showError, showState} from './show.js';
import {createUpload, findUploads, forgetUpload, isKept} from './state.js';

let drawings = Promise.resolve(); // one at a time: a decoded photo is large

export async function choose(file) {
  const upload = createUpload(file);
  createRow(upload);
  showState(upload, 'preparing');
  upload.refusal = await findRefusal(file);
  drawings = drawings.then(() => upload.refusal || isKept(upload) && drawPhoto(upload));
  drawings = drawings.catch($.noop); // The browser cannot decode it, but the server may.
  await (upload.refusal || drawings);
  upload.isPrepared = true;
  if (isKept(upload)) {
    showPrepared(upload);
  }
}

async function findRefusal(file) {
  const {unreadable, emptyFile, notAnImage, signatureLength, kinds} = $('#picture').data();
  if (!await isReadable(file)) {
    return unreadable;
  }
  if (!file.size) {
    return emptyFile;
  }
  const startsWith = await readStart(file, signatureLength); // file.type is a guess from the name
  const known = kinds.find(([signature]) => startsWith(signature));
  return known ? known[1] : notAnImage;
}

export function showPrepared(upload) {
  const {maxSize, tooLarge} = $('#picture').data();
  if (upload.dish && upload.state !== 'preparing') { // It was cancelled meanwhile.
    return;
  }
  upload.photo = getPhoto(upload);
  upload.size = upload.photo.size;
  const refusal = upload.refusal || (upload.size > maxSize ? tooLarge : '');
  if (refusal) {
    showError(upload, false, refusal);
  } else if (upload.dish) { // It was submitted meanwhile.
    queue(upload);
  } else {
    showState(upload, 'ready', describe(upload));
  }
}

function describe({file, size}) {
  const text = formatSize(file.size);
  return size < file.size ? `${text}, sent as ${formatSize(size)}` : text;
}

/* Removes a row, and with a refusal all rows that share it. */
export function remove(upload) {
  const {state, detail} = upload;
  const group = state === 'refused' ? findGroup(findUploads(state), detail) : [upload];
  group.forEach(forgetUpload);
  group.forEach(removeRow);
  paintPage();
}
