/* Shows the pictures large, in a strip that scrolls by swipe and by keys. */
const $gallery = $('#gallery');
const [strip] = $gallery.find('ul');

$('.pictures').on('click', '.picture-link', function (event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) {
    return;
  }
  event.preventDefault();
  const $links = $('.picture-link');
  $(strip).html($links.find('img').clone().attr('sizes', '100vw').wrap('<li>').parent());
  $gallery[0].showModal();
  strip.children[$links.index(this)].scrollIntoView();
});

$gallery.on('click', '[data-step]', function () {
  strip.scrollLeft += this.dataset.step * strip.clientWidth;
});
