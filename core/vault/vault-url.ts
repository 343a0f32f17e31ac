/**
 * Vault URLs: what they name, and the one way to write each (the agent's spool lies under it).
 */
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { VaultError } from '../errors.ts';

export type VaultPlace =
  | { kind: 'memory'; url: string; name: string }
  | { kind: 'file'; url: string; directory: string }
  | {
      kind: 's3';
      url: string;
      bucket: string;
      /** '' or one or more parts without '/' at either end. */
      prefix: string;
      table: string;
      region: string | undefined;
      endpoint: string | undefined;
    };

const FORMS = 'write file:///srv/vault, or s3://bucket/prefix?table=walvault&region=eu-west-1.';

/** Manifest table of an s3: vault whose URL names none. */
export const DEFAULT_TABLE = 'walvault';

/** @throws VaultError usage */
export function parseVaultUrl(text: string): VaultPlace {
  if (text === '') throw new VaultError('usage', 'no vault is named', { hint: FORMS });
  if (text.startsWith('/')) {
    throw bad(text, 'it is a path, not a URL', `write ${pathToFileURL(text).href}.`);
  }
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw bad(text, 'it is not a URL', FORMS);
  }
  if (url.hash !== '') throw bad(text, `'#' has no meaning in it`, `write '#' in a path as %23.`);
  if (url.username !== '' || url.password !== '') {
    throw bad(
      withoutSecret(url),
      'it carries credentials',
      'a key belongs into ~/.aws or the environment; the URL is written to files and logs.',
    );
  }
  if (url.protocol === 'memory:') return { kind: 'memory', url: text, name: text.slice('memory:'.length) };
  if (url.protocol === 'file:') return fileVault(text, url);
  if (url.protocol === 's3:') return s3Vault(text, url);
  throw bad(text, `'${url.protocol}' is not a kind of vault`, FORMS);
}

function fileVault(text: string, url: URL): VaultPlace {
  if (!/^file:\/\/(localhost)?\//i.test(text)) {
    throw bad(text, 'its path does not begin at the root', 'write three slashes: file:///srv/vault.');
  }
  if (url.search !== '')
    throw bad(
      text,
      `'${url.search}' has no meaning for a directory`,
      'write file:///srv/vault; %3F is a question mark.',
    );
  let directory: string;
  try {
    directory = path.resolve(fileURLToPath(url));
  } catch {
    throw bad(text, 'its path cannot be read', FORMS);
  }
  if (directory === '/')
    throw bad(text, 'it is the root directory', 'name a directory of its own, such as file:///srv/vault.');
  return { kind: 'file', url: pathToFileURL(directory).href, directory };
}

function s3Vault(text: string, url: URL): VaultPlace {
  const bucket = url.hostname;
  if (url.port !== '' || !/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) {
    throw bad(text, `'${url.host}' cannot be a bucket's name`, FORMS);
  }
  const prefix = decoded(text, url.pathname)
    .split('/')
    .filter((part) => part !== '')
    .join('/');
  if (!/^[\x21-\x7e]*$/.test(prefix) || /(^|\/)\.\.?(\/|$)/.test(prefix) || prefix.length > 200) {
    throw bad(
      text,
      `'${prefix}' cannot be a prefix`,
      'a prefix is printable ASCII without blanks, 200 characters at most.',
    );
  }
  const known = new Map<string, string>();
  for (const [name, value] of url.searchParams) {
    if (!['table', 'region', 'endpoint'].includes(name)) {
      throw bad(text, `'${name}' is not known`, 'known are table, region and endpoint.');
    }
    if (known.has(name) || value === '')
      throw bad(text, `'${name}' is given ${value === '' ? 'no value' : 'twice'}`, FORMS);
    known.set(name, value);
  }
  const table = known.get('table') ?? DEFAULT_TABLE;
  const region = known.get('region');
  const endpoint = known.get('endpoint');
  if (!/^[A-Za-z0-9_.-]{3,255}$/.test(table)) {
    throw bad(
      text,
      `'${table}' cannot be a table's name`,
      'a table is named by 3 to 255 characters of A-Z, a-z, 0-9, _, - and full stop.',
    );
  }
  if (region !== undefined && !/^[a-z0-9-]{2,40}$/.test(region))
    throw bad(text, `'${region}' cannot be a region`, 'write region=eu-west-1.');
  if (endpoint !== undefined && !/^https?:\/\/[^/]/.test(endpoint)) {
    throw bad(text, `'${endpoint}' cannot be an endpoint`, 'write endpoint=http://127.0.0.1:4566.');
  }
  const query = [`table=${table}`];
  if (region !== undefined) query.push(`region=${region}`);
  if (endpoint !== undefined)
    query.push(`endpoint=${encodeURI(endpoint).replaceAll('&', '%26').replaceAll('#', '%23')}`);
  const place =
    prefix === '' ? bucket : `${bucket}/${encodeURI(prefix).replaceAll('?', '%3F').replaceAll('#', '%23')}`;
  return { kind: 's3', url: `s3://${place}?${query.join('&')}`, bucket, prefix, table, region, endpoint };
}

function decoded(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw bad(text, `'${part}' is wrongly encoded`, `a '%' is written %25.`);
  }
}

function withoutSecret(url: URL): string {
  url.username = '';
  url.password = '';
  return url.href;
}

function bad(text: string, why: string, hint: string): VaultError {
  return new VaultError('usage', `vault URL '${text}': ${why}`, { hint });
}
