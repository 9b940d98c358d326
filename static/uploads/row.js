/* Paints the row of an upload. */
import './bar.js';
import {drawScaled} from './draw.js';

const PREVIEW_LENGTH = 160; // pixels

export function createRow(upload) {
  const {name} = upload.file;
  upload.$row = $($('#upload_row').html().trim()).data({upload}).appendTo('#uploads');
  upload.$bar = upload.$row.find('.upload-progress').progressbar().attr('aria-label', name);
  upload.$row.find('.upload-name').text(name);
  upload.$row.find('[data-action]').attr('aria-label', (index, label) => `${label} ${name}`);
  upload.$row.find('.upload-caption input').attr('aria-label', `Caption of ${name}`);
}

export const getUpload = element => $(element).closest('.upload').data('upload');

export function paintRow({$row, $bar, state, detail, dish, file}) {
  const focused = document.activeElement;
  $row.prop('hidden', false).find('.upload-name').text(file.name); // See paintRefusals().
  $row.attr('data-state', state).find('.upload-detail').text(detail);
  $row.find('.upload-dish').text(dish?.name ?? '');
  $row.find('[data-states]').prop('hidden', function () {
    return !this.matches(`[data-states~=${state}]`);
  });
  $bar.attr('aria-valuetext', readState($row));
  if (focused.closest('[hidden]') && $row.has(focused)[0]) {
    ($row.find('button:visible')[0] || $row.parent()[0]).focus();
  }
}

/* Returns the state as it is seen in the row, also while the row is folded away. */
export const readState = $row =>
  $row.find('.upload-state :not([hidden])').get().map(part => part.textContent).join(' ').trim();

export function paintBar({$bar}, percent) {
  $bar.progressbar('value', percent);
}

export function paintPreview({$row}, bitmap) {
  const scale = PREVIEW_LENGTH / Math.max(bitmap.width, bitmap.height);
  drawScaled($row.find('canvas')[0], bitmap, Math.min(1, scale));
}

export function removeRow({$row}) {
  $row.has(':focus').parent().trigger('focus');
  $row.remove();
}

/* Says a shared refusal once: the first row has the names of all. */
export function paintRefusals(uploads) {
  for (const {$row, detail} of uploads) {
    const group = findGroup(uploads, detail);
    $row.prop('hidden', $row !== group[0].$row);
    $row.find('.upload-name').text(group.map(({file}) => file.name).join(', '));
  }
}

export const findGroup = (uploads, sentence) => uploads.filter(({detail}) => detail === sentence);
