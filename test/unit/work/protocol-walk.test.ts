/**
 * Random walks over the protocol: three nodes, a copy and a rolled-back machine archive, trigger, seal, open, die and come back, archiving is
 * switched off and on (in the vault, or on a node alone), while answers are lost and requests land late. After each step every promise of the vault must hold. The shape is that of the models in
 * docs/design.md: shrunk, a failure is a trace of steps.
 */
import fc from 'fast-check';
import { keys, type Control, type HistoryRow } from '../../../core/cluster/facts.ts';
import { gapOf, segmentsOf } from '../../../core/cluster/gaps.ts';
import { VaultError } from '../../../core/errors.ts';
import { openVault } from '../../../core/vault/open-vault.ts';
import type { Change } from '../../../core/vault/manifest.ts';
import type { Vault } from '../../../core/vault/vault.ts';
import { parseLsn } from '../../../core/wal/lsn.ts';
import { segmentsFrom } from '../../../core/wal/lineage.ts';
import { segmentStart } from '../../../core/wal/name.ts';
import { setArchiving } from '../../../core/work/archiving.ts';
import { readBranch } from '../../../core/work/branch.ts';
import { openCluster, readHead, type Cluster } from '../../../core/work/cluster.ts';
import { commitFiles } from '../../../core/work/commit.ts';
import type { WriterSeat } from '../../../core/work/writer.ts';
import { readGaps } from '../../../core/work/gap-rows.ts';
import { heartbeat, reportNode } from '../../../core/work/heartbeat.ts';
import { openPromotion, sealPromotion } from '../../../core/work/promotion.ts';
import { triggerPromotion } from '../../../core/work/trigger.ts';
import { copyOf, newCluster, onWire, seatOf } from '../../harness/fake-node.ts';
import { SEGMENT_SIZE } from '../../harness/segments.ts';

const size = BigInt(SEGMENT_SIZE);

/** A server as the walk plays it: what it is, and the log it has (the content of each segment up to its position). */
type Server = {
  seat: WriterSeat;
  role: 'primary' | 'standby' | 'sealed' | 'down';
  timeline: number;
  /** Number of the next segment; `log[i]` is the content of segment i. */
  position: number;
  log: string[];
  /** Ancestors as its history file says, oldest first. */
  history: string;
  reserved?: number;
  made: number;
  /** `archiving off --local`, and what was ignored by it and is not declared yet. */
  offHere: boolean;
  ignored: string[];
};

/** What the next transaction of anybody meets. */
type Fate = 'ok' | 'lost answer' | 'never sent' | 'late';

class World {
  readonly told = new Map<string, string>();
  /** Names that were ever handed in while archiving was off somewhere: only of these a gap may be. */
  readonly mayBeLost = new Set<string>();
  /** Names of which a server was told that they need not be kept, though they are not archived. */
  readonly ignored = new Set<string>();
  readonly servers: Server[] = [];
  readonly late: (() => Promise<unknown>)[] = [];
  readonly takenBy = new Map<number, string>();
  /** Which of a node's copies was heard of first since the copy was made: no other may write after it. */
  readonly owner = new Map<string, string>();
  fate: Fate = 'ok';
  cluster!: Cluster;
  plain!: Cluster;

  async start(name: string): Promise<void> {
    const vault = await openVault(`memory:${name}`);
    const db1 = await newCluster(vault, 'main');
    this.plain = db1.cluster;
    this.cluster = await openCluster(this.wired(vault), 'main');
    this.servers.push({
      seat: db1.seat,
      role: 'primary',
      timeline: 1,
      position: 1,
      log: ['base'],
      history: '',
      made: 0,
      offHere: false,
      ignored: [],
    });
    for (const node of ['db2', 'db3']) {
      this.servers.push({
        seat: seatOf(node),
        role: 'standby',
        timeline: 1,
        position: 1,
        log: ['base'],
        history: '',
        made: 0,
        offHere: false,
        ignored: [],
      });
      await reportNode(this.plain, { name: node, role: 'standby', consistent: true });
    }
  }

