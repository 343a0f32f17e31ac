/**
 * One of several processes on a file: vault, to be raced with or killed: `node vault-process.ts <what> <vault URL> <name>`.
 *
 *   add <n>     adds one to the row main/counter, n times
 *   triple      writes three rows with one number in one transaction, for ever; prints the number once it is committed
 *   put <size>  puts objects of `size` bytes, for ever; prints each key once it is stored
 *   hold        takes SQLite's write lock and keeps it; prints 'held'
 */
import { Buffer } from 'node:buffer';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import type { Row } from '../../core/vault/manifest.ts';
import { openVault } from '../../core/vault/open-vault.ts';

const [what, url = '', argument = ''] = process.argv.slice(2);

/** The content of an object, known from its key. */
function bodyOf(key: string, sizeBytes: number): Buffer {
  return Buffer.alloc(sizeBytes, `${key}|`);
}

if (what === 'hold') {
  const db = new DatabaseSync(`${fileURLToPath(url)}/manifest.db`);
  db.exec('BEGIN IMMEDIATE');
  console.log('held');
  setInterval(() => db.isTransaction, 1000);
} else {
  const vault = await openVault(url, { timeoutMs: 60_000 });
  const { manifest, bucket } = vault;
  if (what === 'add') {
    for (let left = Number(argument); left > 0;) {
      const row = (await manifest.get({ pk: 'main', sk: 'counter' })) as Row & { count: number };
      const next = { ...row, rev: row.rev + 1, count: row.count + 1 };
      if ((await manifest.transact([{ do: 'put', row: next, when: { rev: row.rev } }])).done) left -= 1;
    }
  } else if (what === 'triple') {
    const first = await manifest.get({ pk: 'main', sk: 'a' });
    for (let number = (first?.rev ?? 0) + 1; ; number += 1) {
      const when = number === 1 ? 'absent' : { rev: number - 1 };
      const rows = ['a', 'b', 'c'].map((sk): Row => ({ pk: 'main', sk, rev: number }));
      const outcome = await manifest.transact(rows.map((row) => ({ do: 'put', row, when })));
      if (!outcome.done) throw new Error(`another one wrote: ${JSON.stringify(outcome)}`);
      console.log(number);
    }
  } else if (what === 'put') {
    for (let number = 0; ; number += 1) {
      const key = `main/${process.pid}/${String(number).padStart(6, '0')}`;
      await bucket.putOnce(key, bodyOf(key, Number(argument)), { key });
      console.log(key);
    }
  }
  await vault.close();
}
