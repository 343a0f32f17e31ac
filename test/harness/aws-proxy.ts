/**
 * An HTTP proxy in front of the emulator that understands what passes through it: it records who asked for what, as IAM would see it, and
 * disturbs single operations in the service's own words. test/harness/proxy.ts is the one for what a network does to bytes.
 *
 * The Host header stays as the client sent it, so that signatures hold.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';

/** One item of a request to DynamoDB, by the action that IAM knows it as. */
export type ItemAccess = {
  action:
    'GetItem' | 'Query' | 'PutItem' | 'UpdateItem' | 'DeleteItem' | 'ConditionCheckItem' | (string & {});
  /** Leading key; undefined: none (DescribeTable). */
  pk: string | undefined;
};

export type AwsCall = {
  /** Whose key signed it; '' unsigned. */
  accessKey: string;
  /** 's3', 'dynamodb', 'sns', 'sqs', 'monitoring', … */
  service: string;
  region: string;
  /** 'PutObject', 'CopyObject', 'TransactWriteItems', 'Publish', … */
  operation: string;
  bucket?: string;
  key?: string;
  /** Of ListObjectsV2. */
  prefix?: string;
  /** Of CopyObject: 'bucket/key', decoded. */
  copySource?: string;
  /** If-None-Match was sent. */
  ifNoneMatch: boolean;
  table?: string;
  items: ItemAccess[];
  /** Of SNS. */
  topic?: string;
  /** Of CloudWatch. */
  namespace?: string;
  /** HTTP status of the answer; undefined: none came. */
  status?: number;
};

export type Disturbance =
  /** The service's own "too many requests", without the request being carried out. */
  | 'throttle'
  /** The connection is reset before anything is carried out. */
  | 'refuse'
  /** No answer, and nothing carried out. */
  | 'hang'
  /** Carried out; the answer is lost. */
  | 'drop-answer';

export type AwsProxy = {
  port: number;
  /** `http://127.0.0.1:<port>` */
  endpoint: string;
  /** Every request so far, in the order in which they came. */
  calls: AwsCall[];
  /** Asked for each request; undefined: it passes. */
  disturb: ((call: AwsCall) => Disturbance | undefined) | undefined;
  /** How many requests were disturbed. */
  disturbed: number;
  /** Where requests go; may be set after the start. */
  targetPort: number;
  close(): Promise<void>;
};

