/* Opens the form in a dialog. Closing it stops no upload: their summary moves to the page. */
import {remove} from './choose.js';
import {findChosen, paintPage} from './page.js';
import {fold} from './summary.js';

const $dialog = $('#upload_dialog');

$('[data-dish]').on('click', function (event) {
  event.preventDefault();
  const {dish, name, url} = this.dataset;
  $('#id').val(dish).data({name, url});
  $('#upload_title').text(name);
  $('#upload_rows').appendTo($dialog);
  fold(false);
  $dialog[0].showModal();
});

$dialog.on('close', () => {
  findChosen().forEach(remove);
  $('#upload_rows').appendTo('main');
  fold(true);
  paintPage();
});
