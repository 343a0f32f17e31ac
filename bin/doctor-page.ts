/** docs/doctor.md, made from the table of checks (core/cluster/checks.ts); `npm run docs` writes it with the reference. */
import path from 'node:path';
import { CHECKS } from '../core/cluster/checks.ts';
import { programRoot } from './program-root.ts';

/** Where the page lies. */
export const DOCTOR_FILE = path.join(programRoot(), 'docs/doctor.md');

/** The whole page. */
export function doctorPage(): string {
  const cell = (text: string) => text.replaceAll('|', '\\|');
  return `<!-- Made by \`npm run docs\` from the table in core/cluster/checks.ts. Edit that. -->

# What doctor looks at

\`walvault doctor\` examines a node and its vaults and changes nothing; [the reference](reference.md#walvault-doctor) has its
options. On a node:

\`\`\`sh
walvault doctor --pgdata /var/lib/postgresql/18/main
\`\`\`

Each line is one finding: the check that made it, \`ok\`, \`warn\` (worth a look) or \`BAD\` (something does not work, or will not), and
what was seen. Below the table stands for each that is not ok what to do: a sentence, or a command to paste, as it means this very
node. Do it, and run doctor again. Exit status: 0 all is well, 1 the worst is \`warn\`, 2 the worst is \`BAD\`.

What cannot be looked at is a finding itself, and the rest goes on: the server may be down, the vault away, the user another one, or
nothing configured at all. Without \`--pgdata\` (or PGDATA) the vaults alone are examined.

\`--json\` answers one object: \`cluster\`, \`worst\` (0, 1, 2), \`settings\` (\`name\`, \`value\`, \`origin\`) and \`findings\` (\`what\`,
\`state\`, \`says\`, and where there is one \`fix\`, a sentence, and \`run\`, a command of sh). \`what\` is a name of this table.

| check | looks at |
| --- | --- |
${CHECKS.map(({ what, looks }) => `| ${cell(what)} | ${cell(looks)} |`).join('\n')}

Where doctor does not say enough: every command takes \`--debug\`, which prints on standard error what was read and asked of vault
and server, how long each took, and the stack and causes of a failure. Neither prints secrets.
`;
}
