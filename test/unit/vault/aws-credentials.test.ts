/** A key that is rotated in ~/.aws while an agent runs: both clients sign with the new one within the minute. */
import { once } from 'node:events';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { LOOKED_UP_AGAIN_MS } from '../../../core/vault/aws-credentials.ts';
import { s3Bucket } from '../../../core/vault/bucket-s3.ts';
import { dynamoManifest } from '../../../core/vault/manifest-dynamodb.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

const SOURCES = [
  'AWS_ACCESS_KEY_ID',
  'AWS_SECRET_ACCESS_KEY',
  'AWS_SESSION_TOKEN',
  'AWS_PROFILE',
  'AWS_SHARED_CREDENTIALS_FILE',
  'AWS_CONFIG_FILE',
];
const before = new Map(SOURCES.map((name) => [name, process.env[name]]));

let scratch: string;
let server: http.Server;
let endpoint: string;
/** The key that signed each request, in order. */
let signedBy: string[] = [];

beforeAll(async () => {
  scratch = makeScratch();
  for (const name of SOURCES) delete process.env[name];
  process.env['AWS_SHARED_CREDENTIALS_FILE'] = path.join(scratch, 'credentials');
  process.env['AWS_CONFIG_FILE'] = path.join(scratch, 'config');
  writeFileSync(path.join(scratch, 'config'), '');
  server = http.createServer((request, response) => {
    signedBy.push(/Credential=([^/]+)\//.exec(request.headers.authorization ?? '')?.[1] ?? 'nobody');
    request.resume();
    const isTable = request.headers['x-amz-target'] !== undefined;
    response.writeHead(isTable ? 200 : 404, { 'content-type': 'application/x-amz-json-1.0' });
    response.end(isTable ? '{}' : '');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  server.closeAllConnections();
  server.close();
  await removeScratch(scratch);
});
afterEach(() => jest.restoreAllMocks());
beforeEach(() => (signedBy = []));

/** As tools write it: whole, beside, and renamed over. */
function writeKey(profile: string, key: string): void {
  const file = path.join(scratch, 'credentials');
  writeFileSync(`${file}~`, `[${profile}]\naws_access_key_id = ${key}\naws_secret_access_key = secret\n`);
  renameSync(`${file}~`, file);
  expect(readFileSync(file, 'utf8')).toContain(key);
}

describe.each([
  ['default', undefined],
  ['vault', 'vault'],
])('a key of profile %s', (section, profile) => {
  test.each(['bucket', 'table'])('rotated in the file is taken within the minute: %s', async (store) => {
    const now = jest.spyOn(Date, 'now');
    const start = new Date().getTime();
    const place = { endpoint, ...(profile === undefined ? {} : { profile }) };
    writeKey(section, 'AKIAOLD');
    const bucket = s3Bucket('b', { ...place, bucket: 'b', prefix: '' });
    const manifest = dynamoManifest('m', { ...place, table: 't' });
    const ask = () => (store === 'bucket' ? bucket.facts('k') : manifest.get({ pk: 'p', sk: 's' }));
    try {
      for (const [atMs, key] of [
        [0, 'AKIAOLD'],
        [1000, 'AKIANEW'],
        [LOOKED_UP_AGAIN_MS / 2, 'AKIANEW'],
        [LOOKED_UP_AGAIN_MS + 2000, 'AKIANEW'],
        [LOOKED_UP_AGAIN_MS + 4000, 'AKIALAST'],
        [2 * LOOKED_UP_AGAIN_MS + 4000, 'AKIALAST'],
      ] as const) {
        now.mockReturnValue(start + atMs);
        writeKey(section, key);
        await ask();
      }
    } finally {
      await bucket.close();
      await manifest.close();
    }
    // in between it is not read for each request
    expect(signedBy).toEqual(['AKIAOLD', 'AKIAOLD', 'AKIAOLD', 'AKIANEW', 'AKIANEW', 'AKIALAST']);
  });
});
