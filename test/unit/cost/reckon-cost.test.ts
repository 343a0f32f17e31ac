/** What the model says of a month: one example reckoned by hand, and what must hold of any input. */
import fc from 'fast-check';
import { plainInput, readPrices } from '../../../bin/commands/cost.ts';
import { largestKnobs } from '../../../core/cost/knobs.ts';
import { parsePrices, PRICE_NAMES, type PriceName } from '../../../core/cost/prices.ts';
import { COST_GROUPS } from '../../../core/cost/bill.ts';
import { flowOf, reckonCost, type CostInput } from '../../../core/cost/reckon-cost.ts';

const MiB = 1024 ** 2;
const GiB = 1024 ** 3;
const DAY_MS = 86_400_000;
const list = readPrices();
const total = (input: CostInput) => reckonCost(input, list).total;

/** A list on which only these cost anything: one unit of money each. */
function only(...names: PriceName[]) {
  const rows = PRICE_NAMES.map(
    (name) =>
      `[price.${name}]\nunit = "units"\nper = 1\npage = "here"\namount = { home = ${names.includes(name) ? 1 : 0}, away = ${names.includes(name) ? 1 : 0} }\n`,
  );
  return parsePrices(`as_of = "now"\nsource = "a test"\ncurrency = "units"\n${rows.join('')}`, 'test');
}
/** A full segment of 16 MiB each minute, one standby, 10 GiB backed up each day for a week. */
const example = plainInput({
  ...{ walBytesPerDay: 16 * MiB * 1440, databaseBytes: 10 * GiB, compression: 0.5 },
  ...{ witness: false, leaseMs: 0 },
  ...{ region: 'home', heartbeatMs: 5000, pollMs: 100, idlePollMs: 2000, forceSwitchMs: 60_000 },
  ...{
    backupEveryMs: DAY_MS,
    pitrWindowMs: 7 * DAY_MS,
    keepBackups: 2,
    versionsMs: 0,
    bundleBytes: 64 * MiB,
  },
});

