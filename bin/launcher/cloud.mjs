/**
 * The CDK around infra/app.ts, under Node 24 and with what a person must not have to know of it.
 *
 *   npm run bootstrap -- --config walvault.toml       once for each account and region
 *   npm run deploy -- --config walvault.toml          both regions; then says where the vault is and what to type next
 *   npm run synth -- --config walvault.toml           the templates, into cdk.out of this folder; no account is needed
 *   npm run destroy -- --config walvault.toml         the stacks; bucket, table and key stay
 *
 * Everything else is the CDK's own: `-c key=value`, `--profile`, `--require-approval`, `--import-existing-resources` (after a destroy).
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parse } from 'smol-toml';
import { root } from './checkout.mjs';

const [command, ...given] = process.argv.slice(2);
const scratch = mkdtempSync(path.join(os.tmpdir(), 'walvault-cdk-'));
const outputsFile = path.join(scratch, 'outputs.json');

try {
  const { args, config } = readArguments(given);
  const status = await cdk([
    ...wordsOf(command),
    ...context(config),
    // checked with the configuration: bucket and table are found by name, the key is not
    ...(args.includes('--import-existing-resources') ? ['-c', 'adopt=true'] : []),
    ...args,
    ...(command === 'bootstrap' ? regionsOf(config, args) : []),
  ]);
  if (status === 0 && command === 'deploy') tellOutputs();
  if (status !== 0 && command !== 'synth' && !hasCredentials(args))
    console.error(
      'walvault: no credentials of AWS are in sight\nHINT: Log in first (aws sso login, aws configure), or name a profile: AWS_PROFILE, or --profile NAME.',
    );
  process.exitCode = status;
} catch (error) {
  console.error(`walvault: ${error.message}`);
  process.exitCode = 2;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** `--config FILE` is ours; it is looked for where the person stands, and npm changes that. */
function readArguments(words) {
  const args = [];
  let config;
  for (let index = 0; index < words.length; index++) {
    const word = words[index];
    if (word !== '--config' && !word.startsWith('--config=')) {
      args.push(word);
      continue;
    }
    const value = word === '--config' ? words[++index] : word.slice('--config='.length);
    if (value === undefined || value === '') throw new Error('--config wants a file');
    config = path.resolve(process.env['INIT_CWD'] ?? process.cwd(), value);
    if (!existsSync(config)) throw new Error(`there is no ${config}`);
  }
  return { args, config };
}

function context(config) {
  return config === undefined ? [] : ['-c', `config=${config}`];
}

function wordsOf(name) {
  const asked = process.stdin.isTTY ? [] : ['--require-approval', 'never'];
  if (name === 'deploy') return ['deploy', '--all', '--outputs-file', outputsFile, ...asked];
  if (name === 'destroy') return ['destroy', '--all', ...(process.stdin.isTTY ? [] : ['--force'])];
  if (name === 'synth')
    return ['synth', '--quiet', '--output', path.resolve(process.env['INIT_CWD'] ?? '.', 'cdk.out')];
  if (name === 'diff') return ['diff'];
  return ['bootstrap'];
}

/** The environments that the CDK cannot find out without an account: named by the configuration. */
function regionsOf(config, args) {
  if (args.some((word) => word.startsWith('aws://'))) return [];
  const said = (key) => args.find((word) => word.startsWith(`regions.${key}=`))?.split('=')[1];
  const file = config === undefined ? {} : (parse(readFileSync(config, 'utf8')).regions ?? {});
  const regions = [said('primary') ?? file.primary, said('dr') ?? file.dr].filter(
    (region) => region !== undefined,
  );
  const account = process.env['CDK_DEFAULT_ACCOUNT'] ?? process.env['AWS_ACCOUNT_ID'];
  // without the account's number the CDK asks AWS for it, by the app's own environments
  return account === undefined ? [] : regions.map((region) => `aws://${account}/${region}`);
}

/** Where the SDK looks first; a machine of EC2 has some besides, so their absence is no failure by itself. */
function hasCredentials(args) {
  const named = [
    'AWS_ACCESS_KEY_ID',
    'AWS_PROFILE',
    'AWS_WEB_IDENTITY_TOKEN_FILE',
    'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI',
  ];
  const files = ['credentials', 'config'].map((name) => path.join(os.homedir(), '.aws', name));
  return (
    named.some((name) => process.env[name]) ||
    files.some((file) => existsSync(file)) ||
    args.some((word) => /^--profile(=|$)/.test(word))
  );
}

/** Runs the CDK to its end; it gets the signals that this process gets. */
function cdk(words) {
  // begun with a word of the shell: the CDK takes quotes at both ends away
  const app = `exec ${quoted(process.execPath)} ${quoted(path.join(root, 'infra/app.ts'))}`;
  const output = words.includes('--output') ? [] : ['--output', path.join(scratch, 'cdk.out')];
  const child = spawn(
    process.execPath,
    [path.join(root, 'node_modules/aws-cdk/bin/cdk'), ...words, '--app', app, ...output, '--no-notices'],
    {
      stdio: 'inherit',
      cwd: scratch,
      env: { ...process.env, PATH: `${path.dirname(process.execPath)}:${process.env['PATH']}` },
    },
  );
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve(status ?? (signal === 'SIGINT' ? 130 : 1)));
  });
}

function quoted(text) {
  return `"${text}"`;
}

/** What a person needs next, on standard output; the CDK's own words are on standard error. */
function tellOutputs() {
  if (!existsSync(outputsFile)) return;
  const stacks = Object.values(JSON.parse(readFileSync(outputsFile, 'utf8')));
  const [primary] = stacks.filter(({ InitLine }) => InitLine !== undefined);
  const [dr] = stacks.filter(({ InitLine }) => InitLine === undefined);
  if (primary === undefined) return;
  console.log(`vault      ${primary.VaultUrl}`);
  if (dr !== undefined) console.log(`DR vault   ${dr.VaultUrl}`);
  console.log(`nodes      ${primary.NodeWriterRole}`);
  console.log(`operator   ${primary.OperatorRole}`);
  console.log(`\nnext, on the primary, with the operator's role:\n  ${primary.InitLine}`);
}