  private wired(vault: Vault): Vault {
    return onWire(vault, {
      before: async (changes: readonly Change[]) => {
        const fate = this.fate;
        if (fate === 'late') this.late.push(() => vault.manifest.transact(changes));
        if (fate === 'late' || fate === 'never sent') {
          this.fate = 'ok';
          throw new VaultError('unreachable', fate);
        }
      },
      after: async () => {
        if (this.fate !== 'lost answer') return;
        this.fate = 'ok';
        throw new VaultError('unreachable', 'lost answer');
      },
    });
  }

  heard({ seat }: Server): void {
    const owner = this.owner.get(seat.node);
    if (owner !== undefined && owner !== seat.place)
      throw new Error(`${seat.place} wrote as ${seat.node} after ${owner} was heard of`);
    this.owner.set(seat.node, seat.place);
  }

  async archive(server: Server, stored: boolean): Promise<void> {
    if (server.role !== 'primary') return;
    if (server.history !== '' && server.seat.store.read()?.open) await this.open(server); // the history file comes first
    const name = nameOf(server.timeline, server.position);
    server.log[server.position] ??=
      `${server.log[server.position - 1]}>${server.seat.place}.${server.timeline}.${server.made++}`;
    const content = server.log[server.position]!;
    if (server.offHere) {
      if (!server.ignored.includes(name)) server.ignored.push(name);
      this.mayBeLost.add(name);
    } else await this.handIn(server, name, content, stored);
    server.position++;
  }

  /** One file to the vault, whether it was stored before or, since archiving seemed to be off, was not. */
  async handIn(server: Server, name: string, content: string, stored: boolean): Promise<void> {
    await this.declareIgnored(server);
    const { archiving } = (await this.plain.vault.manifest.get(keys.control('main'))) as unknown as Control;
    if (!archiving || !stored) this.mayBeLost.add(name);
    const file = stored
      ? {
          name,
          key: `k/${content.length}`,
          sha256: content,
          sizeBytes: SEGMENT_SIZE,
          storedBytes: 1,
          archivedAt: '2026-01-01T00:00:00Z',
        }
      : ({ name, sha256: content, unstored: true } as const);
    const [result] = await commitFiles(this.cluster, server.seat, [file]);
    // the first of all, declared lost before anything was archived: the vault begins after it
    if (result!.result === 'ignored' && this.ignored.has(name)) return;
    if (result!.result === 'ignored') throw new Error(`${name} was ignored`);
    if (result!.result === 'committed') this.heard(server);
    if (result!.result === 'gap') {
      this.ignored.add(name);
      return;
    }
    const before = this.told.get(name);
    if (before !== undefined && before !== content) throw new Error(`two contents of ${name} were told OK`);
    this.told.set(name, content);
  }

  /** What a node ignored by its own word comes before everything else. */
  async declareIgnored(server: Server): Promise<void> {
    while (server.ignored.length > 0) {
      const names = server.ignored.slice(0, 3);
      const files = names.map((name) => ({ name, sha256: undefined, unstored: true }) as const);
      const results = await commitFiles(this.cluster, server.seat, files, undefined, { offHere: 'local' });
      for (const { name, result } of results) if (result === 'gap') this.ignored.add(name);
      server.ignored = server.ignored.slice(results.length);
    }
  }

  /** PostgreSQL died before it wrote down the answer: it hands in again what it was told it need not keep. */
  async again(server: Server, who: number): Promise<void> {
    const { head } = await readBranch(this.plain);
    const mine = (await readGaps(this.plain, head)).filter(
      ({ from }) => parseInt(from.slice(0, 8), 16) === server.timeline,
    );
    const names = mine.flatMap((gap) => [...segmentsOf(gap, SEGMENT_SIZE)]);
    const name = names[who % Math.max(1, names.length)];
    const content = name && server.log[Number(segmentStart(name, SEGMENT_SIZE) / size)];
    if (name !== undefined && content !== undefined) await this.handIn(server, name, content, who % 4 !== 0);
  }

