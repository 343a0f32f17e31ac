/** The commands, in the order in which a person meets them. */
import type { CommandRow } from './command.ts';
import { backup } from './commands/backup.ts';
import { backups } from './commands/backups.ts';
import { claim } from './commands/claim.ts';
import { demo } from './commands/demo.ts';
import { guard } from './commands/guard.ts';
import { init } from './commands/init.ts';
import { status } from './commands/status.ts';
import { trigger } from './commands/trigger.ts';

export const COMMANDS: readonly CommandRow[] = [init, backup, backups, trigger, status, claim, guard, demo];
