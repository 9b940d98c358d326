/* Binds the events of the page and the browser to the functions that handle them. */
import {cancel} from './cancel.js';
import {choose, remove, waitForChoices} from './choose.js';
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
}).trigger('change'); // The diner may have chosen photos before this script ran.

$('#form_upload').on('submit', async event => {
  event.preventDefault();
  await waitForChoices();
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
