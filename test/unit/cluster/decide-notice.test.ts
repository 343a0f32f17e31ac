/** Which events are told, by which vault, how often, and that each message says what a person needs who was asleep. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { decideNotice, type Teller } from '../../../core/cluster/decide-notice.ts';
import { EVENT_KINDS, type EventKind } from '../../../core/cluster/event-kinds.ts';
import type { EventRow } from '../../../core/cluster/facts.ts';
import { composeNotice, type Urgency } from '../../../core/cluster/notice.ts';

const root = path.resolve(import.meta.dirname, '../../..');
const VAULT = 's3://acme-wal/prod?table=walvault&region=eu-west-1';
const active: Teller = { cluster: 'main', vault: VAULT, role: 'active' };
const replica: Teller = { ...active, role: 'replica' };

const event = (kind: string, changes: Partial<EventRow> = {}): EventRow => ({
  ...{ pk: 'main/7300000000000000001', sk: 'event#2026-01-01T03:00:00.000Z#aa', rev: 1 },
  ...{
    at: '2026-01-01T03:00:00.000Z',
    kind: kind as EventKind,
    node: 'db1',
    epoch: 7,
    text: 'this happened',
  },
  ...changes,
});

/** Kind, what the active vault tells, what any other vault tells. */
const TABLE: [EventKind, Urgency | 'nothing', (Urgency | 'nothing')?][] = [
  ['init', 'info'],
  ['replica', 'info'],
  ['forget', 'info'],
  ['arm', 'info'],
  ['disarm', 'info'],
  ['node-add', 'info'],
  ['node-drop', 'info'],
  ['trigger', 'alert'],
  ['seal', 'nothing'],
  ['open', 'warning'],
  ['claim', 'warning'],
  ['upgrade', 'warning'],
  ['detach', 'info'],
  ['rejoin', 'info'],
  ['flush', 'warning'],
  ['undo', 'info'],
  ['fence', 'warning'],
  ['lose-direct', 'alert'],
  ['fenced', 'alert'],
  ['copied', 'alert'],
  ['refused', 'alert'],
  ['fenced-stop', 'alert'],
  ['lease-stop', 'alert'],
  ['silent', 'alert'],
  ['heard', 'info'],
  ['maintenance', 'info'],
  ['on_role_change', 'warning'],
  ['conflict', 'alert', 'nothing'],
  ['ignored', 'nothing'],
  ['archiving-off', 'alert'],
  ['archiving-on', 'warning'],
  ['gap', 'alert'],
  ['spill', 'alert'],
  ['home', 'info'],
  ['adopt', 'info'],
  ['salvage', 'warning'],
  ['aside', 'warning'],
  ['supersede', 'alert'],
  ['meeting', 'nothing', 'warning'],
  ['converged', 'info'],
  ['superseded', 'nothing'],
  ['epoch', 'nothing'],
  ['timeline', 'nothing'],
  ['lag', 'warning'],
  ['backup', 'nothing'],
  ['backup-failed', 'warning'],
  ['lease', 'warning'],
  ['retention', 'nothing'],
  ['drill', 'info'],
];

test.each(TABLE)('%s: %s, in a replica %s', (kind, here, there = here) => {
  expect(decideNotice(event(kind), active)?.urgency ?? 'nothing').toBe(here);
  expect(decideNotice(event(kind), replica)?.urgency ?? 'nothing').toBe(there);
  expect(decideNotice(event(kind), { ...active, role: 'converging' })?.urgency ?? 'nothing').toBe(there);
});

test('the table has every kind', () => {
  expect(TABLE.map(([kind]) => kind)).toEqual(Object.keys(EVENT_KINDS));
});

/** Whoever writes an event names its kind in a literal; what else is called kind in those files. */
const OTHER_KINDS = ['standby', 'restore', 'vault', 'file', 'memory', 's3'];

