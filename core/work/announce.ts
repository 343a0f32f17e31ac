/** Tells what has arrived in a replica, at least once and in order, and keeps beside it what was told. */
import { decideAnnouncements, type Announced, type Announcement } from '../cluster/decide-announcements.ts';
import { keys, type BackupRow } from '../cluster/facts.ts';
import { readBranch } from './branch.ts';
import { asRow, listRows, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';

/**
 * @param publish  throws where the message was not taken: then nothing counts as told, and all of it is told again
 * @returns how many messages
 */
export async function announceArrivals(
  replica: Cluster,
  publish: (announcement: Announcement) => Promise<void>,
): Promise<number> {
  const { manifest } = replica.vault;
  const place = keys.notice(replica.name, 'arrivals');
  const seen = await manifest.get(place);
  // another generation of the cluster begins anew
  const told = seen?.['partition'] === replica.partition ? (seen as unknown as Announced) : undefined;
  const { head, lineage, histories } = await readBranch(replica);
  const { announcements, next } = decideAnnouncements(told, {
    ...{ head, lineage, histories: [...histories.values()] },
    backups: await listRows<BackupRow>(replica, 'backup#'),
    segmentSize: replica.segmentSize,
  });
  for (const announcement of announcements) await publish(announcement);
  crashPoint('relay-announced');
  if (announcements.length === 0 && told !== undefined && told.lsn === next.lsn) return 0;
  // Whoever comes second has told the same: a condition that fails is no failure.
  await manifest.transact([
    {
      do: 'put',
      row: asRow({ ...place, rev: (seen?.rev ?? 0) + 1, partition: replica.partition, ...next }),
      when: seen === undefined ? 'absent' : { rev: seen.rev },
    },
  ]);
  return announcements.length;
}
