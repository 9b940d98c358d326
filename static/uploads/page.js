/* Paints what depends on all uploads: the page's title, the form's button, and the summary. */
import {announce} from './announce.js';
import {count, formatSize} from './format.js';
import {paintRefusals} from './row.js';
import {findUploads} from './state.js';
import {paintSummary} from './summary.js';
import {getTotal, sum} from './total.js';

const {title} = document;
const $button = $('#form_submit_button');

export function paintPage() {
  const total = getTotal();
  const isPending = total.pending.length > 0;
  document.title = document.hidden && isPending ? `(${total.percent} %) Gourmious` : title;
  paintForm(findChosen(), isPending);
  paintRefusals(findUploads('refused'));
  paintSummary(total);
}

export const findChosen = () => findUploads('preparing', 'ready').filter(({dish}) => !dish);

function paintForm(chosen, isPending) {
  const figures = `${count(chosen.length, 'photo')} (${formatSize(sum(chosen, 'size'))})`;
  const label = chosen.length ? `Upload ${figures}` : 'Upload';
  const isReady = chosen.every(({state}) => state === 'ready');
  if (chosen.length && isReady && label !== $button.text()) {
    announce(`Ready: ${figures}`);
  }
  $button.text(isReady ? label : label.replace(/ \(.*/, '')); // The size is not known yet.
  $button.toggleClass('button-quiet', !chosen.length);
  $('#picture').prop('required', !isPending && !chosen.length);
}
