/**
 * The linter, and the import directions between rooms (docs/design.md, "Rooms"):
 * entry points import core, never each other; inside core, wal and errors import nothing, cluster only those,
 * vault, postgres, settings and cost only those, work joins them; some packages belong to one room.
 */
import tseslint from 'typescript-eslint';
import importX from 'eslint-plugin-import-x';

const entry = ['hooks', 'lambdas', 'infra', 'bin'];
const zones = [
  // an entry point imports core, never another entry point
  ...entry.map((room) => ({
    target: `./${room}`,
    from: [...entry.filter((other) => other !== room), 'test', 'bench'].map((other) => `./${other}`),
    message: 'entry points import core, never each other; nothing imports test or bench',
  })),
  {
    target: './core',
    from: [...entry, 'test', 'bench'].map((room) => `./${room}`),
    message: 'core imports nothing outside itself',
  },
  { target: './core/wal', from: './core', except: ['./wal', './errors.ts'], message: 'wal imports nothing' },
  { target: './core/errors.ts', from: './core', message: 'errors imports nothing' },
  {
    target: './core/cluster',
    from: './core',
    except: ['./cluster', './wal', './errors.ts'],
    message: 'cluster imports only wal and errors',
  },
  ...['vault', 'postgres', 'settings', 'cost'].map((room) => ({
    target: `./core/${room}`,
    from: './core',
    except: [`./${room}`, './wal', './errors.ts'],
    message: `${room} imports only wal and errors`,
  })),
];

const only = (packages, message) => ({ group: packages, message });
const aws = only(['@aws-sdk/*', '@smithy/*'], '@aws-sdk/* belongs to core/vault and lambdas');
const cdk = only(['aws-cdk-lib', 'aws-cdk-lib/*', 'constructs'], 'aws-cdk-lib belongs to infra');
const cli = only(['commander', 'cli-table3', 'cli-progress'], 'the command line belongs to bin');
const child = only(['node:child_process', 'child_process'], 'node:child_process belongs to core/postgres');
const restrict = (files, ...patterns) => ({
  files,
  rules: { 'no-restricted-imports': ['error', { patterns }] },
});

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'release/', 'infra/cdk.out/'] },
  ...tseslint.configs.recommended,
  {
    plugins: { 'import-x': importX },
    settings: { 'import-x/resolver': { node: { extensions: ['.ts', '.mjs', '.js'] } } },
    rules: {
      'import-x/no-restricted-paths': ['error', { zones }],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      eqeqeq: 'error',
    },
  },
  restrict(['core/**/*.ts'], aws, cdk, cli, child),
  restrict(['core/vault/**/*.ts'], cdk, cli, child),
  restrict(['core/postgres/**/*.ts'], aws, cdk, cli),
  restrict(['hooks/**/*.ts'], aws, cdk, cli, child),
  restrict(['lambdas/**/*.ts'], cdk, cli, child),
  restrict(['infra/**/*.ts'], aws, cli, child),
  restrict(['bin/**/*.ts'], aws, cdk, child),
  { files: ['**/*.cjs'], rules: { '@typescript-eslint/no-require-imports': 'off', 'no-undef': 'off' } },
);
