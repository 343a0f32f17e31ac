/** The operator's command: words in, answers on standard output, messages on standard error, an exit code. */
import { processIo } from './ui/io.ts';
import { runProgram } from './program.ts';

// `walvault status | head` closes the pipe early: that is no failure of ours
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 70));

void runProgram(process.argv.slice(2), processIo()).then((code) => {
  process.exitCode = code;
  // what was written to a pipe must have left before the process ends; idle sockets of a store must not keep it
  process.stdout.write('', () => process.stderr.write('', () => process.exit(code)));
});
