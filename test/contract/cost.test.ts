/**
 * What S3 is really asked for a segment and for its copy into a replica, counted at the sockets: core/cost/acts.ts reckons with it. A vault
 * that is no S3 asks for nothing.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { ClientRequest } from 'node:http';
import { ARCHIVE, COPY, RELAY_SEGMENT } from '../../core/cost/acts.ts';
import { createVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { newCluster, segment, type FakeNode } from '../harness/fake-node.ts';
import { isAwsWanted, makeBucket } from '../harness/buckets.ts';
import { CREDENTIALS, ownName, startMinistack } from '../harness/emulators.ts';
import { memoryVault } from '../harness/two-vaults.ts';

type Asked = { puts: number; copies: number; gets: number };

/** Requests to S3 while `work` runs; those of DynamoDB are POST. */
async function asked(work: () => Promise<unknown>): Promise<Asked> {
  const counted: Asked = { puts: 0, copies: 0, gets: 0 };
  const note = (message: unknown) => {
    const { request } = message as { request: ClientRequest };
    if (request.method === 'GET' || request.method === 'HEAD') counted.gets += 1;
    if (request.method !== 'PUT') return;
    if (request.hasHeader('x-amz-copy-source')) counted.copies += 1;
    else counted.puts += 1;
  };
  subscribe('http.client.request.start', note);
  try {
    await work();
  } finally {
    unsubscribe('http.client.request.start', note);
  }
  return counted;
}

const none: Asked = { puts: 0, copies: 0, gets: 0 };

/** Two vaults; those of S3 in one store, which then copies by itself. */
const pairs: { name: string; isS3: boolean; open(): Promise<{ vaults: Vault[]; close(): Promise<void> }> }[] =
  [
    {
      name: 'memory',
      isS3: false,
      open: async () => ({ vaults: [await memoryVault(), await memoryVault()], close: async () => {} }),
    },
    { name: 's3 (ministack)', isS3: true, open: twoInOneStore },
  ].filter(({ isS3 }) => isAwsWanted || !isS3);

async function twoInOneStore() {
  Object.assign(process.env, CREDENTIALS);
  const emulator = await startMinistack();
  const vaults: Vault[] = [];
  for (let each = 0; each < 2; each++) {
    const bucket = await makeBucket(emulator.endpoint);
    const where = `region=${CREDENTIALS.AWS_REGION}&endpoint=${encodeURIComponent(emulator.endpoint)}`;
    vaults.push(await createVault(`s3://${bucket}?table=${ownName()}&${where}`, { createTable: true }));
  }
  return { vaults, close: () => emulator.stop() };
}

describe.each(pairs)('requests of S3: $name', ({ isS3, open }) => {
  let site: Awaited<ReturnType<typeof open>>;
  let [a, b]: Vault[] = [];
  let db1: FakeNode;

  beforeAll(async () => {
    site = await open();
    [a, b] = site.vaults;
    db1 = await newCluster(a!, 'cost');
  }, 120_000);
  afterAll(async () => {
    await a?.close();
    await b?.close();
    await site?.close();
  });

  test('a segment archived is one PUT', async () => {
    const puts = isS3 ? ARCHIVE.puts : 0;
    expect(await asked(() => db1.archive(segment(1, 1)))).toEqual({ ...none, puts });
  });

  test('a segment relayed is one COPY, and what is looked at before and after', async () => {
    const B = await openReplica(db1.cluster, b!);
    await relayPass(db1.cluster, B, { backups: false });
    await db1.archive(segment(1, 2));
    const copied = { copies: RELAY_SEGMENT.target.copies, gets: COPY.sourceGets + COPY.targetGets };
    const wanted = isS3 ? { ...none, ...copied } : none;
    expect(await asked(() => relayPass(db1.cluster, B, { backups: false }))).toEqual(wanted);
  });
});
