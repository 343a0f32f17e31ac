/**
 * The target's two steps of a promotion, seal and open, and `claim`. Each looks up what stands before it decides, so each may be done
 * again after a kill or a lost answer.
 */
import { VaultError } from '../errors.ts';
import {
  decideClaim,
  decideOpen,
  decideSeal,
  missingBefore,
  type OpenRequest,
} from '../cluster/decide-roles.ts';
import { keys, type Control, type HistoryRow, type Promotion } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { parseHistory } from '../wal/history.ts';
import { formatLsn, type Lsn } from '../wal/lsn.ts';
import { historyName } from '../wal/name.ts';
import { asRow, changing, eventChange, newId, objectKeys, readControl, type Cluster } from './cluster.ts';
import { readBranch, type Branch, type HistoryCache } from './branch.ts';
import { inTurn, newNonce, type WriterSeat, type WriterState } from './writer.ts';
import { crashPoint } from './crash-points.ts';
import { fenceDirect, type DirectWay } from './direct.ts';
import { putControlObject } from './init.ts';
import { walRow } from './commit.ts';
import { sha256Of, storeFile, type StoredFile } from './store-file.ts';

/**
 * Seals the promotion of `node`: committed before PostgreSQL is asked to promote. A seal that stands is answered as it is.
 *
 * @param at  the timeline replayed, and the end of the last segment consumed (exclusive)
 * @throws VaultError fenced (no promotion of this node is asked for) | refused (not there yet, or diverged) | unreachable
 */