test('every kind that core writes has a row', () => {
  const written = new Set<string>();
  for (const room of ['core/work', 'core/cluster'])
    for (const file of readdirSync(path.join(root, room))) {
      const source = readFileSync(path.join(root, room, file), 'utf8');
      if (!/\b(putEvent|eventChange|eventRow)\(/.test(source)) continue;
      for (const [, found] of source.matchAll(/\b(?:kind: (?:[\w.]+ \? )?|event\()'([\w-]+)'/g))
        written.add(found!);
    }
  const unknown = [...written].filter((kind) => !(kind in EVENT_KINDS) && !OTHER_KINDS.includes(kind));
  expect(unknown).toEqual([]);
  // the scan sees what it should
  expect([...written]).toEqual(
    expect.arrayContaining(['init', 'trigger', 'open', 'aside', 'lease', 'home', 'ignored']),
  );
});

const told = TABLE.map(([kind]) =>
  [active, replica].map((teller) => decideNotice(event(kind), teller)).find((notice) => notice !== undefined),
).filter((notice) => notice !== undefined);

test.each(told.map((notice) => [notice.kind, notice] as const))(
  '%s says what, where, and what to do',
  (_, notice) => {
    for (const part of [
      'this happened',
      'main',
      VAULT,
      'db1',
      '7',
      '2026-01-01T03:00:00.000Z',
      'It means: ',
      'To do:    ',
    ])
      expect(notice.text).toContain(part);
    expect(notice.subject).toMatch(/^walvault (info|warning|alert): main: [\x20-\x7e]+ \(db1, epoch 7\)$/);
    expect(notice.subject.length).toBeLessThan(100);
    const page = /docs\/runbook\/[\w-]+\.md/.exec(notice.text)?.[0] ?? 'no page';
    expect(existsSync(path.join(root, page))).toBe(true);
    // commands that another version brings
    const commands = [...notice.text.matchAll(/'walvault ([a-z-]+)/g)].map(([, command]) => command!);
    const reference = readFileSync(path.join(root, 'docs/reference.md'), 'utf8');
    for (const command of commands.filter((each) => each !== 'archiving'))
      expect(reference).toMatch(new RegExp(`^### walvault ${command}\\b`, 'm'));
  },
);

test('a kind that a newer walvault writes is told, not dropped', () => {
  expect(decideNotice(event('shining'), active)).toMatchObject({ kind: 'shining', urgency: 'warning' });
  // of every object
  expect(decideNotice(event('constructor'), active)).toMatchObject({
    kind: 'constructor',
    urgency: 'warning',
  });
});

test('a drill that failed is an alert', () => {
  const text = 'drill of backup 1 failed: the archive ends too early';
  expect(decideNotice(event('drill', { text }), active)).toMatchObject({
    urgency: 'alert',
    subject: 'walvault alert: main: a drill has failed (db1, epoch 7)',
  });
});

test('an epoch that the writer did not know is not told as one', () => {
  const notice = decideNotice(event('fenced', { epoch: 0 }), active);
  expect(notice).toMatchObject({
    epoch: null,
    subject: 'walvault alert: main: an old primary was refused (db1)',
  });
  expect(notice?.text).not.toContain('Epoch:');
});

describe('one message for each fact', () => {
  const id = (kind: EventKind, changes: Partial<EventRow> = {}) =>
    decideNotice(event(kind, changes), active)?.id;
  const later = { sk: 'event#2026-01-01T03:40:00.000Z#bb', at: '2026-01-01T03:40:00.000Z' };
  const nextHour = { sk: 'event#2026-01-01T04:10:00.000Z#cc', at: '2026-01-01T04:10:00.000Z' };
  const nextDay = { sk: 'event#2026-01-02T03:00:00.000Z#dd', at: '2026-01-02T03:00:00.000Z' };

  test('an event is a fact by its own name', () => {
    expect(id('trigger')).toBe('event#2026-01-01T03:00:00.000Z#aa');
    expect(id('trigger', later)).not.toBe(id('trigger'));
  });

  test('a conflict that each pass of a relay writes down is one a day', () => {
    expect(id('conflict', nextHour)).toBe(id('conflict'));
    expect(id('conflict', nextDay)).not.toBe(id('conflict'));
    expect(id('conflict', { text: 'of another file' })).not.toBe(id('conflict'));
    expect(id('conflict', { node: 'db2' })).not.toBe(id('conflict'));
  });

  test('a hundred files kept aside are one', () => {
    expect(id('aside', { ...later, text: 'the next file' })).toBe(id('aside'));
    expect(id('aside', { node: 'db2' })).not.toBe(id('aside'));
    expect(id('aside', { epoch: 8 })).not.toBe(id('aside'));
    expect(id('aside', nextHour)).not.toBe(id('aside'));
  });
});

test('a subject is one line of ASCII under 100 characters whatever it is made of', () => {
  const parts = {
    ...active,
    kind: 'x',
    urgency: 'info',
    node: `né\nd\u{1F600}${'x'.repeat(200)}`,
    epoch: 1,
  } as const;
  const { subject, text } = composeNotice({
    ...parts,
    ...{ at: 'now', id: 'id', title: 'a title', what: 'y'.repeat(10_000), means: 'm', todo: 't', page: 'p' },
  });
  expect(subject).toMatch(/^walvault info: main: a title \(n\?d\?x+\.\.\.$/);
  expect(subject).toHaveLength(99);
  expect(text.length).toBeLessThan(5000);
});
