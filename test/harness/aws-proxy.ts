/**
 * A proxy before an AWS emulator that knows what passes through it: it notes each request as IAM would see it, and does to those that a
 * test picks out what AWS and networks do: throttles, refuses, hangs, loses the answer, delays, carries out twice.
 *
 * Everything else passes unchanged, headers in their order and `Host` as the client wrote it, so signatures stay valid. Plain HTTP, S3 by
 * path-style; clients reach it by `AWS_ENDPOINT_URL` or the vault's URL.
 */
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { readAwsRequest, type AwsRequest } from './aws-request.ts';

export type { AwsRequest, RowAccess } from './aws-request.ts';

/** A request as it came and what became of it. */
export type Passed = AwsRequest & {
  /** Of the answer that the client got; undefined: none yet, or none at all. */
  status?: number;
  /** What was done to it. */
  fault?: Fault;
};

export type Fault =
  /**
   * The service's own words for "too much": DynamoDB ProvisionedThroughputExceededException (400), S3 SlowDown (503), else Throttling
   * (400). Nothing is carried out.
   */
  | 'throttle'
  /** DynamoDB, a transaction: cancelled, and each reason is ThrottlingError. Other requests: as 'throttle'. */
  | 'cancel'
  /** The connection is reset; nothing is carried out. */
  | 'refuse'
  /** No answer, until the disturbance ends; then the connection is reset. Nothing is carried out. */
  | 'hang'
  /** It is carried out, and the connection is reset instead of the answer. */
  | 'lose answer'
  /** It is carried out twice; the client gets the second answer. */
  | 'twice'
  /** It is carried out that many ms later. */
  | { delayMs: number };

export type Disturbance = {
  /** Requests that it met. */
  readonly met: number;
  end(): void;
};

export type AwsProxy = {
  port: number;
  /** `http://127.0.0.1:<port>` */
  endpoint: string;
  /** Where requests go; may be set after the start. */
  targetPort: number;
  /** All requests, in the order in which they had come whole. A test may empty it. */
  requests: Passed[];
  /** @param times  so many requests, then it ends by itself. Of several that fit a request the first one made counts. */
  disturb(when: (request: AwsRequest) => boolean, fault: Fault, times?: number): Disturbance;
  /** Ends every disturbance. */
  calm(): void;
  close(): Promise<void>;
};

type Rule = Disturbance & {
  met: number;
  left: number;
  when: (request: AwsRequest) => boolean;
  fault: Fault;
  hanging: Set<http.IncomingMessage>;
};

