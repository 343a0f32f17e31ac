/**
 * A writer's own state on its node, and its chain of nonces.
 *
 * Every commit (and heartbeat) swaps head.writer.nonce for a fresh value that was fsynced here before the request went out. A lost
 * answer leaves the vault with the old or the next value; both are accepted after, and the next one is used again until it is known
 * which. Who comes second with a copied state directory finds a value that is neither.
 */
import { randomBytes } from 'node:crypto';
import type { Writer } from '../cluster/decide-archive.ts';
import type { Head } from '../cluster/facts.ts';

export type WriterState = {
  /** The epoch taken up; 0: none. */
  epoch: number;
  /** The last nonce known to stand in the vault; '' before the first. */
  nonce: string;
  /** The nonce that was about to be written; it may stand in the vault already. */
  next: string | null;
  /** A promotion about to be opened: becomes epoch and nonce once its transaction is known to be there. */
  open?: { epoch: number; nonce: string } | null;
};

/** Where a node keeps its writer state; `write` has fsynced file and directory when it returns. */
export interface WriterStore {
  read(): WriterState | undefined;
  write(state: WriterState): void;
}

export type WriterSeat = {
  node: string;
  /** host:pgdata, for the message that names two copies. */
  place: string;
  store: WriterStore;
};

const turns = new WeakMap<WriterStore, Promise<unknown>>();

/**
 * One after the other, within this process: whatever reads the nonce, decides and writes the next one. Side by side, a commit that
 * looked up its rows wrote back an older state over that of a heartbeat, and the node then took itself for a copy (seen). Processes
 * of one node keep apart by the node's lock.
 */
export function inTurn<T>(seat: WriterSeat, work: () => Promise<T>): Promise<T> {
  const mine = (turns.get(seat.store) ?? Promise.resolve()).then(work);
  turns.set(
    seat.store,
    mine.catch(() => {}),
  );
  return mine;
}

export const newNonce = (): string => randomBytes(12).toString('hex');

export function writerOf(seat: WriterSeat, state: WriterState): Writer {
  const nonces = state.next === null ? [state.nonce] : [state.nonce, state.next];
  return {
    node: seat.node,
    epoch: state.epoch,
    nonces: nonces.filter((nonce) => nonce !== ''),
    place: seat.place,
  };
}

/** The state as it is after the vault was read: which of the two nonces stands there. */
export function settle(state: WriterState, head: Head): WriterState {
  return state.next !== null && head.writer?.nonce === state.next
    ? { ...state, nonce: state.next, next: null }
    : state;
}
