/**
 * A person's take-over by the DR region while the old primary lives, with a lease: it is fenced, stops, says so, and only then the other one opens.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { Clients } from '../harness/clients.ts';
import { DrSite } from '../harness/dr-site.ts';
import { hasLease, missingOn } from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';

const pair = onePair(0);

test(`a take-over and the lease of the old primary, ${pair.title}`, async () => {
  const site = await DrSite.open({
    pair,
    segmentSizeMiB: 1,
    nodes: ['db1', 'dr1'],
    walvault: {
      WALVAULT_LEASE: '9s',
      WALVAULT_WATCHDOG: 'process',
      WALVAULT_HEARTBEAT_INTERVAL: '1s',
    },
  });
  await site.makePrimary('db1');
  await site.backup();
  await site.relayOnce();
  await site.addDrStandby('dr1');
  const clients = await Clients.start(site.server('db1'), site.servers);
  await site.archiveNow();
  await site.relayOnce();
  await hasLease(site, 'db1');
  await waitFor('dr1 can be a target', 60_000, async () => {
    const [row] = await site.view('B').rows('node#dr1');
    return row?.['consistent'] === true;
  });
  const { status, stderr } = await site.walvaultAt('dr1', 'trigger', 'smart', '--to', 'dr1', '--yes');
  expect({ status, stderr }).toEqual({
    status: 0,
    stderr: expect.stringMatching(
      /db1 had a lease: its word that it has stopped is waited for, 10(.0)? s at most/,
    ),
  });
  expect(site.server('db1').pid()).toBeUndefined();
  await waitFor('clients write to dr1', 30_000, () => clients.of('dr1').length > 0);
  expect(await missingOn(site, 'dr1', clients, { old: 'db1', timeline: 2 })).toEqual([]);
  expect(clients.turns()).toEqual(['db1', 'dr1']);
  // where the lease was over first nobody has waited for the word; it comes all the same
  await waitFor('the word of db1 that it has stopped', 30_000, async () => {
    const [row] = await site.view('A').rows('node#db1');
    return (row?.['lease'] as { released?: true } | undefined)?.released;
  });
  await clients.stop();
  await site.close();
});
