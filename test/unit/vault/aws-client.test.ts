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

test('a request that we made wrongly is our bug, and stays what it is', () => {
  const error = failure('ValidationException', 'ExpressionAttributeValues must not be empty', 400);
  expect(explained(error)).toBe(error);
  const known = new VaultError('conflict', 'x');
  expect(explained(known)).toBe(known);
});
