/**
 * Witnesses on every backend, at work on rows that the test writes as a primary and its standbys would: what they trigger, what they warn of,
 * and that any number of them do it once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../../core/errors.ts';
import { keys, type EventRow, type WitnessRow } from '../../core/cluster/facts.ts';
import { silenceNeeded } from '../../core/cluster/lease.ts';
import type { Vault } from '../../core/vault/vault.ts';
import {
  asRow,
  listRows,
  openCluster,
  readControl,
  readHead,
  type Cluster,
} from '../../core/work/cluster.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { renewLease } from '../../core/work/lease.ts';
import { setMaintenance } from '../../core/work/maintenance.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { runWitness, type WitnessOptions, type WitnessSeen } from '../../core/work/witness.ts';
import { newCluster, newStandby, onWire, segment, type FakeNode, type Wire } from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { waitFor } from '../harness/scratch.ts';
import { openPair, vaultPairs } from '../harness/two-vaults.ts';

/** Shorter than any that a node may have; the rules are the same. A warning is due after two thirds of it: far more than a renewal takes. */
const TERMS = { ms: 1500, watchdog: 'process' } as const;
const NEEDED_MS = silenceNeeded(TERMS.ms);
const POLICY = { autoFailover: true, maxLagMs: 60_000, coolDownMs: 3_600_000 };

/** What goes on until the test ends it. */
class Going {
  readonly #over = new AbortController();
  readonly #all: Promise<void>[] = [];

