/**
 * What a request to AWS asks for, and of whom, read from its bytes: who signed it, which operation on which bucket and key, which rows of
 * which table. The same facts that IAM decides by.
 *
 * Pure. Source: AWS Signature Version 4 (credential scope); Amazon S3 API Reference (method, path and query of each operation, path-style);
 * DynamoDB Low-Level API (X-Amz-Target); AWS query protocol (Action=); Smithy RPC v2 (its path).
 */

/** One row that a request to DynamoDB touches; tables are walvault's, keys `pk` and `sk`. */
export type RowAccess = {
  /**
   * By the name of the permission that it needs: GetItem, Query, PutItem, UpdateItem, DeleteItem, ConditionCheckItem. (In a
   * TransactWriteItems each item has its own, and the transaction as such needs none.)
   */
  operation: string;
  table: string;
  /** Undefined: not one partition (Scan). */
  pk: string | undefined;
  /** Undefined: a range (Query). */
  sk: string | undefined;
  /** It has a condition (ConditionExpression). */
  isConditional: boolean;
};

export type AwsRequest = {
  method: string;
  /** As sent, with its query. */
  url: string;
  /** Of the signature; undefined: it is not signed. */
  accessKeyId: string | undefined;
  /** Of the credential scope: s3, dynamodb, sns, sqs, monitoring, sts, …; '' where it is not signed. */
  service: string;
  /** Of the credential scope. */
  region: string;
  /** As the API names it: PutObject, CopyObject, TransactWriteItems, Publish; `<method> <path>` where it is none of the known protocols. */
  operation: string;
  /** S3: the bucket; for CopyObject the one that is written. */
  bucket?: string;
  /** S3: the object's key, decoded. */
  key?: string;
  /** S3: keys of a DeleteObjects. */
  keys?: string[];
  /** S3: `prefix` of a listing; '' where it has none. */
  prefix?: string;
  /** S3: a version is named (a GetObject that IAM takes for GetObjectVersion, a DeleteObject for DeleteObjectVersion). */
  versionId?: string;
  /** S3, CopyObject: what is read. */
  copySource?: { bucket: string; key: string };
  /** S3: sent with If-None-Match: the key must be free. */
  ifNoneMatch: boolean;
  /** DynamoDB: the table, where the request names one at its top; of a transaction, that of its first item. */
  table?: string;
  /** DynamoDB: the rows, in the order of the request. */
  rows: RowAccess[];
  /** The request as JSON; of the query protocol its parameters. Undefined: bytes of an object, or another protocol. */
  input?: Record<string, unknown>;
};

export type RawRequest = {
  method: string;
  url: string;
  /** Lower-case names. */
  headers: Readonly<Record<string, string | string[] | undefined>>;
  body: Buffer;
};

export function readAwsRequest({ method, url, headers, body }: RawRequest): AwsRequest {
  const header = (name: string): string | undefined => {
    const value = headers[name];
    return Array.isArray(value) ? value[0] : value;
  };
  const { pathname, searchParams } = new URL(url, 'http://127.0.0.1');
  const credential =
    /Credential=([^,\s]+)/.exec(header('authorization') ?? '')?.[1] ?? searchParams.get('X-Amz-Credential');
  const [accessKeyId, , region = '', service = ''] = credential?.split('/') ?? [];
  const request: AwsRequest = {
    ...{ method, url, accessKeyId, service, region, operation: `${method} ${pathname}` },
    ...{ ifNoneMatch: header('if-none-match') !== undefined, rows: [] },
  };
  const target = header('x-amz-target');
  if (target !== undefined) {
    const operation = target.slice(target.lastIndexOf('.') + 1);
    const input = (body.length === 0 ? {} : JSON.parse(body.toString())) as Record<string, unknown>;
    const rows = target.startsWith('DynamoDB_') ? rowsOf(operation, input) : [];
    const table = (input['TableName'] as string | undefined) ?? rows[0]?.table;
    return { ...request, operation, input, rows, ...(table === undefined ? {} : { table }) };
  }
  if (service === 's3') return { ...request, ...s3Request(method, pathname, searchParams, header, body) };
  const rpc = /^\/service\/[^/]+\/operation\/(\w+)$/.exec(pathname)?.[1];
  if (rpc !== undefined) return { ...request, operation: rpc };
  if (header('content-type')?.startsWith('application/x-www-form-urlencoded') === true) {
    const input = Object.fromEntries(new URLSearchParams(body.toString()));
    return { ...request, operation: input['Action'] ?? request.operation, input };
  }
  return request;
}

type DynamoInput = Record<string, unknown> & {
  TableName?: string;
  Key?: DynamoItem;
  Item?: DynamoItem;
  ConditionExpression?: string;
};
type DynamoItem = Record<string, { S?: string } | undefined>;

