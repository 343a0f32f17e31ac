/**
 * Jest's transform: one TypeScript (or ES module) file to CommonJS, with import.meta of the original kept.
 */
const { transformSync } = require('esbuild');
const { createHash } = require('node:crypto');

module.exports = {
  getCacheKey: (source, file) => createHash('sha256').update('3').update(file).update(source).digest('hex'),
  process(source, file) {
    return transformSync(source, {
      loader: file.endsWith('.ts') ? 'ts' : 'js',
      format: 'cjs',
      target: 'node24',
      supported: { 'dynamic-import': false }, // becomes require(): Jest's own loader has no import()
      sourcemap: 'inline',
      sourcefile: file,
      define: {
        'import.meta.dirname': '__dirname',
        'import.meta.filename': '__filename',
        'import.meta.url': '__importMetaUrl',
      },
      banner: 'const __importMetaUrl = require("node:url").pathToFileURL(__filename).href;',
    });
  },
};
