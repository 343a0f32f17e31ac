/** The gate of a promotion: who opens, who does not, and what lies on the disk of one that does not. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { VaultError } from '../../../core/errors.ts';
import { passGate } from '../../../core/work/gate.ts';
import type { NodeContext } from '../../../core/work/node-context.ts';
import { statePaths } from '../../../core/work/node-state.ts';
import type { OpenOutcome } from '../../../core/work/promote.ts';
import { makeScratch } from '../../harness/scratch.ts';

const LEASE = { ms: 30_000, watchdog: 'process' } as const;

let scratch: string;
let context: NodeContext;

beforeEach(() => {
  scratch = makeScratch('gate');
  const [pgdata, state] = [path.join(scratch, 'data'), path.join(scratch, 'state')];
  for (const dir of [pgdata, state]) mkdirSync(dir);
  context = { pgdata, paths: statePaths(state) } as NodeContext;
  writeFileSync(context.paths.seal, '{}');
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const signal = () => path.join(context.pgdata, 'standby.signal');
const failing = () => Promise.reject(new VaultError('hole', 'a segment is missing'));
const outcome = (done: OpenOutcome): Promise<OpenOutcome> => Promise.resolve(done);

test('a failure is no word of the vault: with a lease the gate is closed, without one PostgreSQL is told', async () => {
  await expect(passGate(context, undefined, failing())).rejects.toMatchObject({ code: 'hole' });
  expect(existsSync(signal())).toBe(false);
  const gated = await passGate(context, LEASE, failing());
  expect(gated).toMatchObject({ done: 'gate', why: expect.stringContaining('is missing') as string });
  expect(existsSync(signal())).toBe(true);
  expect(existsSync(context.paths.seal)).toBe(false);
  expect(readFileSync(context.paths.refused, 'utf8')).toContain('is missing');
});

test('asked again after the gate was closed and its answer lost, it stays closed, and says why it was', async () => {
  await passGate(context, undefined, outcome({ done: 'gate', why: 'epoch 7 names db3' }));
  // the seal is gone: there is nothing left to open
  expect(await passGate(context, undefined, outcome({ done: 'nothing' }))).toEqual({
    done: 'gate',
    why: 'epoch 7 names db3',
  });
  expect(readFileSync(context.paths.refused, 'utf8')).toBe('epoch 7 names db3\n');
});

test('asked again after the open and its answer lost, the server opens', async () => {
  rmSync(context.paths.seal);
  expect(await passGate(context, LEASE, outcome({ done: 'nothing' }))).toEqual({ done: 'nothing' });
  expect(existsSync(signal())).toBe(false);
});

test('without a lease a silent vault lets the server open', async () => {
  const silent = { done: 'unconfirmed', why: 'the vault did not answer' } as const;
  expect(await passGate(context, undefined, outcome(silent))).toEqual(silent);
  expect(await passGate(context, LEASE, outcome(silent))).toMatchObject({ done: 'gate' });
});
