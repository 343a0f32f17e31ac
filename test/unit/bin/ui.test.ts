/** What people see: sizes, ages, tables, questions, bars. */
import { PassThrough } from 'node:stream';
import { confirm } from '../../../bin/ui/confirm.ts';
import { formatAge, formatBytes, formatCount, formatDuration, shellWord } from '../../../bin/ui/format.ts';
import type { Io } from '../../../bin/ui/io.ts';
import { live } from '../../../bin/ui/live.ts';
import { byteProgress } from '../../../bin/ui/progress.ts';
import { pairs, table } from '../../../bin/ui/table.ts';

function screen(parts: Partial<Io> = {}): { io: Io; text: () => string; type: (line: string) => void } {
  let said = '';
  const stdin = new PassThrough();
  const stderr = new PassThrough();
  stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const io: Io = {
    out: (text) => void (said += text),
    err: (text) => void (said += text),
    drawable: false,
    asks: false,
    stdin,
    stderr: stderr as unknown as NodeJS.WriteStream,
    env: {},
    columns: 40,
    ...parts,
  };
  return { io, text: () => said, type: (line) => stdin.write(`${line}\n`) };
}

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1 KiB'],
  [16 * 2 ** 20, '16 MiB'],
  [1.5 * 2 ** 30, '1.5 GiB'],
  [123.4 * 2 ** 20, '123 MiB'],
])('%d bytes read %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

test.each([
  [0, '0 ms'],
  [1500, '1.5 s'],
  [59_999, '59 s'],
  [90_500, '1 min 30 s'],
  [3_600_000, '1 h 0 min'],
  [90_000_000, '1 d 1 h'],
])('%d ms read %s', (ms, text) => expect(formatDuration(ms)).toBe(text));

test('an age is never negative, whatever the clocks say', () => {
  const now = Date.parse('2025-01-01T00:00:10Z');
  expect(formatAge('2025-01-01T00:00:05Z', now)).toBe('5.0 s ago');
  expect(formatAge('2025-01-01T00:00:15Z', now)).toBe('now');
  expect(formatAge(null, now)).toBe('-');
});

test('a count has its noun in the right number', () => {
  expect([formatCount(0, 'segment'), formatCount(1, 'segment'), formatCount(1200, 'row')]).toEqual([
    '0 segments',
    '1 segment',
    '1,200 rows',
  ]);
});

test('a printed command can be pasted: words are quoted where the shell would take them apart', () => {
  expect(['/srv/pg', 'my data', "o'brien", '$HOME', ''].map(shellWord)).toEqual([
    '/srv/pg',
    `'my data'`,
    `'o'\\''brien'`,
    `'$HOME'`,
    `''`,
  ]);
});

test('a table has plain columns, numbers to the right, and "-" for what is absent', () => {
  expect(
    table(
      ['node', 'lag'],
      [
        ['db1', null],
        ['standby-2', 12],
      ],
    ),
  ).toBe('node       lag\ndb1          -\nstandby-2   12');
});

test('pairs stand in two columns', () => {
  expect(
    pairs([
      ['a', 1],
      ['long', null],
    ]),
  ).toBe('a     1\nlong  -');
});

test('a dangerous command without a terminal wants --yes, and says what it would do', async () => {
  const { io, text } = screen();
  await expect(confirm(io, ['fence db1'], false)).rejects.toMatchObject({
    code: 'usage',
    hint: expect.stringContaining('--yes'),
  });
  expect(text()).toContain('- fence db1');
});

test('--yes is not asked', async () => {
  const { io, text } = screen();
  await confirm(io, ['fence db1'], true);
  expect(text()).toContain('- fence db1');
});

test.each([
  ['yes', true],
  ['y', true],
  ['', false],
  ['no', false],
  ['yes please', false],
])('on a terminal the answer %j means %j', async (line, agreed) => {
  const { io, type } = screen({ asks: true });
  const asked = confirm(io, ['fence db1'], false);
  type(line);
  if (agreed) await expect(asked).resolves.toBeUndefined();
  else await expect(asked).rejects.toMatchObject({ code: 'refused' });
});

test('without a terminal progress is one plain line at the end', () => {
  const { io, text } = screen();
  const bar = byteProgress(io, 'backing up', { nowMs: () => 0 });
  bar.update(2 ** 20, 2 ** 21);
  bar.finish('backed up');
  expect(text()).toBe('backed up (1 MiB in 0 ms)\n');
});

test('under --json progress says nothing', () => {
  const { io, text } = screen({ drawable: true });
  const bar = byteProgress(io, 'backing up', { quiet: true });
  bar.update(1, 2);
  bar.finish('backed up');
  expect(text()).toBe('');
});

test('a live block is drawn again in its place on a terminal, no line longer than it', () => {
  const { io, text } = screen({ drawable: true });
  const view = live(io);
  view.draw(['one', 'x'.repeat(100)], 'plain');
  view.draw(['two', 'y'], 'plain');
  expect(text()).toBe(`\x1b[2Kone\n\x1b[2K${'x'.repeat(39)}\n\x1b[2A\x1b[2Ktwo\n\x1b[2Ky\n`);
});

test('elsewhere a live block is a plain line whenever it changes', () => {
  const { io, text } = screen();
  const view = live(io);
  for (const plain of ['a', 'a', 'b']) view.draw([], plain);
  expect(text()).toBe('a\nb\n');
});
