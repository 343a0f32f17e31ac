import { parseVaultUrl } from '../../../core/vault/vault-url.ts';

test.each([
  ['file:///srv/vault', { kind: 'file', url: 'file:///srv/vault', directory: '/srv/vault' }],
  ['file:///srv/vault/', { kind: 'file', url: 'file:///srv/vault', directory: '/srv/vault' }],
  ['file:///srv/a/../vault', { kind: 'file', url: 'file:///srv/vault', directory: '/srv/vault' }],
  ['file://localhost/srv/vault', { kind: 'file', url: 'file:///srv/vault', directory: '/srv/vault' }],
  [
    "file:///srv/it's%20a%20%23vault",
    { kind: 'file', url: "file:///srv/it's%20a%20%23vault", directory: "/srv/it's a #vault" },
  ],
  ['memory:a', { kind: 'memory', url: 'memory:a', name: 'a' }],
  [
    's3://bucket/some/prefix?table=t-1&region=eu-west-1',
    {
      kind: 's3',
      url: 's3://bucket/some/prefix?table=t-1&region=eu-west-1',
      bucket: 'bucket',
      prefix: 'some/prefix',
      table: 't-1',
      region: 'eu-west-1',
      endpoint: undefined,
    },
  ],
  [
    's3://my.bucket-1//a//?endpoint=http://127.0.0.1:4510/&region=r-1',
    {
      kind: 's3',
      url: 's3://my.bucket-1/a?table=walvault&region=r-1&endpoint=http://127.0.0.1:4510/',
      bucket: 'my.bucket-1',
      prefix: 'a',
      table: 'walvault',
      region: 'r-1',
      endpoint: 'http://127.0.0.1:4510/',
    },
  ],
  [
    's3://bucket',
    {
      kind: 's3',
      url: 's3://bucket?table=walvault',
      bucket: 'bucket',
      prefix: '',
      table: 'walvault',
      region: undefined,
      endpoint: undefined,
    },
  ],
])('reads %s, and writes it in one way', (text, expected) => {
  expect(parseVaultUrl(text)).toEqual(expected);
  expect(parseVaultUrl(parseVaultUrl(text).url)).toEqual(expected);
});

test.each([
  ['', 'no vault is named', 'file:///srv/vault'],
  ['/srv/vault', 'a path', 'file:///srv/vault'],
  ['srv/vault', 'not a URL', 'file:///srv/vault'],
  ['file://srv/vault', 'root', 'three slashes'],
  ['file:vault', 'root', 'three slashes'],
  ['file:///', 'root directory', 'file:///srv/vault'],
  ['file:///srv/vault?table=x', '?table=x', '%3F'],
  ['file:///srv/vault#1', '#', '%23'],
  ['https://bucket/x', 'https:', 's3://'],
  ['s3:///prefix', 'bucket', 's3://'],
  ['s3://Bucket', 'Bucket', 's3://'],
  ['s3://b', `'b'`, 's3://'],
  ['s3://bucket:80/x', 'bucket:80', 's3://'],
  ['s3://bucket/a%20b', 'a b', 'ASCII'],
  ['s3://bucket/%', 'encoded', '%25'],
  ['s3://bucket/x?tabel=t', 'tabel', 'table, region and endpoint'],
  ['s3://bucket/x?table=', 'no value', 's3://'],
  ['s3://bucket/x?table=tab&table=tub', 'twice', 's3://'],
  ['s3://bucket/x?table=a b', 'table', '3 to 255'],
  ['s3://bucket/x?region=EU', 'region', 'eu-west-1'],
  ['s3://bucket/x?endpoint=localhost:4510', 'endpoint', 'http://127.0.0.1'],
])('refuses %j, says why and what to write', (text, why, hint) => {
  const refused = (() => {
    try {
      return parseVaultUrl(text);
    } catch (error) {
      return error;
    }
  })();
  expect(refused).toMatchObject({ name: 'VaultError', code: 'usage' });
  expect((refused as Error).message).toContain(why);
  expect((refused as { hint: string }).hint).toContain(hint);
});

test('refuses credentials in a URL without repeating them', () => {
  try {
    parseVaultUrl('s3://AKIA:topsecret@bucket/x');
    throw new Error('taken');
  } catch (error) {
    expect(error).toMatchObject({ code: 'usage' });
    expect(`${(error as Error).message}`).not.toContain('topsecret');
  }
});
