/** Bundles what starts often (hooks, agent, command) into dist/: one CommonJS file each, since CommonJS starts faster than ESM. */
import { build } from 'esbuild';
import { existsSync } from 'node:fs';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../..');
const entries = [
  'hooks/archive.ts',
  'hooks/restore.ts',
  'hooks/cleanup.ts',
  'hooks/recovered.ts',
  'hooks/agent.ts',
  'bin/walvault.ts',
];

await build({
  entryPoints: entries.map((entry) => path.join(root, entry)).filter((file) => existsSync(file)),
  outdir: path.join(root, 'dist'),
  entryNames: '[name]',
  outExtension: { '.js': '.cjs' },
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'cjs',
  external: ['pg-native'],
  logLevel: 'warning',
  define: { 'import.meta.dirname': '__dirname', 'import.meta.filename': '__filename' },
});
