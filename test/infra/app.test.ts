/** What infra/app.ts does with a configuration that it cannot take, as the CDK would start it: one line, and no stack of calls. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const APP = path.resolve(import.meta.dirname, '../../infra/app.ts');

let scratch: string;
beforeAll(() => (scratch = mkdtempSync(path.join(os.tmpdir(), 'walvault-app-'))));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** What the CDK hands on of `-c key=value`, and what it keeps there for itself. */
function start(context: Record<string, unknown>) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [APP], {
    cwd: scratch,
    encoding: 'utf8',
    timeout: 60_000,
    env: {
      ...{ PATH: process.env['PATH'], HOME: scratch, TMPDIR: scratch },
      CDK_CONTEXT_JSON: JSON.stringify({ 'aws:cdk:enable-path-metadata': true, ...context }),
      CDK_OUTDIR: path.join(scratch, 'cdk.out'),
    },
  });
  return { status, stdout, lines: stderr.trimEnd().split('\n') };
}

function write(name: string, toml: string): string {
  const file = path.join(scratch, name);
  writeFileSync(file, toml);
  return file;
}

test.each<[string, () => Record<string, unknown>, () => string]>([
  [
    'a key on the command line that is not known',
    () => ({ 'regions.primary': 'eu-west-1', 'regions.second': 'eu-central-1' }),
    () => '-c regions.second is not known',
  ],
  [
    'a file with a mistake',
    () => ({ config: write('bad.toml', '[regions]\nprimary = "Ireland"') }),
    () =>
      `regions.primary in ${path.join(scratch, 'bad.toml')}: "Ireland" is not a region of AWS, such as eu-west-1`,
  ],
  [
    'a file that is not there',
    () => ({ config: path.join(scratch, 'absent.toml') }),
    () => `cannot read the configuration ${path.join(scratch, 'absent.toml')}: ENOENT`,
  ],
])('ends with 2 and one line for %s', (_what, context, message) => {
  const { status, stdout, lines } = start(context());
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(lines[0]!.startsWith(`walvault: [usage] ${message()}`)).toBe(true);
  expect(lines.map((line) => line.split(' ')[0])).toEqual(['walvault:', 'HINT:']);
  // and no template that could be deployed
  expect(readdirSync(path.join(scratch, 'cdk.out')).filter((name) => name.includes('template'))).toEqual([]);
});