function rowsOf(operation: string, input: DynamoInput): RowAccess[] {
  const one = (name: string, each: DynamoInput): RowAccess => ({
    operation: name,
    table: each.TableName ?? '',
    pk: (each.Key ?? each.Item)?.['pk']?.S,
    sk: (each.Key ?? each.Item)?.['sk']?.S,
    isConditional: each.ConditionExpression !== undefined,
  });
  switch (operation) {
    case 'GetItem':
    case 'PutItem':
    case 'UpdateItem':
    case 'DeleteItem':
      return [one(operation, input)];
    case 'Query':
      return [{ ...one(operation, input), pk: partitionOf(input) }];
    case 'Scan':
      return [one(operation, input)];
    case 'TransactWriteItems':
    case 'TransactGetItems':
      return (input['TransactItems'] as Record<string, DynamoInput>[]).flatMap((item) =>
        Object.entries(item).map(([name, each]) => one(PERMISSIONS[name] ?? name, each)),
      );
    case 'BatchGetItem':
      return Object.entries(input['RequestItems'] as Record<string, { Keys: DynamoItem[] }>).flatMap(
        ([TableName, { Keys }]) => Keys.map((Key) => one('GetItem', { TableName, Key })),
      );
    case 'BatchWriteItem':
      return Object.entries(input['RequestItems'] as Record<string, Record<string, DynamoInput>[]>).flatMap(
        ([TableName, items]) =>
          items.flatMap((item) =>
            Object.entries(item).map(([name, each]) =>
              one(name === 'PutRequest' ? 'PutItem' : 'DeleteItem', { ...each, TableName }),
            ),
          ),
      );
    default:
      return [];
  }
}

/** Members of a transaction's item. */
const PERMISSIONS: Readonly<Record<string, string>> = {
  Put: 'PutItem',
  Update: 'UpdateItem',
  Delete: 'DeleteItem',
  ConditionCheck: 'ConditionCheckItem',
  Get: 'GetItem',
};

function partitionOf(input: DynamoInput): string | undefined {
  const named = /\bpk\s*=\s*(:\w+)/.exec(String(input['KeyConditionExpression']))?.[1];
  return named === undefined ? undefined : (input['ExpressionAttributeValues'] as DynamoItem)[named]?.S;
}

/** Parts of a bucket that have operations of their own: `?versioning` is GetBucketVersioning and PutBucketVersioning. */
const BUCKET_PARTS: Readonly<Record<string, string>> = {
  ...{ versioning: 'BucketVersioning', lifecycle: 'BucketLifecycleConfiguration', policy: 'BucketPolicy' },
  ...{ encryption: 'BucketEncryption', tagging: 'BucketTagging', location: 'BucketLocation' },
  ...{ publicAccessBlock: 'PublicAccessBlock', 'object-lock': 'ObjectLockConfiguration', acl: 'BucketAcl' },
};
const OBJECT_PARTS: Readonly<Record<string, string>> = {
  ...{
    tagging: 'ObjectTagging',
    acl: 'ObjectAcl',
    retention: 'ObjectRetention',
    'legal-hold': 'ObjectLegalHold',
  },
  attributes: 'ObjectAttributes',
};
const VERBS: Readonly<Record<string, string>> = { GET: 'Get', PUT: 'Put', DELETE: 'Delete', HEAD: 'Head' };

function s3Request(
  method: string,
  pathname: string,
  query: URLSearchParams,
  header: (name: string) => string | undefined,
  body: Buffer,
): Partial<AwsRequest> & { operation: string } {
  const [bucket = '', ...rest] = pathname.slice(1).split('/');
  const key = rest.map(decodeURIComponent).join('/');
  const verb = VERBS[method] ?? method;
  if (bucket === '') return { operation: 'ListBuckets' };
  if (key === '') {
    const part = Object.keys(BUCKET_PARTS).find((name) => query.has(name));
    if (part !== undefined) return { operation: `${verb}${BUCKET_PARTS[part]}`, bucket };
    if (method === 'POST' && query.has('delete')) {
      const keys = [...body.toString().matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, each]) => fromXml(each!));
      return { operation: 'DeleteObjects', bucket, keys };
    }
    if (method !== 'GET') return { operation: method === 'PUT' ? 'CreateBucket' : `${verb}Bucket`, bucket };
    const prefix = query.get('prefix') ?? '';
    if (query.has('versions')) return { operation: 'ListObjectVersions', bucket, prefix };
    if (query.has('uploads')) return { operation: 'ListMultipartUploads', bucket, prefix };
    return { operation: query.get('list-type') === '2' ? 'ListObjectsV2' : 'ListObjects', bucket, prefix };
  }
  const versionId = query.get('versionId');
  const object = { bucket, key, ...(versionId === null ? {} : { versionId }) };
  const part = Object.keys(OBJECT_PARTS).find((name) => query.has(name));
  if (part !== undefined) return { operation: `${verb}${OBJECT_PARTS[part]}`, ...object };
  const source = header('x-amz-copy-source');
  const isPart = query.has('partNumber') && query.has('uploadId');
  if (source !== undefined) {
    const [from = '', ...path] = decodeURIComponent(source.split('?')[0]!).replace(/^\//, '').split('/');
    return {
      operation: isPart ? 'UploadPartCopy' : 'CopyObject',
      ...object,
      copySource: { bucket: from, key: path.join('/') },
    };
  }
  if (isPart && method === 'PUT') return { operation: 'UploadPart', ...object };
  if (query.has('uploads')) return { operation: 'CreateMultipartUpload', ...object };
  if (query.has('uploadId'))
    return {
      operation: { POST: 'CompleteMultipartUpload', DELETE: 'AbortMultipartUpload' }[method] ?? 'ListParts',
      ...object,
    };
  return { operation: `${verb}Object`, ...object };
}

const fromXml = (text: string): string =>
  text.replace(
    /&(amp|lt|gt|quot|apos);/g,
    (_, name: string) => ({ amp: '&', lt: '<', gt: '>', quot: '"' })[name] ?? "'",
  );
