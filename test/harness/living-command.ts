/** A run of the operator's command from its sources as a process of its own, for what goes on until it is told to end. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { waitFor } from './scratch.ts';

const program = path.resolve(import.meta.dirname, '../../bin/walvault.ts');

export type LivingCommand = {
  out(): string;
  err(): string;
  /** Until this stands on standard output. */
  says(pattern: RegExp): Promise<unknown>;
  /** Sends the signal; the exit status, null where the signal killed it. */
  end(signal: NodeJS.Signals): Promise<number | null>;
};

export function livingCommand(words: readonly string[]): LivingCommand {
  const child = spawn(process.execPath, [program, ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said.out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said.err += text));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  return {
    out: () => said.out,
    err: () => said.err,
    says: (pattern) =>
      waitFor(`${pattern} of walvault ${words.join(' ')}`, 10_000, () => {
        if (pattern.test(said.out)) return true;
        if (child.exitCode !== null) throw new Error(`ended with ${child.exitCode}: ${said.err}`);
        return false;
      }),
    end(signal) {
      child.kill(signal);
      return ended;
    },
  };
}
