/**
 * Where notices arrive, for tests of the notify function: topics of two regions with a queue behind each (an emulator), and a webhook on a
 * port of this machine that answers as the test says.
 */
import { CreateTopicCommand, SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE } from './scratch.ts';

/** As SNS hands it to a queue. */
export type Arrived = {
  Subject: string;
  Message: string;
  MessageAttributes: Record<string, { Type: string; Value: string }>;
};

export type TopicAndQueue = {
  arn: string;
  /** Takes what is there, once at least `count` have come, and looks once more for what should not be. */
  take(count: number): Promise<Arrived[]>;
  close(): void;
};

const LIMIT_MS = 10_000 * PATIENCE;

/** @param name  its ARN is known before: arn:aws:sns:<region>:000000000000:<name> */
export async function openTopic(endpoint: string, region: string, name: string): Promise<TopicAndQueue> {
  const sns = new SNSClient({ endpoint, region });
  const sqs = new SQSClient({ endpoint, region });
  const { TopicArn } = await sns.send(new CreateTopicCommand({ Name: name }));
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: name }));
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['QueueArn'] }),
  );
  await sns.send(new SubscribeCommand({ TopicArn, Protocol: 'sqs', Endpoint: Attributes!['QueueArn'] }));
  const receive = async (): Promise<Arrived[]> => {
    const found: Arrived[] = [];
    for (;;) {
      const { Messages = [] } = await sqs.send(
        new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }),
      );
      for (const { Body, ReceiptHandle } of Messages) {
        found.push(JSON.parse(Body!) as Arrived);
        await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      }
      if (Messages.length === 0) return found;
    }
  };
  return {
    arn: TopicArn!,
    async take(count) {
      const found: Arrived[] = [];
      const until = performance.now() + LIMIT_MS;
      do {
        found.push(...(await receive()));
        if (found.length < count) await sleep(20);
      } while (found.length < count && performance.now() < until);
      return [...found, ...(await receive())];
    },
    close() {
      sns.destroy();
      sqs.destroy();
    },
  };
}

export type Posted = { path: string; authorization: string | undefined; body: Record<string, unknown> };

export type Webhook = {
  url: string;
  /** How it answers from now on; 302: with a place on this same server. hang: never. */
  status: number | 'hang';
  /** What came since it was asked last. */
  take(): Posted[];
  close(): Promise<void>;
};

export async function openWebhook(): Promise<Webhook> {
  let posted: Posted[] = [];
  const server = http.createServer((request, response) => {
    void text(request).then((body) => {
      const { authorization } = request.headers;
      posted.push({ path: request.url!, authorization, body: JSON.parse(body || '{}') as Posted['body'] });
      const { status } = webhook;
      if (status === 'hang') return;
      response.writeHead(status, { location: '/elsewhere' }).end();
    });
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const webhook: Webhook = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks/s3cret`,
    status: 200,
    take: () => posted.splice(0),
    async close() {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeAllConnections();
      await closed.promise;
      posted = [];
    },
  };
  return webhook;
}
