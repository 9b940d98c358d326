/* Binds the events of the page and the browser to the functions that handle them. */
import {cancel} from './cancel.js';
import {openCaption} from './caption.js';
import {choose, remove, showPrepared} from './choose.js';
import {keepChoice, readChoice} from './originals.js';
import {findChosen, paintPage} from './page.js';
import {getUpload} from './row.js';
import {queue, retry, submit} from './send.js';
import {findCancellable, findPending, findUploads} from './state.js';

const actions = {cancel, openCaption, remove, retry};

const allActions = {
  cancel: () => findCancellable().forEach(cancel),
  retry: () => findUploads('failed', 'uncertain').forEach(retry)
};

$('#uploads').on('click', '[data-action]', function () {
  actions[this.dataset.action](getUpload(this));
}).on('keydown', 'input', ({key}) => {
  if (key === 'Enter') { // The caption is written.
    $('#uploads').trigger('focus');
  }
});

$('#upload_summary').on('click', '[data-all]', function () {
  allActions[this.dataset.all]();
});

$('#picture, #camera').on('change', function () {
  forgetFinished();
  [...this.files].forEach(choose);
  this.value = '';
}).trigger('change'); // The diner may have chosen photos before this script ran.

function forgetFinished() {
  findUploads('refused', 'cancelled').forEach(remove);
  if (!findPending().length) {
    findUploads('done').forEach(remove);
  }
}

readChoice();
$('#originals').on('change', () => {
  keepChoice();
  findUploads('ready', 'refused').filter(({dish}) => !dish).forEach(showPrepared);
});

$('#form_upload').on('submit', event => {
  event.preventDefault();
  submit(findChosen());
  paintPage();
}).addClass('scripted'); // Until now it was a form that works without scripts.

$(window).on({
  visibilitychange: paintPage,
  online: () => findUploads('paused').forEach(queue),
  beforeunload(event) {
    if (findPending().length) {
      event.preventDefault();
    }
  }
});

paintPage();
