'use strict';

/* An HTTP/1.1 origin of downloads: the files of a directory, sent as the query
   asks for, and broken off where it says so.

     origin.js PORT DIRECTORY LOG

   Options of the query; a body is chunked where none says otherwise:

     status=n      of the answer (200)
     h.NAME=value  a field of its head; may be repeated
     length[=n]    Content-Length, the true one or n
     close         neither a length nor chunks: the end of the connection ends it
     http10        HTTP/1.0, with `length` or like `close`
     chunk=n       bytes a write, so of a chunk (65536)
     rate=n        bytes a second
     delay=ms      before the head
     cut=n         the connection ends after n bytes of the body; with `reset`
                   by RST
     die           the connection ends before the head
     stall=n       after n bytes nothing more comes, and nothing ends
     hold=n        after n bytes nothing more comes until the file that until=NAME
                   names is in the directory
     etag=…        strong, weak; changing: another one for each request
     ranges        Range and If-Range count

   The log has a JSON line when a request came and another when its answer was
   over: n, connection, method, url, headers; n, sent, whole. */

const fs = require('fs');
const http = require('http');
const path = require('path');

const [port, directory, log] = process.argv.slice(2);
let requests = 0;
let connections = 0;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function note(line) {
    fs.appendFileSync(log, JSON.stringify(line) + '\n');
}

/* An answer of HTTP/1.0, which node does not make by itself. */

class Old {
    constructor(socket) {
        this.socket = socket;
    }

    head(status, fields) {
        this.socket.write('HTTP/1.0 ' + status + ' ' +
            (http.STATUS_CODES[status] || 'Status') + '\r\n' +
            fields.map(([name, value]) => name + ': ' + value + '\r\n').join('') +
            '\r\n');
    }

    write(bytes) {
        return this.socket.write(bytes);
    }

    end() {
        return new Promise((done) => this.socket.end(done));
    }
}

class New {
    constructor(response, close) {
        this.response = response;
        this.socket = response.socket;
        this.close = close;
        response.sendDate = true;
    }

    head(status, fields) {
        if (this.close) {
            this.response.useChunkedEncodingByDefault = false;
            this.response.shouldKeepAlive = false;
        }
        this.response.writeHead(status, fields.flat());
        this.response.flushHeaders();
    }

    write(bytes) {
        return this.response.write(bytes);
    }

    end() {
        return new Promise((done) => this.response.end(done));
    }
}

/* The stretch of the file that is asked for: [first, last], null for all */

function range(request, query, size, etag) {
    const wanted = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range || '');
    if (!wanted || !query.has('ranges')) {
        return null;
    }
    const condition = request.headers['if-range'];
    if (condition !== undefined && condition !== etag) {
        return null;
    }
    const last = wanted[2] === '' ? size - 1 : Number(wanted[2]);
    return [Number(wanted[1]), Math.min(last, size - 1)];
}

function entityTag(query, name, n) {
    const etag = {
        strong: '"' + name + '"', weak: 'W/"' + name + '"',
        changing: '"' + name + '-' + n + '"',
    };
    return etag[query.get('etag')];
}

function fields(query, etag, part, size) {
    const list = [];
    const length = query.get('length');
    if (length !== null) {
        list.push(['Content-Length',
            length !== '' ? length : part ? part[1] - part[0] + 1 : size]);
    }
    if (query.has('ranges')) {
        list.push(['Accept-Ranges', 'bytes']);
    }
    if (etag) {
        list.push(['ETag', etag]);
    }
    if (part) {
        list.push(['Content-Range',
            'bytes ' + part[0] + '-' + part[1] + '/' + size]);
    }
    for (const [name, value] of query) {
        if (name.startsWith('h.')) {
            list.push([name.slice(2), value]);
        }
    }
    return list;
}

/* Sends the bytes; how many, and whether that is the end. */

async function send(out, file, first, end, query, state) {
    const limit = ['cut', 'stall'].map((name) => query.get(name))
        .filter((value) => value !== null).map(Number)[0];
    const last = limit === undefined ? end : Math.min(end, first + limit);
    const step = Number(query.get('chunk') || 65536);
    const rate = Number(query.get('rate') || 0);
    const begin = Date.now();
    const hold = query.has('hold') ? first + Number(query.get('hold')) : -1;
    const until = path.join(directory, query.get('until') || '');

    for (let at = first; at < last; ) {
        while (at === hold && !fs.existsSync(until) && !out.socket.destroyed) {
            await sleep(20);
        }
        const most = Math.min(step, (at < hold ? hold : last) - at);
        const {bytesRead, buffer} = await file.read(
            Buffer.alloc(most), 0, most, at);
        if (bytesRead === 0 || out.socket.destroyed) {
            return;
        }
        at += bytesRead;
        const more = out.write(buffer.subarray(0, bytesRead));
        state.sent += bytesRead;
        if (!more) {
            await new Promise((done) => {
                out.socket.once('drain', done);
                out.socket.once('close', done);
            });
        }
        if (rate) {
            await sleep(Math.max(0,
                state.sent * 1000 / rate - (Date.now() - begin)));
        }
    }

    if (query.has('stall')) {
        return;
    }
    if (query.has('cut')) {
        /* what was written is on its way before the connection is no more */
        await sleep(50);
        if (query.has('reset')) {
            out.socket.resetAndDestroy();
        } else {
            out.socket.destroy();
        }
        return;
    }
    await out.end();
    state.whole = true;
}

async function answer(request, response, state) {
    const url = new URL(request.url, 'http://origin');
    const query = url.searchParams;
    const name = path.basename(decodeURIComponent(url.pathname));

    await sleep(Number(query.get('delay') || 0));
    if (query.has('die')) {
        request.socket.destroy();
        return;
    }

    const out = query.has('http10') ? new Old(request.socket)
        : new New(response, query.has('close'));
    let file;
    try {
        file = await fs.promises.open(path.join(directory, name));
    } catch (error) {
        response.writeHead(404, {'Content-Type': 'text/plain'});
        response.end('no such file\n');
        return;
    }

    try {
        const size = (await file.stat()).size;
        const etag = entityTag(query, name, state.n);
        const part = range(request, query, size, etag);
        const status = Number(query.get('status') || (part ? 206 : 200));
        out.head(status, fields(query, etag, part, size));
        if (request.method === 'HEAD' || status === 204 || status === 304) {
            await out.end();
            return;
        }
        await send(out, file, part ? part[0] : 0, part ? part[1] + 1 : size,
            query, state);
    } finally {
        await file.close();
    }
}

const server = http.createServer((request, response) => {
    const state = {n: ++requests, sent: 0, whole: false};
    note({n: state.n, connection: request.socket.number,
        method: request.method, url: request.url, headers: request.headers});
    request.resume();
    request.socket.on('error', () => {});
    answer(request, response, state)
        .catch((error) => {
            process.stderr.write(request.url + ': ' + error.stack + '\n');
            request.socket.destroy();
        })
        .finally(() => note(state));
});

server.on('connection', (socket) => {
    socket.number = ++connections;
});
server.keepAliveTimeout = 60000;
server.listen(Number(port), '127.0.0.1');
