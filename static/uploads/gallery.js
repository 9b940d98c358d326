/* Shows the pictures large, in a strip that scrolls by swipe and by keys. */
const $gallery = $('#gallery');
const $steps = $gallery.find('[data-step]');
const $report = $gallery.find('.report');
const [strip] = $gallery.find('ul');

$('.pictures').on('click', '.picture-link', function (event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) {
    return;
  }
  event.preventDefault();
  const $pictures = $('.picture');
  $(strip).html($pictures.get().map(createItem));
  $gallery[0].showModal();
  strip.children[$pictures.index(this.closest('.picture'))].scrollIntoView();
  paintPosition();
});

$steps.on('click', function () {
  strip.scrollLeft += this.dataset.step * strip.clientWidth;
});

$(strip).on('scroll', paintPosition);

function createItem(picture) {
  const $image = $(picture).find('img').clone().attr('sizes', '100vw');
  const $text = $('<figcaption>').append($(picture).find('.caption, time').clone());
  const report = $(picture).find('.report').attr('href') ?? null;
  return $('<li>').data({report}).append($('<figure>').append($image, $text))[0];
}

function paintPosition() {
  const index = Math.round(strip.scrollLeft / strip.clientWidth);
  const {length} = strip.children;
  $gallery.find('.gallery-position').text(`Photo ${index + 1} of ${length}`);
  $steps.prop('disabled', function () {
    return !strip.children[index + Number(this.dataset.step)];
  });
  const {report} = $(strip.children[index]).data();
  $report.attr('href', report).prop('hidden', !report);
  if (document.activeElement.disabled) { // The end was reached with this button.
    strip.focus();
  }
}
