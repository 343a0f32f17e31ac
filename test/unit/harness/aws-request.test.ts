/** What a request to AWS asks for, read from its bytes; the forms are those of the API references. */
import { readAwsRequest, type AwsRequest } from '../../harness/aws-request.ts';

const read = (method: string, url: string, headers: Record<string, string> = {}, body = ''): AwsRequest =>
  readAwsRequest({ method, url, headers, body: Buffer.from(body) });
const signed = (service: string, region = 'eu-west-1') => ({
  authorization: `AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/${region}/${service}/aws4_request, SignedHeaders=host, Signature=00`,
});
const s3 = (method: string, url: string, headers: Record<string, string> = {}, body = '') =>
  read(method, url, { ...signed('s3'), ...headers }, body);

test('who signed it, for which service and region', () => {
  expect(s3('GET', '/b/k')).toMatchObject({ accessKeyId: 'AKIDEXAMPLE', service: 's3', region: 'eu-west-1' });
  expect(read('GET', '/b/k?X-Amz-Credential=AKID%2F20260101%2Fus-east-1%2Fs3%2Faws4_request')).toMatchObject({
    ...{ accessKeyId: 'AKID', service: 's3', region: 'us-east-1', operation: 'GetObject' },
  });
  expect(read('GET', '/_ministack/health')).toMatchObject({
    ...{ accessKeyId: undefined, service: '', operation: 'GET /_ministack/health' },
  });
});

test.each<[string, string, Record<string, string>, Partial<AwsRequest>]>([
  ['GET', '/', {}, { operation: 'ListBuckets' }],
  ['PUT', '/b', {}, { operation: 'CreateBucket', bucket: 'b' }],
  ['HEAD', '/b/', {}, { operation: 'HeadBucket', bucket: 'b' }],
  [
    'GET',
    '/b?list-type=2&prefix=a%2Fb&max-keys=1',
    {},
    { operation: 'ListObjectsV2', bucket: 'b', prefix: 'a/b' },
  ],
  ['GET', '/b?versions', {}, { operation: 'ListObjectVersions', prefix: '' }],
  ['PUT', '/b?versioning', {}, { operation: 'PutBucketVersioning', bucket: 'b' }],
  ['GET', '/b?uploads&prefix=x', {}, { operation: 'ListMultipartUploads', prefix: 'x' }],
  [
    'GET',
    '/b/some/key%20with?x-id=GetObject',
    {},
    { operation: 'GetObject', bucket: 'b', key: 'some/key with' },
  ],
  ['GET', '/b/k?versionId=7', {}, { operation: 'GetObject', versionId: '7' }],
  ['HEAD', '/b/k', {}, { operation: 'HeadObject', key: 'k' }],
  ['PUT', '/b/k?x-id=PutObject', { 'if-none-match': '*' }, { operation: 'PutObject', ifNoneMatch: true }],
  ['PUT', '/b/k', {}, { operation: 'PutObject', ifNoneMatch: false }],
  [
    'PUT',
    '/b/k',
    { 'x-amz-copy-source': 'other/some/key%3D' },
    { operation: 'CopyObject', bucket: 'b', key: 'k', copySource: { bucket: 'other', key: 'some/key=' } },
  ],
  ['DELETE', '/b/k', {}, { operation: 'DeleteObject' }],
  ['POST', '/b/k?uploads', {}, { operation: 'CreateMultipartUpload' }],
  ['PUT', '/b/k?partNumber=1&uploadId=u', {}, { operation: 'UploadPart' }],
  ['POST', '/b/k?uploadId=u', {}, { operation: 'CompleteMultipartUpload' }],
  ['DELETE', '/b/k?uploadId=u', {}, { operation: 'AbortMultipartUpload' }],
  ['GET', '/b/k?tagging', {}, { operation: 'GetObjectTagging', key: 'k' }],
])('S3: %s %s', (method, url, headers, expected) => {
  expect(s3(method, url, headers)).toMatchObject(expected);
});

test('S3: the keys of a deletion of many', () => {
  const body = '<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object></Delete>';
  expect(s3('POST', '/b?delete=', {}, body)).toMatchObject({
    operation: 'DeleteObjects',
    keys: ['a&b', 'c'],
  });
});

const dynamo = (operation: string, input: object) =>
  read(
    'POST',
    '/',
    { ...signed('dynamodb'), 'x-amz-target': `DynamoDB_20120810.${operation}` },
    JSON.stringify(input),
  );
const Key = { pk: { S: 'main' }, sk: { S: 'control' } };

test('DynamoDB: each item of a transaction by the permission that it needs', () => {
  const TransactItems = [
    {
      Put: {
        TableName: 't',
        Item: { ...Key, rev: { N: '1' } },
        ConditionExpression: 'attribute_not_exists(pk)',
      },
    },
    { ConditionCheck: { TableName: 't', Key, ConditionExpression: '#rev = :rev' } },
    { Delete: { TableName: 't', Key } },
  ];
  const row = { table: 't', pk: 'main', sk: 'control' };
  expect(dynamo('TransactWriteItems', { TransactItems })).toMatchObject({
    ...{ service: 'dynamodb', operation: 'TransactWriteItems', table: 't' },
    rows: [
      { ...row, operation: 'PutItem', isConditional: true },
      { ...row, operation: 'ConditionCheckItem', isConditional: true },
      { ...row, operation: 'DeleteItem', isConditional: false },
    ],
  });
});

test('DynamoDB: a row, a range, a batch', () => {
  expect(dynamo('GetItem', { TableName: 't', Key }).rows).toEqual([
    { operation: 'GetItem', table: 't', pk: 'main', sk: 'control', isConditional: false },
  ]);
  const query = {
    ...{ TableName: 't', KeyConditionExpression: 'pk = :pk AND sk BETWEEN :from AND :to' },
    ExpressionAttributeValues: { ':from': { S: 'a' }, ':pk': { S: 'main/7300' }, ':to': { S: 'b' } },
  };
  expect(dynamo('Query', query)).toMatchObject({
    table: 't',
    rows: [{ operation: 'Query', pk: 'main/7300', sk: undefined }],
  });
  const batch = { RequestItems: { t: [{ PutRequest: { Item: Key } }, { DeleteRequest: { Key } }] } };
  expect(dynamo('BatchWriteItem', batch).rows.map(({ operation, pk }) => [operation, pk])).toEqual([
    ['PutItem', 'main'],
    ['DeleteItem', 'main'],
  ]);
});

test('other services: query protocol, JSON, RPC', () => {
  const form = { ...signed('sns'), 'content-type': 'application/x-www-form-urlencoded' };
  expect(read('POST', '/', form, 'Action=Publish&TopicArn=arn%3Aaws&Message=%7B%7D')).toMatchObject({
    ...{ service: 'sns', operation: 'Publish', input: { TopicArn: 'arn:aws', Message: '{}' } },
  });
  const sqs = { ...signed('sqs'), 'x-amz-target': 'AmazonSQS.SendMessage' };
  expect(read('POST', '/', sqs, '{"QueueUrl":"q"}')).toMatchObject({ operation: 'SendMessage', rows: [] });
  expect(read('POST', '/service/X/operation/PutMetricData', signed('monitoring'))).toMatchObject({
    operation: 'PutMetricData',
  });
});
