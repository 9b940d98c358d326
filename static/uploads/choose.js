/* Adds a row for each chosen photo, and refuses the photos that the server would refuse. */
import {formatSize} from './format.js';
import {paintPage} from './page.js';
import {createRow, paintPreview, removeRow} from './row.js';
import {showNewState} from './show.js';
import {createUpload, findUploads, forgetUpload} from './state.js';

let previews = Promise.resolve(); // one at a time: a decoded photo is large

export function choose(file) {
  const refusal = findRefusal(file);
  const upload = createUpload(file);
  createRow(upload);
  showNewState(upload, refusal ? 'refused' : 'ready', refusal || formatSize(file.size));
  previews = previews.then(() => refusal || paintPreview(upload)).catch($.noop);
}

export function remove(upload) {
  forgetUpload(upload);
  removeRow(upload);
  paintPage();
}

function findRefusal({size, type}) {
  const {maxSize, tooLarge, maxFiles, tooMany, notAnImage} = $('#picture').data();
  if (size > maxSize) {
    return tooLarge;
  }
  if (!size || !/^(image|$)/.test(type)) {
    return notAnImage;
  }
  return findUploads('ready').length < maxFiles ? null : tooMany;
}
