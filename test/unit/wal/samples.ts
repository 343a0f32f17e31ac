/** Files of real servers, 15 to 18 with segments of 1, 16 and 64 MiB; made by fixtures/capture.mjs. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

type Said = Record<string, string>;
export type Sample = { said: Said; control: string; file: string; page: string };
export type CapturedCluster = {
  segmentSize: number;
  names: { lsn: string; name: string }[];
  production: Sample;
  stopped: { state: string; control: string };
  /** Only with segments of 1 MiB: a standby whose backup's end is not there yet. */
  backup?: { startLsn: string; stopLsn: string; control: string };
  standby: Sample;
  forked: Sample & { history: string };
};
export type Captured = { version: string; majorVersion: number; clusters: CapturedCluster[] };

export const MAJORS = [15, 16, 17, 18] as const;

export function capturedOf(major: number): Captured {
  const file = path.join(import.meta.dirname, 'fixtures', `postgresql-${major}.json`);
  return JSON.parse(readFileSync(file, 'utf8')) as Captured;
}

/** Every captured cluster, with a title for describe.each. */
export const CLUSTERS = MAJORS.flatMap((major) => {
  const { version, clusters } = capturedOf(major);
  return clusters.map((cluster) => ({
    title: `PostgreSQL ${version}, segments of ${cluster.segmentSize / 1024 / 1024} MiB`,
    major,
    cluster,
  }));
});

export function bytesOf(base64: string): Buffer {
  return Buffer.from(base64, 'base64');
}
