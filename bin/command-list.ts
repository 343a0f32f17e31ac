/** The commands, in the order in which a person meets them. */
import type { CommandRow } from './command.ts';
import { archivingOff, archivingOn, archivingStatus } from './commands/archiving.ts';
import { archivingSwitch } from './commands/archiving-switch.ts';
import { backup } from './commands/backup.ts';
import { backups } from './commands/backups.ts';
import { backupsPin, backupsUnpin } from './commands/backups-pin.ts';
import { claim } from './commands/claim.ts';
import { configurePrimaryCommand } from './commands/configure-primary.ts';
import { cost } from './commands/cost.ts';
import { demo } from './commands/demo.ts';
import { doctor } from './commands/doctor.ts';
import { events } from './commands/events.ts';
import { flush } from './commands/flush.ts';
import { guard } from './commands/guard.ts';
import { init } from './commands/init.ts';
import { maintenanceOff, maintenanceOn } from './commands/maintenance.ts';
import { relay } from './commands/relay.ts';
import { rejoinCommand } from './commands/rejoin.ts';
import { retention } from './commands/retention.ts';
import { salvageCommand } from './commands/salvage.ts';
import { logsFetch, logsList, logsSave } from './commands/logs.ts';
import { nodeAdd } from './commands/node-add.ts';
import { nodeCheck } from './commands/node-check.ts';
import { nodeDrop } from './commands/node-drop.ts';
import { nodeList } from './commands/node-list.ts';
import { standbyConfigure } from './commands/standby-configure.ts';
import { standbyCreate } from './commands/standby-create.ts';
import { standbyDetach } from './commands/standby-detach.ts';
import { status } from './commands/status.ts';
import { switchoverCommand } from './commands/switchover.ts';
import { timelines } from './commands/timelines.ts';
import { trigger } from './commands/trigger.ts';
import { upgradeHooksCommand } from './commands/upgrade-hooks.ts';
import { wal } from './commands/wal.ts';
import { witness } from './commands/witness.ts';

export const COMMANDS: readonly CommandRow[] = [
  init,
  configurePrimaryCommand,
  backup,
  backups,
  backupsPin,
  backupsUnpin,
  retention,
  standbyCreate,
  standbyConfigure,
  standbyDetach,
  nodeAdd,
  nodeCheck,
  nodeList,
  nodeDrop,
  status,
  archivingOn,
  archivingOff,
  archivingStatus,
  archivingSwitch,
  events,
  wal,
  timelines,
  logsSave,
  logsList,
  logsFetch,
  doctor,
  switchoverCommand,
  flush,
  trigger,
  claim,
  rejoinCommand,
  salvageCommand,
  relay,
  witness,
  maintenanceOn,
  maintenanceOff,
  guard,
  upgradeHooksCommand,
  cost,
  demo,
];
