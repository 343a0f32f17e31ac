/**
 * global/pg_control: what a data directory says of itself, whether its server runs or not.
 *
 * The members read here lie at the same bytes in 15, 16, 17 and 18; only the CRC-32C moved (288; in 18 292). Measured against
 * pg_controldata and pg_control_*() on 15.20, 16.14, 17.10 and 18.4. Little-endian.
 *
 * Pure: no file, no clock, no network. A running server rewrites the file in place, so a reader may meet it half
 * written: on a failed checksum read it again before believing it.
 * Source: PostgreSQL, src/include/catalog/pg_control.h, ControlFileData.
 */
import { VaultError } from '../errors.ts';
import { crc32c } from './crc32c.ts';
import { type Lsn } from './lsn.ts';
import { isSegmentSize } from './name.ts';

/** DBState, by number. */
export const CONTROL_STATES = [
  'starting up',
  'shut down',
  'shut down in recovery',
  'shutting down',
  'in crash recovery',
  'in archive recovery',
  'in production',
] as const;

/** Two of them that are asked for in several places. */
export const IN_ARCHIVE_RECOVERY = 5;
export const IN_PRODUCTION = 6;

export type ControlFile = {
  /** Decimal. */
  systemIdentifier: string;
  /** 1300 (15, 16), 1700, 1800. */
  controlVersion: number;
  /** 202209061 and so on. */
  catalogVersion: number;
  majorVersion: number;
  /** Index into CONTROL_STATES; 5 with no signal file beside it is a promotion that died half way. */
  state: number;
  stateText: string;
  checkpointLsn: Lsn;
  redoLsn: Lsn;
  /** Of the latest checkpoint, and the one before it (another where the checkpoint ended a recovery). */
  timeline: number;
  previousTimeline: number;
  /** Recovery is not consistent before it; 0 where none is under way. */
  minRecoveryLsn: Lsn;
  minRecoveryTimeline: number;
  /** Not 0: a base backup whose end has not been replayed yet. */
  backupStartLsn: Lsn;
  backupEndLsn: Lsn;
  backupEndRequired: boolean;
  walLevel: 'minimal' | 'replica' | 'logical';
  /** Parameters that a standby must not lower. */
  maxConnections: number;
  maxWorkerProcesses: number;
  maxWalSenders: number;
  maxPreparedTransactions: number;
  maxLocksPerTransaction: number;
  /** Bytes. */
  segmentSize: number;
  blockSize: number;
  walBlockSize: number;
  dataChecksums: boolean;
};

const LAYOUTS = [
  { major: 15, control: 1300, catalog: 202209061, crcAt: 288 },
  { major: 16, control: 1300, catalog: 202307071, crcAt: 288 },
  { major: 17, control: 1700, catalog: 202406281, crcAt: 288 },
  { major: 18, control: 1800, catalog: 202506291, crcAt: 292 },
] as const;

/** FLOATFORMAT_VALUE: the server's own proof that byte order and floats are those of this machine. */
const FLOAT_AT = 208;
const FLOAT_VALUE = 1234567;

/**
 * Reads the content of global/pg_control.
 *
 * @param bytes  the whole file (8192 bytes; the first 512 suffice)
 * @throws VaultError pgdata  too short, a checksum that does not fit, a version that is not 15 to 18, sizes that make no sense
 */
export function parseControlFile(bytes: Uint8Array): ControlFile {
  if (bytes.byteLength < 512) throw wrong(`pg_control has only ${bytes.byteLength} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u32 = (at: number) => view.getUint32(at, true);
  const i32 = (at: number) => view.getInt32(at, true);
  const u64 = (at: number) => view.getBigUint64(at, true);

  const controlVersion = u32(8);
  const catalogVersion = u32(12);
  const layout = LAYOUTS.find(
    ({ control, catalog }) => control === controlVersion && catalogVersion === catalog,
  );
  if (layout === undefined) {
    throw wrong(`pg_control has version ${controlVersion}, catalog ${catalogVersion}, which is not known`, {
      hint: 'PostgreSQL 15, 16, 17 and 18 on little-endian machines are known; PG_VERSION in the data directory names its major.',
    });
  }
  if (u32(layout.crcAt) !== crc32c(bytes, 0, 0, layout.crcAt)) {
    throw wrong('the checksum of pg_control does not fit its content', {
      hint: 'A server may have been writing it just now: try again. If it stays so, the data directory is damaged.',
    });
  }
  if (view.getFloat64(FLOAT_AT, true) !== FLOAT_VALUE) {
    throw wrong('pg_control was written by a machine of another architecture');
  }

  const state = u32(16);
  const stateText = CONTROL_STATES[state];
  const walLevel = (['minimal', 'replica', 'logical'] as const)[u32(172)];
  const segmentSize = u32(228);
  if (stateText === undefined) throw wrong(`pg_control has an unknown cluster state ${state}`);
  if (walLevel === undefined) throw wrong(`pg_control has an unknown wal_level ${u32(172)}`);
  if (!isSegmentSize(segmentSize))
    throw wrong(`pg_control has an impossible WAL segment size ${segmentSize}`);

  return {
    systemIdentifier: u64(0).toString(),
    controlVersion,
    catalogVersion,
    majorVersion: layout.major,
    state,
    stateText,
    checkpointLsn: u64(32),
    redoLsn: u64(40),
    timeline: u32(48),
    previousTimeline: u32(52),
    minRecoveryLsn: u64(136),
    minRecoveryTimeline: u32(144),
    backupStartLsn: u64(152),
    backupEndLsn: u64(160),
    backupEndRequired: view.getUint8(168) !== 0,
    walLevel,
    maxConnections: i32(180),
    maxWorkerProcesses: i32(184),
    maxWalSenders: i32(188),
    maxPreparedTransactions: i32(192),
    maxLocksPerTransaction: i32(196),
    segmentSize,
    blockSize: u32(216),
    walBlockSize: u32(224),
    dataChecksums: u32(252) !== 0,
  };
}

function wrong(message: string, options: { hint?: string } = {}): VaultError {
  return new VaultError('pgdata', message, options);
}
