/** Runs of segments of real servers, 15 to 18, and where the servers said that they end; made by fixtures/capture-records.mjs. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { MAJORS } from './samples.ts';

export type WalRun = {
  title: string;
  segmentSize: number;
  systemIdentifier: string;
  /** The last one cut shortly after the end of the WAL. */
  segments: { name: string; zstd: string }[];
  /** pg_current_wal_insert_lsn() while nothing was written. */
  ends?: string;
  /** Answer of pg_switch_wal(). */
  contentEnds?: string;
  /** Answer of pg_logical_emit_message() for a record over four segments. */
  largeEnds?: string;
  /** Where the last record begins that crash recovery replayed, by the server's log. */
  redoDone?: string;
  /** Of pg_control. */
  checkpointLsn?: string;
};

export const RUNS = MAJORS.flatMap((majorVersion) => {
  const file = path.join(import.meta.dirname, 'fixtures', `wal-${majorVersion}.json`);
  const { version, runs } = JSON.parse(readFileSync(file, 'utf8')) as { version: string; runs: WalRun[] };
  return runs.map((run) => ({
    title: `PostgreSQL ${version}, segments of ${run.segmentSize / 1024 / 1024} MiB, WAL ${run.title}`,
    majorVersion,
    run,
  }));
});

export function segmentsOf(run: WalRun): { name: string; bytes: Buffer }[] {
  return run.segments.map(({ name, zstd }) => ({
    name,
    bytes: zstdDecompressSync(Buffer.from(zstd, 'base64')),
  }));
}
