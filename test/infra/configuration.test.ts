/** What a deployment's file may say, and what is said of a mistake in it: with the key, and before anything is made. */
import { readConfiguration } from '../../infra/configuration.ts';

const REGION = 'regions.primary = "eu-west-1"\n';
const PAIR = `${REGION}regions.dr = "eu-central-1"\n`;
const keyIn = (region: string): string =>
  `arn:aws:kms:${region}:111122223333:key/11111111-2222-3333-4444-555555555555`;

test('one line is enough: one region, and what is not said is as it is best', () => {
  expect(readConfiguration(REGION)).toEqual({
    name: 'walvault',
    regions: { primary: 'eu-west-1', dr: undefined },
    prefix: '',
    clusters: undefined,
    retention: { schedule: 'rate(1 day)' },
    notify: { email: undefined },
    objectLock: undefined,
    kms: { primary: undefined, dr: undefined },
    principals: [],
    noncurrentDays: 30,
    runbookUrl: '',
    adopt: false,
  });
});

test('everything can be said', () => {
  const toml = `
    name = "acme"
    prefix = "prod/pg"
    clusters = ["main", "crm"]
    noncurrent_days = 90
    runbook_url = "https://git.example.com/docs/runbook/"
    [regions]
    primary = "eu-west-1"
    dr = "eu-central-1"
    [retention]
    schedule = "cron(30 3 * * ? *)"
    keep_backups = 4
    keep_days = 0
    pitr_window = "14d"
    node_lease = "3d"
    relay_lease = "14d"
    [notify]
    email = "dba@example.com"
    webhook = "https://chat.example.com/hooks/x"
    lag_limit = "1h"
    archive_limit = "30m"
    silence_limit = "10m"
    [object_lock]
    mode = "governance"
    days = 14
    [kms]
    primary = "${keyIn('eu-west-1')}"
    dr = "${keyIn('eu-central-1')}"
    [nodes]
    principals = ["arn:aws:iam::111122223333:role/db-host"]`;
  expect(readConfiguration(toml)).toEqual({
    name: 'acme',
    regions: { primary: 'eu-west-1', dr: 'eu-central-1' },
    prefix: 'prod/pg',
    clusters: ['main', 'crm'],
    retention: {
      schedule: 'cron(30 3 * * ? *)',
      ...{ keepBackups: '4', keepDays: '0', pitrWindow: '14d', nodeLease: '3d', relayLease: '14d' },
    },
    notify: {
      email: 'dba@example.com',
      webhook: 'https://chat.example.com/hooks/x',
      ...{ lagLimit: '1h', archiveLimit: '30m', silenceLimit: '10m' },
    },
    objectLock: { mode: 'governance', days: 14 },
    kms: { primary: keyIn('eu-west-1'), dr: keyIn('eu-central-1') },
    principals: ['arn:aws:iam::111122223333:role/db-host'],
    noncurrentDays: 90,
    runbookUrl: 'https://git.example.com/docs/runbook/',
    adopt: false,
  });
});

test('the command line goes over the file, with the same keys', () => {
  const context = { 'regions.dr': 'eu-central-1', 'retention.keep_backups': '9', clusters: 'main,crm' };
  const configuration = readConfiguration(`${REGION}retention.keep_backups = 4`, context);
  expect(configuration.regions.dr).toBe('eu-central-1');
  expect(configuration.retention.keepBackups).toBe('9');
  expect(configuration.clusters).toEqual(['main', 'crm']);
});

