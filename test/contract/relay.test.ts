/**
 * Relay, disaster and first contact on every pair of backends: what a replica holds at any moment, whoever is killed when, and that two
 * vaults which lost each other agree again without a byte of the dead branch in the live one.
 */
import { keys, type BackupRow, type Control } from '../../core/cluster/facts.ts';
import { silenceNeeded } from '../../core/cluster/lease.ts';
import { VaultError } from '../../core/errors.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { asRow, openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { announceArrivals } from '../../core/work/announce.ts';
import { converge } from '../../core/work/converge.ts';
import { renewLease } from '../../core/work/lease.ts';
import { releaseLease } from '../../core/work/old-lease.ts';
import { openReplica, relayPass, Turned } from '../../core/work/relay.ts';
import { listAside } from '../../core/work/salvage.ts';
import { takeOver } from '../../core/work/takeover.ts';
import { commitTail } from '../../core/work/tail.ts';
import { dieAt } from '../harness/crashes.ts';
import { fakeNode, newCluster, newStandby, onWire, segment, type FakeNode } from '../harness/fake-node.ts';
import { finishPromotion, lsnOf, lsnText, names, promote } from '../harness/promotions.ts';
import { segmentBytes } from '../harness/segments.ts';
import { expectSound, holdings, memoryVault, openPair, vaultPairs } from '../harness/two-vaults.ts';

const silent = (): Promise<Cluster> => Promise.reject(new VaultError('unreachable', 'it does not answer'));

