'use strict';

/* tus.js DIRECTORY S3-ENDPOINT PORT-FILE: @tus/server with @tus/s3-store, each
   with its defaults, from the node_modules of that directory, on a free loopback
   port. Writes the port to the file that is named. */

const fs = require('fs');
const http = require('http');
const { createRequire } = require('module');

const [, , modules, endpoint, file] = process.argv;
const load = createRequire(modules + '/');
const { Server } = load('@tus/server');
const { S3Store } = load('@tus/s3-store');

/* The null S3 keeps no object, not even what the store writes down of a file:
   it goes straight to the store's cache, where reading it would bring it. */

class Store extends S3Store {
    async saveMetadata(upload, id) {
        await super.saveMetadata(upload, id);
        await this.cache.set(upload.id, {
            'tus-version': '1.0.0', 'upload-id': id, file: upload,
        });
    }
}

const tus = new Server({
    path: '/files',
    datastore: new Store({
        s3ClientConfig: {
            bucket: 'bench', region: 'us-east-1', endpoint,
            forcePathStyle: true,
            credentials: {
                accessKeyId: 'benchmark', secretAccessKey: 'benchmark-secret',
            },
            // else aws-chunked bodies, which the null S3 does not take; it
            // costs less without
            requestChecksumCalculation: 'WHEN_REQUIRED',
        },
    }),
});

const server = http.createServer(tus.handle.bind(tus));

server.requestTimeout = 0;
server.listen(0, '127.0.0.1', () => {
    fs.writeFileSync(file + '.new', `${server.address().port}\n`);
    fs.renameSync(file + '.new', file);
});
