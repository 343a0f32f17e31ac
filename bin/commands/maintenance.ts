/** `walvault maintenance on` and `off`: servers are stopped on purpose, no witness shall take that for a failure. */
import os from 'node:os';
import { VaultError } from '../../core/errors.ts';
import { duration } from '../../core/settings/kinds.ts';
import { setMaintenance } from '../../core/work/maintenance.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';

const FOR = duration('1s', '30d');
/** What fits into the row and into a line of `status`. */
const REASON_LENGTH = 200;

export const maintenanceOn: CommandRow = {
  path: 'maintenance on',
  summary: 'servers are stopped on purpose for a while: no witness triggers',
  text: `Before a restart of the primary, work on its machine, or anything else that looks like a failure. It ends by itself after --for, so
that a forgotten one does not leave the cluster without its witness; said again it counts from now. Leases go on as they are: a primary
that cannot renew is stopped all the same. A flush and a switchover need no maintenance.`,
  options: [
    { flags: '--for <duration>', summary: 'how long (default 1h)' },
    { flags: '--reason <text>', summary: 'why; status and the event show it' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    {
      says: 'before a restart of the primary',
      line: `walvault maintenance on --for 15m --reason 'kernel update'`,
    },
    { says: 'when it is done', line: 'walvault maintenance off' },
  ],
  async run(context) {
    const now = new Date();
    const forMs = context.duration('for', '1h', FOR);
    const reason = context.text('reason') ?? `by ${os.userInfo().username} on ${os.hostname()}`;
    if (reason.length > REASON_LENGTH || /\p{Cc}/u.test(reason))
      throw new VaultError('usage', `--reason is a line of ${REASON_LENGTH} characters at most`);
    const cluster = await context.cluster();
    const until = new Date(now.getTime() + forMs).toISOString();
    const { maintenance } = await setMaintenance(cluster, { at: now.toISOString(), until, by: reason });
    context.answer(
      { cluster: cluster.name, maintenance },
      () => `maintenance of ${cluster.name} until ${until}`,
    );
    context.next({ says: 'when it is done', line: context.command('maintenance off', ['vault', 'cluster']) });
  },
};

export const maintenanceOff: CommandRow = {
  path: 'maintenance off',
  summary: 'the maintenance is over: the witness may trigger again',
  text: `A witness counts from what it saw meanwhile: where the primary is down and its lease is over, a failover may follow at once.`,
  options: [],
  settings: REACH_SETTINGS,
  examples: [{ says: 'once the primary is back', line: 'walvault status && walvault maintenance off' }],
  async run(context) {
    const cluster = await context.cluster();
    const { changed } = await setMaintenance(cluster, undefined);
    context.answer({ cluster: cluster.name, maintenance: null, changed }, () =>
      changed ? `maintenance of ${cluster.name} is over` : `there was no maintenance of ${cluster.name}`,
    );
  },
};
