/* Cancels an upload. Takes its photo back if the server has stored it already. */
import {stopProgressBarUpdate} from './poll.js';
import {showDone, showNewState, showState} from './show.js';
import {SENDING} from './state.js';

export function cancel(upload) {
  if (upload.sent && SENDING.includes(upload.state)) { // The server may still store it.
    stopProgressBarUpdate(upload);
    showState(upload, 'cancelling');
  } else {
    showNewState(upload, 'cancelled');
    upload.$copy.data('jqxhr')?.abort();
  }
}

export function takeBack(upload, $answer) {
  const known = $answer.attr('known'); // The photo of an earlier upload stays.
  return $.when(known || $.post($answer.attr('take_back'), upload.$copy.serialize()))
    .then(() => showNewState(upload, 'cancelled'), () => showDone(upload, $answer));
}
