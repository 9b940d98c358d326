/* Sends each chosen photo in a request of its own, and shows the bytes that the server has received. */
(function ($) {
  'use strict';

  const CONCURRENT_UPLOADS = 3; // browsers open six connections to a server; the polls need some
  const LINE_LOST = 'The connection was lost before the photo had arrived. Please try again.';
  const NOT_KEPT = 'The server did not keep the photo. Please try again later.';

  const POLL_TIMEOUT = 10000; // milliseconds

  const $formUpload = $('#form_upload');
  const running = new Map(); // uploads by their id
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
    paintState(upload, 'uploading', 'Uploading, ' + percent + '\u00a0%');
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

  function paintEnd(upload, state, sentence) {
    upload.$bar.progressbar('destroy').remove();
    paintState(upload, state, sentence);
    announce(upload, sentence);
  }

  function paintPicture($picture) {
    const id = $picture.attr('id');
    const $item = $($('#picture_item').html().trim()).attr('data-picture', id);
    $item.find('.picture-link').attr('href', $picture.attr('url'));
    $item.find('img').attr({
      width: $picture.attr('width'),
      height: $picture.attr('height'),
      srcset: $picture.attr('srcset'),
      src: $picture.attr('thumbnail')
    });
    $item.find('.take-back').attr({href: $picture.attr('take_back')}).not('[href]').remove();
    $('#no_pictures, [data-picture="' + id + '"]').remove(); // the same photo may be there already
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
    const $news = $('#upload_news');
    $news.children().slice(0, -9).remove();
    $('<p>').text(upload.file.name + ': ' + news).appendTo($news);
  }

  // Polling

  function startProgressBarUpdate(progressId) {
    const upload = running.get(progressId);
    upload.interval = setInterval(poll, $formUpload.data('poll-interval'), upload);
  }

  function poll(upload) {
    if (upload.poll) {
      return;
    }
    upload.poll = $.ajax({
      dataType: 'json',
      url: $formUpload.data('progress-url'),
      data: {'X-Progress-ID': upload.id},
      timeout: POLL_TIMEOUT,
      success: data => showProgress(upload, data),
      complete: () => { upload.poll = null; }
    });
  }

  function showProgress(upload, data) {
    if (data && data.error) {
      refuse(upload, data.error);
    } else if (data) {
      paintProgress(upload, percentage(data));
    } else if (upload.sent) {
      paintProcessing(upload); // before that, null is no news
    }
  }

  function refuse(upload, sentence) {
    paintEnd(upload, 'refused', sentence);
    upload.$form.data('jqxhr').abort();
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
    const upload = {id, file, $row, quarter: 0, sent: false, poll: null};
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
    $form.find('label').remove();
    $form.find('[id]').addBack().removeAttr('id');
    $form.find('[name="X-Progress-ID"]').val(upload.id);
    $form.find('[name="picture"]')[0].files = transfer.files;
    return $form.data('upload', upload);
  }

  function sendNext() {
    while (waiting.length && running.size < CONCURRENT_UPLOADS) {
      send(waiting.shift());
    }
  }

  function send(upload) {
    running.set(upload.id, upload);
    startProgressBarUpdate(upload.id);
    upload.$form.ajaxSubmit({
      dataType: 'xml',
      url: $formUpload.attr('action') + '&X-Progress-ID=' + upload.id + '&size=' + upload.file.size,
      beforeSubmit: showRequest,
      uploadProgress: (event, position, total) => { upload.sent = position === total; },
      success: showResponse,
      error: showFailure,
      complete: (jqxhr, status, $form) => finish($form.data('upload'))
    });
  }

  function showRequest(formData, $form) {
    paintState($form.data('upload'), 'starting', 'Starting…');
  }

  function showResponse(xml, status, jqxhr, $form) {
    const upload = $form.data('upload');
    const $picture = $('upload > picture', xml);
    if (!$picture.length) {
      paintEnd(upload, 'refused', $('upload > error', xml).text() || NOT_KEPT);
      return;
    }
    paintDone(upload);
    paintPicture($picture);
  }

  function showFailure(jqxhr, status, error, $form) {
    if (jqxhr.responseXML) {
      showResponse(jqxhr.responseXML, status, jqxhr, $form);
    } else if ($form.data('upload').$row.attr('data-state') !== 'refused') {
      paintEnd($form.data('upload'), 'failed', jqxhr.status ? NOT_KEPT : LINE_LOST);
    }
  }

  function finish(upload) {
    stopProgressBarUpdate(upload);
    running.delete(upload.id);
    upload.$form.remove();
    sendNext();
  }

  $formUpload.on('submit', function (event) {
    event.preventDefault();
    $('.upload').filter('[data-state="done"], [data-state="refused"], [data-state="failed"]').remove();
    Array.from(this.elements.picture.files).forEach(queue);
    this.reset();
    sendNext();
  });

  $(window).on('pagehide', () => running.forEach(stopProgressBarUpdate));
  $(window).on('pageshow', function (event) {
    if (event.originalEvent.persisted) { // the reader came back, and the uploads were going on
      running.forEach(upload => startProgressBarUpdate(upload.id));
    }
  });
})(jQuery);
