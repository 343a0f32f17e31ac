/**
 * What S3 and DynamoDB clients have in common: where they connect, how long they wait, and what their failures mean to us.
 *
 * Region and endpoint come from the vault's URL, else from the options (kept by `configure` for a server that lacks the person's
 * environment), else from the SDK's own sources (environment, ~/.aws). Credentials always from the SDK's own chain.
 */
import { NodeHttpHandler } from '@smithy/node-http-handler';
import http from 'node:http';
import https from 'node:https';
import { VaultError } from '../errors.ts';
import { credentialsOf } from './aws-credentials.ts';

export type AwsPlace = {
  region?: string | undefined;
  endpoint?: string | undefined;
  profile?: string | undefined;
};

/** Sockets kept per client: uploads and prefetch run a handful at a time. */
const SOCKETS = 8;

/** The endpoint of the place, else of the environment as the SDK reads it; undefined: AWS itself. */
export function endpointOf(service: 'S3' | 'DYNAMODB', place: AwsPlace): string | undefined {
  return place.endpoint ?? process.env[`AWS_ENDPOINT_URL_${service}`] ?? process.env['AWS_ENDPOINT_URL'];
}

/**
 * @param attemptMs  longest silence of one attempt; shorter than the operation's limit, so that a connection that died
 *                   unnoticed (a NAT that forgot it) is replaced within it
 * @param wholeAttempt  attemptMs bounds the whole attempt, for small requests; else only silence, for large bodies
 */
export function clientSettings(
  service: 'S3' | 'DYNAMODB',
  place: AwsPlace,
  attemptMs: number,
  wholeAttempt: boolean,
) {
  const endpoint = endpointOf(service, place);
  const region =
    place.region ??
    process.env['AWS_REGION'] ??
    process.env['AWS_DEFAULT_REGION'] ??
    // an emulator or another maker's store has no regions, the signature wants one
    (endpoint === undefined ? undefined : 'us-east-1');
  const agent = { keepAlive: true, maxSockets: SOCKETS };
  return {
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(place.profile === undefined ? {} : { profile: place.profile }),
    credentials: credentialsOf(place.profile),
    maxAttempts: 3,
    requestHandler: new NodeHttpHandler({
      connectionTimeout: Math.min(attemptMs, 3000),
      socketTimeout: attemptMs,
      ...(wholeAttempt ? { requestTimeout: attemptMs, throwOnRequestTimeout: true } : {}),
      httpAgent: new http.Agent(agent),
      httpsAgent: new https.Agent(agent),
    }),
  };
}

/** How long one attempt may be silent when the operation may take `timeoutMs`: room for two. */
export function attemptMsOf(timeoutMs: number): number {
  return Math.max(100, Math.floor(timeoutMs * 0.45));
}

const DENIED = new Set([
  'AccessDenied',
  'AccessDeniedException',
  'AllAccessDisabled',
  'CredentialsProviderError',
  'ExpiredToken',
  'ExpiredTokenException',
  'Forbidden',
  'IncompleteSignature',
  'IncompleteSignatureException',
  'InvalidAccessKeyId',
  'InvalidClientTokenId',
  'InvalidSignatureException',
  'InvalidToken',
  'MissingAuthenticationToken',
  'MissingAuthenticationTokenException',
  'NotSignedUp',
  'OptInRequired',
  'RequestExpired',
  'RequestTimeTooSkewed',
  'SignatureDoesNotMatch',
  'TokenProviderError',
  'TokenRefreshRequired',
  'UnrecognizedClientException',
]);
const MISSING = new Set(['NoSuchBucket', 'ResourceNotFoundException', 'TableNotFoundException']);
const ELSEWHERE = new Set([
  'PermanentRedirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
]);
const LATER = new Set([
  'AbortError',
  'InternalError',
  'InternalFailure',
  'InternalServerError',
  'LimitExceededException',
  'ProvisionedThroughputExceededException',
  'RequestLimitExceeded',
  'RequestTimeout',
  'RequestTimeoutException',
  'ServiceUnavailable',
  'SlowDown',
  'ThrottledException',
  'Throttling',
  'ThrottlingException',
  'TimeoutError',
  'TooManyRequestsException',
  'TransactionConflictException',
  'TransactionInProgressException',
]);

export type AwsFailure = Error & {
  name: string;
  code?: string;
  $metadata?: { httpStatusCode?: number; attempts?: number };
  $retryable?: unknown;
};

/**
 * A failure of the SDK as a VaultError; what is none of the store's conditions (a malformed request) as it is: our own bug.
 *
 * @param what     what was tried: `store 'main/…'`
 * @param store    whom it was asked of: `bucket 'backups'`, `table 'walvault'`
 * @param missing  hint for a bucket or table that is not there
 */
