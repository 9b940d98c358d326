/* Announces the news of each upload to screen readers. */
function announce({file}, news) {
  $('<p>').text(`${file.name}: ${news}`).appendTo('#upload_news');
}

export function announceState(upload) {
  announce(upload, upload.$row.find('.upload-state')[0].innerText);
}

export function announceQuarter(upload, percent) {
  if (percent >= upload.quarter + 25) {
    upload.quarter = percent - percent % 25;
    announce(upload, upload.quarter + ' % uploaded');
  }
}
