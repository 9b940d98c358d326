/* Cancels an upload, and takes its photo back where the server has it already. */
import {stopProgressBarUpdate} from './poll.js';
import {showDone, showNewState, showState} from './show.js';
import {SENDING} from './state.js';

export function cancel(upload) {
  if (upload.sent && SENDING.includes(upload.state)) { // The server may keep it all the same.
    stopProgressBarUpdate(upload);
    showState(upload, 'cancelling');
  } else {
    showNewState(upload, 'cancelled');
    upload.$copy.data('jqxhr')?.abort();
  }
}

export function takeBack(upload, $answer) {
  const known = $answer.attr('known'); // A photo that was there before stays.
  return $.when(known || $.post($answer.attr('take_back'), upload.$copy.serialize()))
    .then(() => showNewState(upload, 'cancelled'), () => showDone(upload, $answer));
}
