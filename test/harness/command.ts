/** One run of the operator's command within this process: what it printed where, and its exit code. No terminal. */
import { PassThrough } from 'node:stream';
import { runProgram } from '../../bin/program.ts';
import type { Io } from '../../bin/ui/io.ts';

export type Said = { code: number; out: string; err: string };

export async function walvault(words: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Said> {
  const said = { out: '', err: '' };
  const io: Io = {
    out: (text) => void (said.out += text),
    err: (text) => void (said.err += text),
    drawable: false,
    asks: false,
    stdin: new PassThrough(),
    stderr: process.stderr,
    env,
    columns: 100,
  };
  return { code: await runProgram(words, io), ...said };
}
