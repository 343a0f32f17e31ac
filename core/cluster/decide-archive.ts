/**
 * What becomes of one file that a server hands to archive_command: stored already, to be committed, not needed, or refused.
 *
 * The rules are invariants 1 to 4 of docs/design.md: one content a name; only the primary of this epoch writes, and only the one
 * copy of it; no hole by construction. The commit itself is conditional on the very revisions this decision saw.
 *
 * Pure. Source of the order in which PostgreSQL hands files in: PostgreSQL docs, "Continuous Archiving".
 */
import type { FailureCode } from '../errors.ts';
import { formatLsn, parseLsn } from '../wal/lsn.ts';
import { parseWalName, segmentAt, segmentEnd, segmentStart } from '../wal/name.ts';
import { segmentsFrom, type Lineage } from '../wal/lineage.ts';
import type { Control, GapRow, Head } from './facts.ts';
import { gapOf } from './gaps.ts';

export type Writer = {
  node: string;
  /** The epoch that this node has taken up (0: none). */
  epoch: number;
  /** The nonces it may find in the vault: the last one known, and the one it was about to write when it was stopped. */
  nonces: readonly string[];
  /** Where it runs, for the message that names both copies. */
  place: string;
};

export type ArchiveState = {
  control: Control;
  head: Head;
  /** Of the live timeline (head.timeline). */
  lineage: Lineage;
  /** sha256 of what the vault holds under this name, if anything. */
  held: string | undefined;
  /** The declared gaps; looked at where archiving is off. */
  gaps?: readonly GapRow[];
  /** This node was told `archiving off --local`: what it ignored meanwhile is declared whatever `control.archiving` says by now. */
  offHere?: boolean;
};

/** The segment in which head.tail ends; undefined: there is no tail. */
export function tailSegment(head: Head, segmentSize: number): string | undefined {
  if (head.tail === null) return undefined;
  return segmentAt(head.tail.timeline, parseLsn(head.tail.lsn) - 1n, segmentSize);
}

export type Refusal = { do: 'refuse'; code: FailureCode; message: string; hint?: string };

export type ArchiveDecision =
  | { do: 'same' }
  /** Put the row; `moves` says where head goes (absent: a file beside the chain, head stays). */
  | { do: 'commit'; moves?: { lsn: string; firstLsn: string; lastFile: string; tail?: null } }
  | { do: 'ignore'; why: string }
  /** Archiving is off. `moves`: a segment, declared lost; absent: it is declared already, or nobody will miss it (.partial, .backup). */
  | { do: 'gap'; moves?: { lsn: string; firstLsn: string; tail?: null } }
  /** Archiving is off, and this segment below head has no row: it is declared lost where it is. */
  | { do: 'gap'; moves: null }
  | Refusal;

/** What a place on the branch allows, whether archiving is on or off. */
export type PlaceDecision = Exclude<ArchiveDecision, { do: 'gap' }>;

const refuse = (code: FailureCode, message: string, hint?: string): Refusal => ({
  do: 'refuse',
  code,
  message,
  hint,
});

/** May this node write in this epoch? undefined: yes. The fence, and the chain of nonces that tells a copy. */
export function decideWriter(control: Control, head: Head, writer: Writer): Refusal | undefined {
  if (control.epoch < writer.epoch) {
    return refuse(
      'refused',
      `the vault is older than this node: it says epoch ${control.epoch}, ${writer.node} has seen ${writer.epoch}`,
      `the manifest was set back; restore it, or run 'walvault claim' on the server that shall be the primary`,
    );
  }
  if (control.role !== 'active') {
    return refuse(
      'fenced',
      `this vault is a ${control.role}, it takes no archives${control.source === null ? '' : `: ${control.source.url} is its source`}`,
      `set 'vault' of this node to the active vault with 'walvault configure primary --vault URL'; if its place was taken, run 'walvault rejoin' here`,
    );
  }
  if (control.primary !== writer.node) {
    const holder = control.primary === null ? 'nobody' : control.primary;
    return refuse(
      'fenced',
      `${writer.node} is not the primary of this vault: ${holder} holds epoch ${control.epoch}`,
      control.primary === null
        ? `run 'walvault claim' on the server that shall be the primary`
        : `stop this server and make it a standby of ${holder}; if it was promoted by hand and shall be the primary, run 'walvault claim' here`,
    );
  }
  // Raised without a change of primary (two vaults met): the same reign goes on, and the nonce below proves who it is.
  if (writer.epoch < control.reign) {
    const pending =
      head.promotion !== null && head.promotion.node === writer.node && head.promotion.state !== 'open';
    return pending
      ? refuse(
          'fenced',
          `the promotion of ${writer.node} in epoch ${control.epoch} is not open yet`,
          'it opens with the history file of its new timeline; see walvault status',
        )
      : refuse(
          'fenced',
          `${writer.node} has taken up epoch ${writer.epoch}, the vault is at epoch ${control.epoch}`,
          `this server was set back or copied; if it is the one true primary, run 'walvault claim' here`,
        );
  }
  if (
    head.writer !== null &&
    (head.writer.node !== writer.node || !writer.nonces.includes(head.writer.nonce))
  ) {
    return refuse(
      'copied',
      `two servers write as ${writer.node}: this one at ${writer.place}, and another at ${head.writer.place}, which wrote last`,
      `stop the copy; if this server is the true primary, run 'walvault claim --yes' here`,
    );
  }
  if (head.flush !== null) {
    return refuse(
      'refused',
      `${writer.node} was flushed at ${head.flush.lsn}`,
      `run 'walvault flush --undo' to go on as the primary`,
    );
  }
  return undefined;
}

