/** `walvault node check`: on a new node, whether it can work with the vault, both ways. */
import { VaultError } from '../../core/errors.ts';
import { proveAccess } from '../../core/work/prove-access.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { table } from '../ui/table.ts';

export const nodeCheck: CommandRow = {
  path: 'node check',
  summary: 'try on this machine all that a node needs of the vault: reach, rights, versions',
  text: `Puts, reads and lists a small object in the bucket, reads the manifest and writes this node's own row by
condition, looks for PostgreSQL of the cluster's version, and compares the C library with the primary's. 'standby
create' does the same before it begins. Fails where the node could not work; what a person should only know is a
notice.`,
  options: [],
  settings: ['node', ...REACH_SETTINGS],
  examples: [{ says: 'on the new machine', line: 'walvault node check --node db3' }],
  async run(context) {
    const node = context.settings.need('node');
    const proofs = await proveAccess(await context.cluster(), node);
    context.answer(
      proofs.map(({ what, state, text, hint }) => ({ what, state, text, hint: hint ?? null })),
      () =>
        table(
          ['what', 'state', ''],
          proofs.map(({ what, state, text }) => [what, state, text]),
        ),
    );
    const failed = proofs.filter(({ state }) => state === 'failed');
    if (failed.length > 0)
      throw new VaultError(
        'denied',
        `${failed.map(({ what }) => what).join(' and ')}: not as ${node} needs it`,
        {
          hint: failed.find(({ hint }) => hint !== undefined)?.hint,
        },
      );
  },
};
