/* Lets photos be dropped anywhere on the page, pasted, or taken with the camera. */
const $picture = $('#picture');

function choose(files) {
  $picture.prop('files', files).trigger('change');
}

$(document).on('dragenter dragover dragleave drop paste', event => {
  const {dataTransfer, clipboardData, relatedTarget} = event.originalEvent;
  const {types, files} = dataTransfer || clipboardData;
  if (types.includes('Files') && $picture.is(':visible')) {
    event.preventDefault();
    $('body').toggleClass('dropping', /enter|over/.test(event.type) || !!relatedTarget);
    if (files.length) { // none before the drop
      choose(files);
    }
  }
});

$('#camera').on('change', event => choose(event.target.files));