export function awsFailure(
  error: unknown,
  what: string,
  store: string,
  missing: string,
  place: AwsPlace,
): unknown {
  if (error instanceof VaultError || !(error instanceof Error)) return error;
  const failure = error as AwsFailure;
  const status = failure.$metadata?.httpStatusCode ?? 0;
  const says = failure.message === '' || failure.message === 'UnknownError' ? failure.name : failure.message;
  const reason = says.replace(/\s+/g, ' ').slice(0, 300);
  if (MISSING.has(failure.name)) {
    return new VaultError('unconfigured', `${store} is not there`, { hint: missing, cause: error });
  }
  if (ELSEWHERE.has(failure.name) || status === 301) {
    return new VaultError('unconfigured', `${store} lies in another region: ${reason}`, {
      hint: 'name its region in the URL: …&region=eu-west-1',
      cause: error,
    });
  }
  if (/region is missing/i.test(failure.message)) {
    return new VaultError('unconfigured', `the region of ${store} is not known`, {
      hint: 'name it in the URL (…&region=eu-west-1) or in AWS_REGION.',
      cause: error,
    });
  }
  if (failure.name === 'RequestTimeTooSkewed') {
    return new VaultError('denied', `${store}: the clock of this machine is wrong`, {
      hint: 'set the clock (chronyc makestep).',
      cause: error,
    });
  }
  if (isKeyRefused(failure)) {
    return new VaultError('denied', `cannot ${what} in ${store}, its encryption key is refused: ${reason}`, {
      hint: 'enable the key again, or cancel its deletion (aws kms enable-key, aws kms cancel-key-deletion): what lies there cannot be read without it.',
      cause: error,
    });
  }
  if (DENIED.has(failure.name) || status === 401 || status === 403) {
    return new VaultError('denied', `may not ${what} in ${store}: ${reason}`, {
      hint: deniedHint(failure, place),
      cause: error,
    });
  }
  if (
    LATER.has(failure.name) ||
    isKeyBusy(failure.name) ||
    status >= 500 ||
    status === 429 ||
    isNetworkFailure(failure)
  ) {
    return new VaultError('unreachable', `cannot ${what}: ${store} does not answer: ${reason}`, {
      hint: `look whether ${place.endpoint ?? process.env['AWS_ENDPOINT_URL'] ?? 'AWS'} can be reached from here (network, proxy, security group).`,
      cause: error,
    });
  }
  return error;
}

/**
 * S3 passes on what KMS says of the key as `KMS.` and its name for it, with status 400: disabled, gone, about to be deleted, of another use.
 * What passes by itself is none of it. https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html
 */
const isKeyRefused = ({ name }: AwsFailure): boolean => name.startsWith('KMS.') && !isKeyBusy(name);
const isKeyBusy = (name: string): boolean =>
  /^KMS\..*(Throttl|LimitExceeded|Internal|Timeout|Unavailable)/.test(name);

/** Whether the answer may be lost while the request was carried out. */
export function isAnswerLost(error: unknown): boolean {
  if (error instanceof VaultError) return error.code === 'unreachable';
  if (!(error instanceof Error)) return false;
  const failure = error as AwsFailure;
  return (
    (failure.$metadata?.httpStatusCode ?? 0) >= 500 || isNetworkFailure(failure) || LATER.has(failure.name)
  );
}

function isNetworkFailure(failure: AwsFailure): boolean {
  if (
    /^(E[A-Z]{3,}|UND_ERR.*|ERR_(SSL|TLS|SOCKET|STREAM|HTTP).*|CERT_.*|HPE_.*|DEPTH_ZERO.*|SELF_SIGNED.*|UNABLE_TO.*)$/.test(
      failure.code ?? '',
    )
  )
    return true;
  // an answer that breaks off in the middle, or is none of the service's
  return (
    failure.name === 'SyntaxError' ||
    /socket hang up|deserialization error|unexpected end|premature close|^aborted$/i.test(failure.message)
  );
}

function deniedHint(failure: AwsFailure, place: AwsPlace): string {
  const profile = place.profile ?? process.env['AWS_PROFILE'];
  const key = process.env['AWS_ACCESS_KEY_ID'];
  const source =
    place.profile === undefined && key !== undefined
      ? `the key ${key.slice(0, 4)}… of AWS_ACCESS_KEY_ID`
      : profile !== undefined
        ? `profile '${profile}' of ~/.aws`
        : "the SDK's chain: environment, ~/.aws (profile 'default'), container, instance role";
  if (failure.name === 'CredentialsProviderError' || failure.name === 'TokenProviderError') {
    return `no credentials were found; tried was ${source}. Set AWS_PROFILE, or give this machine a role.`;
  }
  if (/expired|refresh/i.test(failure.name))
    return `the token has expired; tried was ${source}. Renew it (aws sso login).`;
  if (/\bkms:/i.test(failure.message))
    return `tried was ${source}; it needs kms:GenerateDataKey and kms:Decrypt on the key of the bucket, and kms:Decrypt on that of the table.`;
  return `tried was ${source}; see docs/reference.md for the rights that a node needs.`;
}
