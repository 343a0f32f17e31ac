/**
 * A server as those see it who only look at files and processes: a data directory with pg_control and postmaster.pid, a postmaster that answers
 * the signals of a stop as it is told and takes that of a promotion, and backends of it. Real processes, named postgres and working in the data directory; no PostgreSQL.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { crc32c } from '../../core/wal/crc32c.ts';
import { bytesOf, CLUSTERS } from '../unit/wal/samples.ts';
import { isAlive, killHard, waitFor } from './scratch.ts';

/** What the postmaster does at a signal of a stop; each is written down, whatever it does. */
export type Stops = { fast: 'ends' | 'hangs'; immediate: 'ends' | 'hangs' };

export class FakeServer {
  readonly pgdata: string;
  readonly #bin: string;
  readonly #processes: ChildProcess[] = [];

  /** @param folder  real path; PGDATA is made below it */
  constructor(folder: string) {
    this.pgdata = path.join(folder, 'data');
    this.#bin = path.join(folder, 'postgres');
    mkdirSync(path.join(this.pgdata, 'global'), { recursive: true });
    writeFileSync(path.join(this.pgdata, 'PG_VERSION'), '18\n');
    symlinkSync('/bin/sh', this.#bin);
    this.says('production');
  }

  /** What pg_control says of the server. */
  says(state: 'production' | 'stopped' | 'standby'): void {
    const { cluster } = CLUSTERS.find(({ major }) => major === 18)!;
    writeFileSync(path.join(this.pgdata, 'global/pg_control'), bytesOf(cluster[state].control));
  }

  /** It has taken this timeline for good: its end-of-recovery record is written. */
  hasTaken(timeline: number): void {
    const file = path.join(this.pgdata, 'global/pg_control');
    const bytes = readFileSync(file);
    bytes.writeUInt32LE(timeline, 144); // minRecoveryPointTLI
    bytes.writeUInt32LE(crc32c(bytes, 0, 0, 292), 292);
    writeFileSync(file, bytes);
  }

  /** @returns its process id */
  async start({ fast, immediate }: Stops): Promise<number> {
    const trap = (word: string, signal: string, then: string) =>
      `trap 'echo ${word} >> ../signals${then === 'ends' ? '; exit' : ''}' ${signal}`;
    const promoted = `trap 'rm -f promote; echo promote >> ../signals' USR1`; // it takes the file away, and begins
    const script = `${promoted}; ${trap('fast', 'INT', fast)}; ${trap('immediate', 'QUIT', immediate)}; echo up >> ../signals; while :; do sleep 0.05 & wait; done`;
    const pid = this.#run(script);
    await waitFor('the start of the fake server', 2000, () => this.signals().includes('up'));
    writeFileSync(path.join(this.pgdata, 'postmaster.pid'), `${pid}\n${this.pgdata}\n1\n5433\n\n\n\nready\n`);
    return pid;
  }

  /** As after a restart that kept the process id, which in a container is always 1. */
  restarted(): void {
    const file = path.join(this.pgdata, 'postmaster.pid');
    const lines = readFileSync(file, 'utf8').split('\n');
    writeFileSync(file, lines.with(2, String(Number(lines[2]) + 1)).join('\n'));
  }

  /** A process of the server beside its postmaster, which takes no signal but the kill. */
  async backend(): Promise<number> {
    const before = this.signals().length;
    const pid = this.#run(
      `trap '' INT QUIT TERM; echo backend >> ../signals; while :; do sleep 0.05 & wait; done`,
    );
    await waitFor('the start of the backend', 2000, () => this.signals().length > before);
    return pid;
  }

  #run(script: string): number {
    const child = spawn(this.#bin, ['-c', script], { cwd: this.pgdata, stdio: 'ignore' });
    this.#processes.push(child);
    return child.pid!;
  }

  /** The signals that the postmaster was sent, in their order, with its starts. */
  signals(): string[] {
    try {
      return readFileSync(path.join(path.dirname(this.pgdata), 'signals'), 'utf8')
        .trim()
        .split('\n');
    } catch {
      return [];
    }
  }

  async close(): Promise<void> {
    await killHard(this.#processes.map(({ pid }) => pid!).filter(isAlive));
  }
}
