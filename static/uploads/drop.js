/* Accepts photos that are dropped on the page or pasted. */
const $picture = $('#picture');

$(document).on('dragenter dragover dragleave drop paste', event => {
  const {dataTransfer, clipboardData, relatedTarget} = event.originalEvent;
  const {types, files} = dataTransfer || clipboardData;
  if (!types.includes('Files')) {
    return;
  }
  event.preventDefault(); // The browser would leave the page, and show the file.
  if (isFormVisible()) {
    $('body').toggleClass('dropping', /enter|over/.test(event.type) || !!relatedTarget);
    if (/drop|paste/.test(event.type)) {
      $picture.prop({files}).trigger('change');
    }
  }
});

const isFormVisible = () => $picture.closest('form').is(':visible');
