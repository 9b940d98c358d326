'use strict';

const path = require('node:path');
const sharp = require('sharp');

/** Make the renditions, with the options of Gourmious. */
async function render(original) {
  const image = sharp(original).rotate();
  await Promise.all([1600, 480].map((side) => {
    const rendition = path.join(process.env.MEDIA, `${path.basename(original)}-${side}.jpg`);
    return image
      .clone()
      .resize(side, side, { fit: 'inside', withoutEnlargement: true })
      .jpeg({ quality: 82, progressive: true })
      .toFile(rendition);
  }));
}

require('./store.js').serve(render);
