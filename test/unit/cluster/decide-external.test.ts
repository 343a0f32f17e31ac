import { decideExternal, type ExternalFacts } from '../../../core/cluster/decide-external.ts';
import { decideClaim } from '../../../core/cluster/decide-roles.ts';
import type { Control, Head, Promotion } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { parseLsn } from '../../../core/wal/lsn.ts';
import { control, head, MiB } from '../../harness/facts.ts';

const limits = { segmentSize: 16 * MiB, fills: 2 };
const at = '2026-01-01T00:00:00.000Z';
const fork = (timeline: number, lsn: string) => ({ timeline, forkLsn: parseLsn(lsn) });
/** db2, promoted by hand to timeline 2 with everything archived consumed. */
const db2 = (changes: Partial<ExternalFacts> = {}): ExternalFacts => ({
  node: 'db2',
  timeline: 2,
  ancestors: [fork(1, '0/5000000')],
  openedBy: undefined,
  archivedTo: undefined,
  held: undefined,
  ...changes,
});
const promotion = (changes: Partial<Promotion> = {}): Promotion => ({
  ...{ id: 'p1', epoch: 2, node: 'db2', mode: 'claim', state: 'open', at, timeline: 1, lsn: '0/5000000' },
  ...{ reserved: 2, ...changes },
});
const onTwo = head({ epoch: 2, timeline: 2, lastTimeline: 2, promotion: promotion() });
const historyOfTwo = '1\t0/5000000\tno recovery target specified\n';

const decide = (facts: ExternalFacts, ctl: Control = control(), hd: Head = head()) =>
  decideExternal(
    ctl,
    hd,
    lineageOf(hd.timeline, hd.timeline === 2 ? historyOfTwo : undefined),
    facts,
    limits,
  );

describe('roles = "external"', () => {
  test('forked where the vault ends: claimed', () => {
    expect(decide(db2())).toEqual({ do: 'claim' });
  });

  test('nothing was ever archived: nothing can be lost', () => {
    const empty = head({ lsn: null, firstLsn: null, lastFile: null });
    expect(decide(db2(), control(), empty)).toEqual({ do: 'claim' });
  });

  test('forked within what is archived: the vault is read, and only half a record may lie past the fork', () => {
    const inside = db2({ ancestors: [fork(1, '0/4FFFF00')] });
    expect(decide(inside)).toEqual({
      ...{ do: 'examine', fork: parseLsn('0/4FFFF00'), upTo: parseLsn('0/5000000'), missing: [] },
    });
    expect(decide({ ...inside, archivedTo: parseLsn('0/4FFFF00') })).toEqual({ do: 'claim' });
    expect(decide({ ...inside, archivedTo: parseLsn('0/4FFFF80') })).toMatchObject({
      do: 'refuse',
      code: 'refused',
      message: expect.stringMatching(/not claimed.* up to 0\/4FFFF80, which would be lost/),
      hint: expect.stringContaining('walvault claim'),
    });
  });

  test('the unfinished segment of a flush counts as archived', () => {
    const flushed = head({ tail: { timeline: 1, lsn: '0/5000200' } });
    expect(decide(db2(), control(), flushed)).toMatchObject({ do: 'examine', upTo: parseLsn('0/5000200') });
  });

  test('forked past the end, having streamed: claimed where it can bring every segment in between', () => {
    const streamed = db2({ ancestors: [fork(1, '0/7000100')] });
    const missing = ['000000010000000000000005', '000000010000000000000006'];
    expect(decide(streamed)).toMatchObject({ do: 'examine', upTo: null, missing });
    expect(decide({ ...streamed, held: missing })).toEqual({ do: 'claim' });
    expect(decide({ ...streamed, held: missing.slice(0, 1) })).toMatchObject({
      do: 'refuse',
      code: 'hole',
      message: expect.stringContaining('000000010000000000000006'),
    });
    const many = db2({ ancestors: [fork(1, '0/8000100')], held: missing });
    expect(decide(many)).toMatchObject({ do: 'refuse', message: expect.stringContaining('one of 3') });
  });

  test('the primary has nothing to claim, and the one it took the place of claims nothing back', () => {
    const now = control({ epoch: 2, primary: 'db2' });
    expect(decide(db2({ openedBy: 'db2' }), now, onTwo)).toEqual({ do: 'nothing', because: 'own' });
    const old = db2({ node: 'db1', timeline: 1, ancestors: [] });
    expect(decide(old, now, onTwo)).toEqual({ do: 'nothing', because: 'older' });
    // though the vault names nobody: a person decides
    expect(decide(old, control({ epoch: 3, primary: null }), onTwo)).toEqual({
      ...{ do: 'nothing', because: 'older' },
    });
  });

  test('promoted again and again in turn, each timeline is claimed once', () => {
    let [ctl, hd]: [Control, Head] = [control(), head()];
    const facts = db2();
    const lineage = lineageOf(1, undefined);
    const request = { ...facts, id: 'c1', at, place: 'host2:/pg', nonce: 'n' };
    const claimed = decideClaim(ctl, hd, lineage, request);
    if (claimed.do !== 'claim') throw new Error(claimed.message);
    [ctl, hd] = [claimed.control, claimed.head];
    // killed before the open: it stands, and only the open follows
    expect(decideExternal(ctl, hd, lineage, facts, limits)).toEqual({ do: 'open' });
    // promoted at the same moment, with the same number: between claim and open it is asked again, never taken for an old one and forgotten
    const rival = { ...facts, node: 'db3' };
    expect(decideExternal(ctl, hd, lineage, rival, limits)).toMatchObject({
      ...{ do: 'refuse', message: expect.stringMatching(/promotion of db2 is pending/) },
    });
    const old = { ...rival, timeline: 1, ancestors: [] };
    expect(decideExternal(ctl, hd, lineage, old, limits)).toEqual({ do: 'nothing', because: 'older' });
  });

  test.each<[string, ExternalFacts, Control, Head, RegExp]>([
    [
      'another took the same number',
      db2({ node: 'db3', openedBy: 'db2' }),
      control(),
      onTwo,
      /opened by db2/,
    ],
    [
      'it left an older timeline than the live one',
      db2({ node: 'db3', timeline: 3 }),
      control({ epoch: 2, primary: 'db2' }),
      onTwo,
      /left timeline 1 .* the vault is on timeline 2/,
    ],
    ['its history is another', db2({ ancestors: [fork(7, '0/5000000')] }), control(), head(), /not that of/],
    ['it has no history', db2({ ancestors: [] }), control(), head(), /names no parent/],
    ['the vault is a replica', db2(), control({ role: 'replica' }), head(), /a replica, not active/],
    [
      'a promotion of another is pending',
      db2(),
      control({ epoch: 2, primary: 'db3' }),
      head({ promotion: promotion({ node: 'db3', mode: 'smart', state: 'triggered' }) }),
      /promotion of db3 is pending/,
    ],
  ])('refused: %s', (_what, facts, ctl, hd, why) => {
    expect(decide(facts, ctl, hd)).toMatchObject({ do: 'refuse', message: expect.stringMatching(why) });
  });

  test('promoted by hand though a trigger named it: the claim takes the place of the trigger', () => {
    const triggered = head({ promotion: promotion({ mode: 'fast', state: 'triggered' }) });
    expect(decide(db2(), control({ epoch: 2, primary: 'db2' }), triggered)).toEqual({ do: 'claim' });
  });
});