describe('an example reckoned by hand', () => {
  // 730 hours: 43,800 minutes, 525,600 heartbeats of 5 s, 730/24 days
  const days = 730 / 24;

  test('segments: one a minute', () => {
    expect(flowOf(example).segments).toBeCloseTo(43_800, 6);
  });

  test('write units: 8 a segment and 2 when it goes, 6 and 2 a heartbeat, 4 a run of retention, 2 a look', () => {
    const writes = 43_800 * (8 + 2) + 525_600 * (6 + 2) + days * 4 + 43_800 * 2;
    expect(reckonCost(example, only('dynamodb_write')).total).toBeCloseTo(writes, 3);
  });

  test('read units: 5 a segment, 1 by the standby; its 10 looks a second; 5 and 1 a heartbeat; 1 a minute; and what looks at all', () => {
    const program = 43_800 * (5 + 1) + 2_628_000 * 10 + 525_600 * (5 + 1) + 43_800;
    const notify = 43_800 * 8;
    // 8 days of segments are kept, 400 bytes a row, read once a day
    const retention = days * (18 + (8 * 1440 * 400) / 4096);
    expect(reckonCost(example, only('dynamodb_read')).total).toBeCloseTo(program + notify + retention, 3);
  });

  test('PUT: one a segment, 162 a backup (160 bundles); and listings', () => {
    // 8 days of 1440 objects are 12 pages each day, and one listing for each backup that goes
    const puts = 43_800 + days * 162 + days * (12 + 1);
    expect(reckonCost(example, only('s3_put')).total).toBeCloseTo(puts, 3);
  });

  test('storage: eight days of WAL and eight backups, at half their size', () => {
    const frames = (8 * 1440 + 8 * 162) * 2048;
    const gib = (8 * 1440 * 16 * MiB * 0.5 + 8 * 10 * GiB * 0.5 + frames) / GiB;
    expect(reckonCost(example, only('s3_storage')).total).toBeCloseTo(gib, 6);
  });

  test('a lease: one read and two writes more each heartbeat', () => {
    const leased = { ...example, leaseMs: 30_000 };
    const more = (price: PriceName) =>
      reckonCost(leased, only(price)).total - reckonCost(example, only(price)).total;
    expect(more('dynamodb_read')).toBeCloseTo(525_600, 3);
    expect(more('dynamodb_write')).toBeCloseTo(525_600 * 2, 3);
    // how long it is costs nothing
    const all = (leaseMs: number) => reckonCost({ ...leased, leaseMs }, only(...PRICE_NAMES)).total;
    expect(all(60_000)).toBe(all(30_000));
  });

  test('the witness: a quarter of a GB for 116 s each minute, 57.5 looks of 4 reads each, its row four times', () => {
    const watched = { ...example, witness: true, witnessMs: 2000 };
    const more = (...price: PriceName[]) =>
      reckonCost(watched, only(...price)).total - reckonCost(example, only(...price)).total;
    expect(more('lambda_compute')).toBeCloseTo(43_800 * 116 * 0.25, 3);
    expect(more('lambda_request')).toBeCloseTo(43_800, 3);
    expect(more('dynamodb_read')).toBeCloseTo(43_800 * (57.5 * 4 + 4), 3);
    expect(more('dynamodb_write')).toBeCloseTo(43_800 * 4 * 2, 3);
    expect(more('cloudwatch_request')).toBeCloseTo(43_800, 3);
    // that of a replica looks at the active vault as well
    const pair = (witness: boolean) =>
      reckonCost({ ...watched, witness, drRegion: 'away' }, only('dynamodb_read')).total;
    expect(pair(true) - pair(false)).toBeCloseTo(43_800 * (3 * 57.5 * 4 + 2 * 4), 3);
  });

  test('to the other region goes what is stored, once', () => {
    const gib = (43_800 * (8 * MiB + 2048) + days * (5 * GiB + 162 * 2048)) / GiB;
    const pair = { ...example, drRegion: 'away' };
    expect(reckonCost(pair, only('transfer_region')).total).toBeCloseTo(gib, 6);
    expect(reckonCost(example, only('transfer_region')).total).toBe(0);
  });

  test('a quiet cluster: looks are quick for five minutes after each segment, then slow', () => {
    const quiet = { ...example, walBytesPerDay: 16 * MiB * 24, forceSwitchMs: 0, standbys: 1 };
    const looks = 730 * (300 * 10 + 3300 / 2);
    const line = reckonCost(quiet, only()).lines.find(({ item }) => item.startsWith('looks'));
    expect(line!.quantity).toBeCloseTo(looks, 3);
  });

  test('force_switch finishes segments that are not full: they cost requests, and next to no bytes', () => {
    const slow = { ...example, walBytesPerDay: 1024 * 86_400, forceSwitchMs: 60_000 };
    expect(flowOf(slow).segments).toBeCloseTo(43_800, 6);
    expect(flowOf(slow).walBytes).toBeCloseTo(2_628_000 * 1024 * 0.5 + 43_800 * 2048, 3);
  });
});

const durations = (from: number, to: number) => fc.integer({ min: from, max: to });
const inputs: fc.Arbitrary<CostInput> = fc
  .record({
    walBytesPerDay: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1e14, noNaN: true })),
    segmentBytes: fc.integer({ min: 0, max: 10 }).map((power) => MiB * 2 ** power),
    compression: fc.double({ min: 0.01, max: 1, noNaN: true }),
    forceSwitchMs: fc.oneof(fc.constant(0), durations(1000, DAY_MS)),
    databaseBytes: fc.integer({ min: 0, max: 1e12 }),
    backupEveryMs: fc.oneof(fc.constant(0), durations(3600_000, 60 * DAY_MS)),
    keepDays: fc.integer({ min: 0, max: 60 }),
    pitrWindowMs: durations(0, 90 * DAY_MS),
    versionsMs: durations(0, 90 * DAY_MS),
    standbys: fc.integer({ min: 0, max: 9 }),
    drStandbys: fc.integer({ min: 0, max: 9 }),
    heartbeatMs: durations(1000, 600_000),
    leaseMs: fc.constantFrom(0, 30_000),
    witness: fc.boolean(),
    witnessMs: durations(100, 60_000),
    pollMs: durations(10, 60_000),
    idlePollMs: durations(100, 600_000),
    region: fc.constantFrom(...list.regions),
    drRegion: fc.option(fc.constantFrom(...list.regions), { nil: undefined }),
  })
  .map((changes) => plainInput(changes));

