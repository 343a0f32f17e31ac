/** A queue that hears what is published to an SNS topic: what a subscriber would have got. */
import {
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import { ownName } from './emulators.ts';
import { waitFor } from './scratch.ts';

export type Told = {
  /** As JSON where it is that, else as it was. */
  message: Record<string, unknown> | string;
  subject: string | undefined;
  attributes: Record<string, string>;
};

export class Subscription {
  /** Everything heard so far, in the order of its arrival. */
  readonly told: Told[] = [];
  private readonly queue: SQSClient;
  private readonly url: string;

  private constructor(queue: SQSClient, url: string) {
    this.queue = queue;
    this.url = url;
  }

  /** @param topic  ARN; the queue lies in its region, as it must */
  static async open(
    topic: string,
    endpoint: string,
    credentials?: { accessKeyId: string; secretAccessKey: string },
  ): Promise<Subscription> {
    const place = {
      region: topic.split(':')[3]!,
      endpoint,
      ...(credentials === undefined ? {} : { credentials }),
    };
    const sqs = new SQSClient(place);
    const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: ownName() }));
    const { Attributes } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['QueueArn'] }),
    );
    const sns = new SNSClient(place);
    await sns.send(
      new SubscribeCommand({ TopicArn: topic, Protocol: 'sqs', Endpoint: Attributes!['QueueArn']! }),
    );
    sns.destroy();
    return new Subscription(sqs, QueueUrl!);
  }

  /** Everything that was published up to now and is not heard yet, too. */
  async hear(): Promise<Told[]> {
    for (;;) {
      const { Messages = [] } = await this.queue.send(
        new ReceiveMessageCommand({ QueueUrl: this.url, MaxNumberOfMessages: 10 }),
      );
      if (Messages.length === 0) return this.told;
      for (const { Body } of Messages) this.told.push(readTold(Body!));
      const Entries = Messages.map(({ ReceiptHandle }, index) => ({
        Id: String(index),
        ReceiptHandle: ReceiptHandle!,
      }));
      await this.queue.send(new DeleteMessageBatchCommand({ QueueUrl: this.url, Entries }));
    }
  }

  /** The first message that fits. @throws after the patience of waitFor */
  async until(what: string, withinMs: number, fits: (told: Told) => boolean): Promise<Told> {
    return waitFor(what, withinMs, async () => (await this.hear()).find(fits));
  }

  close(): void {
    this.queue.destroy();
  }
}

type Envelope = { Message: string; Subject?: string; MessageAttributes?: Record<string, { Value: string }> };

function readTold(body: string): Told {
  const { Message, Subject, MessageAttributes = {} } = JSON.parse(body) as Envelope;
  const attributes = Object.fromEntries(
    Object.entries(MessageAttributes).map(([name, { Value }]) => [name, Value]),
  );
  try {
    return { message: JSON.parse(Message) as Record<string, unknown>, subject: Subject, attributes };
  } catch {
    return { message: Message, subject: Subject, attributes };
  }
}
