/** `walvault upgrade-hooks`: moves a server to this version of the program. */
import { existsSync, realpathSync } from 'node:fs';
import { openCluster } from '../../core/work/cluster.ts';
import { stateDirOf } from '../../core/work/node-state.ts';
import { upgradeHooks, type Upgraded } from '../../core/work/upgrade-hooks.ts';
import type { CommandRow } from '../command.ts';
import { programRoot } from '../program-root.ts';
import { NODE_SETTINGS } from '../reach-settings.ts';

export const upgradeHooksCommand: CommandRow = {
  path: 'upgrade-hooks',
  summary: 'move a server to this version of walvault',
  text: `Versions are installed side by side, and a server goes on with the one that it was configured with until this is run, by the
walvault of the version to move to (an older one, too). Links and scripts of the state directory are exchanged, each by rename; no
restart and no reload is needed, at any load. The agent of the other version finishes what it has in hand and makes way. Nothing of the
settings is changed. Only when it is done on each server of a machine may the old version be removed.

A vault of a newer format than this version knows is refused; one that does not answer is not, and that is said.`,
  options: [{ flags: '--dry-run', summary: 'change nothing: say what would be done' }],
  settings: NODE_SETTINGS,
  examples: [
    {
      says: 'after the new version was unpacked beside the old one, as the user who runs the server',
      line: '/opt/walvault/walvault-0.2.0-linux-x64/bin/walvault upgrade-hooks --pgdata /var/lib/postgresql/18/main',
    },
  ],
  async run(context) {
    const pgdata = context.settings.need('pgdata');
    const done = await upgradeHooks({
      stateDir: context.settings.stateDir ?? stateDirOf(existsSync(pgdata) ? realpathSync(pgdata) : pgdata),
      programRoot: programRoot(),
      nodeBinary: process.execPath,
      askVault: async () => openCluster(await context.vault(), context.settings.need('cluster')),
      dryRun: context.flag('dryRun'),
    });
    context.answer({ dryRun: context.flag('dryRun'), ...done }, () => describe(done, context.flag('dryRun')));
    if (done.unasked !== null)
      context.say(`the vault could not be asked whether it takes this version: ${done.unasked}`);
  },
};

function describe({ from, to, wrappers, agent }: Upgraded, dryRun: boolean): string {
  const name = ({ root, version }: Upgraded['from']): string => `${version ?? 'unknown'} (${root})`;
  const would = dryRun ? 'would be ' : '';
  const scripts =
    wrappers.length === 0 ? 'scripts as they are' : `scripts ${would}exchanged: ${wrappers.join(', ')}`;
  if (from.root === to.root) return `the server runs ${name(to)} already; ${scripts}`;
  const agents = {
    finished: `its agent ${would}told to make way`,
    none: 'no agent ran',
    kept: 'its agent stays',
  };
  return `from ${name(from)} to ${name(to)}: links ${would}moved; ${scripts}; ${agents[agent]}`;
}
