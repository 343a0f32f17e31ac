/** `walvault archiving on`, `off` and `status`: whether what the primary writes is archived. */
import { VaultError } from '../../core/errors.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { recoveryMode } from '../../core/postgres/signal-files.ts';
import { gapText } from '../../core/cluster/gaps.ts';
import { localStatus, setArchiving, type LocalStatus } from '../../core/work/archiving.ts';
import { readControl } from '../../core/work/cluster.ts';
import { isPassing } from '../../core/work/node-context.ts';
import { setLocalWord } from '../../core/work/local-off.ts';
import { checkAttached, checkIdentity, statePaths, type StatePaths } from '../../core/work/node-state.ts';
import { readStatus } from '../../core/work/status.ts';
import type { CommandRow, Context } from '../command.ts';
import { NODE_SETTINGS } from '../reach-settings.ts';
import { findStateDirectory } from '../state-directory.ts';
import { formatAge } from '../ui/format.ts';
import { pairs } from '../ui/table.ts';

const LOCAL_OPTION = {
  flags: '--local',
  summary: 'for this node alone, kept in its state directory: where the vault cannot be reached',
};
const YES_OPTION = { flags: '-y, --yes', summary: 'do not ask' };

export const archivingOff: CommandRow = {
  path: 'archiving off',
  summary: 'archive nothing more: what the primary writes is declared lost, and it may recycle it',
  text: `From then on archive_command answers 0 for each segment, says "archiving not active: ignoring pg_wal/…" in the server's log, and
declares the segment lost in the vault, in the same transaction in which the vault's end moves past it: the gap is exact. Standbys stop
before it for ever, and a base backup that was taken before it does not lead past it: after 'archiving on' a new one is needed.
Refused in a replica, while a promotion is pending, and after a flush.

--local is for the day on which pg_wal fills because the vault cannot be reached: the word lies in the state directory of this node, what is
ignored is written down there, and is declared in the vault at the next contact, before anything else is archived. It ends by
'archiving on --local' here (or 'archiving on').`,
  options: [LOCAL_OPTION, YES_OPTION],
  settings: NODE_SETTINGS,
  examples: [
    { says: 'before a load that is not worth archiving', line: 'walvault archiving off --yes' },
    {
      says: 'the vault is away and pg_wal fills: on the primary',
      line: 'walvault archiving off --local --yes --pgdata $P',
    },
  ],
  async run(context) {
    if (context.flag('local')) return offHere(context);
    const cluster = await context.cluster();
    const { archiving, primary } = await readControl(cluster);
    if (archiving)
      await context.confirm([
        `archive nothing more of ${primary ?? 'the primary'}: what it writes from now on is lost to the vault for good`,
        `leave every standby behind, and every base backup taken so far`,
      ]);
    const changed = await setArchiving(cluster, false);
    const { archivingAt: since } = await readStatus(cluster);
    context.answer({ cluster: cluster.name, archiving: false, since, changed }, () =>
      changed
        ? `archiving of ${cluster.name} is off`
        : `archiving of ${cluster.name} was off already${since === null ? '' : `, since ${since}`}`,
    );
    context.next({ says: 'on again', line: context.command('archiving on', ['vault', 'cluster']) });
  },
};

export const archivingOn: CommandRow = {
  path: 'archiving on',
  summary: 'archive again, from the next segment on',
  text: `What was ignored meanwhile stays a gap: until a base backup that begins after it is complete no server can be made that reaches the live
end, and 'walvault status' says so. Where this node's state directory is known (--pgdata), a word of 'archiving off --local' there ends
as well. --local ends that one alone, and needs no vault: what was ignored is declared there at the next contact, before anything
else is archived.`,
  options: [LOCAL_OPTION],
  settings: NODE_SETTINGS,
  examples: [
    {
      says: 'on the primary, with the backup that is needed then',
      line: 'walvault archiving on --pgdata $P && walvault backup --pgdata $P --node db1',
    },
  ],
  async run(context) {
    const state = context.flag('local') ? await stateHere(context) : await stateIfKnown(context);
    const at = new Date().toISOString();
    if (context.flag('local')) {
      const ended = setLocalWord(state!, false, at);
      answerLocal(
        context,
        state!,
        ended,
        ended ? 'archiving is on here again' : 'archiving was not off here',
      );
      return;
    }
    const cluster = await context.cluster();
    const changed = await setArchiving(cluster, true);
    const ended = state !== undefined && setLocalWord(state, false, at);
    const { backupNeeded, primary } = await readStatus(cluster);
    context.answer({ cluster: cluster.name, archiving: true, changed, localEnded: ended, backupNeeded }, () =>
      [
        changed ? `archiving of ${cluster.name} is on` : `archiving of ${cluster.name} was on already`,
        ...(ended ? ['and on this node, where it was off by --local'] : []),
      ].join('\n'),
    );
    if (backupNeeded !== null)
      context.next({
        says: `${gapText(backupNeeded)} was never archived, and no backup begins after that: on the primary`,
        line: `${context.command('backup', ['vault', 'cluster']).join(' ')} --pgdata $P --node ${primary ?? 'NODE'}`,
      });
  },
};

