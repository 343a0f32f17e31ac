/** What IAM is asked for a request that was recorded; several for a transaction and a copy. */
import type { AwsRequest } from './aws-request.ts';
import type { Request } from './iam.ts';

/** @throws Error  a service that no role of ours asks */
export function requestsAsIam(asked: AwsRequest, account: string): Request[] {
  const { operation, service } = asked;
  const object = (bucket: string, key: string) => `arn:aws:s3:::${bucket}/${key}`;
  if (service === 's3') {
    if (operation === 'ListObjectsV2')
      return [
        {
          action: 's3:ListBucket',
          resource: `arn:aws:s3:::${asked.bucket}`,
          context: { 's3:prefix': asked.prefix ?? '' },
        },
      ];
    const place = object(asked.bucket!, asked.key!);
    const condition: Request['context'] = asked.ifNoneMatch ? { 's3:if-none-match': '*' } : {};
    if (operation === 'CopyObject') {
      const { bucket, key } = asked.copySource!;
      return [
        { action: 's3:PutObject', resource: place, context: condition },
        { action: 's3:GetObject', resource: object(bucket, key), context: {} },
      ];
    }
    const action = operation === 'HeadObject' ? 'GetObject' : operation;
    return [{ action: `s3:${action}`, resource: place, context: action === 'PutObject' ? condition : {} }];
  }
  if (service === 'dynamodb')
    return asked.rows.map(({ operation: action, table, pk }): Request => ({
      action: `dynamodb:${action}`,
      resource: `arn:aws:dynamodb:${asked.region}:${account}:table/${table}`,
      context: pk === undefined ? {} : { 'dynamodb:LeadingKeys': [pk] },
    }));
  if (service === 'sns')
    return [{ action: 'sns:Publish', resource: String(asked.input?.['TopicArn']), context: {} }];
  if (service === 'monitoring')
    return [
      {
        action: `cloudwatch:${operation}`,
        resource: '*',
        context: { 'cloudwatch:namespace': String(asked.input?.['Namespace']) },
      },
    ];
  throw new Error(`${service}:${operation} is not known here`);
}