  /** A standby takes what the live branch has; past a fork it knows nothing of, it is lost and stays where it is. */
  async follow(server: Server): Promise<void> {
    if (server.role !== 'standby') return;
    const { head, lineage } = await readBranch(this.plain);
    if (head.lsn === null) return;
    const part = lineage.find(({ timeline }) => timeline === server.timeline);
    if (part === undefined || (part.ends !== null && BigInt(server.position) * size > part.ends)) return;
    for (const name of segmentsFrom(lineage, BigInt(server.position) * size, SEGMENT_SIZE)) {
      if (segmentStart(name, SEGMENT_SIZE) >= parseLsn(head.lsn)) break;
      const row = await this.plain.vault.manifest.get(keys.wal(this.plain.partition, name));
      if (row === undefined && gapOf(await readGaps(this.plain, head), name) !== undefined)
        return this.report(server, parseInt(name.slice(0, 8), 16));
      if (row === undefined) throw new Error(`no row of ${name}, below head`);
      server.log[server.position++] = String(row.sha256);
    }
    await this.report(server, head.timeline);
    server.timeline = head.timeline;
    const own = (await this.plain.vault.manifest.get(keys.history(this.plain.partition, head.timeline))) as
      HistoryRow | undefined;
    server.history = own?.text ?? '';
  }

  /** What it has restored: whether a gap lies ahead of it goes by that. The timeline it is on stays as it was where it stopped. */
  async report({ seat, position }: Server, timeline: number): Promise<void> {
    const lastRestored = nameOf(timeline, position - 1);
    const row = await this.plain.vault.manifest.get(keys.node(this.plain.partition, seat.node));
    if (position > 1 && row?.['role'] === 'standby' && row['lastRestored'] !== lastRestored)
      await reportNode(this.plain, { name: seat.node, lastRestored });
  }

  /** Of the primary's own files: what no gap keeps from the live end. */
  async backup(server: Server): Promise<boolean> {
    const { head } = await readBranch(this.plain);
    if ((head.gap ?? null) === null || head.lsn === null) return false;
    const position = Number(parseLsn(head.lsn) / size);
    const from = this.servers.find(
      (one) =>
        one.role === 'primary' &&
        one.seat.place === head.writer?.place &&
        one.timeline === head.timeline &&
        one.position >= position &&
        one !== server,
    );
    if (from === undefined) return false;
    const { timeline, history } = from;
    Object.assign(server, { timeline, position, history, log: from.log.slice(0, position) });
    await this.report(server, timeline);
    return true;
  }

  async seal(server: Server): Promise<void> {
    if (server.role !== 'standby') return;
    const sealed = await sealPromotion(this.cluster, {
      node: server.seat.node,
      timeline: server.timeline,
      lsn: BigInt(server.position) * size,
    });
    if (sealed.timeline !== server.timeline || parseLsn(sealed.lsn!) !== BigInt(server.position) * size)
      return;
    server.role = 'sealed';
    server.reserved = sealed.reserved!;
  }

  /** PostgreSQL promotes: on its own clock, whether or not the vault hears of it. */
  promote(server: Server): void {
    if (server.role !== 'sealed') return;
    const taken = this.takenBy.get(server.reserved!);
    if (taken !== undefined && taken !== server.seat.place)
      throw new Error(`timeline ${server.reserved} was taken twice`);
    this.takenBy.set(server.reserved!, server.seat.place);
    server.history += `${server.timeline}\t0/${(BigInt(server.position) * size).toString(16)}\tx\n`;
    server.timeline = server.reserved!;
    server.role = 'primary';
    server.log = server.log.slice(0, server.position);
  }

  async open(server: Server): Promise<void> {
    if (server.role !== 'primary' || server.history === '') return;
    const before = await readHead(this.plain);
    const opened = await openPromotion(this.cluster, server.seat, {
      timeline: server.timeline,
      historyText: server.history,
    });
    if (opened === 'already') {
      // just now, and only the answer was lost: the vault has heard of it all the same
      if (before.promotion?.state === 'open') return;
    }
    this.owner.set(server.seat.node, server.seat.place);
    const { lsn } = await readHead(this.plain);
    const end = before.promotion?.upTo?.lsn ?? before.lsn;
    if (before.promotion?.mode === 'smart' && end !== null && lsn !== end)
      throw new Error(`a smart promotion opened at ${lsn}, archived was ${end}`);
  }

