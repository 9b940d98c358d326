/* Adds a new picture to the page, in the server's own markup. */
import {count} from './format.js';

export function paintPicture({dish, $answer}) {
  const $item = $($('#picture_item').html().trim());
  const id = $answer.attr('id');
  const $old = $(`[data-picture="${id}"]`);
  fillIn($item, name => $answer.attr(name));
  $(`[data-pictures="${dish.id}"]`).each(function () {
    countPicture($(this), !$old[0], !$answer.attr('known'));
    $old.remove(); // The same photo was sent before, perhaps with another caption.
    $item.prependTo(this);
    numberPictures($(this));
  });
  animate($item);
}

function fillIn($item, get) {
  $item.attr('data-picture', get('id')).filter('[id]').attr('id', `picture_${get('id')}`);
  $item.find('.picture-link').attr('href', get('url'));
  $item.find('img').attr({
    width: get('width'),
    height: get('height'),
    srcset: get('srcset'),
    src: get('thumbnail')
  });
  $item.find('time').attr('datetime', get('datetime')).text(get('date'));
  fillInOrRemove($item.find('.caption'), get('caption'), 'text');
  fillInOrRemove($item.find('.take-back'), get('take_back'), 'href'); // Only the diner's own.
  fillInOrRemove($item.find('.report'), get('report'), 'href'); // Only those of others.
}

function fillInOrRemove($element, value, method) {
  if (!value) {
    $element.remove();
  } else if (method === 'text') {
    $element.text(value);
  } else {
    $element.attr(method, value);
  }
}

/* A known picture may be on another page, unless this one shows all. */
function countPicture($pictures, isNewHere, isNew) {
  const old = Number($pictures.attr('data-total'));
  const total = old + (isNewHere && (isNew || $pictures.children().length === old));
  $pictures.attr('data-total', total);
  $pictures.closest('.card').find('.photo-count').text(count(total, 'photo'));
}

/* Names the pictures as the server does: the caption, or the place among the others. */
function numberPictures($pictures) {
  const {name, total} = $pictures[0].dataset;
  $pictures.find('.picture').each(function (index) {
    const caption = $(this).find('.caption').text();
    $(this).find('img').attr('alt', caption || `${name}, photo ${index + 1} of ${total}`);
  });
}

function animate($item) {
  const animations = $item.addClass('arriving')[0].getAnimations();
  Promise.allSettled(animations.map(({finished}) => finished))
    .then(() => $item.removeClass('arriving'));
}
