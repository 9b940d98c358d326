/* Sends each photo in a request of its own, and shows the bytes the server has received. */
const CONCURRENT_UPLOADS = 3; // of a browser's six connections
const RETRY_PAUSES = [1000, 3000, 9000]; // milliseconds, as all times here
const SENDING = ['starting', 'uploading', 'processing', 'cancelling'];
const PENDING = ['waiting', 'paused', ...SENDING];

const $form = $('#form_upload');
const $picture = $('#picture');
const {pollInterval, progressUrl, failure} = $form.data();
const {title} = document;
let previews = Promise.resolve(); // one by one: a decoded photo is large

const inState = (...states) =>
  $.map($('.upload'), row => $(row).data('upload')).filter(({state}) => states.includes(state));

const randomProgressId = () => crypto.getRandomValues(new Uint32Array(4)).join('-');

function refusalOf({size, type}) {
  const {maxSize, tooLarge, maxFiles, tooMany, notAnImage} = $picture.data();
  return size > maxSize && tooLarge || !(size && /^(image|$)/.test(type)) && notAnImage
    || inState('ready').length >= maxFiles && tooMany;
}

const formatSize = (bytes, unitOf = bytes) =>
  unitOf < 2 ** 20 ? Math.ceil(bytes / 2 ** 10) + '\xa0kB' : (bytes / 2 ** 20).toFixed(1) + '\xa0MB';

const formatTime = seconds => seconds > 90 ? Math.round(seconds / 60) + '\xa0min' : 5 * Math.ceil(seconds / 5) + '\xa0s';

function formatProgress({uploaded, size, speed}) {
  const text = `${formatSize(uploaded, size).split('\xa0')[0]} of ${formatSize(size)}`;
  const seconds = (size - uploaded) / speed / 1000;
  return seconds < 3600 ? `${text} · ${formatSize(1000 * speed)}/s · ${formatTime(seconds)}\xa0left` : text;
}

function measure(upload, uploaded) {
  const now = Date.now();
  const elapsed = now - upload.measured || 1;
  const more = uploaded - upload.uploaded;
  if (more || elapsed > 15000) { // the server counts in lumps
    const weight = elapsed / Math.min(now - upload.started + 1, elapsed + 15000);
    upload.speed += weight * (more / elapsed - upload.speed);
    Object.assign(upload, {uploaded, measured: now});
  }
}

const isSilent = upload => Date.now() - upload.heard > 3 * pollInterval;

function paintState(upload, state, detail = '') {
  const focused = document.activeElement;
  upload.state = state;
  upload.$row.attr('data-state', state).find('.upload-detail').text(detail);
  upload.$row.find('[data-states]').prop('hidden', function () {
    return !this.matches(`[data-states~=${state}]`);
  });
  if (focused.hidden) {
    upload.$row.find('button:visible').first().trigger('focus');
  }
  paintPage();
}

function paintPage() {
  const batch = inState('done', ...PENDING);
  const total = key => batch.reduce((sum, upload) => sum + upload[key], 0);
  const percent = Math.floor(100 * total('uploaded') / total('size'));
  document.title = document.hidden && inState(...PENDING).length ? `(${percent} %) Gourmious` : title;
  $picture.prop('required', !inState('ready', ...PENDING).length);
}

function paintProgress(upload, fraction) {
  measure(upload, Math.max(upload.uploaded, fraction * upload.size));
  const percent = Math.floor(100 * upload.uploaded / upload.size);
  upload.$bar.progressbar('value', percent);
  paintState(upload, 'uploading', formatProgress(upload));
  if (percent >= upload.quarter + 25) {
    upload.quarter = percent - percent % 25;
    announce(upload, upload.quarter + ' % uploaded');
  }
}

function paintDone(upload, $answer) {
  upload.uploaded = upload.size;
  upload.$bar.progressbar('value', 100);
  paintNews(upload, 'done');
  paintPicture(upload, name => $answer.attr(name));
}

function paintPicture({dish}, told) {
  const $item = $($('#picture_item').html().trim()).attr('data-picture', told('id'));
  $item.find('.picture-link').attr('href', told('url'));
  $item.find('.take-back').attr('href', told('take_back'));
  $item.find('img').attr({
    width: told('width'),
    height: told('height'),
    srcset: told('srcset'),
    src: told('thumbnail')
  });
  $(`[data-picture="${told('id')}"]`).remove(); // if sent before
  $item.prependTo(`[data-pictures="${dish}"]`);
}

function paintNews(upload, state, detail) {
  if (upload.state !== state) {
    paintState(upload, state, detail);
    announce(upload, upload.$row.find('.upload-state')[0].innerText);
  }
}

function paintError(upload, retry, sentence) {
  paintNews(upload, retry ? 'failed' : 'refused', sentence || failure);
}

function announce({file}, news) {
  $('<p>').text(`${file.name}: ${news}`).appendTo('#upload_news');
}

async function paintPreview({file, $row}) {
  const bitmap = await createImageBitmap(file, {resizeWidth: 240});
  const [canvas] = $row.find('canvas').prop({width: bitmap.width, height: bitmap.height});
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
}

function choose(file) {
  const $row = $($('#upload_row').html().trim());
  const upload = {file, $row, size: file.size, uploaded: 0, retries: 0};
  const refusal = refusalOf(file);
  $row.data({upload}).appendTo('#uploads').find('.upload-name').text(file.name);
  upload.$bar = $row.find('.upload-progress').progressbar();
  $row.find('[role]').attr('aria-label', file.name);
  paintNews(upload, refusal ? 'refused' : 'ready', refusal || formatSize(file.size));
  previews = previews.then(() => refusal || paintPreview(upload)).catch($.noop);
}

