/** Test files are TypeScript; esbuild turns each into CommonJS (types are checked by `npm run typecheck`). */
import os from 'node:os';
import path from 'node:path';

export default {
  rootDir: import.meta.dirname,
  roots: ['<rootDir>/test'],
  testEnvironment: 'node',
  testMatch: ['**/*.test.ts'],
  setupFiles: ['<rootDir>/test/harness/jest-realm.cjs'],
  setupFilesAfterEnv: ['<rootDir>/test/harness/jest-limits.cjs'],
  testSequencer: '<rootDir>/test/harness/jest-order.cjs',
  transform: { '\\.(ts|js|mjs)$': '<rootDir>/test/harness/jest-transform.cjs' },
  transformIgnorePatterns: ['/node_modules/(?!(commander|smol-toml)/)'],
  cacheDirectory: path.join(os.tmpdir(), `walvault-jest-${os.userInfo().uid}`),
};