describe('of any cluster', () => {
  test('more WAL never costs less', () => {
    fc.assert(
      fc.property(inputs, fc.double({ min: 0, max: 1e14, noNaN: true }), (input, more) => {
        expect(total({ ...input, walBytesPerDay: input.walBytesPerDay + more })).toBeGreaterThanOrEqual(
          total(input) - 1e-6,
        );
      }),
    );
  });

  test('no WAL costs only what is fixed: nothing that is counted by segments, whatever their size', () => {
    fc.assert(
      fc.property(inputs, inputs, (input, other) => {
        const still = { ...input, walBytesPerDay: 0, databaseBytes: 0 };
        const { groups, lines } = reckonCost(still, list);
        expect([groups.archiving, groups['base backups'], groups.storage]).toEqual([0, 0, 0]);
        expect(lines.filter(({ price }) => ['s3_get', 'transfer_region'].includes(price))).toEqual([]);
        const { segmentBytes, compression, forceSwitchMs } = other;
        expect(total({ ...still, segmentBytes, compression, forceSwitchMs })).toBeCloseTo(total(still), 9);
      }),
    );
  });

  test('a replica is never for nothing', () => {
    fc.assert(
      fc.property(inputs, fc.constantFrom(...list.regions), (input, drRegion) => {
        expect(total({ ...input, drRegion })).toBeGreaterThan(total({ ...input, drRegion: undefined }));
      }),
    );
  });

  test('the whole is the sum of its groups, these of their lines, and each line its quantity times its price', () => {
    fc.assert(
      fc.property(inputs, (input) => {
        const cost = reckonCost(input, list);
        expect(COST_GROUPS.reduce((sum, group) => sum + cost.groups[group], 0)).toBeCloseTo(cost.total, 6);
        for (const line of cost.lines) {
          expect(Number.isFinite(line.cost)).toBe(true);
          expect(line.cost).toBeCloseTo((line.quantity / line.per) * line.amount, 9);
        }
      }),
    );
  });

  test('a knob says what turning it saves, the largest first', () => {
    const members = {
      ...{ poll_interval: 'pollMs', idle_poll_interval: 'idlePollMs', heartbeat_interval: 'heartbeatMs' },
      ...{ witness_interval: 'witnessMs' },
      ...{ force_switch: 'forceSwitchMs', pitr_window: 'pitrWindowMs', '--backup-every': 'backupEveryMs' },
      ...{ '--keep-versions': 'versionsMs', '--segment-size': 'segmentBytes' },
    } as Record<string, keyof CostInput>;
    fc.assert(
      fc.property(inputs, (input) => {
        const knobs = largestKnobs(input, list);
        expect(knobs.length).toBeLessThanOrEqual(3);
        for (const { name, from, to, saves } of knobs) {
          expect(input[members[name]!]).toBe(from);
          expect(total(input) - total({ ...input, [members[name]!]: to })).toBeCloseTo(saves, 6);
          expect(saves).toBeGreaterThan(0);
        }
        expect(knobs.map(({ saves }) => saves)).toEqual(
          knobs.map(({ saves }) => saves).sort((x, y) => y - x),
        );
      }),
    );
  });

  test('a region without a price is refused by name', () => {
    expect(() => total(plainInput({ walBytesPerDay: 1, region: 'mars-north-1' }))).toThrow(
      /no dynamodb_read for region mars-north-1/,
    );
  });
});