export const archivingStatus: CommandRow = {
  path: 'archiving status',
  summary: 'say whether archiving is on, by the vault and by this node, and what was lost',
  text: `The vault's word holds for the whole cluster. This node's own (--local) is shown where its state directory is known by --pgdata, --state-dir
or PGDATA, with what it ignored and could not declare yet; a vault that does not answer is said, and the node's word shown all
the same. The exit code is 0 whatever it says.`,
  options: [],
  settings: NODE_SETTINGS,
  examples: [
    { says: 'on the primary', line: 'walvault archiving status --pgdata $P' },
    { says: 'in a script', line: 'walvault archiving status --json | jq -r .vault.archiving' },
  ],
  async run(context) {
    const state = await stateIfKnown(context);
    const local = state === undefined ? null : localStatus(state);
    const seen = await context
      .cluster()
      .then((cluster) => readStatus(cluster))
      .catch((error: unknown) => {
        if (!isPassing(error) || local === null) throw error;
        context.say(`the vault does not answer: ${(error as Error).message}`);
        return null;
      });
    const vault = seen && {
      archiving: seen.archiving,
      since: seen.archivingAt,
      gaps: seen.gaps,
      backupNeeded: seen.backupNeeded,
    };
    const nowMs = Date.now();
    const since = (at: string | null): string =>
      at === null ? '' : ` since ${at} (${formatAge(at, nowMs)})`;
    context.answer({ vault, local: local && { ...local } }, () =>
      pairs([
        [
          'by the vault',
          vault === null ? 'not known' : `${vault.archiving ? 'on' : 'OFF'}${since(vault.since)}`,
        ],
        ['by this node', localInWords(local, nowMs)],
        [
          'gaps',
          vault === null
            ? 'not known'
            : vault.gaps.length === 0
              ? 'none'
              : vault.gaps.map(gapText).join(', '),
        ],
        ['base backup', backupInWords(vault, nowMs)],
      ]),
    );
  },
};

async function offHere(context: Context): Promise<void> {
  const state = await stateHere(context);
  const pgdata = await readPgdata(context.settings.need('pgdata'));
  if ((await recoveryMode(pgdata.path)) !== 'none')
    throw new VaultError('refused', `${pgdata.path} is a standby: it archives nothing`, {
      hint: `Run it on the primary.`,
    });
  await context.confirm([
    `archive nothing more of ${pgdata.path}, whatever the vault says: what it writes from now on is lost to the vault for good`,
    `leave every standby behind, and every base backup taken so far`,
  ]);
  const changed = setLocalWord(state, true, new Date().toISOString());
  answerLocal(context, state, changed, changed ? 'archiving is off here' : 'archiving was off here already');
  context.next({
    says: 'on again, here',
    line: context.command('archiving on', ['pgdata', 'stateDir'], ['--local']),
  });
}

function answerLocal(context: Context, state: StatePaths, changed: boolean, words: string): void {
  const local = localStatus(state);
  context.answer({ local: { ...local }, changed }, () => `${words}: ${localInWords(local, Date.now())}`);
}

/** @throws VaultError usage | unconfigured | copied | fenced (detached) */
async function stateHere(context: Context): Promise<StatePaths> {
  const pgdata = await readPgdata(context.settings.need('pgdata'));
  const state = await findStateDirectory(context.settings, pgdata);
  checkIdentity(state);
  checkAttached(state);
  return state;
}

/** The node's state directory, where the settings lead to one that is there. */
async function stateIfKnown(context: Context): Promise<StatePaths | undefined> {
  const { pgdata, stateDir } = context.settings;
  if (pgdata === undefined && stateDir === undefined) return undefined;
  if (pgdata === undefined) return statePaths(stateDir!);
  return findStateDirectory(context.settings, await readPgdata(pgdata));
}

function localInWords(local: LocalStatus | null, nowMs: number): string {
  if (local === null) return 'not looked at (--pgdata names its server)';
  const { off, since, undeclared } = local;
  const left =
    undeclared.length === 0
      ? ''
      : `; ${undeclared.map(gapText).join(', ')} ignored and not declared in the vault yet`;
  return `${off ? `OFF since ${since} (${formatAge(since, nowMs)})` : 'on'}${left}`;
}

function backupInWords(
  vault: { archiving: boolean; backupNeeded: { since: string; from: string; to: string } | null } | null,
  nowMs: number,
): string {
  if (vault === null) return 'not known';
  const { backupNeeded, archiving } = vault;
  if (backupNeeded === null) return 'none is needed';
  return `A NEW ONE IS NEEDED since ${backupNeeded.since} (${formatAge(backupNeeded.since, nowMs)}): none begins after ${gapText(backupNeeded)}${archiving ? '' : '; archiving has to be on first'}`;
}
