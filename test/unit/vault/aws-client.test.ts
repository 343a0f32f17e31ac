import { awsFailure, type AwsFailure } from '../../../core/vault/aws-client.ts';
import { VaultError } from '../../../core/errors.ts';

function failure(name: string, message = name, status?: number, code?: string): AwsFailure {
  return Object.assign(new Error(message), {
    name,
    $metadata: { httpStatusCode: status },
    ...(code ? { code } : {}),
  });
}
const explained = (error: unknown) =>
  awsFailure(error, "read 'a'", "bucket 'b'", 'make it', { endpoint: 'http://127.0.0.1:1' });

test.each([
  ['denied', failure('AccessDenied', 'Access Denied', 403)],
  ['denied', failure('ExpiredTokenException', 'The security token included in the request is expired', 400)],
  ['denied', failure('CredentialsProviderError', 'Could not load credentials from any providers')],
  [
    'denied',
    failure('UnrecognizedClientException', 'The security token included in the request is invalid.', 400),
  ],
  ['denied', failure('RequestTimeTooSkewed', 'The difference between the request time …', 403)],
  ['denied', failure('403', 'UnknownError', 403)],
  ['denied', failure('KMS.DisabledException', 'arn:aws:kms:… is disabled.', 400)],
  ['denied', failure('KMS.NotFoundException', 'Invalid keyId', 400)],
  ['denied', failure('KMS.KMSInvalidStateException', 'arn:aws:kms:… is pending deletion.', 400)],
  ['denied', failure('KMS.InvalidKeyUsageException', 'arn:aws:kms:… is not of ENCRYPT_DECRYPT', 400)],
  ['unreachable', failure('KMS.ThrottlingException', 'You have exceeded the rate', 400)],
  ['unreachable', failure('KMS.KeyUnavailableException', 'the key cannot be used now', 400)],
  ['unconfigured', failure('NoSuchBucket', 'The specified bucket does not exist', 404)],
  ['unconfigured', failure('ResourceNotFoundException', 'Requested resource not found', 400)],
  ['unconfigured', failure('PermanentRedirect', 'The bucket you are attempting to access …', 301)],
  ['unconfigured', failure('Error', 'Region is missing')],
  ['unreachable', failure('TimeoutError', 'socket timed out')],
  ['unreachable', failure('SlowDown', 'Please reduce your request rate.', 503)],
  ['unreachable', failure('ThrottlingException', 'Rate exceeded', 400)],
  ['unreachable', failure('InternalServerError', 'x', 500)],
  ['unreachable', failure('502', 'UnknownError', 502)],
  ['unreachable', failure('Error', 'connect ECONNREFUSED 127.0.0.1:1', undefined, 'ECONNREFUSED')],
  ['unreachable', failure('Error', 'getaddrinfo ENOTFOUND s3', undefined, 'ENOTFOUND')],
  ['unreachable', failure('Error', 'socket hang up', undefined, 'ECONNRESET')],
  ['unreachable', failure('SyntaxError', 'Unexpected token < in JSON', 200)],
])('is %s: %s', (code, error) => {
  expect(explained(error)).toMatchObject({
    name: 'VaultError',
    code,
    hint: expect.any(String),
    cause: error,
  });
});

test.each([
  ['KMS.KMSInvalidStateException', 400, 'arn:aws:kms:… is pending deletion.', 'cancel-key-deletion'],
  [
    'AccessDenied',
    403,
    'not authorized to perform: kms:GenerateDataKey on this resource',
    'kms:GenerateDataKey',
  ],
])('what is wrong with the key is said as such: %s', (name, status, message, hint) => {
  expect(explained(failure(name, message, status))).toMatchObject({
    code: 'denied',
    hint: expect.stringContaining(hint),
  });
});

test('a request that we made wrongly is our bug, and stays what it is', () => {
  const error = failure('ValidationException', 'ExpressionAttributeValues must not be empty', 400);
  expect(explained(error)).toBe(error);
  const known = new VaultError('conflict', 'x');
  expect(explained(known)).toBe(known);
});
