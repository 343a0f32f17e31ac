/**
 * What every manifest checks alike: the limits of a transaction, and whether a condition holds.
 *
 * The limits are DynamoDB's, kept by all backends so that what works on file and memory works there.
 * Source: Amazon DynamoDB Developer Guide, "Amazon DynamoDB Transactions" and "Service, account, and table quotas".
 */
import type { Change, Condition, Key, Row } from './manifest.ts';

const MAX_CHANGES = 100;
const MAX_ROW_BYTES = 390 * 1024;
const MAX_TOTAL_BYTES = 3.9 * 1024 * 1024;

export function keyOf(change: Change): Key {
  return change.do === 'put' ? change.row : change.key;
}

/** @throws RangeError  more than 100 changes, a row twice, a row or the sum too large: a mistake of ours */
export function checkChanges(changes: readonly Change[]): void {
  if (changes.length > MAX_CHANGES) throw new RangeError(`${changes.length} changes exceed ${MAX_CHANGES}`);
  const seen = new Set<string>();
  let totalBytes = 0;
  for (const change of changes) {
    const { pk, sk } = keyOf(change);
    if (pk === '' || sk === '' || Buffer.byteLength(sk) > 1024)
      throw new RangeError(`'${pk}' '${sk}' is no row's place`);
    const place = `${pk}\0${sk}`;
    if (seen.has(place)) throw new RangeError(`row '${pk}' '${sk}' is changed twice in one transaction`);
    seen.add(place);
    if (change.do !== 'put') continue;
    if (!Number.isSafeInteger(change.row.rev)) throw new RangeError(`row '${pk}' '${sk}' has no revision`);
    const sizeBytes = Buffer.byteLength(JSON.stringify(change.row));
    if (sizeBytes > MAX_ROW_BYTES)
      throw new RangeError(`row '${pk}' '${sk}' of ${sizeBytes} bytes is too large`);
    totalBytes += sizeBytes;
  }
  if (totalBytes > MAX_TOTAL_BYTES) throw new RangeError(`a transaction of ${totalBytes} bytes is too large`);
}

export function holds(condition: Condition, row: Row | undefined): boolean {
  if (condition === 'any') return true;
  if (condition === 'absent') return row === undefined;
  if (condition === 'present') return row !== undefined;
  return row?.rev === condition.rev;
}
