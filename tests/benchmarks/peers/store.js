'use strict';

const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { pipeline } = require('node:stream/promises');
const busboy = require('busboy');

/**
 * Serve uploads in two processes: store the file of each form, then call finish() with its name.
 */
exports.serve = function (finish) {
  const [host, port] = process.argv.slice(2);
  if (cluster.isPrimary) {
    cluster.fork();
    cluster.fork();
  } else {
    http.createServer({ keepAliveTimeout: 30000 }, upload).listen(port, host);
  }

  function upload(request, response) {
    const id = new URL(request.url, 'http://localhost').searchParams.get('X-Progress-ID');
    const form = busboy({ headers: request.headers });
    form.on('file', (name, file) => {
      store(file, id).then(
        () => response.writeHead(200).end('ok'),
        (error) => response.writeHead(500).end(String(error)),
      );
    });
    request.pipe(form);
  }

  async function store(file, id) {
    const original = path.join(process.env.STORE, id);
    await pipeline(file, fs.createWriteStream(original));
    await finish(original);
  }
};
