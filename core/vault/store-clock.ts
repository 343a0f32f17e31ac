/**
 * What time it is by the store's clock: the Date of any answer of S3. Unsigned, so that it is told also to whoever's signature is
 * refused because the own clock is wrong.
 */
import { endpointOf } from './aws-client.ts';
import { parseVaultUrl } from './vault-url.ts';
import type { VaultOptions } from './vault.ts';

/**
 * How far the store's clock is ahead of this machine's, ms; a Date has whole seconds, so less than a second is none.
 *
 * @returns undefined  a vault on this machine has no clock of its own; or the store did not say within `limitMs`
 */
export async function storeClockAhead(
  url: string,
  options: VaultOptions,
  limitMs: number,
): Promise<number | undefined> {
  const place = parseVaultUrl(url);
  if (place.kind !== 's3') return undefined;
  const region =
    place.region ?? options.aws?.region ?? process.env['AWS_REGION'] ?? process.env['AWS_DEFAULT_REGION'];
  const named = endpointOf('S3', { endpoint: place.endpoint ?? options.aws?.endpoint });
  const target = named ?? (region === undefined ? undefined : `https://s3.${region}.amazonaws.com/`);
  if (target === undefined) return undefined;
  try {
    const sent = Date.now();
    const answer = await fetch(target, {
      method: 'HEAD',
      redirect: 'manual',
      signal: AbortSignal.timeout(limitMs),
    });
    const told = Date.parse(answer.headers.get('date') ?? '');
    if (Number.isNaN(told)) return undefined;
    const here = (sent + Date.now()) / 2;
    const ahead = told + 500 - here; // the second that is told began up to a second ago
    return Math.abs(ahead) < 1000 ? 0 : Math.round(ahead);
  } catch {
    return undefined; // that it does not answer is said by whoever reads the vault
  }
}
