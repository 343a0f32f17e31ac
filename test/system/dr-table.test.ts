/**
 * What may fail at a site with a DR vault, one thing after the other under load: the standby, the relay, the vault, the primary, and both
 * servers of the first region. For each: what goes on, which rows are lost, and what `walvault status` says of both vaults.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { OtherVault } from '../../core/work/other-vaults.ts';
import type { Status } from '../../core/work/status.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { DrSite, type VaultName } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import type { RunningCommand } from '../harness/walvault-command.ts';
import { missingRows, SteadyWriter, tableSum } from '../harness/writer.ts';

type Seen = Status & { others: OtherVault[] };

describe.each(pairs)('a primary, a standby and a DR node on $title', (pair) => {
  let site: DrSite;
  let db1: TestServer, db2: TestServer, dr1: TestServer;
  let relay: RunningCommand;
  let writer: SteadyWriter;

  const startRelay = (): void => {
    relay = site.startRelay({}, { args: ['--interval', '200ms'] });
  };

  beforeAll(async () => {
    site = await DrSite.open({
      ...{ pair, segmentSizeMiB: 1, nodes: ['db1', 'db2', 'dr1'] },
      walvault: {
        ...{ WALVAULT_HEARTBEAT_INTERVAL: '1s', WALVAULT_ARCHIVE_TIMEOUT: '5s' },
        ...{ WALVAULT_RESTORE_TIMEOUT: '3s', WALVAULT_VAULT_TIMEOUT: '2s' },
      },
    });
    db1 = await site.makePrimary('db1');
    await site.backup();
    await site.relayOnce();
    startRelay();
    db2 = await site.addStandby('db2');
    dr1 = await site.addDrStandby('dr1');
    writer = await SteadyWriter.start(db1);
    await waitFor('some load', 30_000, () => writer.acknowledged.length > 50);
  });
  afterEach(() => site.mend('A')); // after a test that failed
  afterAll(() => site.close());

  const statusOf = async (vault: VaultName): Promise<Seen> => (await site.statusOf(vault)) as Seen;
  const nodeOf = (seen: Status, name: string) => seen.nodes.find((node) => node.name === name);
  const headOf = async (vault: VaultName) => (await site.view(vault).heart()).head;
  /** The last row that was answered. */
  const written = (): number => writer.acknowledged.at(-1)!.id;

  /** Until `node` has every row up to this one, by archive, relay and restore. */
  async function has(node: string, upTo: number): Promise<void> {
    const server = site.server(node);
    await waitFor(`${node} has row ${upTo}`, 60_000, async () => (await missingRows(server, upTo)) === 0);
  }

  /** What was written by now gets into the vault of `primary`. @returns the last row of it */
  async function archived(primary: string): Promise<number> {
    const upTo = written();
    await site.archiveNow(primary);
    return upTo;
  }

  /** With its last word said: killed within a pass, it may have brought more than the vaults were told. @returns the head of B */
  async function killRelayBetweenPasses(): Promise<Awaited<ReturnType<typeof headOf>>> {
    const told = async () => {
      const [[row], head] = [await site.view('A').rows('relay#'), await headOf('B')];
      return row?.['lsn'] === head.lsn && head;
    };
    for (;;) {
      await waitFor('a word of the relay', 30_000, told);
      await relay.kill();
      const head = await told();
      if (head !== false) return head;
      startRelay();
    }
  }

  async function goesOn(): Promise<void> {
    const upTo = written();
    await waitFor('more rows', 30_000, () => written() > upTo + 20);
  }

  test('the standby down: archiving, relay and DR node go on; it is told how far it is behind, and catches up', async () => {
    await db2.kill9();
    await waitFor('its last report', 30_000, () => site.agentPids('db2').length === 0);
    const before = nodeOf(await statusOf('A'), 'db2')!;
    await goesOn();
    const upTo = await archived('db1');
    await has('dr1', upTo);
    const inA = await waitFor('A tells how far db2 is behind', 30_000, async () => {
      const seen = await statusOf('A');
      // a trouble that a busy machine makes passes
      return (nodeOf(seen, 'db2')?.lagSegments ?? 0) > 0 && seen.relays[0]?.trouble === null && seen;
    });
    expect(inA).toMatchObject({ primary: 'db1', epoch: 1, vault: { role: 'active' } });
    expect(inA.relays).toMatchObject([{ direction: 'to', trouble: null }]);
    expect(nodeOf(inA, 'db2')).toMatchObject({ role: 'standby', lastRestored: before.lastRestored });
    const ages = ['db1', 'db2'].map((name) => nodeOf(inA, name)!.heartbeatAt!);
    expect(ages[1]! < ages[0]!).toBe(true);
    expect(await statusOf('B')).toMatchObject({ primary: 'db1', epoch: 1, vault: { role: 'replica' } });

    await db2.start();
    await has('db2', upTo);
    expect(await tableSum(db2, upTo)).toEqual(await tableSum(db1, upTo));
  });

  test('the relay down: primary and standby go on, the DR node stays where it is; both vaults tell the lag, and all of it comes', async () => {
    const stopped = await killRelayBetweenPasses();
    await goesOn();
    const upTo = await archived('db1');
    await has('db2', upTo);
    expect((await headOf('B')).lastFile).toBe(stopped.lastFile);
    expect(await missingRows(dr1, upTo)).toBeGreaterThan(0);
    expect(await dr1.value('SELECT pg_is_in_recovery()')).toBe(true);

    const [inA, inB] = [await statusOf('A'), await statusOf('B')];
    const { rows, bytes, lsn } = inA.relays[0]!;
    expect(rows).toBeGreaterThan(0);
    expect(bytes).toBeGreaterThan(0);
    expect(lsn).toBe(stopped.lsn);
    expect(inA.others).toMatchObject([{ role: 'replica', reachable: true, lastSegment: stopped.lastFile }]);
    expect(inB).toMatchObject({ lastSegment: stopped.lastFile, vault: { role: 'replica' } });
    expect(inB.others).toMatchObject([{ role: 'active', reachable: true }]);
    expect((inB.others[0] as { lastSegment: string }).lastSegment > stopped.lastFile!).toBe(true);

    startRelay();
    await has('dr1', upTo);
    expect(await tableSum(dr1, upTo)).toEqual(await tableSum(db1, upTo));
  });

  test('the vault down: the primary works on and keeps its WAL, both standbys answer; B says so, and everything arrives', async () => {
    await db1.query(`SELECT pg_stat_reset_shared('archiver')`);
    const stopped = await headOf('A');
    site.cut('A');
    await waitFor('WAL that waits in pg_wal', 120_000, async () => {
      await db1.query('SELECT pg_switch_wal()');
      const failed = await db1.number('SELECT failed_count FROM pg_stat_archiver');
      return failed > 0 && db1.archiveStatus('ready').length >= 3;
    });
    await goesOn();
    const upTo = written();
    for (const [node, vault] of [
      ['db1', 'A'],
      ['db2', 'A'],
    ] as const) {
      const asked = await site.walvaultAt(node, 'status', '--vault', site.url(vault, node));
      expect([67, 75]).toContain(asked.status);
    }
    for (const server of [db2, dr1]) expect(await server.value('SELECT pg_is_in_recovery()')).toBe(true);
    const agentLog = path.join(site.state('db2'), 'agent.log');
    await waitFor('db2 says so', 30_000, () =>
      /(no manifest|did not answer|ECONNREFUSED|unreachable)/.test(lastLines(agentLog)),
    );
    const inB = await waitFor('B says so', 30_000, async () => {
      const seen = await statusOf('B');
      return typeof seen.relays[0]?.trouble === 'string' && seen;
    });
    expect(inB).toMatchObject({ primary: 'db1', epoch: 1, vault: { role: 'replica' } });
    expect(inB.relays).toMatchObject([{ direction: 'from' }]);
    expect(inB.others).toMatchObject([{ reachable: false }]);
    expect((await headOf('A')).lastFile! >= stopped.lastFile!).toBe(true);
    expect(await missingRows(dr1, upTo)).toBeGreaterThan(0);

    site.mend('A');
    await archived('db1');
    for (const node of ['db2', 'dr1']) {
      await has(node, upTo);
      expect(await tableSum(site.server(node), upTo)).toEqual(await tableSum(db1, upTo));
    }
    await waitFor('the end of the trouble', 30_000, async () => {
      const [here, there] = [await statusOf('A'), await statusOf('B')];
      return [here, there].every(({ relays }) => relays[0]?.trouble === null);
    });
    await waitFor('the end of the queue', 60_000, () => db1.archiveStatus('ready').length < 3);
  });

  /** Rows that went with a server: those that no whole segment had taken away. @param fork  where its branch ended */
  function lostRows(fork: string, last: number): { kept: number; lost: number } {
    const kept = writer.rowsBefore(parseLsn(fork));
    // the commit of a row lies before the position that was asked for afterwards
    expect(last === kept || last === kept + 1).toBe(true);
    return { kept, lost: written() - last };
  }

  test('the primary down: the standby takes over with every archived row, relay and DR node go on with the new timeline', async () => {
    await goesOn();
    await archived('db1');
    await goesOn();
    await db1.kill9();
    await writer.stop();
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 30_000);
    const { promotion, timeline } = await headOf('A');
    expect(promotion).toMatchObject({ node: 'db2', state: 'open' });
    const last = await db2.number('SELECT max(id) FROM steady');
    const { kept, lost } = lostRows(promotion!.lsn!, last);
    expect(await missingRows(db2, kept)).toBe(0);
    expect(lost).toBeGreaterThan(0);

    writer = await SteadyWriter.start(db2);
    await waitFor('some rows of db2', 30_000, () => writer.acknowledged.length > 50);
    const upTo = await archived('db2');
    await has('dr1', upTo);
    expect(await tableSum(dr1, upTo)).toEqual(await tableSum(db2, upTo));
    const [inA, inB] = [await statusOf('A'), await statusOf('B')];
    for (const seen of [inA, inB]) expect(seen).toMatchObject({ primary: 'db2', epoch: 2, timeline: 2 });
    expect([inA.vault.role, inB.vault.role]).toEqual(['active', 'replica']);
    expect(nodeOf(inA, 'db1')).toMatchObject({ role: 'fenced' });
    expect(timeline).toBe(2);

    // and back as a standby; what was lost lies in the vault as salvage
    await site.ok('rejoin', '--pgdata', db1.pgdata, '--node', 'db1', '--yes');
    await db1.start();
    await has('db1', upTo);
    const { aside } = JSON.parse(await site.ok('salvage', '--list', '--json')) as {
      aside: { node: string }[];
    };
    expect(aside).toContainEqual(expect.objectContaining({ node: 'db1', epoch: 1 }));
  });

  test('primary and standby down: the DR node takes over with every archived row, relayed or not; the vault that answers is fenced', async () => {
    await relay.kill();
    await goesOn();
    const upTo = await archived('db2');
    expect(await missingRows(dr1, upTo)).toBeGreaterThan(0);
    await db2.kill9();
    await db1.kill9();
    await writer.stop();
    await site.trigger('smart', 'dr1', '--vault', site.url('B', 'dr1'));
    await site.promoted('dr1', 30_000);
    const { promotion } = await headOf('B');
    expect(promotion).toMatchObject({ node: 'dr1', state: 'open' });
    const last = await dr1.number('SELECT max(id) FROM steady');
    const { kept } = lostRows(promotion!.lsn!, last);
    expect(kept).toBeGreaterThanOrEqual(upTo);
    expect(await missingRows(dr1, kept)).toBe(0);

    const [inA, inB] = [await statusOf('A'), await statusOf('B')];
    const ids = [inA.vault.id, inB.vault.id];
    expect(inA).toMatchObject({ primary: 'dr1', epoch: 3, vault: { role: 'replica' } });
    expect(inA).toMatchObject({ source: { id: ids[1] }, supersededBy: { id: ids[1], epoch: 3 } });
    expect(inB).toMatchObject({ primary: 'dr1', epoch: 3, timeline: 3, vault: { role: 'active' } });
    expect(inB).toMatchObject({ source: null, supersedes: null, supersededBy: null });
    expect(inB.others).toMatchObject([{ id: ids[0], role: 'replica', reachable: true }]);

    // the same relay as ever: rows go the other way now
    writer = await SteadyWriter.start(dr1);
    startRelay();
    await waitFor('some rows of dr1', 30_000, () => writer.acknowledged.length > 50);
    await archived('dr1');
    await site.relayed({ from: 'B', to: 'A' });
    // said when all is there
    await waitFor('the word of the relay', 30_000, async () => {
      expect(await statusOf('A')).toMatchObject({
        timeline: 3,
        relays: [{ direction: 'from', trouble: null }],
      });
      return true;
    });
    await writer.stop();
    expect(await relay.stop()).toBe(0);
  });
});

function lastLines(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-5).join('\n') : '';
}
