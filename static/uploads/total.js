/* Sums up all uploads: their number, the bytes, the time left, and what became of them. */
import {count, formatTimeLeft} from './format.js';
import {findPending, findUploads} from './state.js';

export function getTotal() {
  const done = findUploads('done');
  const pending = findPending();
  const failed = findUploads('failed', 'uncertain');
  const uploaded = sum([...done, ...pending], 'uploaded');
  const size = sum([...done, ...pending], 'size');
  return {done, pending, failed, uploaded, size, percent: Math.floor(100 * uploaded / size)};
}

export const sum = (uploads, field) =>
  uploads.reduce((total, upload) => total + upload[field], 0);

/* Returns the parts of a sentence, such as "2 of 5 photos", "38 %" and "40 s left". */
export function describeTotal({done, pending, uploaded, size, percent}) {
  if (!pending.length) {
    return [['failed', 'failed'], ['uncertain', 'may be on the page'], ['cancelled', 'cancelled']]
      .map(([state, words]) => [findUploads(state).length, words])
      .filter(([number]) => number)
      .map(([number, words]) => `${count(number, 'photo')} ${words}`);
  }
  const number = `${done.length} of ${count(done.length + pending.length, 'photo')}`;
  const speed = sum(findUploads('uploading'), 'speed');
  return [number, `${percent}\xa0%`, formatTimeLeft(size - uploaded, speed)].filter(Boolean);
}

/* Returns, for each dish that got photos, the ids of its new pictures and a sentence. */
export function listAdded() {
  const dishes = new Map();
  for (const upload of findUploads('done')) {
    const {id} = upload.dish;
    dishes.set(id, [...dishes.get(id) ?? [], upload]);
  }
  return [...dishes.values()].map(describeAdded);
}

function describeAdded(uploads) {
  const known = uploads.filter(({isKnown}) => isKnown).length;
  const added = uploads.length - known;
  const parts = [
    added && `${count(added, 'photo')} added`,
    known && `${count(known, 'photo')} ${known === 1 ? 'was' : 'were'} here before`
  ];
  const [{dish}] = uploads;
  const pictures = uploads.map(({$answer}) => $answer.attr('id'));
  return {dish, pictures, text: parts.filter(Boolean).join(', ')};
}
