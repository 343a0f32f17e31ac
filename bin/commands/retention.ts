/** `walvault retention`: deletes what no node and no backup needs; with --dry-run, says what and why. */
import { runRetention, type RetentionReport } from '../../core/work/retention.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { formatBytes, formatCount } from '../ui/format.ts';
import { table } from '../ui/table.ts';

export const retention: CommandRow = {
  path: 'retention',
  summary: 'delete the WAL and the base backups that nobody needs any more',
  text: `Keeps what the policy says of base backups, and the WAL from the first segment on that any of these needs: a kept or running
backup, a running restore, a node that is being made, a node's restart point (one that is silent keeps it until its lease ends), a
replica that has not got it yet. A vault without any backup goes by the restart points of its standbys alone; with neither standby nor
backup nothing is deleted. A standby that has not yet said its restart point keeps everything.

Histories stay, and so does whatever does not lie on the live branch (segments past the fork of a failover, salvage): a person decides
about those. An object that lies in the bucket for a day without a row is swept.

It may be killed anywhere and run at any time, by anybody; run it once a day. A replica has a retention of its own: name it by --vault.`,
  options: [{ flags: '--dry-run', summary: 'change nothing: say what would go, and why the rest stays' }],
  settings: [...REACH_SETTINGS, 'keepBackups', 'keepDays', 'pitrWindow', 'nodeLease', 'relayLease'],
  examples: [
    { says: 'what would go, and who needs the rest', line: 'walvault retention --dry-run' },
    { says: 'by cron, with a month of restores', line: 'walvault retention --pitr-window 30d' },
  ],
  async run(context) {
    const { keepBackups, keepDays, pitrWindow, nodeLease, relayLease } = context.settings;
    const policy = {
      ...{ keepBackups, keepDays, pitrWindowMs: pitrWindow },
      ...{ nodeLeaseMs: nodeLease, relayLeaseMs: relayLease },
    };
    const dryRun = context.flag('dryRun');
    const report = await runRetention(await context.cluster(), policy, { dryRun });
    context.answer({ dryRun, ...report }, () => describe(report, dryRun));
    for (const { kind, id, why } of report.ended) context.say(`${kind} ${id}: ${why}`);
  },
};

function describe(report: RetentionReport, dryRun: boolean): string {
  const { wal, backups, needs, tails, orphans, leftAlone } = report;
  const verb = dryRun ? 'would be deleted' : 'deleted';
  const gone = backups.filter((each) => each.do !== 'keep').length;
  const range = wal.first === null ? '' : `, ${wal.first} to ${wal.last}`;
  const lines = [
    `${verb}: ${formatCount(wal.rows, 'WAL file')} (${formatBytes(wal.bytes)}${range}), ${formatCount(tails, 'tail')}, ` +
      `${formatCount(gone, 'backup')}, ${formatCount(orphans.objects, 'object')} without a row (${formatBytes(orphans.bytes)})`,
    `kept from ${report.cut ?? 'the beginning'} on: ${report.why}`,
    table(
      ['needs WAL', 'who', 'from', 'why'],
      needs.map(({ kind, id, from, why }) => [kind, id, from ?? 'everything', why]),
    ),
  ];
  if (backups.length > 0)
    lines.push(
      table(
        ['backup', 'state', 'verdict', 'why'],
        backups.map(({ id, state, do: what, why }) => [id, state, what, why]),
      ),
    );
  if (leftAlone.offBranch + leftAlone.aside > 0)
    lines.push(
      `left alone: ${formatCount(leftAlone.offBranch, 'file')} off the live branch, ${formatCount(leftAlone.aside, 'salvaged file')}`,
    );
  return lines.join('\n\n');
}
