/**
 * Archiving on and off, by the word of an operator in `control`. What is handed in while it is off is declared lost (decide-archive.ts); every
 * commit is conditional on control's revision, so one that was decided before the switch lands whole before it, or is decided anew.
 *
 * Pure.
 */
import type { FailureCode } from '../errors.ts';
import type { Control, Head } from './facts.ts';

type Refused = { do: 'refuse'; code: FailureCode; message: string; hint?: string };

const refuse = (message: string, hint: string): Refused => ({ do: 'refuse', code: 'refused', message, hint });

/**
 * Off is refused while it is not said yet whose archiving that would be (a promotion is pending), and after a flush, which says that all is
 * in the vault. On is never refused in an active vault.
 *
 * @returns 'already' where it stands so
 */
export function decideArchiving(
  control: Control,
  head: Head,
  archiving: boolean,
  at: string,
): { do: 'set'; control: Control } | { do: 'already' } | Refused {
  if (control.role !== 'active')
    return refuse(
      `this vault is a ${control.role}: it takes no archives, and its relay says whether archiving is on`,
      `name the active vault with --vault${control.source === null ? '' : ` '${control.source.url}'`}`,
    );
  if (control.archiving === archiving) return { do: 'already' };
  const { promotion, flush } = head;
  if (!archiving && promotion !== null && promotion.state !== 'open')
    return refuse(
      `a promotion of ${promotion.node} is pending (epoch ${promotion.epoch}, ${promotion.state})`,
      `wait until it is open: what ${promotion.node} writes from then on is what would not be archived`,
    );
  if (!archiving && flush !== null)
    return refuse(
      `${control.primary ?? 'the primary'} was flushed at ${flush.lsn}: it archives nothing anyway`,
      `trigger a standby, or run 'walvault flush --undo', and switch archiving off then`,
    );
  return { do: 'set', control: { ...control, rev: control.rev + 1, archiving, archivingAt: at } };
}
