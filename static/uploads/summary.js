/* Paints the summary of all uploads above their rows, and announces it. */
import {announce} from './announce.js';
import './bar.js';
import {findCancellable} from './state.js';
import {describeTotal, listAdded} from './total.js';

const $summary = $('#upload_summary');
const $bar = $summary.find('.upload-progress').progressbar();
const $fold = $('#upload_fold');
const $added = $('#uploads_added');

let quarter = 0; // the percentage that was last announced
let wasPending = false;

export function paintSummary(total) {
  const {pending, failed, percent} = total;
  const text = describeTotal(total).join(' · ');
  $summary.prop('hidden', !text).find('.upload-total').text(text);
  $summary.find('.upload-dish').text(nameDish(pending));
  $bar.progressbar('value', pending.length && percent).attr('aria-valuetext', text);
  $bar.prop('hidden', !pending.length);
  $('[data-all="cancel"]').prop('hidden', !findCancellable().length);
  $('[data-all="retry"]').prop('hidden', !failed.length);
  paintAdded();
  if (!text) {
    fold(false);
  }
  announceTotal(total, text);
}

function nameDish(uploads) {
  const names = new Set(uploads.map(({dish}) => dish.name));
  return names.size === 1 ? [...names][0] : '';
}

function paintAdded() {
  const $links = $('<ul>').append(listAdded().map(createLink));
  if ($links.text() !== $added.text()) { // A link that is replaced loses the focus.
    $added.html($links.children());
  }
}

function createLink({dish, pictures, text}) {
  const name = $('#upload_dialog')[0] ? `: ${dish.name}` : '';
  const $link = $('<a class="added-link">').text(text + name).data({pictures});
  return $('<li>').append($link.attr('href', `${dish.url}#picture_${pictures.at(-1)}`));
}

export function fold(isFolded) {
  $('#uploads').prop('hidden', isFolded);
  $fold.attr('aria-expanded', !isFolded).text(isFolded ? 'Show photos' : 'Hide photos');
}

function announceTotal({pending, percent}, text) {
  const isPending = pending.length > 0;
  if (isPending && percent >= quarter + 25) {
    quarter = percent - percent % 25;
    announce(text);
  } else if (wasPending && !isPending) {
    quarter = 0;
    announce([...listAdded().map(added => added.text), text].filter(Boolean).join('. '));
  }
  wasPending = isPending;
}

$fold.on('click', () => fold(!$('#uploads').prop('hidden')));

/* Marks the photos that a link leads to. On another page only the newest is marked, by its id. */
$added.on('click', 'a', function () {
  $('.added').removeClass('added');
  $(this).data('pictures').forEach(id => $(`[data-picture="${id}"]`).addClass('added'));
});
