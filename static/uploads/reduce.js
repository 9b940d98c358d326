/* Draws a photo: its preview and, if it is large, a smaller JPEG to be sent. */
import {drawScaled} from './draw.js';
import {readStart} from './files.js';
import {paintPreview} from './row.js';

const QUALITY = 0.8;

export async function drawPhoto(upload) {
  const bitmap = await createImageBitmap(upload.file); // upright
  try {
    paintPreview(upload, bitmap);
    upload.reduced = await reduce(upload.file, bitmap);
  } finally {
    bitmap.close();
  }
}

/* Returns a smaller file, or null if the photo is best sent as it is. */
async function reduce(file, bitmap) {
  const {maxLength, maxSize} = $('#picture').data();
  const scale = Math.min(1, maxLength / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size <= maxSize || await isAnimated(file)) {
    return null;
  }
  const blob = await encode(bitmap, scale);
  return blob.size < file.size ? new File([blob], file.name, {type: blob.type}) : null;
}

async function isAnimated(file) {
  const {animated, animatedLength} = $('#picture').data();
  const startsWith = await readStart(file, animatedLength);
  return startsWith(animated);
}

async function encode(bitmap, scale) {
  const canvas = $('<canvas>')[0];
  drawScaled(canvas, bitmap, scale);
  const blob = await new Promise(resolve => canvas.toBlob(resolve, 'image/jpeg', QUALITY));
  canvas.width = 0; // Safari frees the memory at once.
  return blob;
}
