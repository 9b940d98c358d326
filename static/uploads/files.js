/* Reads the first bytes of files. */
export const isReadable = file => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

/* Returns a function that matches the first bytes with a regular expression for Latin-1 text. */
export async function readStart(file, length) {
  const bytes = new Uint8Array(await file.slice(0, length).arrayBuffer());
  const text = Array.from(bytes, byte => String.fromCharCode(byte)).join('');
  return signature => RegExp(`^(?:${signature})`, 's').test(text);
}
