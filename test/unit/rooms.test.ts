/** The import rules between rooms bite: each rule is shown one line that breaks it, and one that does not. */
import { execFileSync } from 'node:child_process';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../..');

/** A file that does not exist, what it would import, and what the linter must say (or `allowed`). */
const LINES: [file: string, imported: string, said: string][] = [
  ['core/wal/probe.ts', '../vault/vault.ts', 'wal imports nothing'],
  ['core/wal/probe.ts', '../errors.ts', 'allowed'],
  ['core/cluster/probe.ts', '../vault/vault.ts', 'cluster imports only wal and errors'],
  ['core/cluster/probe.ts', '../wal/lsn.ts', 'allowed'],
  ['core/vault/probe.ts', '../cluster/facts.ts', 'vault imports only wal and errors'],
  ['core/postgres/probe.ts', '../vault/vault.ts', 'postgres imports only wal and errors'],
  ['core/settings/probe.ts', '../vault/vault.ts', 'settings imports only wal and errors'],
  ['core/cost/probe.ts', '../vault/vault.ts', 'cost imports only wal and errors'],
  ['core/work/probe.ts', '../vault/vault.ts', 'allowed'],
  ['core/probe.ts', '../bin/walvault.ts', 'core imports nothing outside itself'],
  ['core/work/probe.ts', '../../test/harness/pairs.ts', 'core imports nothing outside itself'],
  ['hooks/probe.ts', '../bin/walvault.ts', 'entry points import core, never each other'],
  ['hooks/probe.ts', '../core/errors.ts', 'allowed'],
  ['bin/probe.ts', '../test/harness/pairs.ts', 'nothing imports test or bench'],
  ['core/work/probe.ts', '@aws-sdk/client-s3', '@aws-sdk/* belongs to core/vault'],
  ['core/vault/probe.ts', '@aws-sdk/client-s3', 'allowed'],
  ['hooks/probe.ts', '@aws-sdk/client-s3', '@aws-sdk/* belongs to core/vault'],
  ['bin/probe.ts', '@aws-sdk/client-s3', '@aws-sdk/* belongs to core/vault'],
  ['core/work/probe.ts', 'commander', 'the command line belongs to bin'],
  ['hooks/probe.ts', 'commander', 'the command line belongs to bin'],
  ['bin/probe.ts', 'commander', 'allowed'],
  ['core/work/probe.ts', 'node:child_process', 'node:child_process belongs to core/postgres'],
  ['hooks/probe.ts', 'node:child_process', 'node:child_process belongs to core/postgres'],
  ['bin/probe.ts', 'node:child_process', 'node:child_process belongs to core/postgres'],
  ['core/postgres/probe.ts', 'node:child_process', 'allowed'],
  ['hooks/start-agent.ts', 'node:child_process', 'node:child_process belongs to core/postgres'],
  ['core/work/probe.ts', 'aws-cdk-lib', 'aws-cdk-lib belongs to infra'],
];

let messages: string[] = [];

beforeAll(() => {
  // the linter is an ES module that loads its configuration by import(), which jest's own module system lacks
  const script = `
    import { ESLint } from 'eslint';
    const eslint = new ESLint({ cwd: process.argv[1] });
    const found = [];
    for (const [file, imported] of JSON.parse(process.argv[2])) {
      const source = \`import * as probe from '\${imported}';\\nexport { probe };\\n\`;
      const [result] = await eslint.lintText(source, { filePath: process.argv[1] + '/' + file });
      found.push(result.messages.map((message) => message.message).join('; '));
    }
    process.stdout.write(JSON.stringify(found));`;
  const args = ['--input-type=module', '-e', script, root, JSON.stringify(LINES)];
  messages = JSON.parse(execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8' })) as string[];
}, 60_000);

test.each(LINES.map((line, index) => [...line, index] as const))(
  '%s importing %s: %s',
  (_file, _imported, said, index) => {
    if (said === 'allowed') expect(messages[index]).toBe('');
    else expect(messages[index]).toContain(said);
  },
);
