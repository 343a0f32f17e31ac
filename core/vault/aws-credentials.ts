/**
 * Where the S3 and DynamoDB clients have their credentials from: the SDK's own chain (environment, ~/.aws, container, instance role),
 * asked again while the process lives.
 *
 * The SDK renews what ends by itself, and keeps what names no end (a key of ~/.aws/credentials, or a session's that a tool writes there
 * anew each hour) until the process ends: an agent that runs for weeks would go on with the key that was rotated away.
 */
import { defaultProvider, type DefaultProviderInit } from '@aws-sdk/credential-provider-node';

/** The SDK asks anew for what ends within 5 minutes: a key without an end is given one beyond that. */
const SDK_RENEWS_BEFORE_MS = 300_000;
/** How long a key that names no end is used before it is looked up again: two reads of a small file a minute. */
export const LOOKED_UP_AGAIN_MS = 60_000;

type Credentials = Awaited<ReturnType<ReturnType<typeof defaultProvider>>>;

/** What the clients take as `credentials`; the profile: of the vault's settings, else AWS_PROFILE, else 'default'. */
export function credentialsOf(profile: string | undefined) {
  const init: DefaultProviderInit = { ignoreCache: true, ...(profile === undefined ? {} : { profile }) };
  // a new chain each time: one keeps its answer as the client does
  return async (caller?: Record<string, unknown>): Promise<Credentials> => {
    const found = await defaultProvider(init)(caller);
    if (found.expiration !== undefined) return found;
    return { ...found, expiration: new Date(Date.now() + SDK_RENEWS_BEFORE_MS + LOOKED_UP_AGAIN_MS) };
  };
}