function remove({$row}) {
  $row.has(':focus').parent().trigger('focus');
  $row.remove();
  paintPage();
}

function startProgressBarUpdate(progressId) {
  const upload = inState('starting').find(({id}) => id === progressId);
  upload.timer = setTimeout(poll, pollInterval, upload);
}

function poll(upload) {
  upload.poll = $.ajax({
    dataType: 'json',
    url: progressUrl,
    data: {'X-Progress-ID': upload.id},
    timeout: 10000,
    success: data => {
      upload.heard = data ? Date.now() : upload.heard;
      showProgress(upload, data);
    },
    complete: (jqxhr, status) => {
      upload.pause = status === 'success' ? pollInterval : Math.min(2 * upload.pause, 16000);
      if (SENDING.includes(upload.state)) {
        upload.timer = setTimeout(poll, upload.pause, upload);
      }
    }
  });
}

function showProgress(upload, data) {
  if (data?.error) {
    paintError(upload, data.retry, data.error);
    upload.$copy.data('jqxhr').abort();
  } else if (data) {
    paintProgress(upload, data.uploaded / data.length);
  } else if (upload.sent && (upload.uploaded || isSilent(upload))) { // else no news
    upload.$bar.progressbar('value', false);
    paintNews(upload, 'processing');
  }
}

function stopProgressBarUpdate(upload) {
  upload.poll?.abort();
  clearTimeout(upload.timer);
}

function queue(upload) {
  paintState(upload, 'waiting');
  sendNext();
}

function sendNext() {
  const free = CONCURRENT_UPLOADS - inState(...SENDING).length;
  inState('waiting').slice(0, free).forEach(send);
}

function send(upload) {
  const id = randomProgressId();
  const now = Date.now();
  Object.assign(upload, {
    id, uploaded: 0, quarter: 0, sent: false, pause: pollInterval,
    speed: 0, started: now, measured: now, heard: now
  });
  clearTimeout(upload.retry);
  upload.$copy.find('[name="X-Progress-ID"]').val(id);
  upload.$copy.ajaxSubmit({
    dataType: 'xml',
    // Parsed as XML, a proxy's HTML would become an error page with inline styles.
    converters: {'text xml': text => $.parseXML(text.match(/<upload>.*/s)[0])},
    url: `${$form[0].action}?X-Progress-ID=${id}&id=${upload.dish}&size=${upload.size}`,
    beforeSubmit: () => showRequest(upload),
    uploadProgress: (event, position, total) => showSent(upload, position, total),
    success: xml => showResponse(upload, $('picture', xml)),
    error: (jqxhr, status) => status === 'abort' || showFailure(upload, jqxhr),
    complete: () => {
      stopProgressBarUpdate(upload);
      sendNext();
    }
  });
  startProgressBarUpdate(id);
}

function copyOfForm(upload) {
  const $copy = $form.clone().prop('hidden', true);
  const transfer = new DataTransfer();
  transfer.items.add(upload.file);
  $copy.find('[id]').addBack().removeAttr('id');
  $copy.find('[name="picture"]')[0].files = transfer.files;
  return $copy.appendTo(upload.$row);
}

function showRequest(upload) {
  upload.$bar.progressbar('value', 0);
  paintState(upload, 'starting');
}

function showSent(upload, uploaded, length) {
  upload.sent = uploaded === length;
  if (isSilent(upload)) {
    showProgress(upload, upload.sent ? null : {uploaded, length});
  }
}

function showResponse(upload, $answer) {
  (upload.state === 'cancelling' ? takeBack : paintDone)(upload, $answer);
}

function showFailure(upload, {status, responseXML}) {
  const $error = $('error', responseXML);
  const lost = /^(0|429|50[234])$/.test(status); // or the server is busy
  const pause = lost && upload.state !== 'cancelling' && RETRY_PAUSES[upload.retries++];
  if (pause) {
    paintNews(upload, 'paused');
    upload.retry = setTimeout(resume, pause, upload);
  } else {
    paintError(upload, !$error[0] || $error.attr('retry'), $error.text());
  }
}

function resume(upload) {
  if (navigator.onLine && upload.state === 'paused') {
    queue(upload);
  }
}

function takeBack(upload, $answer) {
  // What was known before stays.
  $.when($answer.attr('known') || $.post($answer.attr('take_back'), upload.$copy.serialize()))
    .then(() => paintNews(upload, 'cancelled'), () => paintDone(upload, $answer)).then(sendNext);
}

const actions = {
  remove,
  retry: upload => queue(Object.assign(upload, {retries: 0})),
  cancel(upload) {
    if (upload.sent && SENDING.includes(upload.state)) { // the server may go on
      stopProgressBarUpdate(upload);
      paintState(upload, 'cancelling');
    } else {
      paintNews(upload, 'cancelled');
      upload.$copy.data('jqxhr')?.abort();
    }
  }
};

$('#uploads').on('click', '[data-action]', function () {
  actions[this.dataset.action]($(this).closest('.upload').data('upload'));
});

$('#picture, #camera').on('change', function () {
  inState('done', 'refused', 'cancelled').forEach(remove);
  [...this.files].forEach(choose);
  this.value = '';
}).trigger('change'); // some may be older than the script

$form.on('submit', event => {
  event.preventDefault();
  inState('ready').forEach(upload => {
    upload.dish = $('#id').val();
    upload.$copy = copyOfForm(upload);
    queue(upload);
  });
});

$(window).on({
  visibilitychange: paintPage,
  online: () => inState('paused').forEach(resume),
  beforeunload(event) {
    if (inState(...PENDING).length) {
      event.preventDefault();
    }
  }
});
