/* Paints the row of an upload. */
export function createRow(upload) {
  const {name} = upload.file;
  upload.$row = $($('#upload_row').html().trim()).data({upload}).appendTo('#uploads');
  upload.$row.find('.upload-name').text(name);
  upload.$bar = upload.$row.find('.upload-progress').progressbar();
  upload.$row.find('[role]').attr('aria-label', name); // the bar and the buttons
}

export const getUpload = element => $(element).closest('.upload').data('upload');

export function paintRow({$row, state, detail}) {
  const focused = document.activeElement;
  $row.attr('data-state', state).find('.upload-detail').text(detail);
  $row.find('[data-states]').prop('hidden', function () {
    return !this.matches(`[data-states~=${state}]`);
  });
  if (focused.hidden) {
    $row.find('button:visible').first().trigger('focus');
  }
}

export function paintBar({$bar}, percent) {
  $bar.progressbar('value', percent);
}

export async function paintPreview({file, $row}) {
  const bitmap = await createImageBitmap(file, {resizeWidth: 240});
  const [canvas] = $row.find('canvas').prop({width: bitmap.width, height: bitmap.height});
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
}

export function removeRow({$row}) {
  $row.has(':focus').parent().trigger('focus');
  $row.remove();
}
