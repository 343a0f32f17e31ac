/** `walvault rejoin`: the old primary becomes a standby of the new one. */
import { controlWords } from '../../core/postgres/control-words.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { formatLsn } from '../../core/wal/lsn.ts';
import { checkIdentity, writerStore } from '../../core/work/node-state.ts';
import { planRejoin, rejoin, type RejoinPlan } from '../../core/work/rejoin.ts';
import type { CommandRow } from '../command.ts';
import { CONFIGURE_SETTINGS, installationOf } from '../installation.ts';
import { modeOption, parametersOf, PARAMETER_OPTIONS } from '../standby-parameters.ts';
import { findStateDirectory, placeOf } from '../state-directory.ts';
import { formatBytes } from '../ui/format.ts';
import { byteProgress } from '../ui/progress.ts';
import { pairs } from '../ui/table.ts';
import { untilSignalled } from '../until-signalled.ts';
import { tablespacesOf } from './standby-create.ts';

export const rejoinCommand: CommandRow = {
  path: 'rejoin',
  summary: 'make the old primary a standby again: as it is, by pg_rewind, or anew',
  text: `Run it on the old primary's machine, its server stopped. It compares the server's control file, its history files, the node that
opened its timeline, and its own WAL read to the last record with the vault, byte by byte: timeline numbers alone prove nothing.

Not diverged and stopped cleanly (after a flush): it becomes a standby as it is, no base backup. Files in pg_wal that
are not of the live branch are moved to aside/ in the state directory.
Diverged, or not stopped cleanly: it says from where and by how much. What was not archived is salvaged first ('walvault salvage
--list'); then pg_rewind, where it is installed and --source-server reaches the new primary; else a new standby is made from the
last backup, and the old directory is renamed to PGDATA.<time>: remove it when nothing in it is missed.
The primary of the epoch is refused.`,
  options: [
    { flags: '--dry-run', summary: 'only say what would be done' },
    { flags: '-y, --yes', summary: 'do not ask' },
    {
      flags: '--source-server <conninfo>',
      summary: "connection to the new primary, for pg_rewind: 'host=db2 user=postgres'",
    },
    { flags: '--replace', summary: 'make it anew, whatever it is' },
    { flags: '--backup <id>', summary: 'to make it anew from (default: the last complete one)' },
    { flags: '--waldir <directory>', summary: 'made anew: put pg_wal there, and a link in PGDATA' },
    { flags: '--tablespace-mapping <old=new>', summary: 'made anew: where a tablespace goes', many: true },
    modeOption('as it was'),
    ...PARAMETER_OPTIONS,
  ],
  settings: [...new Set([...CONFIGURE_SETTINGS, 'zstdLevel' as const])],
  examples: [
    { says: 'what would be done, and why', line: 'walvault rejoin --pgdata $P --dry-run' },
    { says: 'after a switchover, or after a failover', line: 'walvault rejoin --pgdata $P --yes' },
    {
      says: 'with pg_rewind, where the new primary can be reached',
      line: `walvault rejoin --pgdata $P --source-server 'host=db2 user=postgres' --yes`,
    },
  ],
  async run(context) {
    const { settings } = context;
    const node = settings.need('node');
    const pgdata = await readPgdata(settings.need('pgdata'));
    const paths = await findStateDirectory(settings, pgdata);
    checkIdentity(paths);
    const cluster = await context.cluster();
    const sourceServer = context.text('sourceServer');
    const replaceOnly = context.flag('replace');
    const base = { node, pgdata, stateDir: paths.dir, sourceServer, replaceOnly };
    const plan = await planRejoin(cluster, base);
    const facts = factsOf(node, plan);
    if (context.flag('dryRun')) {
      context.answer({ ...facts, dryRun: true }, () => describePlan(node, plan));
      return;
    }
    context.say(describePlan(node, plan));
    if (plan.how !== 'keep') await context.confirm(consequencesOf(pgdata.path, plan));
    const bar = byteProgress(context.io, 'restoring', { quiet: context.json });
    const done = await untilSignalled((signal) =>
      rejoin(
        cluster,
        {
          ...base,
          seat: { node, place: placeOf(pgdata), store: writerStore(paths) },
          installation: installationOf(settings, cluster.vault.url),
          parameters: parametersOf(context),
          zstdLevel: settings.zstdLevel,
          backup: context.text('backup') ?? 'latest',
          waldir: context.text('waldir'),
          tablespaceMap: tablespacesOf(context.list('tablespaceMapping')),
          parallel: settings.uploadParallel,
          signal,
          onProgress: ({ doneBytes, totalBytes }) => bar.update(doneBytes, totalBytes),
          onStep: (text) => context.say(text),
        },
        plan,
      ),
    ).finally(() => bar.finish());
    const { salvaged, ...made } = done;
    context.answer({ ...facts, ...made, salvaged, dryRun: false }, () =>
      pairs([
        ['standby', `${node}, ${done.pgdata}`],
        ['how', { keep: 'as it was', rewind: 'by pg_rewind', replace: 'made anew from the vault' }[done.how]],
        ...(done.setAside === null ? [] : [['set aside', done.setAside] as const]),
        ...(done.movedAside === null ? [] : [['old directory', done.movedAside] as const]),
        ...(salvaged.files.length === 0
          ? []
          : [['salvaged', `${salvaged.files.length} files up to ${salvaged.endLsn}`] as const]),
      ]),
    );
    for (const notice of done.notices) context.say(`notice: ${notice}`);
    context.next(
      { says: 'start it', line: controlWords(done.pgdata, 'start', `${done.pgdata}.log`) },
      { says: 'see it follow', line: context.command('status', ['vault', 'cluster']) },
    );
    if (salvaged.files.length > 0)
      context.next({
        says: 'see what it had not archived',
        line: context.command('salvage', ['vault', 'cluster'], ['--list']),
      });
  },
};

