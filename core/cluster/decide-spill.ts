/**
 * Spills: what the primary puts into a replica while its own vault is out of its reach. Who may, where their chain goes, and whether
 * the active vault may take them home.
 *
 * A spill never moves the replica's head and is served to nobody: the vault whose trigger decides who is primary may have decided
 * already. So the fence is asked twice: here of the replica, as it knows the epoch, and of the active vault when they come home.
 *
 * Pure. docs/design.md, "Two vaults"; the rules were explored in a model of relay, spill and disaster.
 */
import type { FailureCode } from '../errors.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { parseWalName } from '../wal/name.ts';
import { segmentsFrom, type Lineage } from '../wal/lineage.ts';
import { decidePlace, type Refusal, type Writer } from './decide-archive.ts';
import type { Control, Head, Spill } from './facts.ts';

const refuse = (code: FailureCode, message: string, hint?: string): Refusal => ({
  do: 'refuse',
  code,
  message,
  hint,
});

/** What a spill is to this replica. */
export type SpillState = {
  control: Control;
  head: Head;
  /** Of head.timeline. */
  lineage: Lineage;
  /** sha256 of what the replica holds under this name, as a row of its own or as a spill. */
  held: string | undefined;
};

/** Where the chain stands after a file; `at` and `writer` are set by who commits. */
export type SpillMove = Pick<Spill, 'timeline' | 'firstLsn' | 'lsn' | 'lastFile' | 'files'>;

export type SpillDecision =
  | { do: 'same' }
  /** Put the row. `grown`: it takes the place of head.tail, so it must begin as that does. */
  | { do: 'spill'; chain: SpillMove; grown: boolean }
  | { do: 'ignore'; why: string }
  /** The chain that is there is of an epoch that is over: it is salvage, and goes out of the way first. */
  | { do: 'set-aside' }
  | Refusal;

/** A chain of a reign that is over can never come home. */
export function isStale(control: Control, spill: Spill): boolean {
  return spill.epoch < control.reign || spill.writer.node !== control.primary;
}

/** May this node spill into this replica? undefined: yes. */
export function decideSpiller(control: Control, head: Head, writer: Writer): Refusal | undefined {
  const { node } = writer;
  if (control.role !== 'replica') {
    return refuse(
      'fenced',
      `the vault for spills is ${control.role} in epoch ${control.epoch}, primary ${control.primary ?? 'nobody'}: it takes none`,
      control.role === 'active'
        ? `it has taken the place of this node's vault: stop this server, then run 'walvault rejoin' here`
        : undefined,
    );
  }
  if (control.direct?.id !== control.vaultId) {
    return refuse(
      'refused',
      `the vault for spills is not armed`,
      `run 'walvault configure primary --dr-vault URL' on the primary while its own vault answers; a relay takes it along`,
    );
  }
  if (!control.archiving) {
    return refuse(
      'refused',
      `archiving is off: nothing is spilled`,
      `what is written meanwhile is declared lost as soon as the active vault answers; until then WAL is kept in pg_wal`,
    );
  }
  if (control.primary !== node) {
    return refuse(
      'fenced',
      `${node} may not spill: ${control.primary ?? 'nobody'} holds epoch ${control.epoch}`,
      `stop this server and make it a standby of ${control.primary ?? 'the new primary'}`,
    );
  }
  if (writer.epoch < control.reign) {
    return refuse(
      'fenced',
      `${node} has taken up epoch ${writer.epoch}, the vault for spills is at epoch ${control.epoch}`,
      `this server was set back or copied, or its promotion is not open yet`,
    );
  }
  if (writer.epoch > control.epoch) {
    return refuse(
      'refused',
      `the vault for spills is at epoch ${control.epoch}, ${node} has taken up ${writer.epoch}: the relay has not come so far`,
      `until it does, WAL is kept in pg_wal`,
    );
  }
  const { spill } = head;
  if (
    spill !== null &&
    !isStale(control, spill) &&
    (spill.writer.node !== node || !writer.nonces.includes(spill.writer.nonce))
  ) {
    return refuse(
      'copied',
      `two servers spill as ${node}: this one at ${writer.place}, and another at ${spill.writer.place}, which wrote last`,
      `stop the copy; if this server is the true primary, run 'walvault claim --yes' here`,
    );
  }
  return undefined;
}

/** Where the next spill begins: at the end of the chain, or of the replica's own rows where those go further; null: it has none. */
export function chainEnd(head: Head): Lsn | null {
  if (head.lsn === null) return null;
  const own = parseLsn(head.lsn);
  const spilled =
    head.spill === null || head.spill.timeline !== head.timeline ? own : parseLsn(head.spill.lsn);
  return spilled > own ? spilled : own;
}

/** Name of the segment that the replica wants next as a spill; undefined: it holds nothing yet. */
export function nextSpill(head: Head, lineage: Lineage, segmentSize: number): string | undefined {
  const end = chainEnd(head);
  return end === null ? undefined : segmentsFrom(lineage, end, segmentSize).next().value;
}

