'use strict';

const cluster = require('node:cluster');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { pipeline } = require('node:stream');
const busboy = require('busboy');

const [host, port] = process.argv.slice(2);

function upload(request, response) {
  const id = new URL(request.url, 'http://localhost').searchParams.get('X-Progress-ID');
  const form = busboy({ headers: request.headers });
  form.on('file', (name, file) => {
    pipeline(file, fs.createWriteStream(path.join(process.env.STORE, id)), (error) => {
      response.writeHead(error ? 500 : 200).end('ok');
    });
  });
  request.pipe(form);
}

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  http.createServer({ keepAliveTimeout: 30000 }, upload).listen(port, host);
}
