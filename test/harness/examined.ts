/** Commands of findings by their names: a table says which of them a finding must advise. */
import type { Commands } from '../../core/cluster/examine-node.ts';

export const COMMANDS: Commands = {
  configure: 'configure',
  configureRestart: 'configureRestart',
  restart: 'restart',
  reload: 'reload',
  start: 'start',
  backup: 'backup',
  guard: 'guard',
  claim: 'claim',
  rejoin: 'rejoin',
  startAgent: 'startAgent',
  asOwner: 'asOwner',
};
