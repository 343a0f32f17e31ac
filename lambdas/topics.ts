/**
 * SNS: one client for each region that an ARN names (`arn:aws:sns:<region>:<account>:<name>`).
 *
 * Source: Amazon SNS API Reference, Publish.
 */
import { PublishCommand, SNSClient } from '@aws-sdk/client-sns';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { VaultError } from '../core/errors.ts';
import { awsFailure } from '../core/vault/aws-client.ts';

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

/**
 * @throws VaultError unreachable | denied | unconfigured  it may have got it
 */
export async function publish({ topic, subject, text, attributes }: Message): Promise<void> {
  const region = topic.split(':')[3]!;
  const client = clients.get(region) ?? connect(region);
  clients.set(region, client);
  const command = new PublishCommand({
    ...{ TopicArn: topic, Message: text },
    ...(subject === undefined ? {} : { Subject: subject }),
    MessageAttributes: Object.fromEntries(
      Object.entries(attributes).map(([name, value]) => [name, { DataType: 'String', StringValue: value }]),
    ),
  });
  try {
    await client.send(command, { abortSignal: AbortSignal.timeout(ANSWER_MS) });
  } catch (error) {
    throw explained(error, topic);
  }
}

function connect(region: string): SNSClient {
  const requestHandler = new NodeHttpHandler({
    connectionTimeout: 3000,
    requestTimeout: 5000,
    throwOnRequestTimeout: true,
  });
  return new SNSClient({ region, maxAttempts: 2, requestHandler });
}

/** For programs: one JSON message to each of `topics`. @throws VaultError as publish; some of the topics may have got it */
export async function publishJson(
  topics: readonly string[],
  message: object,
  attributes: Record<string, string>,
): Promise<void> {
  for (const topic of topics) await publish({ topic, text: JSON.stringify(message), attributes });
}

function explained(error: unknown, topic: string): unknown {
  const hint = 'deploy the stack of that region anew, or correct the ARN.';
  if (error instanceof Error && error.name === 'NotFoundException')
    return new VaultError('unconfigured', `topic '${topic}' is not there`, { hint, cause: error });
  return awsFailure(error, 'publish', `topic '${topic}'`, hint, {});
}
