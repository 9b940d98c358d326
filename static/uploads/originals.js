/* Lets the diner send the originals, and remembers that in this browser. */
const $originals = $('#originals');

export const getPhoto = ({file, reduced}) => $originals[0].checked ? file : reduced || file;

export function readChoice() {
  $originals[0].checked = attempt(() => localStorage.originals) === 'true';
}

export function keepChoice() {
  attempt(() => { localStorage.originals = $originals[0].checked; });
}

function attempt(access) {
  try {
    return access();
  } catch { // The diner has forbidden sites to store anything.
    return null;
  }
}