/** @param target  port of the emulator on this machine; 0: set later */
export async function startAwsProxy(target = 0): Promise<AwsProxy> {
  const agent = new http.Agent({ keepAlive: true });
  const rules = new Set<Rule>();
  const requests: Passed[] = [];

  const server = http.createServer((incoming, outgoing) => {
    outgoing.on('error', () => undefined);
    incoming.on('error', () => undefined); // a client that gave up
    void whole(incoming).then(
      (body) => handle(incoming, body, outgoing),
      () => undefined,
    );
  });

  async function handle(
    incoming: http.IncomingMessage,
    body: Buffer,
    outgoing: http.ServerResponse,
  ): Promise<void> {
    const { method = '', url = '', headers } = incoming;
    const passed: Passed = readAwsRequest({ method, url, headers, body });
    requests.push(passed);
    const rule = [...rules].find(({ when }) => when(passed));
    if (rule !== undefined) {
      passed.fault = rule.fault;
      rule.met += 1;
      if (--rule.left <= 0) rules.delete(rule);
    }
    const reset = () => void incoming.socket.resetAndDestroy();
    const answer = (status: number, replyHeaders: readonly string[], bytes: Buffer) => {
      passed.status = status;
      outgoing.writeHead(status, [...replyHeaders]);
      outgoing.end(method === 'HEAD' ? undefined : bytes);
    };
    const fault = rule?.fault;
    if (fault === 'refuse') return reset();
    if (fault === 'hang') return void rule!.hanging.add(incoming);
    if (fault === 'throttle' || fault === 'cancel') {
      const { status, type, text } = throttling(passed, fault);
      const bytes = Buffer.from(text);
      return answer(
        status,
        ['Content-Type', type, 'Content-Length', String(bytes.length), 'x-amzn-RequestId', randomUUID()],
        bytes,
      );
    }
    if (typeof fault === 'object') await later(fault.delayMs);
    try {
      if (fault === 'twice') await forward(incoming, body);
      const reply = await forward(incoming, body);
      if (fault === 'lose answer') return reset();
      answer(reply.status, reply.headers, reply.body);
    } catch {
      reset(); // the emulator is away: so is AWS
    }
  }

  function forward(
    { method, url, rawHeaders }: http.IncomingMessage,
    body: Buffer,
  ): Promise<{ status: number; headers: string[]; body: Buffer }> {
    const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<typeof forward>>>();
    const onward = http.request({
      ...{ agent, host: '127.0.0.1', port: proxy.targetPort, method, path: url, setHost: false },
      // the body is here already: nobody has to be asked whether it may come
      headers: withoutHeaders(rawHeaders, ['expect', 'connection']),
    });
    onward.on('error', reject);
    onward.on('response', (response) => {
      whole(response).then(
        (bytes) =>
          resolve({
            status: response.statusCode ?? 502,
            headers: withoutHeaders(response.rawHeaders, ['connection', 'keep-alive', 'transfer-encoding']),
            body: bytes,
          }),
        reject,
      );
    });
    onward.end(body);
    return promise;
  }

  const listening = Promise.withResolvers<void>();
  server.once('error', listening.reject);
  server.listen(0, '127.0.0.1', () => listening.resolve());
  await listening.promise;
  const { port } = server.address() as AddressInfo;
  const end = (rule: Rule) => {
    rules.delete(rule);
    for (const incoming of rule.hanging) incoming.socket.resetAndDestroy();
    rule.hanging.clear();
  };
  const made: Rule[] = [];
  const calm = () => made.splice(0).forEach(end);
  const proxy: AwsProxy = {
    ...{ port, endpoint: `http://127.0.0.1:${port}`, targetPort: target, requests, calm },
    disturb(when, fault, times = Infinity) {
      const rule: Rule = {
        ...{ met: 0, left: times, when, fault, hanging: new Set<http.IncomingMessage>() },
        end: () => end(rule),
      };
      rules.add(rule);
      made.push(rule);
      return rule;
    },
    async close() {
      calm();
      agent.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeAllConnections();
      await closed.promise;
    },
  };
  return proxy;
}

async function whole(message: http.IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** @param raw  names and values in turn @param names  lower case */
function withoutHeaders(raw: readonly string[], names: readonly string[]): string[] {
  return raw.filter((_, index) => !names.includes(raw[index - (index % 2)]!.toLowerCase()));
}

function throttling(
  { service, operation, rows, input }: AwsRequest,
  fault: 'throttle' | 'cancel',
): { status: number; type: string; text: string } {
  if (service === 's3')
    return {
      ...{ status: 503, type: 'application/xml' },
      text: `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message><RequestId>${randomUUID()}</RequestId></Error>`,
    };
  const json = (name: string, more: object) => ({
    ...{ status: 400, type: 'application/x-amz-json-1.0' },
    text: JSON.stringify({ __type: name, ...more }),
  });
  const dynamo = 'com.amazonaws.dynamodb.v20120810#';
  if (service === 'dynamodb' && fault === 'cancel' && operation === 'TransactWriteItems')
    return json(`${dynamo}TransactionCanceledException`, {
      Message: `Transaction cancelled, please refer cancellation reasons for specific reasons [${rows.map(() => 'ThrottlingError').join(', ')}]`,
      CancellationReasons: rows.map(() => ({
        Code: 'ThrottlingError',
        Message: 'The level of configured provisioned throughput for the table was exceeded.',
      })),
    });
  if (service === 'dynamodb')
    return json(`${dynamo}ProvisionedThroughputExceededException`, {
      message: 'The level of configured provisioned throughput for the table was exceeded.',
    });
  if (input !== undefined && !('Action' in input))
    return json('ThrottlingException', { message: 'Rate exceeded' });
  return {
    ...{ status: 400, type: 'text/xml' },
    text: `<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error><RequestId>${randomUUID()}</RequestId></ErrorResponse>`,
  };
}

async function later(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms);
  await promise;
}