  /** The promises, looked at without any fault. */
  async check(): Promise<void> {
    const { head, lineage } = await readBranch(this.plain);
    for (const [name, content] of this.told) {
      const row = await this.plain.vault.manifest.get(keys.wal(this.plain.partition, name));
      if (row?.sha256 !== content)
        throw new Error(`${name} was told OK, the vault holds ${JSON.stringify(row?.sha256)}`);
    }
    if (head.lsn === null || head.firstLsn === null) return;
    const gaps = await readGaps(this.plain, head);
    for (const gap of gaps)
      for (const name of segmentsOf(gap, SEGMENT_SIZE)) {
        if (!this.mayBeLost.has(name))
          throw new Error(`${name} is declared lost, and was never handed in while archiving was off`);
        if (this.told.has(name)) throw new Error(`${name} was told OK, and is declared lost`);
      }
    let before: string | undefined;
    for (const name of segmentsFrom(lineage, parseLsn(head.firstLsn), SEGMENT_SIZE)) {
      if (segmentStart(name, SEGMENT_SIZE) >= parseLsn(head.lsn)) break;
      const row = await this.plain.vault.manifest.get(keys.wal(this.plain.partition, name));
      const isLost = gapOf(gaps, name) !== undefined;
      if (isLost && row !== undefined) throw new Error(`${name} is declared lost, and is there`);
      if (row === undefined && !isLost) throw new Error(`a hole in the live branch: ${name}`);
      const content = row === undefined ? undefined : String(row.sha256);
      if (
        before !== undefined &&
        content !== undefined &&
        content.slice(0, content.lastIndexOf('>')) !== before
      )
        throw new Error(`${name} does not follow its predecessor`);
      before = content;
    }
    for (const name of this.ignored) {
      const row = await this.plain.vault.manifest.get(keys.wal(this.plain.partition, name));
      if (row === undefined && gapOf(gaps, name) === undefined)
        throw new Error(`${name} was ignored, and is in no gap`);
    }
  }
}

function nameOf(timeline: number, number: number): string {
  return segmentsFrom([{ timeline, begins: 0n, ends: null }], BigInt(number) * size, SEGMENT_SIZE).next()
    .value;
}

const KINDS = [
  'archive',
  'archive',
  'archive',
  'follow',
  'follow',
  'trigger smart',
  'trigger fast',
  'seal',
  'promote',
  'open',
  'beat',
  'copy',
  'roll back',
  'make standby',
  'archiving off',
  'archiving on',
  'archiving on',
  'off here',
  'on here',
  'again',
  'again',
  'again',
  'again',
  'land late',
  'go on',
  'go on',
  'go on',
  'go on',
] as const;
const FATES: Fate[] = ['ok', 'ok', 'ok', 'lost answer', 'never sent', 'late'];

type Step = { kind: (typeof KINDS)[number]; who: number; fate: Fate };

