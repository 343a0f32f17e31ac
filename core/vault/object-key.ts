/**
 * What every bucket says alike of keys: which are allowed, their order, and the refusal of a second content.
 */
import { VaultError } from '../errors.ts';

/**
 * Refuses a key that would leave the vault's directory, or that not every backend can keep.
 *
 * @throws VaultError usage
 */
export function checkKey(key: string): void {
  const parts = key.split('/');
  if (
    key.length > 900 ||
    !/^[\x21-\x7e]+$/.test(key) ||
    key.includes('\\') ||
    parts.some((part) => part === '' || part === '.' || part === '..' || part.length > 255)
  ) {
    throw new VaultError('usage', `'${key}' cannot be the key of an object`, {
      hint: "a key is printable ASCII without blanks and backslashes, its parts between '/' are not empty, '.' or '..'.",
    });
  }
}

/** Ascending by the bytes of UTF-8, as S3 and SQLite order; JavaScript's own order is that of UTF-16. */
export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Refusal of a second content; the same words in every backend. */
export function otherBytes(bucket: string, key: string): VaultError {
  return new VaultError('conflict', `${bucket} holds other bytes under '${key}'`, {
    hint: 'nothing was changed; two writers made different content under one name.',
  });
}