export async function startAwsProxy(targetPort = 0): Promise<AwsProxy> {
  const agent = new http.Agent({ keepAlive: true });
  const server = http.createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('error', () => response.destroy());
    request.on('end', () => void pass(request, response, Buffer.concat(parts)));
  });
  server.requestTimeout = 0;
  const proxy: AwsProxy = {
    ...{ port: 0, endpoint: '', calls: [], disturb: undefined, disturbed: 0, targetPort },
    async close() {
      server.closeAllConnections();
      agent.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  async function pass(
    request: http.IncomingMessage,
    response: http.ServerResponse,
    body: Buffer,
  ): Promise<void> {
    const call = describeCall(request, body);
    proxy.calls.push(call);
    const disturbance = proxy.disturb?.(call);
    if (disturbance !== undefined) proxy.disturbed++;
    if (disturbance === 'refuse') return void request.socket.resetAndDestroy();
    if (disturbance === 'hang') return;
    if (disturbance === 'throttle') return throttle(call, response);
    const forward = http.request(
      {
        ...{ host: '127.0.0.1', port: proxy.targetPort, method: request.method, path: request.url },
        headers: request.headers,
        agent,
      },
      (answer) => {
        call.status = answer.statusCode ?? 0;
        if (disturbance === 'drop-answer') {
          answer.resume();
          answer.on('end', () => request.socket.resetAndDestroy());
          return;
        }
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    forward.on('error', () => request.socket.resetAndDestroy());
    forward.end(body);
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  proxy.port = (server.address() as AddressInfo).port;
  proxy.endpoint = `http://127.0.0.1:${proxy.port}`;
  return proxy;
}

function describeCall(request: http.IncomingMessage, body: Buffer): AwsCall {
  const [, accessKey = '', region = '', service = ''] =
    /Credential=([^/]+)\/\d+\/([^/]+)\/([^/]+)\//.exec(request.headers.authorization ?? '') ?? [];
  const url = new URL(request.url ?? '/', 'http://host');
  const base: AwsCall = { accessKey, service, region, operation: '', ifNoneMatch: false, items: [] };
  if (service === 's3') return { ...base, ...describeS3(request, url) };
  const target = String(request.headers['x-amz-target'] ?? '');
  const cbor = /\/operation\/(\w+)$/.exec(url.pathname)?.[1];
  if (cbor !== undefined) return { ...base, operation: cbor, namespace: textAfter(body, 'Namespace') };
  if (target !== '') {
    const operation = target.split('.').at(-1)!;
    const asked = JSON.parse(body.toString() || '{}') as Record<string, unknown>;
    const namespace = asked['Namespace'];
    if (typeof namespace === 'string') return { ...base, operation, namespace };
    return { ...base, operation, ...(service === 'dynamodb' ? describeTable(operation, asked) : {}) };
  }
  const form = new URLSearchParams(body.toString());
  const topic = form.get('TopicArn');
  const namespace = form.get('Namespace');
  return {
    ...base,
    operation: form.get('Action') ?? url.pathname,
    ...(topic === null ? {} : { topic }),
    ...(namespace === null ? {} : { namespace }),
  };
}

function describeS3(request: http.IncomingMessage, url: URL): Partial<AwsCall> {
  const [, bucket = '', ...rest] = url.pathname.split('/').map(decodeURIComponent);
  const key = rest.join('/');
  const { method, headers } = request;
  const source = headers['x-amz-copy-source'];
  const found = {
    bucket,
    ...(key === '' ? {} : { key }),
    ifNoneMatch: headers['if-none-match'] !== undefined,
  };
  if (url.searchParams.get('list-type') === '2')
    return { ...found, operation: 'ListObjectsV2', prefix: url.searchParams.get('prefix') ?? '' };
  if (source !== undefined && method === 'PUT')
    return {
      ...found,
      operation: 'CopyObject',
      copySource: decodeURIComponent(String(source)).replace(/^\//, ''),
    };
  const others = [...url.searchParams.keys()].filter((name) => name !== 'x-id');
  if (key === '' || others.length > 0)
    return {
      ...found,
      operation: `${method} ${url.pathname === '/' ? 'service' : 'bucket'} ${others.join()}`,
    };
  const names: Record<string, string> = {
    GET: 'GetObject',
    HEAD: 'HeadObject',
    PUT: 'PutObject',
    DELETE: 'DeleteObject',
  };
  return { ...found, operation: names[method ?? ''] ?? String(method) };
}

type Item = { pk?: { S?: string } };
type Part = { TableName?: string; Key?: Item; Item?: Item };

function describeTable(operation: string, asked: Record<string, unknown>): Partial<AwsCall> {
  const { TableName, Key, Item } = asked as Part;
  if (operation === 'TransactWriteItems') {
    const actions = {
      Put: 'PutItem',
      Update: 'UpdateItem',
      Delete: 'DeleteItem',
      ConditionCheck: 'ConditionCheckItem',
    };
    const parts = (asked['TransactItems'] as Record<string, Part>[]).flatMap((each) => Object.entries(each));
    return {
      table: parts[0]?.[1].TableName,
      items: parts.map(([name, part]) => ({
        action: actions[name as keyof typeof actions] ?? name,
        pk: (part.Item ?? part.Key)?.pk?.S,
      })),
    };
  }
  const values = (asked['ExpressionAttributeValues'] ?? {}) as Record<string, { S?: string }>;
  const pk = operation === 'Query' ? values[':pk']?.S : (Key ?? Item)?.pk?.S;
  return { table: TableName, items: [{ action: operation, pk }] };
}

/** The short text that follows a name in CBOR: one byte of 0x60 + length, then its bytes. */
function textAfter(body: Buffer, name: string): string | undefined {
  const at = body.indexOf(name, 0, 'latin1');
  if (at < 0) return undefined;
  const length = body[at + name.length]! - 0x60;
  return length < 0 || length > 23
    ? undefined
    : body.toString('latin1', at + name.length + 1, at + name.length + 1 + length);
}

function throttle({ service, operation, items }: AwsCall, response: http.ServerResponse): void {
  if (service === 's3') {
    response.writeHead(503, { 'content-type': 'application/xml' });
    response.end(
      '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>',
    );
    return;
  }
  const says = 'Throughput exceeds the current capacity of your table or index.';
  const name = 'com.amazonaws.dynamodb.v20120810#';
  response.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' });
  if (operation === 'TransactWriteItems') {
    const CancellationReasons = items.map((_, index) =>
      index === 0 ? { Code: 'ThrottlingError', Message: says } : { Code: 'None' },
    );
    const message = `Transaction cancelled, please refer cancellation reasons for specific reasons [${CancellationReasons.map(({ Code }) => Code).join(', ')}]`;
    response.end(
      JSON.stringify({ __type: `${name}TransactionCanceledException`, message, CancellationReasons }),
    );
  } else {
    response.end(JSON.stringify({ __type: `${name}ProvisionedThroughputExceededException`, message: says }));
  }
}