  again(everyMs: number, act: () => Promise<unknown>): { stop(): Promise<void> } {
    const own = new AbortController();
    const signal = AbortSignal.any([own.signal, this.#over.signal]);
    const loop = (async () => {
      while (!signal.aborted) {
        await act();
        await sleep(everyMs, undefined, { signal }).catch(() => {});
      }
    })();
    this.#all.push(loop);
    return { stop: () => (own.abort(), loop) };
  }

  witness(cluster: Cluster, options: Partial<WitnessOptions> = {}) {
    const seen: WitnessSeen[] = [];
    const troubles: VaultError[] = [];
    const own = new AbortController();
    const running = runWitness(cluster, {
      ...{ policy: POLICY, drFailover: false, everyMs: 50, by: `test:${this.#all.length}`, dryRun: false },
      open: async () => cluster,
      ...{ onDecision: (each) => seen.push(each), onTrouble: (error) => troubles.push(error) },
      ...options,
      signal: AbortSignal.any([own.signal, this.#over.signal]),
    });
    this.#all.push(running);
    return { seen, troubles, last: () => seen.at(-1)?.decision, stop: () => (own.abort(), running) };
  }

  async end(): Promise<void> {
    this.#over.abort();
    await Promise.allSettled(this.#all);
  }
}

const eventsOf = async (cluster: Cluster, ...kinds: string[]) =>
  (await listRows<EventRow>(cluster, 'event#')).filter(({ kind }) => kinds.includes(kind));
const witnessRow = async (cluster: Cluster) =>
  (await cluster.vault.manifest.get(keys.witness(cluster.partition))) as WitnessRow | undefined;
const renew = ({ cluster, seat }: FakeNode) =>
  renewLease(cluster, seat, { name: seat.node, role: 'primary' }, TERMS);
const report = ({ cluster, seat }: FakeNode, more = {}) =>
  reportNode(cluster, {
    name: seat.node,
    role: 'standby',
    consistent: true,
    lastRestored: segment(1, 2),
    ...more,
  });

describe.each(vaultKinds)('a witness on $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let going: Going;
  let db1: FakeNode;
  let db2: FakeNode;
  let cluster: Cluster;
  let primary: { stop(): Promise<void> };
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    going = new Going();
    db1 = await newCluster(vault, `witness${++number}`);
    cluster = db1.cluster;
    for (const each of [1, 2]) await db1.archive(segment(1, each));
    db2 = await newStandby(cluster, 'db2');
    primary = going.again(100, () => renew(db1));
    going.again(100, () => report(db2));
  });
  afterEach(async () => {
    await going.end();
    await vault.close();
  });

  const connect = async (wire: Wire = {}) => openCluster(onWire(vault, wire), cluster.name);
  const isWell = (witness: ReturnType<Going['witness']>) =>
    waitFor('a look', 5000, () => witness.last()?.state === 'well' && witness.seen.length > 5);

  test('two at once trigger once, and not before the lease is over', async () => {
    const two = [going.witness(await connect()), going.witness(await connect())];
    for (const each of two) await isWell(each);
    await primary.stop();
    const sentAt = performance.now();
    await renew(db1);
    await waitFor('the trigger', 10_000, async () => (await readControl(cluster)).primary === 'db2');
    expect(performance.now() - sentAt).toBeGreaterThan(NEEDED_MS);
    await waitFor('both to see it', 5000, () => two.every((each) => each.last()?.state === 'pending'));
    expect(await readControl(cluster)).toMatchObject({ epoch: 2, trigger: { mode: 'smart', to: 'db2' } });
    const triggers = await eventsOf(cluster, 'trigger');
    expect(triggers.map(({ text }) => text)).toEqual([
      expect.stringMatching(
        /db2 shall be the primary, epoch 2 .*by the witness \(test:\d\): nothing was heard of db1/,
      ),
    ]);
    expect(await witnessRow(cluster)).toMatchObject({ lastFailover: { epoch: 2, to: 'db2' }, warned: null });
  });

  test('a primary that renews between the look and the trigger is not replaced', async () => {
    let renewed = 0;
    const wire: Wire = {
      async before(changes) {
        if (!changes.some((change) => change.do === 'put' && change.row.sk === 'control')) return;
        renewed++;
        await renew(db1);
      },
    };
    const witness = going.witness(await connect(wire));
    await isWell(witness);
    await primary.stop();
    await waitFor('the trigger that fails', 10_000, () => renewed > 0);
    await waitFor('a look', 5000, () => witness.last()?.state === 'well');
    expect(await readControl(cluster)).toMatchObject({ epoch: 1, primary: 'db1' });
    expect(await eventsOf(cluster, 'trigger')).toEqual([]);
    expect(witness.troubles.map(({ message }) => message)).toContainEqual(
      expect.stringContaining('the witness does not trigger: db1 was heard again'),
    );
  });

  test('maintenance that is said between the look and the trigger holds it up', async () => {
    let said = 0;
    const wire: Wire = {
      async before(changes) {
        if (said > 0 || !changes.some((change) => change.do === 'put' && change.row.sk === 'control')) return;
        said++;
        const until = new Date(Date.now() + 60_000).toISOString();
        await setMaintenance(db1.cluster, { at: new Date().toISOString(), until, by: 'ann' });
      },
    };
    const witness = going.witness(await connect(wire));
    await isWell(witness);
    await primary.stop();
    await waitFor('a look', 10_000, () => witness.last()?.state === 'planned');
    expect([said, (await readControl(cluster)).primary]).toEqual([1, 'db1']);
  });

  test('a trigger whose answer is lost is done once', async () => {
    let lost = 0;
    const wire: Wire = {
      async after() {
        if (lost > 0 || (await readControl(cluster)).epoch === 1) return;
        lost++;
        throw new VaultError('unreachable', 'the answer is lost');
      },
    };
    const witness = going.witness(await connect(wire));
    await isWell(witness);
    await primary.stop();
    await waitFor('the trigger', 10_000, () => witness.last()?.state === 'pending');
    expect([lost, (await readControl(cluster)).epoch]).toEqual([1, 2]);
    expect(await eventsOf(cluster, 'trigger')).toHaveLength(1);
  });

  test('with auto_failover off it warns: once, however many they are, and says once when it is heard again', async () => {
    const policy = { ...POLICY, autoFailover: false };
    const two = [going.witness(await connect(), { policy }), going.witness(await connect(), { policy })];
    for (const each of two) await isWell(each);
    expect(await eventsOf(cluster, 'silent', 'heard')).toEqual([]);
    await primary.stop();
    const why = /auto_failover is off; db2 would take its place/;
    for (const each of two)
      await waitFor('a warning', 10_000, () => why.test(each.last()?.why ?? '') && each.seen.length > 20);
    // one that was started a moment ago has seen nobody silent: that is no news of the primary
    const third = going.witness(await connect(), { policy });
    await waitFor('its looks', 10_000, () => third.last()?.do === 'warn');
    const texts = await eventsOf(cluster, 'silent', 'heard');
    expect(texts.map(({ kind: each, node }) => [each, node])).toEqual([['silent', 'db1']]);
    expect(texts[0]!.text).toMatch(/nothing was heard of db1.*; db2: fit, priority 100, 0 s behind/);
    expect((await readControl(cluster)).epoch).toBe(1);
    primary = going.again(100, () => renew(db1));
    await waitFor('the word', 10_000, async () => (await eventsOf(cluster, 'heard')).length > 0);
    for (const each of [...two, third]) await waitFor('a look', 5000, () => each.last()?.state === 'well');
    expect((await eventsOf(cluster, 'silent', 'heard')).map((event) => event.kind)).toEqual([
      'silent',
      'heard',
    ]);
  });

  test('a primary without a lease is warned of, and heard again', async () => {
    jest.spyOn(performance, 'now').mockImplementation(clock);
    await primary.stop();
    const beat = () => reportNode(cluster, { name: 'db1', role: 'primary', lease: null });
    await beat();
    const witness = going.witness(await connect());
    await waitFor('a look', 5000, () => witness.seen.length > 3);
    await forward(61_000, witness);
    await waitFor('the warning', 1000, () => witness.last()?.do === 'warn');
    expect(witness.last()).toMatchObject({
      state: 'no lease',
      why: expect.stringContaining('without a lease'),
    });
    expect((await readControl(cluster)).epoch).toBe(1);
    await waitFor('the event', 5000, async () => (await eventsOf(cluster, 'silent')).length === 1);
    await beat();
    await waitFor('the word', 5000, async () => (await eventsOf(cluster, 'heard')).length === 1);
  });

  test('a dry run decides and writes nothing', async () => {
    const witness = going.witness(await connect(), { dryRun: true });
    await isWell(witness);
    await primary.stop();
    await waitFor('its decision', 10_000, () => witness.last()?.do === 'trigger');
    await sleep(200);
    expect(await readControl(cluster)).toMatchObject({ epoch: 1, primary: 'db1' });
    expect(await witnessRow(cluster)).toBeUndefined();
  });

  test('a second failover within cool_down wants a person, whoever watches', async () => {
    const first = going.witness(await connect());
    await isWell(first);
    await vault.manifest.transact([
      {
        do: 'put',
        row: {
          ...(await witnessRow(cluster))!,
          rev: (await witnessRow(cluster))!.rev + 1,
          lastFailover: { epoch: 1, to: 'db1', at: new Date(Date.now() + 600_000).toISOString() },
        },
        when: 'any',
      },
    ]);
    await primary.stop();
    await waitFor('a warning', 10_000, () => /short time ago/.test(first.last()?.why ?? ''));
    await sleep(NEEDED_MS);
    expect((await readControl(cluster)).epoch).toBe(1);
  });
});

let aheadMs = 0;
const real = performance.now.bind(performance);
const clock = () => real() + aheadMs;
afterEach(() => {
  jest.restoreAllMocks();
  aheadMs = 0;
});
/** The witness's clock goes on by `ms`, as if it had looked all the time: little a look, or it takes itself for one that slept. */
async function forward(ms: number, { seen }: { seen: readonly unknown[] }): Promise<void> {
  for (let left = ms; left > 0; left -= 1500) {
    aheadMs += Math.min(left, 1500);
    const count = seen.length;
    await waitFor('a look', 10_000, () => seen.length > count + 1);
  }
}

describe.each(vaultPairs)('a witness in a replica, $name', (pair) => {
  let site: Awaited<ReturnType<typeof openPair>>;
  let [a, b]: Vault[] = [];
  let going: Going;
  let db1: FakeNode;
  let dr1: FakeNode;
  let A: Cluster, B: Cluster;
  let primary: { stop(): Promise<void> };
  let number = 0;
  let isAway = false;

  beforeAll(async () => {
    site = await openPair(pair);
  }, 120_000);
  afterAll(() => site?.close());
  beforeEach(async () => {
    isAway = false;
    a = await site.from.connect();
    b = await site.to.connect();
    going = new Going();
    db1 = await newCluster(a, `far${++number}`);
    A = db1.cluster;
    for (const each of [1, 2]) await db1.archive(segment(1, each));
    B = await openReplica(A, b);
    await relayPass(A, B);
    dr1 = await newStandby(B, 'dr1');
    primary = going.again(100, () => renew(db1));
    going.again(100, () => report(dr1));
  });
  afterEach(async () => {
    await going.end();
    await a?.close();
    await b?.close();
  });

  const far = async (options: Partial<WitnessOptions>, wire: Wire = {}) => {
    const reading = async () => {
      if (isAway) throw new VaultError('unreachable', 'A is away');
    };
    const peer = await openCluster(onWire(a!, { reading }), A.name);
    const own = await openCluster(onWire(b!, wire), B.name);
    const witness = going.witness(own, { ...options, open: async () => peer });
    await waitFor('a look', 5000, () => witness.last()?.state === 'well' && witness.seen.length > 5);
    return witness;
  };

  test('warns when the active vault is away, once, and never triggers then', async () => {
    jest.spyOn(performance, 'now').mockImplementation(clock);
    const witness = await far({ drFailover: true });
    isAway = true;
    await waitFor('a look', 5000, () => witness.last()?.state === 'blind');
    await forward(61_000, witness);
    await waitFor('a warning', 5000, () => witness.last()?.do === 'warn');
    expect(witness.last()).toMatchObject({
      to: 'dr1',
      why: expect.stringMatching(/did not answer for ([6-9]\d|\d{3}) s.*--unfenced/),
    });
    await waitFor('the event', 5000, async () => (await eventsOf(B, 'silent')).length > 0);
    const count = witness.seen.length;
    await waitFor('more looks', 5000, () => witness.seen.length > count + 10);
    expect(await eventsOf(B, 'silent')).toHaveLength(1);
    expect(await readControl(B)).toMatchObject({ role: 'replica', epoch: 1 });
  });

  test('leaves it to the witness there where a standby there is fit', async () => {
    const db2 = await newStandby(A, 'db2');
    going.again(100, () => report(db2));
    const witness = await far({ drFailover: true });
    await primary.stop();
    await waitFor(
      'its lease to be over',
      10_000,
      () => (witness.seen.at(-1)?.silentMs ?? 0) > NEEDED_MS + 300,
    );
    expect(witness.last()!.do).not.toBe('trigger');
    expect([(await readControl(A)).epoch, (await readControl(B)).role]).toEqual([1, 'replica']);
  });

  test('with dr_failover off it warns of a silent primary that nobody there can follow', async () => {
    const witness = await far({ drFailover: false });
    await primary.stop();
    await waitFor('a warning', 10_000, () => /dr_failover is off/.test(witness.last()?.why ?? ''));
    expect(witness.last()).toMatchObject({
      do: 'warn',
      to: 'dr1',
      reasons: [expect.anything(), expect.stringMatching(/^here: dr1: fit/)],
    });
    await waitFor('the event', 5000, async () => (await eventsOf(B, 'silent')).length > 0);
    expect(await readControl(A)).toMatchObject({ epoch: 1, role: 'active' });
  });

  test('with dr_failover on two of them take over once: the other vault is fenced, nothing is lost', async () => {
    await db1.archive(segment(1, 3));
    // another one writes the row right before the failover is noted in it
    const raced = new Set<number>();
    const race = (who: number): Wire => ({
      async before(changes) {
        const isNote = changes.some(
          (change) => change.do === 'put' && (change.row['lastFailover'] ?? null) !== null,
        );
        const row = isNote ? await witnessRow(B) : undefined;
        if (row === undefined || raced.has(who)) return;
        raced.add(who);
        await b!.manifest.transact([{ do: 'put', row: asRow({ ...row, rev: row.rev + 1 }), when: 'any' }]);
      },
    });
    const two = [await far({ drFailover: true }, race(1)), await far({ drFailover: true }, race(2))];
    await primary.stop();
    await waitFor('the take-over', 15_000, async () => (await readControl(B)).role === 'active');
    expect(await readControl(A)).toMatchObject({ role: 'replica' });
    expect(await readControl(B)).toMatchObject({ primary: 'dr1' });
    expect((await readHead(B)).lastFile).toBe(segment(1, 3));
    for (const each of two) await waitFor('it to be seen', 10_000, () => each.last()?.state === 'pending');
    expect(await eventsOf(B, 'trigger')).toHaveLength(1);
    await waitFor('the note', 5000, async () => (await witnessRow(B))?.lastFailover?.to === 'dr1');
    await expect(renew(db1)).rejects.toMatchObject({ code: 'fenced' });
  });

  test('a primary that renews while its vault is about to be fenced is left alone', async () => {
    let renewed = 0;
    const wire: Wire = {
      async before(changes) {
        if (!changes.some((change) => change.do === 'put' && change.row.sk === 'control')) return;
        renewed++;
        await renew(db1);
      },
    };
    const peer = await openCluster(onWire(a!, wire), A.name);
    const witness = going.witness(await openCluster(b!, B.name), {
      drFailover: true,
      open: async () => peer,
    });
    await waitFor('a look', 5000, () => witness.last()?.state === 'well' && witness.seen.length > 5);
    await primary.stop();
    await waitFor('the fence that fails', 10_000, () => renewed > 0);
    await waitFor('a look', 5000, () => witness.last()?.state === 'well');
    expect([(await readControl(A)).role, (await readControl(B)).role]).toEqual(['active', 'replica']);
  });
});