export async function sealPromotion(
  cluster: Cluster,
  at: { node: string; timeline: number; lsn: Lsn },
  cache?: HistoryCache,
): Promise<Promotion> {
  const { manifest } = cluster.vault;
  return changing<Promotion>(
    async () => {
      const control = await readControl(cluster);
      const { head, lineage } = await readBranch(cluster, cache);
      const decision = decideSeal(control, head, lineage, at);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      if (decision.do === 'sealed') return { result: decision.promotion };
      const text = `${at.node} sealed at ${formatLsn(at.lsn)} on timeline ${at.timeline}, timeline ${decision.promotion.reserved} reserved`;
      return {
        result: decision.promotion,
        changes: [
          { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
          eventChange(cluster, {
            at: new Date().toISOString(),
            kind: 'seal',
            node: at.node,
            epoch: control.epoch,
            text,
          }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

/** Rows of streamed segments that one open can take along: a transaction holds 100. */
export const FILL_LIMIT = 90;

/**
 * Opens the new timeline in the vault, proven by the node's own history file, and takes up the epoch here.
 *
 * The nonce of the new epoch is fsynced before the request and taken up after it, so that a node that was killed between the two
 * still knows its own nonce, and a copy of it does not pass for it.
 *
 * @param historyText  content of pg_wal/<timeline>.history as PostgreSQL wrote it
 * @throws VaultError fenced (another epoch, another number, not sealed, another history) | copied | unreachable
 */
export async function openPromotion(
  cluster: Cluster,
  seat: WriterSeat,
  opened: {
    timeline: number;
    historyText: string;
    /** Reads a segment of the parent from this node's pg_wal: what was streamed and never archived goes to the vault with the open. */
    readSegment?: (name: string) => Promise<Buffer | undefined>;
    /** Of the lease that begins with it; undefined: none does. */
    leaseMs?: number | undefined;
  },
  cache?: HistoryCache,
): Promise<'opened' | 'already'> {
  const { manifest } = cluster.vault;
  const { timeline, historyText, leaseMs } = opened;
  const ancestors = parseHistory(historyText);
  const bytes = Buffer.from(historyText);
  const key = objectKeys.history(cluster, historyName(timeline).slice(0, 8), sha256Of(bytes));
  let epoch = 0;
  const fills = new Map<string, StoredFile>();
  return inTurn(seat, async () => {
    const result = await changing<'opened' | 'already'>(
      async () => {
        const control = await readControl(cluster);
        const { head, lineage } = await readBranch(cluster, cache);
        epoch = control.epoch;
        const before: WriterState = seat.store.read() ?? { epoch: 0, nonce: '', next: null };
        const nonce = before.open?.epoch === epoch ? before.open.nonce : newNonce();
        const fork = ancestors.at(-1)?.forkLsn ?? 0n;
        for (const name of missingBefore(head, lineage, fork, cluster.segmentSize).slice(0, FILL_LIMIT)) {
          if (fills.has(name)) continue;
          const segment = await opened.readSegment?.(name);
          if (segment === undefined) break;
          const stored = await storeFile(cluster, { node: seat.node, epoch }, { name, bytes: segment });
          if (stored !== 'same') fills.set(name, stored);
        }
        const request: OpenRequest = {
          ...{ node: seat.node, place: seat.place, nonce, timeline, ancestors, leaseMs },
          fills: [...fills.keys()],
        };
        const decision = decideOpen(control, head, lineage, request, cluster.segmentSize);
        if (decision.do === 'refuse')
          throw new VaultError(decision.code, decision.message, { hint: decision.hint });
        if (decision.do === 'already') {
          if (before.epoch !== epoch && head.writer?.nonce !== before.open?.nonce) {
            throw new VaultError(
              'copied',
              `epoch ${epoch} of ${seat.node} was opened at ${head.writer?.place ?? 'another place'}, not here (${seat.place})`,
              {
                hint: `stop the copy; if this server is the true primary, run 'walvault claim --yes' here`,
              },
            );
          }
          return { result: 'already' };
        }
        await cluster.vault.bucket.putOnce(key, bytes);
        if (before.open?.epoch !== epoch) seat.store.write({ ...before, open: { epoch, nonce } });
        const at = new Date().toISOString();
        const history: HistoryRow = {
          ...keys.history(cluster.partition, timeline),
          rev: 1,
          text: historyText,
          timeline,
          parent: decision.parent,
          forkLsn: formatLsn(decision.fork),
          node: seat.node,
          epoch,
          forkSegmentWhole: decision.forkSegmentWhole,
          key,
          archivedAt: at,
        };
        const text = `${seat.node} opened timeline ${timeline}, forked from ${decision.parent} at ${formatLsn(decision.fork)}`;
        return {
          result: 'opened',
          changes: [
            { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
            { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
            { do: 'put', row: asRow(history), when: 'absent' },
            ...[...fills.values()].map((file): Change => ({
              do: 'put',
              row: asRow(walRow(cluster, seat.node, epoch, file)),
              when: 'absent',
            })),
            eventChange(cluster, { at, kind: 'open', node: seat.node, epoch, text }),
          ],
        };
      },
      (changes) => manifest.transact(changes),
    );
    takeUp(seat, epoch);
    return result;
  });
}

/** The epoch is this node's: its open (or claim) is known to stand. */
function takeUp(seat: WriterSeat, epoch: number): void {
  const state = seat.store.read();
  if (state?.open?.epoch === epoch) seat.store.write({ epoch, nonce: state.open.nonce, next: null });
}

export type Claim = {
  /** The timeline that the server is on, with its history file where it has one. */
  timeline: number;
  historyText: string | undefined;
  /** As in openPromotion. */
  readSegment?: (name: string) => Promise<Buffer | undefined>;
  /** Give up the pending promotion of just this epoch. */
  supersede?: number;
  /** As for a trigger: the way to the armed replica, which is fenced first. */
  direct?: DirectWay;
  /** Who claims, where no person does; for the event. */
  by?: string;
  /** Asked of the very rows that the transaction is conditional on. @throws VaultError  no claim */
  judge?: (control: Control, branch: Branch) => Promise<void>;
};

/**
 * Makes a server that is open already the primary of the vault: promoted by hand, or the true one of two copies.
 *
 * @returns the epoch it now holds
 * @throws VaultError refused | fenced (its history is not that of the vault) | unreachable
 */
export async function claimRole(cluster: Cluster, seat: WriterSeat, claim: Claim): Promise<number> {
  const { manifest } = cluster.vault;
  const id = newId();
  const at = new Date().toISOString();
  const nonce = newNonce();
  const ancestors = claim.historyText === undefined ? [] : parseHistory(claim.historyText);
  let fenced: number | undefined;
  const claimed = await inTurn(seat, () =>
    changing<{ epoch: number; then: 'open' | 'nothing' }>(
      async function attempt() {
        const control = await readControl(cluster);
        const branch = await readBranch(cluster);
        const { head, lineage } = branch;
        if (head.promotion?.id === id)
          return {
            result: { epoch: control.epoch, then: head.promotion.state === 'open' ? 'nothing' : 'open' },
          };
        await claim.judge?.(control, branch);
        const request = {
          node: seat.node,
          place: seat.place,
          nonce,
          timeline: claim.timeline,
          ancestors,
          id,
          at,
          supersede: claim.supersede,
        };
        const decision = decideClaim(control, head, lineage, request);
        if (decision.do === 'refuse')
          throw new VaultError(decision.code, decision.message, { hint: decision.hint });
        const epoch = decision.control.epoch;
        if (control.direct !== null && fenced !== epoch) {
          await fenceDirect(cluster, control, seat.node, claim.direct);
          fenced = epoch;
          return attempt(); // what was spilled has moved head
        }
        await putControlObject(cluster, decision.control);
        const before: WriterState = seat.store.read() ?? { epoch: 0, nonce: '', next: null };
        seat.store.write({ ...before, open: { epoch, nonce } });
        const text = `${seat.node} claimed epoch ${epoch} on timeline ${claim.timeline} (was ${control.primary ?? 'none'}, epoch ${control.epoch})${claim.by === undefined ? '' : `, by ${claim.by}`}`;
        return {
          result: { epoch, then: decision.then },
          changes: [
            { do: 'put', row: asRow(decision.control), when: { rev: control.rev } },
            { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
            eventChange(cluster, { at, kind: 'claim', node: seat.node, epoch, text }),
          ],
        };
      },
      (changes) => manifest.transact(changes),
    ),
  );
  if (claimed.then === 'nothing') takeUp(seat, claimed.epoch);
  else crashPoint('claim-committed');
  if (claimed.then === 'open')
    await openPromotion(cluster, seat, { ...claim, historyText: claim.historyText ?? '' });
  return claimed.epoch;
}
