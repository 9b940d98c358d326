/* Sends each chosen photo in a request of its own, and shows the bytes that the server has received. */
(function ($) {
  'use strict';

  const CONCURRENT_UPLOADS = 3; // browsers open six connections to a server; the polls need some
  const LINE_LOST = 'The connection was lost before the photo had arrived. Please try again.';
  const NOT_UNDERSTOOD = 'The server did not take the photo. Please try again later.';

  const $formUpload = $('#form_upload');
  const uploads = new Map(); // the running ones, by their id
  const waiting = [];

  // Calculation

  function randomProgressId() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
  }

  function percentage(data) {
    return Math.floor(100 * data.uploaded / data.length);
  }

  // Painting

  function paintState(upload, state, text) {
    upload.$row.attr('data-state', state).find('.upload-state').text(text);
  }

  function paintProgress(upload, percent) {
    upload.$bar.progressbar('value', percent);
    paintState(upload, 'uploading', 'Uploading, ' + percent + ' %');
    announceQuarter(upload, percent);
  }

  function paintProcessing(upload) {
    if (upload.$row.attr('data-state') === 'processing') {
      return;
    }
    upload.$bar.progressbar('value', false);
    paintState(upload, 'processing', 'Processing…');
    announce(upload, 'processing');
  }

  function paintDone(upload) {
    upload.$bar.progressbar('value', 100);
    paintState(upload, 'done', 'Done');
    announce(upload, 'done');
  }

  function paintRefused(upload, state, sentence) {
    upload.$bar.progressbar('destroy').remove();
    paintState(upload, state, sentence);
    announce(upload, sentence);
  }

  function paintPicture(url, thumbnail) {
    const $item = $($('#picture_item').html().trim());
    $item.find('a').attr('href', url).find('img').attr('src', thumbnail);
    $('#no_pictures').remove();
    $item.prependTo('#pictures');
  }

  function announceQuarter(upload, percent) {
    const quarter = Math.floor(percent / 25);
    if (quarter > upload.quarter) {
      upload.quarter = quarter;
      announce(upload, quarter * 25 + ' % uploaded');
    }
  }

  function announce(upload, news) {
    $('#upload_news').text(upload.file.name + ': ' + news);
  }

  // Polling

  function startProgressBarUpdate(progressId) {
    const upload = uploads.get(progressId);
    upload.interval = setInterval(poll, $formUpload.data('poll-interval'), upload);
  }

  function poll(upload) {
    if (upload.poll) {
      return;
    }
    upload.poll = $.getJSON($formUpload.data('progress-url'), {'X-Progress-ID': upload.id})
      .done(data => showProgress(upload, data))
      .always(() => { upload.poll = null; });
  }

  function showProgress(upload, data) {
    if (data) {
      upload.seen = true;
      paintProgress(upload, percentage(data));
    } else if (upload.seen || upload.sent) {
      paintProcessing(upload); // else the null means that the upload has not begun
    }
  }

  function stopProgressBarUpdate(upload) {
    clearInterval(upload.interval);
    if (upload.poll) {
      upload.poll.abort();
    }
  }

  // Sending

  function queue(file) {
    const id = randomProgressId();
    const $row = $($('#upload_row').html().trim());
    const upload = {id, file, $row, quarter: 0, seen: false, sent: false, poll: null};
    $row.find('.upload-name').text(file.name);
    upload.$form = copyOfForm(upload).appendTo($row);
    upload.$bar = $row.find('.upload-progress').attr('aria-label', file.name).progressbar();
    paintState(upload, 'waiting', 'Waiting…');
    $row.appendTo('#uploads');
    waiting.push(upload);
  }

  function copyOfForm(upload) {
    const $form = $formUpload.clone().prop('hidden', true);
    const transfer = new DataTransfer();
    transfer.items.add(upload.file);
    $form.find('[id]').addBack().removeAttr('id');
    $form.find('[name="X-Progress-ID"]').val(upload.id);
    $form.find('[name="picture"]')[0].files = transfer.files;
    return $form.data('upload', upload);
  }

  function sendNext() {
    while (waiting.length && uploads.size < CONCURRENT_UPLOADS) {
      send(waiting.shift());
    }
  }

  function send(upload) {
    uploads.set(upload.id, upload);
    upload.$form.ajaxSubmit({
      dataType: 'xml',
      url: $formUpload.attr('action') + '?X-Progress-ID=' + upload.id,
      beforeSubmit: showRequest,
      uploadProgress: (event, position, total) => { upload.sent = position === total; },
      success: showResponse,
      error: showFailure,
      complete: (jqxhr, status, $form) => finish($form.data('upload'))
    });
    startProgressBarUpdate(upload.id);
  }

  function showRequest(formData, $form) {
    paintState($form.data('upload'), 'starting', 'Starting…');
  }

  function showResponse(xml, status, jqxhr, $form) {
    const upload = $form.data('upload');
    const $picture = $('picture', xml);
    if (!$picture.length) {
      paintRefused(upload, 'refused', $('error', xml).text() || NOT_UNDERSTOOD);
      return;
    }
    paintDone(upload);
    paintPicture($picture.attr('url'), $picture.attr('thumbnail'));
  }

  function showFailure(jqxhr, status, error, $form) {
    if (jqxhr.responseXML) {
      showResponse(jqxhr.responseXML, status, jqxhr, $form);
    } else {
      paintRefused($form.data('upload'), 'failed', jqxhr.status ? NOT_UNDERSTOOD : LINE_LOST);
    }
  }

  function finish(upload) {
    stopProgressBarUpdate(upload);
    uploads.delete(upload.id);
    upload.$form.remove();
    sendNext();
  }

  $formUpload.on('submit', function (event) {
    event.preventDefault();
    $('.upload[data-state="done"]').remove();
    Array.from(this.elements.picture.files).forEach(queue);
    this.reset();
    sendNext();
  });

  $(window).on('pagehide', () => uploads.forEach(stopProgressBarUpdate));
})(jQuery);
