/** `walvault logs save|list|fetch`: the servers' own log files, kept in the vault beside their WAL. */
import { VaultError } from '../../core/errors.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { name } from '../../core/settings/kinds.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import { findLogs, saveLogs } from '../../core/work/save-logs.ts';
import { fetchLogs, listLogs, type LogFilter } from '../../core/work/stored-logs.ts';
import type { CommandRow, Context, OptionRow } from '../command.ts';
import { momentOf } from '../moment.ts';
import { NODE_SETTINGS, REACH_SETTINGS } from '../reach-settings.ts';
import { formatBytes, formatCount } from '../ui/format.ts';
import { table } from '../ui/table.ts';

const WHICH: readonly OptionRow[] = [
  { flags: '--of <node>', summary: 'only of this node' },
  {
    flags: '--since <moment>',
    summary: 'only what was saved from then on: how long ago (2h), or an ISO time',
  },
  { flags: '--last', summary: 'only what each node saved last' },
];

export const logsSave: CommandRow = {
  path: 'logs save',
  summary: 'keep the log files of this server in the vault',
  text: `Finds the log files by the server's settings (logging_collector, log_directory), else by where the running server
writes its standard error: the 20 latest, of each its last 64 MiB. Where the log goes to the journal or to syslog, export it and name the
file. Each time is kept beside those before; nothing is overwritten, and nothing of the server is changed. May hold what statements hold:
whoever can read the vault can read it.`,
  options: [{ flags: '--file <path>', summary: 'this file instead; may be given several times', many: true }],
  settings: NODE_SETTINGS,
  examples: [
    { says: 'before a machine goes away', line: 'walvault logs save --pgdata $P --node db1' },
    {
      says: 'of a server that logs to the journal',
      line: 'walvault logs save --node db1 --file /tmp/journal.txt',
    },
  ],
  async run(context) {
    const node = context.settings.need('node');
    const named = context.list('file');
    const cluster = await context.cluster();
    const files = named.length > 0 ? named : await find(context, cluster);
    const keys = await saveLogs(cluster, node, files);
    context.answer({ node, saved: files.map((file, index) => ({ file, key: keys[index] })) }, () =>
      [`saved ${formatCount(files.length, 'file')} of ${node}`, ...files.map((file) => `  ${file}`)].join(
        '\n',
      ),
    );
  },
};

/** @throws VaultError refused (another database; no log files) | pgdata */
async function find(context: Context, cluster: Cluster): Promise<string[]> {
  const pgdata = await readPgdata(context.settings.need('pgdata'));
  const { systemIdentifier } = pgdata.control;
  if (String(systemIdentifier) !== cluster.systemIdentifier)
    throw new VaultError(
      'refused',
      `${pgdata.path} has system identifier ${systemIdentifier}, cluster ${cluster.name} ${cluster.systemIdentifier}`,
      { hint: 'Check --pgdata and --cluster.' },
    );
  const files = await findLogs(pgdata);
  if (files.length > 0) return files;
  throw new VaultError('refused', `no log files of the server on ${pgdata.path} are found`, {
    hint: 'Its log goes to the journal, to syslog or to a pipe, or it is stopped: name the files with --file.',
  });
}

export const logsList: CommandRow = {
  path: 'logs list',
  summary: 'list the log files in the vault',
  text: `By node and time. 'walvault flush --logs' and a switchover save them as well. Sizes are those in the vault, compressed.`,
  options: WHICH,
  settings: REACH_SETTINGS,
  examples: [{ says: 'what was saved of db1 today', line: 'walvault logs list --of db1 --since 24h' }],
  async run(context) {
    const which = filterOf(context);
    const found = await listLogs(await context.cluster(), which);
    context.answer(found, () =>
      found.length === 0
        ? 'no log files are in the vault, or none that was asked for'
        : table(
            ['node', 'saved', 'file', 'stored'],
            found.map(({ node, at, file, storedBytes }) => [node, at, file, formatBytes(storedBytes)]),
          ),
    );
  },
};

export const logsFetch: CommandRow = {
  path: 'logs fetch',
  summary: 'fetch log files from the vault',
  text: `Writes each as <directory>/<node>/<time saved>/<file>, verified, readable by this user only. Files that were fetched
before are written again.`,
  options: [{ flags: '--to <directory>', summary: 'where to write them; must be given' }, ...WHICH],
  settings: REACH_SETTINGS,
  examples: [
    {
      says: 'the last words of a machine that is gone',
      line: 'walvault logs fetch --to /tmp/logs --of db1 --last',
    },
  ],
  async run(context) {
    const to = context.text('to');
    if (to === undefined || to === '')
      throw new VaultError('usage', 'no directory to write to', { hint: 'Name it with --to.' });
    const which = filterOf(context);
    const cluster = await context.cluster();
    const files = await fetchLogs(cluster, await listLogs(cluster, which), to);
    context.answer({ files }, () =>
      files.length === 0 ? 'no log files are in the vault, or none that was asked for' : files.join('\n'),
    );
  },
};

/** @throws VaultError usage */
function filterOf(context: Context): LogFilter {
  const since = context.text('since');
  const node = context.text('of');
  try {
    if (node !== undefined) name().parse(node);
  } catch (cause) {
    throw new VaultError('usage', `--of: '${node}' ${(cause as Error).message}`, { cause });
  }
  return {
    node,
    since: since === undefined ? undefined : momentOf('since', since, new Date()),
    last: context.flag('last'),
  };
}
