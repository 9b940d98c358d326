/* Holds the state of each upload, with all its fields. Times are in milliseconds. */
export const SENDING = ['starting', 'uploading', 'processing', 'cancelling'];
export const PENDING = ['waiting', 'paused', ...SENDING];

const uploads = new Set(); // in the order of their rows

export function createUpload(file) {
  const upload = {
    file,
    size: file.size, // bytes
    state: '', // one of the data-states of the row's template
    detail: '', // the figures or the sentence beside the state
    $row: null,
    $bar: null,
    dish: '', // the dish's id, from the submitted form
    $copy: null, // a copy of the form with this one photo
    retries: 0, // automatic ones, since the diner last sent it
    retryTimer: null,
    ...createAttempt()
  };
  uploads.add(upload);
  return upload;
}

const createAttempt = (now = Date.now()) => ({
  id: createProgressId(),
  startedAt: now,
  sent: false, // whether the browser has sent the last byte
  uploaded: 0, // bytes, as the bar shows them
  measuredAt: now, // when the speed was last computed
  speed: 0, // bytes per millisecond
  quarter: 0, // the percentage that was last announced
  heardAt: now, // when a poll last brought a record
  pollPause: 0,
  pollTimer: null,
  pollRequest: null
});

const createProgressId = () => crypto.getRandomValues(new Uint32Array(4)).join('-');

export const startAttempt = upload => Object.assign(upload, createAttempt());

export const findUploads = (...states) => [...uploads].filter(({state}) => states.includes(state));

export const forgetUpload = upload => uploads.delete(upload);