/** Decides on one file; `sha256` is that of its raw bytes. For a batch, fold `chain` into head.spill and ask again. */
export function decideSpill(
  state: SpillState,
  writer: Writer,
  file: { name: string; sha256: string },
  segmentSize: number,
): SpillDecision {
  const { control, head, lineage, held } = state;
  const isOld = head.spill !== null && isStale(control, head.spill);
  if (held !== undefined && held === file.sha256 && !isOld) return { do: 'same' };
  const fence = decideSpiller(control, head, writer);
  if (fence) return fence;
  if (isOld) return { do: 'set-aside' };
  if (held !== undefined) {
    return refuse(
      'conflict',
      `the vault for spills holds other bytes under ${file.name} (sha256 ${held.slice(0, 16)}…, here ${file.sha256.slice(0, 16)}…)`,
      `another server, or this one set back to an older state, has archived this name; compare the two before anything is removed`,
    );
  }
  const name = parseWalName(file.name);
  if (name?.kind === 'history')
    return refuse(
      'refused',
      `${file.name} cannot be spilled: a timeline is opened in the active vault alone`,
      `it goes there as soon as that vault answers; until then WAL is kept in pg_wal`,
    );
  const end = chainEnd(head);
  if (end === null || (name !== undefined && name.timeline > head.timeline)) {
    return refuse(
      'hole',
      end === null
        ? `the vault for spills holds nothing yet: ${file.name} would be the first of it`
        : `the vault for spills is on timeline ${head.timeline}, ${file.name} is of a newer one that no relay has brought`,
      `let a relay run once while both vaults answer; until then WAL is kept in pg_wal`,
    );
  }
  const place = decidePlace({ head: { ...head, lsn: formatLsn(end) }, lineage }, file, segmentSize);
  if (place.do === 'refuse' && place.code === 'hole') {
    return refuse(
      'hole',
      `the vault for spills needs ${nextSpill(head, lineage, segmentSize)} before ${file.name}: its relay was behind when the active vault was lost`,
      `what lies between is in the active vault, and not in pg_wal any more: WAL is kept in pg_wal until that vault answers`,
    );
  }
  if (place.do !== 'commit') return place;
  const before: SpillMove = head.spill ?? {
    timeline: head.timeline,
    firstLsn: formatLsn(end),
    lsn: formatLsn(end),
    lastFile: file.name,
    files: 0,
  };
  const { timeline, firstLsn, files } = before;
  const lsn = place.moves?.lsn ?? before.lsn;
  const lastFile = place.moves === undefined ? before.lastFile : file.name;
  return {
    do: 'spill',
    chain: { timeline, firstLsn, lsn, lastFile, files: files + 1 },
    grown: place.moves?.tail === null,
  };
}

/**
 * May the active vault take this chain? 'aside': it never may, what is in it is salvage.
 *
 * @param isNew  the active vault lacks some of it
 */
export function decideHome(
  active: { control: Control; head: Head },
  spill: Spill,
  isNew: boolean,
): { do: 'home' } | { do: 'aside'; why: string } | Refusal {
  const { control, head } = active;
  if (control.role !== 'active')
    return refuse(
      'refused',
      `a ${control.role} takes no spills home`,
      `name the active vault: 'walvault status' says which it is`,
    );
  if (isStale(control, spill)) {
    return {
      do: 'aside',
      why: `spilled by ${spill.writer.node} in epoch ${spill.epoch}, but ${control.primary ?? 'nobody'} is the primary since epoch ${control.reign}`,
    };
  }
  if (spill.epoch > control.epoch)
    return refuse(
      'refused',
      `spilled in epoch ${spill.epoch}, the active vault is at epoch ${control.epoch}: it was set back`,
      `restore its manifest before anything else`,
    );
  if (head.flush !== null && isNew)
    return refuse(
      'refused',
      `${spill.writer.node} was flushed at ${head.flush.lsn}: nothing goes into the vault behind that`,
      `run 'walvault flush --undo' on it, or trigger a standby`,
    );
  return { do: 'home' };
}

/**
 * The armed replica before a trigger in the active vault: raised to the epoch that comes there next, so that the old primary can spill
 * nothing more, whatever else it reaches. 'fenced' refused: the replica is active itself, a trigger here would make a second primary.
 */
export function decideFenceDirect(
  active: Control,
  replica: Control,
  primary: string,
): { do: 'fence'; control: Control } | { do: 'fenced' } | Refusal {
  const { direct } = active;
  const epoch = active.epoch + 1;
  if (direct === null) return { do: 'fenced' };
  if (replica.vaultId !== direct.id)
    return refuse('refused', `${direct.url} is another vault by now: ${replica.vaultId}, not ${direct.id}`);
  if (replica.role !== 'replica') {
    return refuse(
      'fenced',
      `${direct.url} is ${replica.role} in epoch ${replica.epoch}, with ${replica.primary ?? 'no'} primary: it has taken the place of this vault`,
      `trigger there, with --vault '${direct.url}'`,
    );
  }
  if (replica.epoch > epoch) {
    return refuse(
      'fenced',
      `${direct.url} is at epoch ${replica.epoch}, this vault at ${active.epoch}: it is being taken over`,
      `run that trigger to its end: 'walvault status' of both vaults shows where they stand`,
    );
  }
  if (replica.epoch === epoch && replica.primary === primary) return { do: 'fenced' };
  return {
    do: 'fence',
    control: { ...replica, rev: replica.rev + 1, epoch, reign: epoch, primary, trigger: null },
  };
}
