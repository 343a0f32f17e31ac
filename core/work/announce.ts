/**
 * Tells the topic of a replica's region what has arrived there: reads the replica as it stands, publishes, and only then moves the row that
 * says what was told. At least once: one that dies between the two, or runs beside another, tells something again.
 */
import {
  decideAnnouncements,
  type Arrival,
  type Arrived,
  type Told,
} from '../cluster/decide-announcements.ts';
import { keys, type ArrivalsRow, type BackupRow } from '../cluster/facts.ts';
import { asRow, listRows, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { readHolds } from './holds.ts';
import { readSide } from './replica.ts';

/** @throws whatever the topic's client says: it was not published, as far as is known */
export type Publish = (arrival: Arrival) => Promise<void>;

/** How often it is begun anew because another one told the same. Each time that one has got on. */
const ROUNDS = 20;

/**
 * @returns how many messages went out
 * @throws as `publish`; VaultError unreachable | unconfigured. What was told before stays told.
 */
export async function announceArrivals(replica: Cluster, publish: Publish): Promise<number> {
  let messages = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    const seen = await readTold(replica);
    const due = decideAnnouncements(seen, await readArrived(replica), new Date().toISOString());
    let { rev = 0 } = seen ?? {};
    let isMine = true;
    for (const { arrival, told } of due) {
      crashPoint('announce-due');
      await publish(arrival);
      messages += 1;
      crashPoint('announce-published');
      isMine = await moveTold(replica, rev, told);
      if (!isMine) break;
      rev += 1;
    }
    if (isMine) return messages;
  }
  return messages; // the others tell it
}

async function readTold({ vault, name }: Cluster): Promise<ArrivalsRow | undefined> {
  return (await vault.manifest.get(keys.notice(name, 'arrivals'))) as ArrivalsRow | undefined;
}

/** @returns false where another one has told something meanwhile */
async function moveTold({ vault, name }: Cluster, rev: number, told: Told): Promise<boolean> {
  const row: ArrivalsRow = { ...told, ...keys.notice(name, 'arrivals'), rev: rev + 1 };
  const outcome = await vault.manifest.transact([
    { do: 'put', row: asRow(row), when: rev === 0 ? 'absent' : { rev } },
  ]);
  return outcome.done;
}

async function readArrived(cluster: Cluster): Promise<Arrived> {
  const { control, head, lineage, rows } = await readSide(cluster);
  return {
    cluster: cluster.name,
    vault: cluster.vault.url,
    vaultId: control.vaultId,
    segmentSize: cluster.segmentSize,
    ...{ head, lineage, histories: rows },
    backups: await listRows<BackupRow>(cluster, 'backup#'),
    horizon: (await readHolds(cluster))?.horizon ?? {},
  };
}
