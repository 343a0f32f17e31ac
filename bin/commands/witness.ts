/** `walvault witness`: watches the primary of a cluster, warns, and triggers where it may. */
import os from 'node:os';
import type { VaultError } from '../../core/errors.ts';
import { duration } from '../../core/settings/kinds.ts';
import type { SettingName } from '../../core/settings/settings.ts';
import { settingsOf } from '../../core/settings/settings.ts';
import { keptEach } from '../../core/vault/kept.ts';
import { openCluster } from '../../core/work/cluster.ts';
import { runWitness, type WitnessSeen } from '../../core/work/witness.ts';
import type { CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { untilSignalled } from '../until-signalled.ts';

const SETTINGS_OF_WITNESS: readonly SettingName[] = [
  ...new Set([...REACH_SETTINGS, ...settingsOf('witness')]),
];
const FOR = duration('1s', '365d');

export const witness: CommandRow = {
  path: 'witness',
  summary:
    'watch the primary; warn when it is silent, and trigger a standby where that is safe and asked for',
  text: `Looks at the vault again and again (--witness-interval) and reads signs of the primary: the counter of its lease, and its commits. Where
they stand still it warns: an event, and with it the notice and the alarm. With --auto-failover on it triggers the standby of the highest
failover_priority that is fresh (--max-lag), smart, once the lease of the primary is certainly over by what it saw itself; never for a
primary without a lease, never during maintenance, a flush or with archiving off, never where it sees the table badly, and not twice
within --cool-down. Any number of witnesses may watch one cluster: one of them triggers. What it decided and why is in 'walvault status'.

It may run anywhere but on the machine of the primary alone; it needs the operator's right. In a replica it watches the primary of the
active vault, and warns only, unless --dr-failover is on.`,
  options: [
    { flags: '--dry-run', summary: 'say what it would do, and write nothing' },
    { flags: '--for <duration>', summary: 'end after so long' },
  ],
  settings: SETTINGS_OF_WITNESS,
  examples: [
    { says: 'warn only', line: 'walvault witness --vault file:///srv/vault --cluster main' },
    {
      says: 'as a unit of systemd: a failover without a person',
      line: 'walvault witness --cluster main --auto-failover on --max-lag 1m',
    },
    { says: 'what would it do now', line: 'walvault witness --dry-run --for 10s --json' },
  ],
  async run(context) {
    const { settings } = context;
    const limitMs = context.text('for') === undefined ? undefined : context.duration('for', '1m', FOR);
    const cluster = await context.cluster();
    const dryRun = context.flag('dryRun');
    context.say(
      `watching ${cluster.name} in ${cluster.vault.url}, ${settings.autoFailover ? `max_lag ${settings.maxLag / 1000} s` : 'warning only'}${dryRun ? ', dry run' : ''}, until ${limitMs === undefined ? 'Ctrl-C' : `${limitMs / 1000} s are over`}`,
    );
    const open = keptEach(async (url: string) => openCluster(await context.anotherVault(url), cluster.name));
    await untilSignalled((signal) =>
      runWitness(cluster, {
        policy: {
          autoFailover: settings.autoFailover,
          maxLagMs: settings.maxLag,
          coolDownMs: settings.coolDown,
        },
        ...{ drFailover: settings.drFailover, everyMs: settings.witnessInterval, dryRun },
        by: `${os.hostname()}:${process.pid}`,
        open,
        signal: limitMs === undefined ? signal : AbortSignal.any([signal, AbortSignal.timeout(limitMs)]),
        onDecision: (seen) => tell(context, seen),
        onTrouble: troubleTeller(context),
      }),
    );
  },
};

function tell(context: Context, { decision, silentMs, isNew }: WitnessSeen): void {
  if (!isNew) return;
  const { do: does, state, why, reasons, to } = decision;
  const at = new Date().toISOString();
  if (context.json)
    context.io.out(
      `${JSON.stringify({ at, do: does, state, why, to, reasons, silentMs: Math.round(silentMs) })}\n`,
    );
  else context.io.out(`${at} ${does === 'nothing' ? state : does}: ${[why, ...reasons].join('; ')}\n`);
}

/** The same trouble is said once, until another comes. */
function troubleTeller(context: Context): (error: VaultError) => void {
  let said = '';
  return ({ code, message }) => {
    if (said === message) return;
    said = message;
    if (context.json) context.io.err(`${JSON.stringify({ error: { code, retry: true, message } })}\n`);
    else context.say(`[${code}] ${message}; it looks again`);
  };
}
