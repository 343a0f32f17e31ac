/**
 * The CDK app: one stack for each region of the configuration.
 *
 *   npm run deploy -- --config walvault.toml           a file, and -c key=value on top of it
 *   npm run deploy -- -c regions.primary=eu-west-1     or without one
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { App } from 'aws-cdk-lib';
import { describeFailure, VaultError } from '../core/errors.ts';
import { givenByContext, readConfiguration, type Configuration } from './configuration.ts';
import { VaultStack } from './vault-stack.ts';

/** Made by bin/launcher/build.mjs. */
const BUNDLES = path.resolve(import.meta.dirname, '../dist/lambdas');

export function makeApp(
  configuration: Configuration,
  app: App = new App(),
  bundles: string = BUNDLES,
): { app: App; stacks: VaultStack[] } {
  const { name, regions } = configuration;
  const stacks = (['primary', 'dr'] as const).flatMap((side) => {
    const region = regions[side];
    if (region === undefined) return [];
    const account = process.env['CDK_DEFAULT_ACCOUNT'];
    return new VaultStack(app, `${name}-${side}`, {
      ...{ configuration, side, bundles },
      description: `walvault ${name} in ${region}${regions.dr === undefined ? '' : `, ${side} region of two`}`,
      env: { region, ...(account === undefined ? {} : { account }) },
    });
  });
  return { app, stacks };
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new VaultError('usage', `cannot read the configuration ${file}: ${(cause as Error).message}`, {
      hint: 'Give a file of yours by --config FILE, or none and -c regions.primary=eu-west-1.',
      cause,
    });
  }
}

if (import.meta.main) {
  const app = new App();
  try {
    const file = app.node.tryGetContext('config') as string | undefined;
    const given = givenByContext(app.node.getAllContext() as Record<string, unknown>);
    makeApp(readConfiguration(file === undefined ? undefined : readFile(file), given, file), app).app.synth();
  } catch (error) {
    if (!(error instanceof VaultError)) throw error;
    process.stderr.write(`${describeFailure(error).text}\n`);
    process.exitCode = 2;
  }
}
