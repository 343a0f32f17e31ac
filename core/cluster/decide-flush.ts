/**
 * Flush and its undo, as decisions. A flushed primary was stopped clean; its shutdown checkpoint, which PostgreSQL never archives, is
 * committed as the tail of the timeline together with the latch `head.flush`. A trigger and the undo each end the latch on condition
 * that it stands: one of the two happens, never both.
 *
 * Pure. Modelled: without the latch, a primary started again writes on in that very segment behind the standby's back.
 */
import type { FailureCode } from '../errors.ts';
import type { Lineage } from '../wal/lineage.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { decideWriter, type Writer } from './decide-archive.ts';
import type { Control, Head } from './facts.ts';

type Refused = { do: 'refuse'; code: FailureCode; message: string; hint?: string };

export type FlushRequest = {
  timeline: number;
  /** The segment of the shutdown checkpoint, and where that record ends. */
  segment: string;
  lsn: Lsn;
};

/** @returns 'flushed' where just this flush stands already (an answer that was lost) */
export function decideFlush(
  control: Control,
  head: Head,
  lineage: Lineage,
  writer: Writer,
  request: FlushRequest,
  segmentSize: number,
): { do: 'flush'; head: Head } | { do: 'flushed' } | Refused {
  const lsn = formatLsn(request.lsn);
  if (head.flush !== null && head.flush.lsn === lsn && control.primary === writer.node)
    return { do: 'flushed' };
  const fence = decideWriter(control, head, writer);
  if (fence) return fence;
  if (!control.archiving) return archivingOff();
  if (request.timeline !== head.timeline) {
    return refused('refused', `the server is on timeline ${request.timeline}, the vault on ${head.timeline}`);
  }
  const expected =
    head.lsn === null ? request.segment : segmentsFrom(lineage, parseLsn(head.lsn), segmentSize).next().value;
  if (request.segment !== expected) {
    return refused(
      'hole',
      `the shutdown checkpoint lies in ${request.segment}, but the vault still lacks ${expected}`,
      `start the server again and look why ${expected} is not archived`,
    );
  }
  return {
    do: 'flush',
    head: {
      ...head,
      rev: head.rev + 1,
      flush: { lsn, rev: head.rev + 1 },
      tail: { timeline: request.timeline, lsn },
    },
  };
}

/** What is not archived cannot be flushed: with a gap up to the shutdown checkpoint no standby would ever reach that. */
export const archivingOff = (): Refused =>
  refused(
    'refused',
    'archiving is off: what this server writes goes into no vault',
    `run 'walvault archiving on', and take a base backup: until then no standby reaches the end of the WAL`,
  );

/** @returns 'nothing' where no flush stands */
export function decideUndo(
  control: Control,
  head: Head,
  node: string,
): { do: 'undo'; head: Head } | { do: 'nothing' } | Refused {
  if (control.primary !== node) {
    return refused(
      'fenced',
      `${node} was flushed, and then epoch ${control.epoch} named ${control.primary ?? 'nobody'}: the flush cannot be undone`,
      `this server may start only as a standby: run 'walvault rejoin' here`,
    );
  }
  if (head.flush === null) return { do: 'nothing' };
  return { do: 'undo', head: { ...head, rev: head.rev + 1, flush: null } };
}

function refused(code: FailureCode, message: string, hint?: string): Refused {
  return { do: 'refuse', code, message, hint };
}
