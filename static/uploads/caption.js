/* Reads the caption in a photo's row. It may be written until the photo's answer has come. */
import {post} from './token.js';

const findInput = ({$row}) => $row.find('.upload-caption input');

export const readCaption = upload => findInput(upload).val().trim();

export function openCaption(upload) {
  findInput(upload).parent().prop('hidden', false);
  findInput(upload).trigger('focus');
}

/* Sends the caption if it has changed since the photo was sent. Returns whether it did. */
export async function sendCaption(upload) {
  await finishWriting(findInput(upload));
  const caption = readCaption(upload);
  const url = upload.$answer.attr('edit_caption');
  const sent = upload.wasSent ? upload.$answer.attr('caption') ?? '' : upload.caption;
  if (!url || caption === sent) {
    return false;
  }
  await post(url, {caption});
  upload.$answer.attr({caption});
  return true;
}

const finishWriting = $input =>
  new Promise(resolve => $input.is(':focus') ? $input.one('blur', resolve) : resolve());