test.each([
  ['nothing at all', '', /regions\.primary is not given/],
  ['a key that is misspelt', `${REGION}retention.keep_backup = 2`, /retention\.keep_backup .* is not known/],
  ['a table that is not known', `${REGION}[alarms]\nemail = "a@b.c"`, /alarms\.email .* is not known/],
  ['no TOML', 'regions = ', /is not TOML/],
  ['a region that is none', 'regions.primary = "Ireland"', /regions\.primary .*"Ireland" is not a region/],
  ['the same region twice', `${REGION}regions.dr = "eu-west-1"`, /is the primary region itself/],
  ['regions that no role connects', `${REGION}regions.dr = "cn-north-1"`, /different partitions/],
  ['a name with capitals', `${REGION}name = "Acme"`, /name .*"Acme" is not a name/],
  [
    'a name too long for a bucket',
    `${REGION}name = "${'a'.repeat(31)}"`,
    /^name .* is not a name of 3 to 30/,
  ],
  ['a prefix that begins with a slash', `${REGION}prefix = "/prod"`, /prefix .* is not a prefix/],
  [
    "a cluster's name with a slash",
    `${REGION}clusters = ["a/b"]`,
    /clusters .* is not the name of a cluster/,
  ],
  ['a number for a region', 'regions.primary = 7', /regions\.primary .*7 is not a region/],
  [
    'a webhook that can be read on its way',
    `${REGION}notify.webhook = "http://x.example.com"`,
    /not an https/,
  ],
  ['an address that is none', `${REGION}notify.email = "dba"`, /notify\.email .* is not an address/],
  ['a limit without a unit', `${REGION}notify.lag_limit = 10`, /notify\.lag_limit .* needs a unit/],
  ['a limit beyond its range', `${REGION}notify.silence_limit = "1s"`, /notify\.silence_limit .* is outside/],
  ['no backup kept', `${REGION}retention.keep_backups = 0`, /retention\.keep_backups .* is outside/],
  [
    'a window that is none',
    `${REGION}retention.pitr_window = "a week"`,
    /retention\.pitr_window .* duration/,
  ],
  ['retention each week', `${REGION}retention.schedule = "rate(7 days)"`, /retention\.schedule .*each day/],
  ['retention on Mondays', `${REGION}retention.schedule = "cron(0 3 ? * MON *)"`, /retention\.schedule/],
  ['a rate of nothing', `${REGION}retention.schedule = "rate(0 minutes)"`, /retention\.schedule/],
  ['a lock without days', `${REGION}object_lock.mode = "governance"`, /wants both mode and days/],
  ['days without a lock', `${REGION}object_lock.days = 7`, /wants both mode and days/],
  [
    'a lock of no day',
    `${REGION}object_lock = { mode = "governance", days = 0 }`,
    /object_lock\.days .* whole/,
  ],
  ['a lock of half a day', `${REGION}object_lock = { mode = "governance", days = 0.5 }`, /object_lock\.days/],
  ['another kind of lock', `${REGION}object_lock = { mode = "hold", days = 7 }`, /object_lock\.mode/],
  [
    'a lock beyond the versions',
    `${REGION}object_lock = { mode = "governance", days = 31 }`,
    /more than noncur/,
  ],
  ['no version kept', `${REGION}noncurrent_days = 0`, /noncurrent_days .* whole number/],
  ['a key of another region', `${REGION}kms.primary = "${keyIn('us-east-1')}"`, /lies in us-east-1/],
  ['a key for a region that is not there', `${REGION}kms.dr = "${keyIn('eu-west-1')}"`, /no regions\.dr/],
  [
    'an alias for a key',
    `${REGION}kms.primary = "alias/walvault"`,
    /kms\.primary .* is not the ARN of a KMS key/,
  ],
  ['everybody as a node', `${REGION}nodes.principals = ["*"]`, /nodes\.principals .* is not the ARN/],
  ['a page nobody can open', `${REGION}runbook_url = "docs"`, /runbook_url .* URL/],
  ['what is neither', `${REGION}adopt = "perhaps"`, /adopt .* neither true nor false/],
])('refuses %s', (_what, toml, message) => {
  expect(() => readConfiguration(toml)).toThrow(expect.objectContaining({ code: 'usage' }));
  expect(() => readConfiguration(toml)).toThrow(message);
});

test.each(['rate(1 day)', 'rate(24 hours)', 'rate(1 hour)', 'cron(0 3 * * ? *)', 'cron(0 3,15 ? * * *)'])(
  'retention comes at least each day by %s',
  (schedule) => {
    expect(readConfiguration(`${REGION}retention.schedule = "${schedule}"`).retention.schedule).toBe(
      schedule,
    );
  },
);

test('a bucket is taken up again with its key only: under a new one nothing old could be read', () => {
  const adopting = (toml: string) => () => readConfiguration(toml, { adopt: 'true' });
  expect(adopting(PAIR)).toThrow(/bucket in eu-west-1 .* kms\.primary is not given/);
  const [west, central] = ['eu-west-1', 'eu-central-1'].map(keyIn);
  expect(adopting(`${PAIR}kms.primary = "${west}"`)).toThrow(
    expect.objectContaining({
      message: expect.stringMatching(/bucket in eu-central-1 .* kms\.dr is not given/) as string,
      hint: expect.stringContaining('--region eu-central-1 --key-id alias/walvault') as string,
    }),
  );
  expect(adopting(`${PAIR}kms.primary = "${west}"\nkms.dr = "${central}"`)()).toMatchObject({ adopt: true });
});
