'use strict';

/* dynalite on a free loopback port, with one table for the progress records.
   Writes its address as NAME=value lines to the file that is named; a port may
   follow. */

const fs = require('fs');
const http = require('http');
const path = require('path');

const dynalite = require(path.join(__dirname, '../../node_modules/dynalite'));

const TABLE = 'transfers';

function call(port, operation, body, done) {
    const request = http.request({
        host: '127.0.0.1', port, method: 'POST',
        headers: {
            'Content-Type': 'application/x-amz-json-1.0',
            'X-Amz-Target': 'DynamoDB_20120810.' + operation,
            'X-Amz-Date': '20260101T000000Z',
            'Authorization': 'AWS4-HMAC-SHA256 Credential=a/20260101/' +
                'us-east-1/dynamodb/aws4_request, SignedHeaders=host, ' +
                'Signature=0',
        },
    }, (response) => {
        response.resume();
        response.on('end', () => done(response.statusCode));
    });
    request.end(JSON.stringify(body));
}

const server = dynalite({
    createTableMs: 0, deleteTableMs: 0, updateTableMs: 0,
});

server.listen(Number(process.argv[3] || 0), '127.0.0.1', () => {
    const port = server.address().port;
    call(port, 'CreateTable', {
        TableName: TABLE,
        AttributeDefinitions: [
            {AttributeName: 'transferId', AttributeType: 'S'},
        ],
        KeySchema: [{AttributeName: 'transferId', KeyType: 'HASH'}],
        BillingMode: 'PAY_PER_REQUEST',
    }, (status) => {
        if (status !== 200) {
            process.stderr.write('CreateTable: ' + status + '\n');
            process.exit(1);
        }
        const file = process.argv[2];
        fs.writeFileSync(file + '.tmp',
            'DYNAMODB_PORT=' + port + '\nDYNAMODB_TABLE=' + TABLE + '\n');
        fs.renameSync(file + '.tmp', file);
    });
});
