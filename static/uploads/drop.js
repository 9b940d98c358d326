/* Accepts photos that are dropped on the page or pasted. */
const $picture = $('#picture');

$(document).on('dragenter dragover dragleave drop paste', event => {
  const {dataTransfer, clipboardData, relatedTarget} = event.originalEvent;
  const {types, files} = dataTransfer || clipboardData;
  if (types.includes('Files') && $picture.is(':visible')) {
    event.preventDefault();
    $('body').toggleClass('dropping', /enter|over/.test(event.type) || !!relatedTarget);
    if (files.length) { // empty until the drop
      $picture.prop({files}).trigger('change');
    }
  }
});
