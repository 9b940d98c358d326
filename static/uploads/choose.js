/* Adds a row for each chosen file, and refuses it for its size, its first bytes or their number. */
import {formatSize} from './format.js';
import {paintPage} from './page.js';
import {createRow, paintPreview, removeRow} from './row.js';
import {showNewState} from './show.js';
import {createUpload, findUploads, forgetUpload} from './state.js';

let choices = Promise.resolve(); // one after another: each counts the earlier ones against the limit
let previews = Promise.resolve(); // one at a time: a decoded photo is large

export function choose(file) {
  choices = choices.then(() => addRow(file));
}

/* Returns a promise that is fulfilled when all chosen files have their rows. */
export const waitForChoices = () => choices;

export function remove(upload) {
  forgetUpload(upload);
  removeRow(upload);
  paintPage();
}

async function addRow(file) {
  const refusal = await findRefusal(file);
  const upload = createUpload(file);
  createRow(upload);
  showNewState(upload, refusal ? 'refused' : 'ready', refusal || formatSize(file.size));
  previews = previews.then(() => refusal || paintPreview(upload)).catch($.noop);
}

async function findRefusal(file) {
  const {emptyFile, maxSize, tooLarge, maxFiles, tooMany} = $('#picture').data();
  if (!file.size) {
    return emptyFile;
  }
  if (file.size > maxSize) {
    return tooLarge;
  }
  const refusal = await findKindRefusal(file).catch($.noop); // If it cannot be read, sending fails.
  return refusal || (findUploads('ready').length < maxFiles ? '' : tooMany);
}

/* Reads the first bytes: file.type is a guess from the name. */
async function findKindRefusal(file) {
  const {signatureLength, kinds, notAnImage} = $('#picture').data();
  const bytes = new Uint8Array(await file.slice(0, signatureLength).arrayBuffer());
  const text = String.fromCharCode(...bytes);
  const known = kinds.find(([signature]) => RegExp(`^(?:${signature})`, 's').test(text));
  return known ? known[1] : notAnImage;
}
