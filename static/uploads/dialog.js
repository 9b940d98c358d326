/* Opens the form in a dialog. Closing it stops no upload. */
const $dialog = $('#upload_dialog');

$('[data-dish]').on('click', function (event) {
  event.preventDefault();
  $('#id').val(this.dataset.dish);
  $('#upload_title').text(this.dataset.name);
  $('#upload_rows').appendTo($dialog);
  $dialog[0].showModal();
});

$dialog.on('close', () => {
  $('[data-state="ready"] [data-action="remove"]').trigger('click');
  $('#upload_rows').appendTo('main');
});
