/* Binds what the diner and the browser do to the functions that answer it. */
import {cancel} from './cancel.js';
import {choose, remove} from './choose.js';
import {paintPage} from './page.js';
import {getUpload} from './row.js';
import {resume, retry, submit} from './send.js';
import {PENDING, findUploads} from './state.js';

const actions = {cancel, remove, retry};

$('#uploads').on('click', '[data-action]', function () {
  actions[this.dataset.action](getUpload(this));
});

$('#picture, #camera').on('change', function () {
  findUploads('done', 'refused', 'cancelled').forEach(remove);
  [...this.files].forEach(choose);
  this.value = '';
}).trigger('change'); // Some may have been chosen before the script was there.

$('#form_upload').on('submit', event => {
  event.preventDefault();
  findUploads('ready').forEach(submit);
});

$(window).on({
  visibilitychange: paintPage,
  online: () => findUploads('paused').forEach(resume),
  beforeunload(event) {
    if (findUploads(...PENDING).length) {
      event.preventDefault();
    }
  }
});
