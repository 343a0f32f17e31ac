/** A vault as a key for nodes sees it: no object and no row can be deleted, `control` cannot be written. infra/roles.ts says the same in IAM. */
import { VaultError } from '../../core/errors.ts';
import { keyOf } from '../../core/vault/changes.ts';
import type { Vault } from '../../core/vault/vault.ts';

export function withNodeKey(vault: Vault): Vault {
  const denied = (what: string) => new VaultError('denied', `may not ${what}`);
  return {
    ...vault,
    bucket: {
      ...vault.bucket,
      delete: (key) => Promise.reject(denied(`delete '${key}'`)),
    },
    manifest: {
      ...vault.manifest,
      async transact(changes) {
        for (const change of changes) {
          if (change.do === 'delete') throw denied(`delete '${change.key.sk}'`);
          if (change.do === 'put' && !keyOf(change).pk.includes('/'))
            throw denied(`write '${keyOf(change).sk}'`);
        }
        return vault.manifest.transact(changes);
      },
    },
    close: () => vault.close(),
  };
}
