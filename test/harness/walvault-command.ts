/** The command `walvault` as a person types it: its end, or a child that runs on. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import path from 'node:path';
import { killHard, waitFor } from './scratch.ts';

export const walvaultFile = path.resolve(import.meta.dirname, '../../bin/walvault');

export type Answer = { status: number; stdout: string; stderr: string };

/** Far above what any command takes, below what a test may: a command that hangs is named by its error. */
export const COMMAND_LIMIT_MS = 600_000;

type Where = { env: NodeJS.ProcessEnv; cwd: string };

/** A program's end. @throws when it could not be started, or was killed */
export async function endOf(file: string, args: string[], where: Where): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const child = execFile(
      file,
      args,
      { ...where, timeout: COMMAND_LIMIT_MS, maxBuffer: 64 << 20 },
      (error, stdout, stderr) => {
        if (error && typeof error.code !== 'number')
          reject(new Error(`${file} ${args.join(' ')}: ${error.message}\n${stderr}`));
        else resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
      },
    );
    child.stdin?.end();
  });
}

/** A command that runs until it is told to end. */
export class RunningCommand {
  readonly args: string[];
  stdout = '';
  stderr = '';
  /** Exit status, or the signal's name; undefined while it runs. */
  ended: number | NodeJS.Signals | undefined;
  private readonly child: ChildProcess;

  constructor(args: string[], where: Where) {
    this.args = args;
    this.child = spawn(walvaultFile, args, { ...where, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout?.on('data', (text) => (this.stdout += text));
    this.child.stderr?.on('data', (text) => (this.stderr += text));
    this.child.on('error', (error) => (this.stderr += `${error.message}\n`));
    this.child.on('close', (status, signal) => (this.ended = status ?? signal ?? 70));
  }

  get pid(): number {
    return this.child.pid!;
  }

  /** What it has printed with --json so far, one object a line. */
  get said(): Record<string, unknown>[] {
    return this.stdout
      .split('\n')
      .filter((line) => line.startsWith('{') && line.endsWith('}'))
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Ctrl-C of the person, and its end. @returns exit status, or the signal's name */
  async stop(withinMs = 20_000): Promise<number | NodeJS.Signals> {
    if (this.ended === undefined) this.child.kill('SIGTERM');
    return await this.end(withinMs);
  }

  /** kill -9. */
  async kill(): Promise<void> {
    if (this.ended === undefined) await killHard([this.pid]);
    await this.end();
  }

  /** Until it has ended, by whatever; its output is whole then. */
  async end(withinMs = 20_000): Promise<number | NodeJS.Signals> {
    return await waitFor(`the end of walvault ${this.args.join(' ')}`, withinMs, () => this.ended);
  }
}
