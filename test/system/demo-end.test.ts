/**
 * The demo's servers end whole: a hook or an agent in the midst of starting is no exception.
 *
 * A slow machine is played by a Node that takes its time: the hook of a killed server is then always one that would outlive it, and
 * start an agent when it is at last awake.
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { DemoServers, type DemoServer } from '../../bin/demo/servers.ts';
import { cleanEnvironment } from '../harness/postgres.ts';
import { makeScratch, processesIn, removeScratch, waitFor } from '../harness/scratch.ts';
import { walvaultFile } from '../harness/site.ts';

/** How long a Node of a hook takes to start, in s: longer than any end of a server here. */
const SLOW_START_S = 20;

let scratch: string;
let servers: DemoServers;
let db1: DemoServer;

beforeEach(async () => {
  scratch = makeScratch();
  servers = await DemoServers.prepare(scratch);
  db1 = servers.db1;
  await servers.makePrimary(1);
  const env = {
    ...cleanEnvironment(),
    WALVAULT_VAULT: pathToFileURL(path.join(scratch, 'vault')).href,
    WALVAULT_CLUSTER: 'main',
  };
  for (const words of [['init'], ['configure', 'primary']])
    await promisify(execFile)(walvaultFile, [...words, '--pgdata', db1.pgdata, '--node', 'db1'], { env });
  const node = path.join(`${db1.pgdata}.walvault`, 'node');
  const real = readlinkSync(node);
  rmSync(node);
  writeFileSync(node, `#!/bin/sh\nsleep ${SLOW_START_S}\nexec '${real}' "$@"\n`);
  chmodSync(node, 0o755);
  await servers.start(db1);
  const client = await servers.connect(db1);
  await client.query('CREATE TABLE written AS SELECT 1 AS x');
  await client.query('SELECT pg_switch_wal()');
  await waitFor('a hook whose Node is just starting', 30_000, () => running().includes('archive.cjs'));
});
afterEach(async () => {
  await servers.stopAll(false);
  await removeScratch(scratch);
});

/** Command lines of everything that belongs to db1. */
function running(): string {
  return processesIn(db1.pgdata)
    .map(({ command }) => command)
    .join('\n');
}

test('a server killed under its hook leaves neither hook nor agent', async () => {
  await servers.kill(db1);
  expect(running()).toBe('');
});

test('the end of all servers is the end of their hooks', async () => {
  await servers.stopAll(false);
  expect(running()).toBe('');
});

test('a server removed under its hook leaves no process and no directory', async () => {
  await servers.remove(db1);
  expect(running()).toBe('');
  expect([existsSync(db1.pgdata), existsSync(`${db1.pgdata}.walvault`)]).toEqual([false, false]);
});
