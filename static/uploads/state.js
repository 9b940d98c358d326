/* Holds the state of each upload, with all its fields. Times are in milliseconds. */
const SENDING = ['starting', 'uploading', 'processing'];
const PENDING = ['preparing', 'waiting', 'busy', 'paused', 'cancelling', ...SENDING];

const uploads = new Set(); // in the order of their rows

export function createUpload(file) {
  const upload = {
    file, // as it was chosen
    photo: file, // is sent: the file or the reduced one
    isPrepared: false, // whether it has been examined and reduced
    reduced: null, // a smaller file, if there is one
    refusal: '', // the sentence, if the file was refused when it was chosen
    size: file.size, // bytes that are sent
    state: '', // one of the data-states of the row's template
    detail: '', // the figures or the sentence beside the state
    $row: null,
    $bar: null,
    dish: null, // its id, name and address, once the form was submitted
    request: null, // the running jqXHR
    ids: [], // upload ids of all attempts: each may have stored the photo
    wasSent: false, // whether an earlier attempt was sent to its last byte
    hasNewToken: false, // whether a token was fetched because the server had refused one
    retries: 0, // automatic ones, since the diner last sent it
    waits: 0, // for a busy server
    timer: null, // for the next attempt
    caption: '', // as it was sent
    $answer: null, // the picture, as the server answered it
    isKnown: false, // whether the same photo was on the page before
    ...createAttempt()
  };
  uploads.add(upload);
  return upload;
}

const createAttempt = () => ({
  id: createProgressId(),
  isSent: false, // whether the browser has handed over the last byte
  counted: 0, // bytes, as the server last counted them
  uploaded: 0, // bytes, as the bar shows them
  firstAt: 0, // when the first bytes were counted
  measuredAt: 0, // when the speed was last computed
  speed: 0, // bytes per millisecond
  heardAt: performance.now(), // when a poll last brought a record
  pollPause: 0,
  pollTimer: null,
  pollRequest: null
});

const createProgressId = () => crypto.getRandomValues(new Uint32Array(4)).join('-');

export function startAttempt(upload) {
  const wasSent = mayBeStored(upload);
  Object.assign(upload, createAttempt(), {wasSent});
  upload.ids.push(upload.id);
}

export const mayBeStored = ({wasSent, isSent}) => wasSent || isSent;

export function forgetAttempts(upload) {
  Object.assign(upload, createAttempt(), {ids: [], wasSent: false});
}

export const findUploads = (...states) => [...uploads].filter(({state}) => states.includes(state));

export const findPending = () => findUploads(...PENDING).filter(({dish}) => dish);

export const findCancellable = () => findPending().filter(({state}) => state !== 'cancelling');

export const isSending = ({state}) => SENDING.includes(state);

export const countSending = () => findUploads(...SENDING).length;

export const isKept = upload => uploads.has(upload);

export const forgetUpload = upload => uploads.delete(upload);