describe.each(vaultPairs)('relay from $name', (pair) => {
  /** What a memory: vault holds dies with the process. */
  const isLasting = pair.from === pair.to && pair.from.name !== 'memory';
  let site: Awaited<ReturnType<typeof openPair>>;
  let [a, b]: Vault[] = [];
  let db1: FakeNode;
  let A: Cluster, B: Cluster;
  let number = 0;

  beforeAll(async () => {
    site = await openPair(pair);
  }, 120_000);
  afterAll(() => site?.close());
  beforeEach(async () => {
    a = await site.from.connect();
    b = await site.to.connect();
    db1 = await newCluster(a, `dr${++number}`);
    A = db1.cluster;
    B = await openReplica(A, b);
  });
  afterEach(async () => {
    await a?.close();
    await b?.close();
  });

  const archive = async (node: FakeNode, timeline: number, from: number, to: number, content?: string) => {
    for (let each = from; each <= to; each++) await node.archive(segment(timeline, each), content);
  };
  const expectLevel = async (source = A, target = B) => {
    expect(await holdings(target)).toEqual(await holdings(source));
    const [from, to] = [await readHead(source), await readHead(target)];
    const position = ({ timeline, lsn, firstLsn, lastFile, tail, lastTimeline }: typeof from) => ({
      ...{ timeline, lsn, firstLsn, lastFile, tail, lastTimeline },
    });
    expect(position(to)).toEqual(position(from));
    await expectSound(target);
  };

  test('a replica takes rows in order, serves the same bytes, and both vaults say how far it is', async () => {
    await archive(db1, 1, 1, 5);
    const report = await relayPass(A, B, { backups: false });
    expect(report).toMatchObject({
      rows: 5,
      timeline: 1,
      lsn: lsnText(6),
      lag: { rows: 0, bytes: 0, seconds: 0 },
    });
    await expectLevel();
    expect(await relayPass(A, B)).toMatchObject({ rows: 0, backups: [] });
    const [ofA, ofB] = [await readControl(A), await readControl(B)];
    expect(ofB).toMatchObject({ role: 'replica', source: { id: ofA.vaultId }, epoch: 1, primary: 'db1' });
    expect(await A.vault.manifest.get(keys.relay(A.partition, ofB.vaultId))).toMatchObject({
      ...{ direction: 'to', lsn: lsnText(6), rows: 0, trouble: null },
    });
    expect(await B.vault.manifest.get(keys.relay(B.partition, ofA.vaultId))).toMatchObject({
      direction: 'from',
      rows: 0,
    });
  });

  test('a replica takes no archives, and no trigger that does not know it for one', async () => {
    await archive(db1, 1, 1, 2);
    await relayPass(A, B);
    await expect(fakeNode(B, db1.seat).archive(segment(1, 3))).rejects.toMatchObject({ code: 'fenced' });
    const dr1 = await newStandby(B, 'dr1');
    await expect(promote(B, dr1, 3)).rejects.toMatchObject({ code: 'refused' });
  });

  test('timelines come with their histories first, and a new replica is made from the middle of them', async () => {
    await archive(db1, 1, 1, 3);
    const db2 = await newStandby(A, 'db2');
    await relayPass(A, B);
    await promote(A, db2, 4);
    await archive(db2, 2, 4, 5);
    const db3 = await newStandby(A, 'db3');
    await promote(A, db3, 6);
    await archive(db3, 3, 6, 7);
    expect(await relayPass(A, B)).toMatchObject({ rows: 4, timelines: [2, 3], epoch: 3 });
    await expectLevel();
    const c = await memoryVault();
    const C = await openReplica(A, c);
    expect(await relayPass(A, C)).toMatchObject({ rows: 7, timelines: [2, 3] });
    await expectLevel(A, C);
  });

  test('a replica that is past the fork of a fast promotion goes on with the new timeline', async () => {
    await archive(db1, 1, 1, 5);
    await relayPass(A, B);
    const db2 = await newStandby(A, 'db2');
    await promote(A, db2, 3, 'fast');
    await archive(db2, 2, 3, 4);
    await relayPass(A, B);
    await expectLevel();
  });

  test('the shutdown checkpoint of a flush comes along, and is outgrown as in the source', async () => {
    await archive(db1, 1, 1, 2);
    const bytes = segmentBytes(segment(1, 3));
    await commitTail(A, db1.seat, { segment: segment(1, 3), bytes, lsn: lsnOf(3) + 8192n }, 'flush');
    await relayPass(A, B);
    await expectLevel();
    const dr1 = await newStandby(A, 'db2');
    await promote(A, dr1, 3, 'smart').catch(() => {}); // sealed short of the tail: refused
    expect((await readHead(B)).tail).toMatchObject({ timeline: 1 });
    expect((await readHead(B)).flush).toBeNull();
  });

  test('broken off before or after any transaction, the next pass goes on, and at no moment is there a hole', async () => {
    await archive(db1, 1, 1, 3);
    const db2 = await newStandby(A, 'db2');
    await promote(A, db2, 4);
    await archive(db2, 2, 4, 5);
    for (const when of ['before', 'after'] as const) {
      for (let at = 1, done = false; !done; at++) {
        const vault = await memoryVault();
        const plain = await openReplica(A, vault);
        let count = 0;
        const die = async () => {
          if (++count === at) throw new Error('killed');
        };
        const target = await openCluster(onWire(vault, { [when]: die }), A.name);
        await relayPass(A, target, { sweep: true }).then(
          () => (done = count < at),
          (error: Error) => expect(error.message).toBe('killed'),
        );
        await expectSound(plain);
        await relayPass(A, plain);
        await expectLevel(A, plain);
      }
    }
  });

  test('two at once do no harm, and lose nothing', async () => {
    await archive(db1, 1, 1, 9);
    const again = await openCluster(await site.to.connect(), A.name);
    await Promise.all([relayPass(A, B, { parallel: 2 }), relayPass(A, again, { parallel: 3 })]);
    await expectLevel();
    await again.vault.close();
  });

  test('different objects under one name are refused, said in both vaults, and nothing is changed', async () => {
    await archive(db1, 1, 1, 2);
    await relayPass(A, B);
    await archive(db1, 1, 3, 3);
    const other = await fakeNode(B, db1.seat).store(segment(1, 3), 'of another server');
    if (other === 'same') throw new Error('the same bytes');
    const control = await readControl(B);
    const { key, sha256, sizeBytes, storedBytes, archivedAt } = other;
    await B.vault.manifest.transact([
      {
        do: 'put',
        when: 'absent',
        row: asRow({
          ...keys.wal(B.partition, segment(1, 3)),
          ...{
            rev: 1,
            key,
            sha256,
            sizeBytes,
            storedBytes,
            archivedAt,
            compression: 'zstd',
            node: 'db1',
            epoch: 1,
          },
        }),
      },
    ]);
    const before = await holdings(B);
    // again and again, as a relay does, it is said once
    for (let pass = 1; pass <= 3; pass++)
      await expect(relayPass(A, B)).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringContaining(segment(1, 3)),
      });
    expect(await holdings(B)).toEqual(before);
    for (const cluster of [A, B]) {
      const events: unknown[] = [];
      for await (const row of cluster.vault.manifest.query({
        pk: cluster.partition,
        from: 'event#',
        to: 'event$',
      }))
        if (row['kind'] === 'conflict') events.push(row['text']);
      expect(events).toEqual([expect.stringContaining(segment(1, 3))]);
    }
    expect(await B.vault.manifest.get(keys.relay(B.partition, (await readControl(A)).vaultId))).toMatchObject(
      {
        trouble: expect.stringContaining('conflict'),
      },
    );
    expect((await readControl(B)).rev).toBe(control.rev);
  });

  test('a sweep brings a row that no head shows to be missing', async () => {
    await archive(db1, 1, 1, 4);
    await relayPass(A, B);
    await B.vault.manifest.transact([
      { do: 'delete', key: keys.wal(B.partition, segment(1, 2)), when: 'present' },
    ]);
    expect(await relayPass(A, B)).toMatchObject({ rows: 0 });
    expect(await relayPass(A, B, { sweep: true })).toMatchObject({ rows: 1 });
    await expectLevel();
  });

  test('a chain and a second replica take what the first one has', async () => {
    await archive(db1, 1, 1, 3);
    await relayPass(A, B);
    const C = await openReplica(B, await memoryVault());
    await relayPass(B, C);
    await expectLevel(B, C);
    expect(await readControl(C)).toMatchObject({
      role: 'replica',
      epoch: 1,
      source: { id: (await readControl(B)).vaultId },
    });
    await expect(relayPass(C, B)).rejects.toMatchObject({ code: 'refused' });
    await expect(relayPass(B, A)).rejects.toBeInstanceOf(Turned);
    await expect(relayPass(A, A)).rejects.toMatchObject({ code: 'usage' });
  });

  describe('a backup', () => {
    const putBackup = async (stop: number): Promise<BackupRow> => {
      const indexKey = `${A.partition}/backup/b1/index.zst`;
      await A.vault.bucket.putOnce(indexKey, Buffer.from('the index'));
      await A.vault.bucket.putOnce(`${A.partition}/backup/b1/bundle-00001.zst`, Buffer.from('bytes'));
      const row = {
        ...keys.backup(A.partition, 'b1'),
        ...{ rev: 1, id: 'b1', state: 'complete', timeline: 1, startSegment: segment(1, 2) },
        ...{ startLsn: lsnText(2), stopLsn: lsnText(stop), indexKey },
      } as BackupRow;
      await A.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
      return row;
    };

    test('comes along once its WAL is there', async () => {
      await archive(db1, 1, 1, 3);
      const { indexKey } = await putBackup(5);
      expect(await relayPass(A, B)).toMatchObject({ backups: [] });
      await archive(db1, 1, 4, 5);
      expect(await relayPass(A, B)).toMatchObject({ backups: ['b1'] });
      expect(await B.vault.bucket.get(indexKey!)).toEqual(Buffer.from('the index'));
      expect(await relayPass(A, B)).toMatchObject({ backups: [] });
    });

    test('that retention had begun to delete when its objects were listed does not pass for a whole one', async () => {
      await archive(db1, 1, 1, 5);
      const row = await putBackup(4);
      const { vault } = A;
      const { bucket, manifest } = vault;
      const source = await openCluster(
        {
          ...vault,
          bucket: {
            ...bucket,
            async *list(prefix) {
              const gone = asRow({ ...row, rev: 2, state: 'deleting' });
              await manifest.transact([{ do: 'put', row: gone, when: 'any' }]);
              await bucket.delete(`${A.partition}/backup/b1/bundle-00001.zst`);
              yield* bucket.list(prefix);
            },
          },
        },
        A.name,
      );
      expect(await relayPass(source, B)).toMatchObject({ backups: [] });
      expect(await names(B, 'backup#')).toEqual([]);
    });
  });

  if (isLasting)
    test.each(['announce-due', 'announce-published'] as const)(
      'killed at %s, when it was to be told what has arrived: it is told again',
      async (point) => {
        await archive(db1, 1, 1, 3);
        await relayPass(A, B);
        await dieAt(point, 'announce', B);
        const told: unknown[] = [];
        await announceArrivals(B, async (arrival) => void told.push(arrival));
        expect(told).toEqual([expect.objectContaining({ kind: 'segments', lsn: lsnText(4) })]);
        expect(await announceArrivals(B, async () => {})).toBe(0);
      },
    );

  describe('taking over', () => {
    let dr1: FakeNode;
    beforeEach(async () => {
      await archive(db1, 1, 1, 3);
      await relayPass(A, B);
      dr1 = await newStandby(B, 'dr1');
    });

    test('a vault that answers is fenced first, and what was not relayed comes over: nothing is lost', async () => {
      await archive(db1, 1, 4, 6);
      const promotion = await takeOver(B, async () => A, { mode: 'smart', to: 'dr1' });
      expect(promotion).toMatchObject({ epoch: 2, node: 'dr1', state: 'triggered' });
      await expect(db1.archive(segment(1, 7))).rejects.toMatchObject({ code: 'fenced' });
      expect((await readHead(B)).lsn).toBe(lsnText(7));
      await finishPromotion(B, dr1);
      await archive(dr1, 2, 7, 8);
      expect(await readControl(A)).toMatchObject({ role: 'replica', epoch: 2, primary: 'dr1' });
      expect(await readControl(B)).toMatchObject({ role: 'active', supersedes: null, source: null });
      await expect(relayPass(A, B)).rejects.toBeInstanceOf(Turned);
      await relayPass(B, A);
      await expectLevel(B, A);
      expect(await listAside(A)).toEqual([]);
    });

    test('what cannot be carried over is found before the vault that answers is fenced', async () => {
      await archive(db1, 1, 4, 6);
      await A.vault.manifest.transact([
        { do: 'delete', key: keys.wal(A.partition, segment(1, 5)), when: 'present' },
      ]);
      await expect(takeOver(B, async () => A, { mode: 'smart', to: 'dr1' })).rejects.toMatchObject({
        code: 'hole',
      });
      expect(await readControl(A)).toMatchObject({ role: 'active', epoch: 1, primary: 'db1' });
      expect(await db1.archive(segment(1, 7))).toBe('committed');
    });

    test('a lease that its primary took while all of it was carried over is outlasted', async () => {
      let isTaken = false;
      const peer = await openCluster(
        onWire(A.vault, {
          async before(changes) {
            const fences = changes.some(
              ({ do: does, ...of }) => does === 'put' && 'row' in of && of.row.sk === 'control',
            );
            if (isTaken || !fences) return;
            isTaken = true;
            await renewLease(A, db1.seat, { name: 'db1' }, { ms: 30_000, watchdog: 'process' });
          },
        }),
        A.name,
      );
      const waited: unknown[] = [];
      await takeOver(B, async () => peer, {
        ...{ mode: 'smart', to: 'dr1' },
        onStep(step) {
          if (step.step !== 'lease') return;
          waited.push(step);
          void releaseLease(A, 'db1'); // its server has stopped
        },
      });
      expect(waited).toEqual([{ step: 'lease', node: 'db1', ms: silenceNeeded(30_000) }]);
    });

    test('one that does not answer is superseded only when that is said', async () => {
      await expect(takeOver(B, silent, { mode: 'smart', to: 'dr1' })).rejects.toMatchObject({
        code: 'refused',
        hint: expect.stringContaining('--unfenced'),
      });
      expect(await readControl(B)).toMatchObject({ role: 'replica', epoch: 1, supersedes: null });
      await takeOver(B, silent, { mode: 'smart', to: 'dr1', unfenced: true });
      expect(await readControl(B)).toMatchObject({
        ...{ role: 'active', epoch: 2, primary: 'dr1' },
        supersedes: { id: (await readControl(A)).vaultId, sinceEpoch: 1 },
      });
    });

    test('broken off after any transaction it is taken up again, and never two vaults are active with the old one answering', async () => {
      for (let at = 1, done = false; !done; at++) {
        const node = await newCluster(await memoryVault(), `x${at}`);
        const from = node.cluster;
        await archive(node, 1, 1, 4);
        const to = await openReplica(from, await memoryVault());
        const standby = await newStandby(to, 'dr1');
        let count = 0;
        const die = async () => {
          if (++count === at) throw new Error('killed');
        };
        const [deadlyFrom, deadlyTo] = await Promise.all(
          [from, to].map((cluster) => openCluster(onWire(cluster.vault, { after: die }), from.name)),
        );
        await takeOver(deadlyTo!, async () => deadlyFrom!, { mode: 'smart', to: 'dr1' }).then(
          () => (done = true),
          (error: Error) => expect(error.message).toBe('killed'),
        );
        const roles = [await readControl(from), await readControl(to)].filter(
          ({ role }) => role === 'active',
        );
        expect(roles.length).toBeLessThan(2);
        await takeOver(to, async () => from, { mode: 'smart', to: 'dr1' });
        expect((await readHead(to)).lsn).toBe(lsnText(5));
        await finishPromotion(to, standby);
        await relayPass(to, from);
        await expectLevel(to, from);
      }
    });

    if (isLasting)
      test.each([
        // an epoch that no trigger stands for yet is passed over by the second run
        { point: 'takeover-raised', role: 'replica', epoch: 3 },
        { point: 'takeover-active', role: 'active', epoch: 2 },
      ] as const)(
        'killed at $point, the other vault silent: the same command goes on',
        async ({ point, role, epoch }) => {
          await dieAt(point, 'take-over', B);
          expect(await readControl(B)).toMatchObject({ epoch: 2, role });
          const promotion = await takeOver(B, silent, { mode: 'smart', to: 'dr1', unfenced: true });
          expect(promotion).toMatchObject({ node: 'dr1', epoch, state: 'triggered' });
          expect(await readControl(B)).toMatchObject({
            ...{ role: 'active', epoch, primary: 'dr1' },
            supersedes: { id: (await readControl(A)).vaultId, sinceEpoch: 1 },
          });
          await finishPromotion(B, dr1);
          await archive(dr1, 2, 4, 5, 'of dr1');
          await archive(db1, 1, 4, 6, 'of db1');
          expect(await relayPass(B, A)).toMatchObject({ aside: 3 });
          await expectLevel(B, A);
        },
      );

    describe('without the other', () => {
      beforeEach(async () => {
        await takeOver(B, silent, { mode: 'smart', to: 'dr1', unfenced: true });
        await finishPromotion(B, dr1);
        await archive(dr1, 2, 4, 5, 'of dr1');
      });

      const expectAgreed = async () => {
        await relayPass(B, A);
        await expectLevel(B, A);
        expect(await readControl(A)).toMatchObject({ role: 'replica' });
        expect(await readControl(B)).toMatchObject({ role: 'active', supersedes: null });
        await archive(dr1, 2, 6, 6, 'of dr1');
        await expect(db1.archive(segment(1, 9), 'of db1')).rejects.toMatchObject({ code: 'fenced' });
      };

      test('what the old primary wrote on is set aside and listed, nothing of it reaches the live branch', async () => {
        await archive(db1, 1, 4, 6, 'of db1');
        await expect(relayPass(A, B)).rejects.toBeInstanceOf(Turned);
        expect(await relayPass(B, A)).toMatchObject({ aside: 3 });
        expect((await listAside(A)).map(({ file, node, epoch }) => [file, node, epoch])).toEqual(
          [4, 5, 6].map((each) => [segment(1, each), 'db1', 1]),
        );
        expect(await names(B)).toEqual(
          [1, 2, 3].map((each) => segment(1, each)).concat([segment(2, 4), segment(2, 5)]),
        );
        await expectAgreed();
      });

      test('the same when the old vault had a failover of its own, with the same timeline number and a higher epoch', async () => {
        const db2 = await newStandby(A, 'db2');
        const db3 = await newStandby(A, 'db3');
        await archive(db1, 1, 4, 4, 'of db1');
        await promote(A, db2, 5);
        await archive(db2, 2, 5, 6, 'of db2');
        await promote(A, db3, 7);
        await archive(db3, 3, 7, 7, 'of db3');
        expect((await readControl(A)).epoch).toBe(3);
        const report = await relayPass(B, A);
        expect(report.aside).toBe(6);
        expect((await listAside(A)).map(({ file }) => file).sort()).toEqual(
          [
            '00000002.history',
            '00000003.history',
            segment(1, 4),
            segment(2, 5),
            segment(2, 6),
            segment(3, 7),
          ].sort(),
        );
        expect((await readControl(B)).epoch).toBe(4);
        expect((await readHead(B)).lastTimeline).toBe(3);
        await expectAgreed();
        // the numbers of the dead branch are never used again
        const dr2 = await newStandby(B, 'dr2');
        expect(await promote(B, dr2, 7)).toMatchObject({ reserved: 4 });
      });

      test('what the new active vault lets go during the first contact is not of the dead branch', async () => {
        await archive(db1, 1, 4, 6, 'of db1');
        const { vault } = B;
        const { manifest } = vault;
        let ranges = 0;
        const retaining = await openCluster(
          {
            ...vault,
            manifest: {
              ...manifest,
              async *query(range) {
                // the first one says what is oldest there
                if (range.from === 'wal#' && ++ranges === 2)
                  await manifest.transact([
                    {
                      do: 'put',
                      row: asRow({
                        ...keys.holds(B.partition),
                        ...{ rev: 1, holds: {}, horizon: { 1: segment(1, 3) } },
                      }),
                      when: 'absent',
                    },
                    ...[1, 2].map((each) => ({
                      ...({ do: 'delete', when: 'present' } as const),
                      key: keys.wal(B.partition, segment(1, each)),
                    })),
                  ]);
                yield* manifest.query(range);
              },
            },
          },
          A.name,
        );
        expect(await converge(retaining, A)).toEqual({ aside: 3 });
        expect(await names(A)).toEqual([1, 2, 3].map((each) => segment(1, each)));
        await relayPass(B, A);
        await expectSound(A);
      });

      test('the first contact broken off after any transaction is taken up again', async () => {
        await archive(db1, 1, 4, 6, 'of db1');
        for (let at = 1, done = false; !done; at++) {
          let count = 0;
          const die = async () => {
            if (++count === at) throw new Error('killed');
          };
          const [deadlyA, deadlyB] = await Promise.all(
            [A, B].map((cluster) => openCluster(onWire(cluster.vault, { after: die }), A.name)),
          );
          await converge(deadlyB!, deadlyA!).then(
            () => (done = true),
            (error: Error) => expect(error.message).toBe('killed'),
          );
        }
        await expectAgreed();
        expect(await listAside(A)).toHaveLength(3);
      });

      if (isLasting)
        test.each(['converge-raised', 'converge-marked', 'converge-aside', 'converge-replica'] as const)(
          'the first contact killed at %s: nothing of the dead branch is live, and the next one ends it',
          async (point) => {
            if (point === 'converge-raised') {
              // a failover of its own, as many epochs as there: the two need one that is newer than both
              const db2 = await newStandby(A, 'db2');
              await promote(A, db2, 4);
              await archive(db2, 2, 4, 6, 'of db2');
            } else await archive(db1, 1, 4, 6, 'of db1');
            await dieAt(point, 'converge', B, A);
            expect(await names(B)).toEqual(
              [1, 2, 3].map((each) => segment(1, each)).concat([segment(2, 4), segment(2, 5)]),
            );
            await expectSound(B);
            await expectAgreed();
            const dead = point === 'converge-raised' ? 2 : 1;
            expect((await listAside(A)).map(({ file }) => file)).toEqual(
              expect.arrayContaining([4, 5, 6].map((each) => segment(dead, each))),
            );
          },
        );

      test('a relay that slept through all of it puts nothing into the new active vault', async () => {
        // asleep since before the trigger: it read both vaults as source and replica
        const C = await openReplica(A, await memoryVault());
        const dr9 = await newStandby(C, 'dr9');
        await archive(db1, 1, 4, 6, 'of db1');
        let wake = () => {};
        let asleep = () => {};
        const sleeping = new Promise<void>((resolve) => (asleep = resolve));
        const sleeper = await openCluster(
          onWire(C.vault, {
            before: async (changes) => {
              if (!changes.some((change) => change.do === 'put' && change.row.sk.startsWith('wal#'))) return;
              asleep();
              await new Promise<void>((resolve) => (wake = resolve));
            },
          }),
          A.name,
        );
        const pass = relayPass(A, sleeper);
        await sleeping;
        await takeOver(C, silent, { mode: 'smart', to: 'dr9', unfenced: true });
        await finishPromotion(C, dr9, lsnOf(1));
        wake();
        await expect(pass).rejects.toBeInstanceOf(VaultError);
        expect((await names(C)).filter((name) => name.startsWith('00000001'))).toEqual([]);
      });
    });
  });

  test('there and back again three times, and both hold the same each time', async () => {
    let [here, there] = [A, B];
    let node = db1;
    let next = 1;
    for (let round = 0; round < 6; round++) {
      const timeline = (await readHead(here)).timeline;
      await archive(node, timeline, next, next + 1);
      next += 2;
      await relayPass(here, there);
      const standby = await newStandby(there, `n${round}`);
      const from: Control = await readControl(here);
      await takeOver(there, async () => here, { mode: 'smart', to: standby.seat.node });
      await finishPromotion(there, standby);
      await expect(node.archive(segment(timeline, next))).rejects.toMatchObject({ code: 'fenced' });
      await relayPass(there, here);
      await expectLevel(there, here);
      expect((await readControl(there)).epoch).toBe(from.epoch + 1);
      [here, there, node] = [there, here, standby];
    }
    expect((await readHead(here)).timeline).toBe(7);
  });
});
