/* Adds a new picture to the page, in the server's own markup. */
export function paintPicture(dish, $answer) {
  const $item = $($('#picture_item').html().trim());
  fillIn($item, name => $answer.attr(name));
  $(`[data-picture="${$answer.attr('id')}"]`).remove(); // The same photo, sent earlier.
  $item.prependTo(`[data-pictures="${dish}"]`);
  animate($item);
}

function fillIn($item, get) {
  $item.attr('data-picture', get('id'));
  $item.find('.picture-link').attr('href', get('url'));
  $item.find('img').attr({
    width: get('width'),
    height: get('height'),
    srcset: get('srcset'),
    src: get('thumbnail')
  });
  if (get('take_back')) {
    $item.find('.take-back').attr('href', get('take_back'));
  } else { // The photo of another diner.
    $item.find('.take-back').remove();
  }
}

function animate($item) {
  const animations = $item.addClass('arriving')[0].getAnimations();
  Promise.allSettled(animations.map(({finished}) => finished))
    .then(() => $item.removeClass('arriving'));
}
