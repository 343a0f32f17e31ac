/** What a deployment's file may say, and what is said of a mistake in it: with the key, and before anything is made. */
import { parse } from 'smol-toml';
import { CONFIGURATION_EXAMPLES, givenByContext, readConfiguration } from '../../infra/configuration.ts';

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
    witness: {},
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
    [witness]
    deploy = true
    auto_failover = "on"
    max_lag = "1m"
    cool_down = "6h"
    witness_interval = "5s"
    dr_failover = "on"
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
    witness: {
      ...{ autoFailover: 'on', maxLag: '1m', coolDown: '6h', witnessInterval: '5s', drFailover: 'on' },
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

test('a number is a number or its text, a list a list or its text with commas', () => {
  const lines = `${REGION}noncurrent_days = 45\nretention.keep_days = 3\nclusters = ["main", "crm"]`;
  const context = {
    ...{ 'regions.primary': 'eu-west-1', noncurrent_days: '45', 'retention.keep_days': 3 },
    clusters: 'main, crm',
  };
  expect(readConfiguration(undefined, context)).toEqual(readConfiguration(lines));
  expect(readConfiguration(lines)).toMatchObject({
    ...{ noncurrentDays: 45, retention: { keepDays: '3' }, clusters: ['main', 'crm'] },
  });
});

test.each(['eu-west-1', 'ap-southeast-2', 'us-gov-west-1', 'cn-north-1', 'us-isob-east-1', 'eusc-de-east-1'])(
  '%s is a region, and a bucket of the longest name fits it',
  (primary) => {
    const { name, regions } = readConfiguration(`name = "${'a'.repeat(30)}"\nregions.primary = "${primary}"`);
    expect(regions.primary).toBe(primary);
    expect(`${name}-111122223333-${primary}`.length).toBeLessThanOrEqual(63);
    // of a role of IAM
    expect(`${name}-${primary}-node-writer`.length).toBeLessThanOrEqual(64);
  },
);

test('a table of ours may be empty', () => {
  expect(readConfiguration(`[retention]\n[regions]\nprimary = "eu-west-1"`)).toEqual(
    readConfiguration(REGION),
  );
});

test.each(Object.entries(CONFIGURATION_EXAMPLES))(
  '%s takes what the hint of a mistake gives for an example',
  (key, line) => {
    const rest = { 'object_lock.mode': 'governance', 'object_lock.days': 7, noncurrent_days: 36500 };
    const keys = { 'kms.primary': keyIn('eu-west-1'), 'kms.dr': keyIn('eu-central-1') };
    const others = Object.entries({ ...rest, ...keys, ...regionsBut(key) }).filter(([name]) => name !== key);
    const toml = others.map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join('\n');
    expect(parse(line)).not.toEqual({});
    expect(readConfiguration(`${toml}\n${line}`)).toMatchObject({ regions: { primary: 'eu-west-1' } });
  },
);
const regionsBut = (key: string): Record<string, string> =>
  Object.fromEntries(
    Object.entries({ 'regions.primary': 'eu-west-1', 'regions.dr': 'eu-central-1' }).filter(
      ([name]) => name !== key,
    ),
  );

test('what the CDK keeps in its context is none of ours, and what a person misspelt is', () => {
  const ofTheCdk = {
    'aws:cdk:enable-path-metadata': true,
    '@aws-cdk/core:failSynthOnValidationErrors': false,
    'availability-zones:account=111122223333:region=eu-west-1': [],
    'cli-telemetry': false,
    config: '/etc/walvault.toml',
  };
  const said = { 'regions.primary': 'eu-west-1', 'retention.keep-backups': '2', runbookUrl: 'x', adopt: '' };
  expect(givenByContext({ ...ofTheCdk, ...said })).toEqual(said);
  expect(() => readConfiguration(undefined, said)).toThrow(
    expect.objectContaining({ code: 'usage', message: '-c retention.keep-backups is not known' }),
  );
});

test('a mistake is looked for where it was made: in the file, or on the command line', () => {
  const bad = { 'regions.dr': 'Ireland' };
  expect(() => readConfiguration(REGION, bad, 'x.toml')).toThrow(/^-c regions\.dr: "Ireland" is not/);
  expect(() => readConfiguration('regions.primary = "Ireland"', {}, 'x.toml')).toThrow(
    /^regions\.primary in x\.toml: "Ireland" is not/,
  );
  expect(() => readConfiguration(`${REGION}name = [`, {}, 'x.toml')).toThrow(
    expect.objectContaining({
      message: expect.stringMatching(/^x\.toml is not TOML/) as string,
      hint: expect.stringContaining('line 2') as string,
    }),
  );
});

test.each([
  ['nothing at all', '', /regions\.primary is not given/],
  ['a key that is misspelt', `${REGION}retention.keep_backup = 2`, /retention\.keep_backup .* is not known/],
  ['a table that is not known', `${REGION}[alarms]\nemail = "a@b.c"`, /alarms\.email .* is not known/],
  ['an empty table that is not known', `${REGION}[alarms]`, /^alarms .* is not known/],
  ['a name that every object of JavaScript has', `${REGION}constructor = 1`, /^constructor .* is not known/],
  ['a table for a name', `${REGION}[name]\nfirst = "a"`, /^name\.first .* is not known/],
  ['a list of tables', `${REGION}[[kms]]\nprimary = "x"`, /^kms .* is not known/],
  ['a date for a name', `${REGION}name = 2026-01-01`, /^name .*2026-01-01.* is not a name/],
  ['a date for a table', `notify = 2026-01-01\n${REGION}`, /^notify .* is not known/],
  ['no TOML', 'regions = ', /is not TOML/],
  ['a key twice', `${REGION}${REGION}`, /is not TOML/],
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
  ['a list of no clusters', `${REGION}clusters = []`, /^clusters .*\[\] is a list of none/],
  [
    'clusters without a name',
    `${REGION}clusters = ["main", ""]`,
    /^clusters .* is not the name of a cluster/,
  ],
  ['every cluster by a star', `${REGION}clusters = ["*"]`, /^clusters .* is not the name of a cluster/],
  ['a name too short for a bucket', `${REGION}name = "pg"`, /^name .*"pg" is not a name of 3 to 30/],
  ['a name that ends with a dash', `${REGION}name = "acme-"`, /^name .* is not a name/],
  ['a number for a region', 'regions.primary = 7', /regions\.primary .*7 is not a region/],
  [
    'a webhook that can be read on its way',
    `${REGION}notify.webhook = "http://x.example.com"`,
    /not an https/,
  ],
  ['an address that is none', `${REGION}notify.email = "dba"`, /notify\.email .* is not an address/],
  ['a webhook that is no URL', `${REGION}notify.webhook = "https://"`, /^notify\.webhook .*"https:\/\/"/],
  ['a list for a setting', `${REGION}retention.keep_backups = [3]`, /keep_backups .*\[3\] is neither text/],
  ['a limit without a unit', `${REGION}notify.lag_limit = 10`, /notify\.lag_limit .* needs a unit/],
  ['a limit beyond its range', `${REGION}notify.silence_limit = "1s"`, /notify\.silence_limit .* is outside/],
  ['no backup kept', `${REGION}retention.keep_backups = 0`, /retention\.keep_backups .* is outside/],
  [
    'a window that is none',
    `${REGION}retention.pitr_window = "a week"`,
    /retention\.pitr_window .* duration/,
  ],
  [
    'a window in words',
    `${REGION}retention.pitr_window = "7 weeks"`,
    /^retention\.pitr_window .*"7 weeks" has an unknown unit/,
  ],
  ['retention each week', `${REGION}retention.schedule = "rate(7 days)"`, /retention\.schedule .*each day/],
  ['retention on Mondays', `${REGION}retention.schedule = "cron(0 3 ? * MON *)"`, /retention\.schedule/],
  ['a rate of nothing', `${REGION}retention.schedule = "rate(0 minutes)"`, /retention\.schedule/],
  ['a failover perhaps', `${REGION}witness.auto_failover = "perhaps"`, /^witness\.auto_failover .*"perhaps"/],
  [
    'a take-over without another region',
    `${REGION}witness.dr_failover = "on"`,
    /dr_failover .* no regions\.dr/,
  ],
  [
    'a witness that is not deployed and is to trigger',
    `${REGION}witness = { deploy = false, auto_failover = "on" }`,
    /^witness in .* is not to be deployed/,
  ],
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
  ['versions for ever', `${REGION}noncurrent_days = inf`, /noncurrent_days .*Infinity is not a whole number/],
  ['days with a unit', `${REGION}noncurrent_days = "30d"`, /noncurrent_days .*"30d" is not a whole number/],
  ['a key of another region', `${REGION}kms.primary = "${keyIn('us-east-1')}"`, /lies in us-east-1/],
  ['a key for a region that is not there', `${REGION}kms.dr = "${keyIn('eu-west-1')}"`, /no regions\.dr/],
  [
    'an alias for a key',
    `${REGION}kms.primary = "alias/walvault"`,
    /kms\.primary .* is not the ARN of a KMS key/,
  ],
  ['nobody as a node', `${REGION}nodes.principals = []`, /nodes\.principals .*\[\] is a list of none/],
  [
    'a service as a node',
    `${REGION}nodes.principals = ["ec2.amazonaws.com"]`,
    /nodes\.principals .* is not the ARN/,
  ],
  ['everybody as a node', `${REGION}nodes.principals = ["*"]`, /nodes\.principals .* is not the ARN/],
  ['a page nobody can open', `${REGION}runbook_url = "docs"`, /runbook_url .* URL/],
  ['what is neither', `${REGION}adopt = "perhaps"`, /adopt .* neither true nor false/],
])('refuses %s', (_what, toml, message) => {
  expect(() => readConfiguration(toml)).toThrow(
    expect.objectContaining({ code: 'usage', hint: expect.stringMatching(/\S/) as string }),
  );
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
