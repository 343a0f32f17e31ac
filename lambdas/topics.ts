/**
 * SNS: one client for each region that an ARN names (`arn:aws:sns:<region>:<account>:<name>`).
 *
 * Source: Amazon SNS API Reference, Publish.
 */
import { PublishCommand, SNSClient } from '@aws-sdk/client-sns';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import type { Announcement } from '../core/cluster/decide-announcements.ts';
import type { Cluster } from '../core/work/cluster.ts';

export type Message = {
  topic: string;
  /** At most 100 characters of ASCII, of one line: SNS refuses others. */
  subject?: string;
  text: string;
  /** Subscribers filter by them. */
  attributes: Record<string, string>;
};

const clients = new Map<string, SNSClient>();
/** For two attempts, ms. */
const ANSWER_MS = 10_000;

/** @throws Error of the SDK */
export async function publish({ topic, subject, text, attributes }: Message): Promise<void> {
  const region = topic.split(':')[3]!;
  const client = clients.get(region) ?? connect(region);
  clients.set(region, client);
  await client.send(
    new PublishCommand({
      ...{ TopicArn: topic, Message: text },
      ...(subject === undefined ? {} : { Subject: subject }),
      MessageAttributes: Object.fromEntries(
        Object.entries(attributes).map(([name, value]) => [name, { DataType: 'String', StringValue: value }]),
      ),
    }),
    { abortSignal: AbortSignal.timeout(ANSWER_MS) },
  );
}

function connect(region: string): SNSClient {
  const requestHandler = new NodeHttpHandler({
    connectionTimeout: 3000,
    requestTimeout: 5000,
    throwOnRequestTimeout: true,
  });
  return new SNSClient({ region, maxAttempts: 2, requestHandler });
}

/** For programs: one JSON object a message. */
export function publishArrival(topic: string, { name, vault }: Cluster) {
  return (announcement: Announcement): Promise<void> =>
    publish({
      topic,
      text: JSON.stringify({
        cluster: name,
        vault: vault.url,
        at: new Date().toISOString(),
        ...announcement,
      }),
      attributes: { kind: announcement.kind, cluster: name },
    });
}
