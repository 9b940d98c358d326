/* Shares a dish by the browser's own dialog, where it has one. */
$('[data-share]').prop('hidden', !navigator.share).on('click', function () {
  const {share: title, url} = this.dataset;
  navigator.share({title, url: new URL(url, location).href}).catch($.noop); // It may be closed.
});
