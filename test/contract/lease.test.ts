/** Renewals of a lease and the word of maintenance on every backend: what is conditional on what, and answers that are lost. */
import { VaultError } from '../../core/errors.ts';
import { keys, type EventRow, type NodeRow } from '../../core/cluster/facts.ts';
import { silenceNeeded } from '../../core/cluster/lease.ts';
import type { Change } from '../../core/vault/manifest.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { bootMs } from '../../core/work/boot-clock.ts';
import { listRows, openCluster, readControl, type Cluster } from '../../core/work/cluster.ts';
import { heartbeat } from '../../core/work/heartbeat.ts';
import { renewLease } from '../../core/work/lease.ts';
import { setMaintenance } from '../../core/work/maintenance.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { newCluster, newStandby, onWire, segment, type FakeNode, type Wire } from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { finishPromotion } from '../harness/promotions.ts';

const TERMS = { ms: 30_000, watchdog: 'process' } as const;

describe.each(vaultKinds)('a lease on $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let db1: FakeNode;
  let db2: FakeNode;
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    db1 = await newCluster(vault, `lease${++number}`);
    await db1.archive(segment(1, 1));
    db2 = await newStandby(db1.cluster, 'db2');
  });
  afterEach(async () => {
    await vault.close();
  });

  const rowOf = async (node: string) =>
    (await vault.manifest.get(keys.node(db1.cluster.partition, node))) as NodeRow | undefined;
  const wired = (wire: Wire): Promise<Cluster> => openCluster(onWire(vault, wire), db1.cluster.name);
  const renew = (cluster = db1.cluster, node = db1, more = {}) =>
    renewLease(cluster, node.seat, { name: node.seat.node, ...more }, TERMS);
  /** Does it once, before the first transaction that touches the row of db1. */
  const inBetween = (act: () => Promise<unknown>): Wire => {
    let isDone = false;
    return {
      async before(changes: readonly Change[]) {
        if (isDone || !changes.some((change) => change.do === 'put' && change.row.sk === 'node#db1')) return;
        isDone = true;
        await act();
      },
    };
  };

  test('each renewal counts on, and is a heartbeat that keeps what it does not say', async () => {
    await heartbeat(db1.cluster, { name: 'db1', role: 'primary', lastArchived: segment(1, 1) }, db1.seat);
    const before = bootMs();
    const first = await renew();
    expect(first.lease).toEqual({ epoch: 1, count: 1, ...TERMS });
    expect(first.sentAt).toBeGreaterThanOrEqual(before);
    expect(first.sentAt).toBeLessThanOrEqual(bootMs());
    await renew(db1.cluster, db1, { trouble: 'x' });
    const row = await rowOf('db1');
    expect(row).toMatchObject({ lease: { count: 2 }, role: 'primary', trouble: 'x' });
    expect(row).toMatchObject({ lastArchived: segment(1, 1) });
    await heartbeat(db1.cluster, { name: 'db1', trouble: null });
    expect(await rowOf('db1')).toMatchObject({ lease: { count: 2 }, trouble: null });
  });

  test('a node without a row renews, too', async () => {
    const key = keys.node(db1.cluster.partition, 'db1');
    await vault.manifest.transact([{ do: 'delete', key, when: 'present' }]);
    await renew();
    expect(await rowOf('db1')).toMatchObject({ name: 'db1', rev: 1, lease: { count: 1 } });
  });

  test('who is not the primary is refused: a standby, and the primary that was, before and after the open', async () => {
    await expect(renew(db2.cluster, db2)).rejects.toMatchObject({ code: 'fenced' });
    await renew();
    await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
    await expect(renew()).rejects.toMatchObject({
      ...{ code: 'fenced', message: expect.stringContaining('db2 holds epoch 2') },
    });
    await expect(renew(db2.cluster, db2)).rejects.toMatchObject({ code: 'refused' });
    await finishPromotion(db1.cluster, db2);
    await expect(renew()).rejects.toMatchObject({ code: 'fenced' });
    expect((await renew(db2.cluster, db2)).lease).toMatchObject({ epoch: 2, count: 1 });
    expect(await rowOf('db1')).toMatchObject({ lease: { epoch: 1, count: 1 } });
  });

  test('a lease that began with the open is outlasted before its first renewal', async () => {
    await newStandby(db1.cluster, 'db3');
    await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
    await finishPromotion(db1.cluster, db2, undefined, TERMS.ms);
    // cut off in this moment it takes writes until its watchdog stops it
    const { after } = await triggerPromotion(db1.cluster, { mode: 'fast', to: 'db3' });
    expect(after).toEqual({ node: 'db2', ms: 31_500 });
  });

  test('a trigger between its read and its write makes it fail, by its condition', async () => {
    await renew();
    const late = await wired(inBetween(() => triggerPromotion(db2.cluster, { mode: 'smart', to: 'db2' })));
    await expect(renew(late)).rejects.toMatchObject({ code: 'fenced' });
    expect(await rowOf('db1')).toMatchObject({ lease: { count: 1 } });
  });

  test('another who writes its row meanwhile does not: it reads again, and runs from the sending that was taken', async () => {
    let readAgain = 0;
    const wire = inBetween(async () => {
      await heartbeat(db2.cluster, { name: 'db1', trouble: 'by another' });
      await new Promise((resolve) => setTimeout(resolve, 30));
      readAgain = bootMs();
    });
    const { lease, sentAt } = await renew(await wired(wire));
    expect(lease.count).toBe(1);
    expect(sentAt).toBeGreaterThanOrEqual(readAgain);
    expect(await rowOf('db1')).toMatchObject({ rev: 3, trouble: 'by another', lease: { count: 1 } });
  });

  test('an answer that is lost gives no lease: it is renewed once more, and counts from then', async () => {
    let lostAt = 0;
    const wire: Wire = {
      async after() {
        if (lostAt > 0) return;
        lostAt = bootMs();
        throw new VaultError('unreachable', 'the answer is lost');
      },
    };
    const { lease, sentAt } = await renew(await wired(wire));
    expect(lease.count).toBe(2);
    expect(sentAt).toBeGreaterThanOrEqual(lostAt);
    expect(await rowOf('db1')).toMatchObject({ rev: 3, lease: { count: 2 } });
  });

  test('a lease that begins while a trigger commits is outlasted, too', async () => {
    let isDone = false;
    const wire: Wire = {
      async before() {
        if (isDone) return;
        isDone = true;
        await renew();
      },
    };
    const promotion = await triggerPromotion(await wired(wire), { mode: 'smart', to: 'db2' });
    expect(promotion.after).toEqual({ node: 'db1', ms: silenceNeeded(TERMS.ms) });
  });

  test('maintenance is said, said otherwise, and taken back, each with an event', async () => {
    const { cluster } = db1;
    const said = (at: number, hours: number, by = 'ann') => ({
      at: new Date(at).toISOString(),
      until: new Date(at + hours * 3_600_000).toISOString(),
      by,
    });
    const [long, short] = [said(1000, 4), said(2000, 1)];
    expect(await setMaintenance(cluster, undefined)).toEqual({ maintenance: null, changed: false });
    expect(await setMaintenance(cluster, long)).toEqual({ maintenance: long, changed: true });
    expect((await readControl(cluster)).maintenance).toEqual(long);
    expect(await setMaintenance(cluster, short)).toEqual({ maintenance: short, changed: true });
    expect(await setMaintenance(cluster, undefined, 'flush')).toEqual({ maintenance: short, changed: false });
    expect(await setMaintenance(cluster, undefined, 'ann')).toEqual({ maintenance: null, changed: true });
    expect(await readControl(cluster)).toMatchObject({ maintenance: null, epoch: 1, primary: 'db1' });
    const events = await listRows<EventRow>(cluster, 'event#');
    expect(
      events
        .filter((event) => event.kind === 'maintenance')
        .map(({ text }) => text)
        .toSorted(),
    ).toEqual([
      'maintenance is over',
      `maintenance until ${short.until} (ann)`,
      `maintenance until ${long.until} (ann)`,
    ]);
    await db1.archive(segment(1, 2)); // nobody's writing goes by it
    await renew();
  });

  test('maintenance whose answer is lost is said once', async () => {
    let isLost = false;
    const wire: Wire = {
      async after() {
        if (isLost) return;
        isLost = true;
        throw new VaultError('unreachable', 'the answer is lost');
      },
    };
    const wanted = { at: new Date(0).toISOString(), until: new Date(1).toISOString(), by: 'ann' };
    expect(await setMaintenance(await wired(wire), wanted)).toEqual({ maintenance: wanted, changed: true });
    const events = await listRows<EventRow>(db1.cluster, 'event#');
    expect(events.filter((event) => event.kind === 'maintenance')).toHaveLength(1);
  });

  test('maintenance said while a trigger commits is said of the new primary', async () => {
    let isDone = false;
    const wire: Wire = {
      async before() {
        if (isDone) return;
        isDone = true;
        await triggerPromotion(db2.cluster, { mode: 'smart', to: 'db2' });
      },
    };
    const wanted = { at: new Date(0).toISOString(), until: new Date(1).toISOString(), by: 'ann' };
    await setMaintenance(await wired(wire), wanted);
    expect(await readControl(db1.cluster)).toMatchObject({ epoch: 2, primary: 'db2', maintenance: wanted });
  });
});
