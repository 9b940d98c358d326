/* Announces news to screen readers. */
import {readState} from './row.js';

const ANNOUNCED = ['paused', 'busy', 'cancelled', 'refused', 'failed', 'uncertain'];

export function announce(news) {
  $('<p>').text(news).appendTo('#upload_news');
}

export function announceState({file, state, $row}) {
  if (ANNOUNCED.includes(state)) { // The summary tells enough of the others.
    announce(`${file.name}: ${readState($row)}`);
  }
}
