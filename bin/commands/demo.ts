/** `walvault demo`: the whole story on one machine, in about a minute, by the same commands that a person types. */
import { duration } from '../../core/settings/kinds.ts';
import { runDemo } from '../demo/story.ts';
import type { CommandRow } from '../command.ts';
import { untilSignalled } from '../until-signalled.ts';

const FOR = duration('3s', '10m');

export const demo: CommandRow = {
  path: 'demo',
  summary: 'watch a primary archive, a standby follow, and a trigger make it the primary',
  text: `Starts a PostgreSQL of its own with steady writes, a vault in a temporary directory, a base backup and a hot
standby; shows what flows; then kills the primary with -9, triggers, and counts on the promoted standby that every
archived commit is there, and what was lost at most. Touches no other server, leaves no process behind, and removes
its directory unless --keep. With --vault s3://… it does the same there, under a cluster name of its own.`,
  options: [
    { flags: '--for <duration>', summary: 'how long to watch before the primary is killed (default 12s)' },
    { flags: '--keep', summary: 'keep the directory (servers, logs, vault) to look into' },
    { flags: '--create-table', summary: 's3: make the DynamoDB table where it is missing' },
  ],
  settings: ['vault', 'vaultTimeout', 'awsRegion', 'awsProfile', 'awsEndpoint'],
  examples: [
    { says: 'on this machine alone', line: 'walvault demo' },
    {
      says: 'through S3 and DynamoDB',
      line: `walvault demo --vault 's3://bucket/prefix?table=walvault&region=eu-west-1'`,
    },
  ],
  async run(context) {
    const watchMs = context.duration('for', '12s', FOR);
    await untilSignalled((ended) => runDemo(context, { watchMs, ended }));
  },
};