function factsOf(node: string, plan: RejoinPlan) {
  const { decision, how, wal, control, whyNotRewind } = plan;
  const isRebuild = decision.do === 'rebuild';
  return {
    node,
    primary: control.primary,
    epoch: control.epoch,
    diverged: isRebuild && decision.diverged,
    how,
    why: decision.why,
    timeline: wal.timeline,
    endLsn: formatLsn(wal.ends),
    commonTimeline: decision.common?.timeline ?? null,
    commonLsn: decision.common === null ? null : formatLsn(decision.common.lsn),
    pastBytes: isRebuild ? decision.pastBytes : 0,
    whyNotRewind,
  };
}

function describePlan(node: string, plan: RejoinPlan): string {
  const { decision, wal, how, whyNotRewind, control } = plan;
  const { common } = decision;
  const past = decision.do === 'rebuild' ? decision.pastBytes : 0;
  const next = {
    keep: 'it becomes a standby as it is',
    rewind: 'pg_rewind, then it is a standby',
    replace: `a new standby from the vault in its place${whyNotRewind === null ? '' : ` (not pg_rewind: ${whyNotRewind})`}`,
  }[how];
  return pairs([
    ['node', `${node}; ${control.primary ?? 'nobody'} holds epoch ${control.epoch}`],
    ['its WAL ends', `${formatLsn(wal.ends)} on timeline ${wal.timeline}`],
    [
      'in common up to',
      common === null ? 'nothing' : `${formatLsn(common.lsn)} on timeline ${common.timeline}`,
    ],
    ['past that', past === 0 ? 'nothing' : formatBytes(past)],
    ['found', decision.why],
    ['then', next],
  ]);
}

function consequencesOf(pgdata: string, plan: RejoinPlan): string[] {
  const past = plan.decision.do === 'rebuild' ? plan.decision.pastBytes : 0;
  return [
    ...(past > 0
      ? [
          `give up ${formatBytes(past)} of its WAL, which is not on the live branch (kept aside in the vault first)`,
        ]
      : []),
    plan.how === 'rewind'
      ? `change ${pgdata} by pg_rewind; where that fails, replace it`
      : `rename ${pgdata} to ${pgdata}.<time> and restore a backup in its place`,
  ];
}