/**
 * Decides on one file; `sha256` is that of its raw bytes, undefined where nobody has them any more. For a batch, fold `moves` into head
 * (and what is declared into `gaps`) and ask again.
 */
export function decideArchive(
  state: ArchiveState,
  writer: Writer,
  file: { name: string; sha256: string | undefined },
  segmentSize: number,
): ArchiveDecision {
  if (state.held !== undefined) {
    if (file.sha256 === undefined || state.held === file.sha256) return { do: 'same' };
    return refuse(
      'conflict',
      `the vault holds other bytes under ${file.name} (sha256 ${state.held.slice(0, 16)}…, here ${file.sha256.slice(0, 16)}…)`,
      `another server, or this one set back to an older state, has archived this name; compare the two before anything is removed`,
    );
  }
  const fence = decideWriter(state.control, state.head, writer);
  if (fence) return fence;
  // A history is a fact of the branch, and small: without it not even what was archived could be followed.
  const isIgnored = !state.control.archiving || state.offHere === true;
  if (isIgnored && gapOf(state.gaps ?? [], file.name) !== undefined) return { do: 'gap' };
  const place = decidePlace(state, file, segmentSize);
  return isIgnored && place.do === 'commit' && !file.name.endsWith('.history')
    ? declare(state.head, file.name, place, segmentSize)
    : place;
}

/** What would be committed is declared lost instead: head moves past it, so that what comes after it can be archived again. */
function declare(
  head: Head,
  name: string,
  place: PlaceDecision & { do: 'commit' },
  segmentSize: number,
): ArchiveDecision {
  if (parseWalName(name)?.kind !== 'segment') return { do: 'gap' };
  if (place.moves === undefined) return { do: 'gap', moves: null };
  const { lsn, firstLsn, tail } = place.moves;
  // Before anything was archived the vault begins after it.
  const first = head.lsn === null ? formatLsn(segmentEnd(name, segmentSize)) : firstLsn;
  return { do: 'gap', moves: { lsn, firstLsn: first, ...(tail === null ? { tail } : {}) } };
}

/** Where a file that the vault lacks belongs on the live branch, whoever brings it. */
export function decidePlace(
  state: Pick<ArchiveState, 'head' | 'lineage'>,
  file: { name: string },
  segmentSize: number,
): PlaceDecision {
  const name = parseWalName(file.name);
  if (name === undefined) return refuse('corrupt', `${file.name} is not the name of a WAL file`);
  if (name.kind === 'history') return decideHistory(state, name.timeline, file.name);

  const { head, lineage } = state;
  const own = lineage.at(-1);
  const branch = lineage.find((part) => part.timeline === name.timeline);
  if (own === undefined || branch === undefined) {
    return name.timeline > head.timeline
      ? refuse(
          'fenced',
          `timeline ${name.timeline} is not open in the vault, which is on timeline ${head.timeline}`,
          `if this server was promoted by hand, run 'walvault claim' here`,
        )
      : refuse(
          'conflict',
          `timeline ${name.timeline} is not on the live branch (timeline ${head.timeline})`,
          `move ${file.name} out of pg_wal, with its .ready file`,
        );
  }
  if (name.kind !== 'segment') return { do: 'commit' };

  const start = segmentStart(file.name, segmentSize);
  const end = segmentEnd(file.name, segmentSize);
  // Left by a promotion that broke off: bytes of the parent under the new timeline's number. Nobody will ever ask for them.
  if (end <= branch.begins)
    return {
      do: 'ignore',
      why: `${file.name} ends before timeline ${name.timeline} begins at ${formatLsn(branch.begins)}`,
    };
  // A node that followed the switch hands in what its old timeline had left: not on the live branch.
  if (branch.ends !== null && end > branch.ends) {
    return {
      do: 'ignore',
      why: `${file.name} reaches past ${formatLsn(branch.ends)}, where timeline ${name.timeline} was left`,
    };
  }
  if (head.lsn === null)
    return { do: 'commit', moves: { lsn: formatLsn(end), firstLsn: formatLsn(start), lastFile: file.name } };
  const first = parseLsn(head.firstLsn ?? head.lsn);
  if (end <= first)
    return { do: 'ignore', why: `${file.name} ends before the vault begins at ${formatLsn(first)}` };
  const expected = segmentsFrom(lineage, parseLsn(head.lsn), segmentSize).next().value;
  if (file.name === expected) {
    // The grown segment takes the tail's place; core/work/commit.ts has seen that it begins as the tail did.
    const grown = file.name === tailSegment(head, segmentSize) ? { tail: null } : {};
    return {
      do: 'commit',
      moves: { lsn: formatLsn(end), firstLsn: formatLsn(first), lastFile: file.name, ...grown },
    };
  }
  if (start > segmentStart(expected, segmentSize)) {
    return refuse(
      'hole',
      `${file.name} cannot be stored before ${expected}`,
      `archive ${expected} first: it is in pg_wal of the primary, or 'walvault salvage' brings it from there`,
    );
  }
  // Below head and without a row: it was taken away or never came; on the live branch it can only help.
  return { do: 'commit' };
}

function decideHistory(
  state: Pick<ArchiveState, 'head' | 'lineage'>,
  timeline: number,
  file: string,
): PlaceDecision {
  if (state.lineage.some((part) => part.timeline === timeline)) return { do: 'commit' };
  return refuse(
    'fenced',
    `timeline ${timeline} (${file}) was not opened through this vault, which is on timeline ${state.head.timeline}`,
    `if this server was promoted by hand and shall be the primary, run 'walvault claim' here`,
  );
}
