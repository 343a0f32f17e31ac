/** What the relay function takes from each of its callers, and what it answers where a cluster failed. */
import type { DynamoDBRecord, DynamoDBStreamEvent, SQSEvent } from 'aws-lambda';
import { wantedBy } from '../../../lambdas/relay-call.ts';

let sequence = 0;
const record = (
  pk: string,
  sk: string,
  changes: Partial<DynamoDBRecord> & { sequence?: string } = {},
): DynamoDBRecord => ({
  eventName: changes.eventName ?? 'INSERT',
  eventSource: 'aws:dynamodb',
  dynamodb: {
    Keys: { pk: { S: pk }, sk: { S: sk } },
    NewImage: { pk: { S: pk }, sk: { S: sk }, rev: { N: '1' } },
    SequenceNumber: changes.sequence ?? String(1000 + ++sequence),
  },
});
const stream = (...Records: DynamoDBRecord[]): DynamoDBStreamEvent => ({ Records });
const queue = (...bodies: string[]): SQSEvent =>
  ({
    Records: bodies.map((body, index) => ({ messageId: `m${index}`, body, eventSource: 'aws:sqs' })),
  }) as SQSEvent;

describe('a batch of the stream', () => {
  test('names each cluster once, in the order in which they come', () => {
    const event = stream(
      record('b/7300', 'wal#000000010000000000000001'),
      record('a/7300', 'tail#00000001'),
      record('b/7300', 'wal#000000010000000000000002'),
      record('c', 'control', { eventName: 'MODIFY' }),
    );
    expect(wantedBy(event)).toMatchObject({ clusters: ['b', 'a', 'c'], sweep: false, isHint: true });
  });

  test.each([
    ['a heartbeat', record('a/7300', 'node#db1')],
    ['an event', record('a/7300', 'event#2026#1')],
    ['what relays say', record('a/7300', 'relay#bbbb')],
    ['a removal', record('a/7300', 'wal#000000010000000000000001', { eventName: 'REMOVE' })],
    ['the list of clusters', record('#clusters', 'a')],
    ['what functions keep for themselves', record('#notices#a', 'control')],
  ])('is passed over: %s', (_what, each) => {
    const wanted = wantedBy(stream(each));
    expect(wanted.clusters).toEqual([]);
    expect(wanted.again!(new Set())).toEqual([]);
  });

  test('asks for the lowest record of each cluster that failed, in whatever order they came', () => {
    const wanted = wantedBy(
      stream(
        record('good/1', 'wal#1', { sequence: '98' }),
        record('bad/1', 'wal#2', { sequence: '1000' }),
        record('bad/1', 'node#db1', { sequence: '97' }),
        record('bad/1', 'wal#1', { sequence: '99' }),
        record('worse/1', 'wal#1', { sequence: '101' }),
      ),
    );
    expect(wanted.again!(new Set(['bad', 'worse']))).toEqual([
      { itemIdentifier: '99' },
      { itemIdentifier: '101' },
    ]);
  });

  test('a record without a number has the whole batch repeated', () => {
    const wanted = wantedBy(
      stream(record('bad/1', 'wal#1', { sequence: '5' }), record('bad/1', 'wal#2', { sequence: '' })),
    );
    expect(wanted.again!(new Set(['bad']))).toEqual([{ itemIdentifier: '' }]);
  });
});

test.each([
  [
    'of a batch that failed',
    JSON.stringify({ requestContext: {}, DDBStreamBatchInfo: { shardId: 's', batchSize: 3 } }),
  ],
  ['of a person', 'please'],
])('a message %s: every cluster, every row; all messages come again where one failed', (_what, body) => {
  const wanted = wantedBy(queue(body, 'another'));
  expect(wanted).toMatchObject({ clusters: undefined, sweep: true });
  expect(wanted.again!(new Set())).toEqual([]);
  expect(wanted.again!(new Set(['main']))).toEqual([{ itemIdentifier: 'm0' }, { itemIdentifier: 'm1' }]);
});

test('a schedule: every cluster, every row, and nobody who would bring it again', () => {
  expect(wantedBy({ sweep: true })).toEqual({
    clusters: undefined,
    isHint: false,
    sweep: true,
    again: undefined,
  });
  expect(wantedBy({})).toMatchObject({ clusters: undefined, sweep: true });
});

test('a person: one cluster, which has to be there', () => {
  expect(wantedBy({ sweep: true, cluster: 'main' })).toMatchObject({
    clusters: ['main'],
    isHint: false,
    sweep: true,
  });
  expect(() => wantedBy({ cluster: 7 as unknown as string })).toThrow(
    expect.objectContaining({ code: 'usage' }),
  );
});