async function take(world: World, step: Step, snapshot: Server): Promise<void> {
  // a step goes to a server that can take it, or most steps would be none
  const role = {
    archive: 'primary',
    beat: 'primary',
    again: 'primary',
    'off here': 'primary',
    copy: 'primary',
    open: 'primary',
    follow: 'standby',
    seal: 'standby',
    promote: 'sealed',
  }[step.kind as string];
  const able = world.servers.filter((one) => role === undefined || one.role === role);
  const server = able[step.who % able.length];
  if (server === undefined) return;
  world.fate = step.fate;
  switch (step.kind) {
    case 'archive':
      return world.archive(server, step.who % 3 !== 0);
    case 'follow':
      return world.follow(server);
    case 'trigger smart':
    case 'trigger fast': {
      const { promotion } = await readHead(world.plain);
      const mode = step.kind === 'trigger smart' ? 'smart' : 'fast';
      const acceptGap = step.who % 4 === 0;
      await triggerPromotion(world.cluster, {
        ...{ mode, to: server.seat.node, supersede: promotion?.epoch, acceptGap },
      });
      return;
    }
    case 'archiving off':
    case 'archiving on':
      await setArchiving(world.cluster, step.kind === 'archiving on');
      return;
    case 'off here':
    case 'on here':
      server.offHere = step.kind === 'off here';
      return;
    case 'again':
      return world.again(server, step.who);
    case 'seal':
      return world.seal(server);
    case 'promote':
      return world.promote(server);
    case 'open':
      return world.open(server);
    case 'beat':
      await heartbeat(world.cluster, { name: server.seat.node }, server.seat);
      world.heard(server);
      return;
    case 'copy':
      if (world.servers.length < 5) {
        world.owner.delete(server.seat.node);
        world.servers.push({
          ...structuredClone({ ...server, seat: undefined }),
          seat: copyOf(server.seat, `copy of ${server.seat.place}`),
        } as Server);
      }
      return;
    case 'roll back':
      if (world.servers.length < 5) world.owner.delete(snapshot.seat.node);
      if (world.servers.length < 5)
        world.servers.push({
          ...snapshot,
          log: [...snapshot.log],
          ignored: [],
          seat: copyOf(snapshot.seat, 'rolled back'),
        });
      return;
    case 'make standby': // of a node that is not the primary of the vault: a new base backup
      if (
        server.role === 'primary' &&
        !server.seat.place.includes('copy') &&
        server.seat.place !== 'rolled back'
      ) {
        const { control } = { control: await world.plain.vault.manifest.get(keys.control('main')) };
        if (control?.primary === server.seat.node) return;
        Object.assign(server, {
          role: 'standby',
          timeline: 1,
          position: 1,
          log: ['base'],
          history: '',
          reserved: undefined,
          offHere: false,
          ignored: [],
        });
        await reportNode(world.plain, {
          name: server.seat.node,
          role: 'standby',
          consistent: true,
          trouble: null,
          lastRestored: null,
        });
        if (!(await world.backup(server))) await world.follow(server);
      }
      return;
    case 'go on': {
      // whoever the vault has named does its next step
      const { promotion } = await readHead(world.plain);
      const named = world.servers.find(
        ({ seat }) => seat.node === promotion?.node && seat.place === `host-${promotion.node}:/pg`,
      );
      if (named === undefined || promotion?.state === 'open') return;
      if (named.role === 'standby') await world.follow(named);
      if (named.role === 'standby') await world.seal(named);
      else if (named.role === 'sealed') world.promote(named);
      else await world.open(named);
      return;
    }
    case 'land late':
      await world.late.shift()?.();
  }
}

test('no walk loses, mixes or tears what was told archived', async () => {
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom(...KINDS),
    who: fc.nat(11),
    fate: fc.constantFrom(...FATES),
  });
  let walks = 0;
  const reached = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 80, size: 'max' }), async (steps) => {
      const world = new World();
      await world.start(`walk-${process.pid}-${++walks}`);
      const first = world.servers[0]!;
      const snapshot = {
        ...first,
        log: [...first.log],
        ignored: [],
        seat: copyOf(first.seat, 'rolled back'),
      };
      for (const one of steps) {
        try {
          await take(world, one, snapshot);
          reached.set(one.kind, (reached.get(one.kind) ?? 0) + 1);
        } catch (error) {
          if (!(error instanceof VaultError)) throw error; // a refusal is an answer; anything else is a broken promise
        }
        world.fate = 'ok';
        await world.check();
      }
      const { timeline, gap } = await readHead(world.plain);
      if (gap?.count !== undefined) reached.set('gap', (reached.get('gap') ?? 0) + 1);
      if ([...world.ignored].some((name) => world.told.has(name)))
        reached.set('filled', (reached.get('filled') ?? 0) + 1);
      if (timeline > 1) reached.set('opened', (reached.get('opened') ?? 0) + 1);
    }),
    { numRuns: 400 },
  );
  // a walk that never gets anywhere would prove nothing
  for (const kind of new Set<string>([...KINDS, 'opened', 'gap', 'filled']))
    expect([kind, (reached.get(kind) ?? 0) > (kind === 'filled' ? 1 : 5)]).toEqual([kind, true]);
}, 120_000);
