/**
 * Deployed with IAM in force: everybody does their work with the role they have. What each role really asked for was recorded on the way, and is
 * held against its policy both ways: nothing is missing, and nothing is allowed that nobody asks for.
 *
 * The emulator asks IAM for actions and resources; it knows neither dynamodb:LeadingKeys nor s3:if-none-match. What rests on those
 * is judged by test/harness/iam.ts, with the calls that were recorded and with calls that must never go through.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { DeleteObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { DeleteItemCommand, DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { FUNCTION_NAMES } from '../../core/settings/environment.ts';
import { ROLE_NAMES, type RoleName } from '../../infra/roles.ts';
import type { AwsRequest } from '../harness/aws-proxy.ts';
import { CloudSite } from '../harness/cloud-site.ts';
import { REGION, type Side } from '../harness/cloud.ts';
import { isAllowed, listOf, matches, statementsOf, type Request, type Statement } from '../harness/iam.ts';
import { requestsAsIam } from '../harness/iam-requests.ts';
import { waitFor } from '../harness/scratch.ts';

const ACCOUNT = '000000000000';
const requestsOf = (asked: AwsRequest): Request[] => requestsAsIam(asked, ACCOUNT);

describe('with IAM in force', () => {
  let site: CloudSite;
  let said: string;

  beforeAll(async () => {
    Object.assign(process.env, {
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      AWS_EC2_METADATA_DISABLED: 'true',
    });
    ({ site, said } = await CloudSite.deploy(
      {
        pair: { major: 18, vault: 's3' },
        segmentSizeMiB: 1,
        walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' },
      },
      { auth: true, config: 'clusters = ["main"]\nretention = { keep_backups = 1, pitr_window = "0" }' },
    ));
  });
  afterAll(() => site?.close());

  const relayed = async (to: Side) => {
    const from = to === 'dr' ? 'primary' : 'dr';
    const { head } = await site.view(from).heart();
    await waitFor(`${to} holds all up to ${head.lastFile}`, 60_000, async () => {
      const there = (await site.view(to).heart()).head;
      return (
        there.timeline > head.timeline ||
        (there.timeline === head.timeline && (there.lastFile ?? '') >= (head.lastFile ?? ''))
      );
    });
  };

  test('everybody does their work: init, archive, backup, standby, relay, spill, trigger, disaster, retention, look', async () => {
    const line = /^ {2}(walvault init .*)$/m.exec(said)![1]!;
    const db1 = await site.makePrimaryBy(line);
    await site.archiveNow();
    await site.backup();
    await site.archiveNow();
    await site.addStandby('db2');
    await site.caughtUp('db2');
    await waitFor('the other region has the backup', 60_000, async () => {
      const view = site.view('dr');
      return (
        (await view.heart().catch(() => undefined))?.control.role === 'replica' &&
        (await view.rows('backup#')).length > 0
      );
    });
    await relayed('dr');
    site.settle('dr1', 'dr');
    await site.addStandby('dr1');
    await site.caughtUp('dr1');
    expect(await db1.number('SELECT failed_count FROM pg_stat_archiver')).toBe(0);
    await site.ok('node', 'check', '--node', 'db2');

    // retention, with something to delete
    await site.backup();
    await site.archiveNow();
    await site.caughtUp('db2');
    const done = (await site.cloud.invoke('retention', {})) as Record<string, { wal: { rows: number } }>;
    expect(done['main']!.wal.rows).toBeGreaterThan(0);
    expect(await site.cloud.invoke('notify', { look: true })).toMatchObject({
      main: { relayLag: expect.any(Number) },
    });
    await site.cloud.invoke('relay', { sweep: true });
    for (const side of sides)
      expect(await site.cloud.invoke('witness', { cluster: 'main', seconds: 3 }, side)).toMatchObject({
        main: { wasSilent: false },
      });

    // its own vault out of the primary's reach: it spills, and the relay clears up what came home
    const { proxy } = site.cloud;
    const configure = (...words: string[]) =>
      site.okAt(undefined, 'configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1', ...words);
    await configure('--dr-vault', site.cloud.url('dr'), '--dr-after', '1s');
    await site.archiveNow();
    proxy.disturb(
      (each) => roleOf(each) === 'node-writer primary' && each.region === REGION.primary,
      'refuse',
    );
    await db1.query('CREATE TABLE spilled AS SELECT 1 AS x');
    await db1.query('SELECT pg_switch_wal()');
    const spilled = () =>
      site
        .view('dr')
        .heart()
        .then(({ head }) => head.spill);
    await waitFor('it spills', 60_000, async () => (await spilled()) !== null);
    proxy.calm();
    await site.archiveNow();
    await waitFor('nothing waits any more', 60_000, async () => (await spilled()) === null);
    await configure('--dr-vault', 'none');

    // planned, then a disaster with a relay that is behind: both vaults change roles, and the other region's function works
    await db1.stop('fast');
    await site.okAt(undefined, 'trigger', 'smart', '--to', 'db2', '--yes');
    await site.promoted('db2', 30_000);
    await site.archiveNow('db2');
    await relayed('dr');
    proxy.disturb((each) => roleOf(each) === 'relay primary' && each.region === REGION.dr, 'refuse');
    await site.archiveNow('db2');
    await site.server('db2').stop('fast');
    await site.okAt(undefined, 'trigger', 'smart', '--to', 'dr1', '--vault', site.cloud.url('dr'), '--yes');
    proxy.calm();
    await site.promoted('dr1', 30_000);
    await site.archiveNow('dr1');
    await waitFor(
      'the first vault is a replica',
      60_000,
      async () => (await site.view('primary').heart()).control.role === 'replica',
    );
    await relayed('primary');
    await site.okAt(undefined, 'node', 'add', 'db9');
    await site.okAt(undefined, 'node', 'drop', 'db9', '--yes');
  });

  test('nobody was refused anything', () => {
    const refused = site.cloud.proxy.requests.filter(({ status }) => status === 403 || status === 400);
    const words = refused
      .filter(({ service, status }) => status === 403 || service !== 'dynamodb') // 400: conditions that did not hold
      .map((call) => `${roleOf(call)} ${call.service} ${call.operation} ${call.key ?? call.table ?? ''}`);
    expect([...new Set(words)]).toEqual([]);
  });

  const roleOf = ({ accessKeyId }: AwsRequest): string => site.cloud.roleOf(accessKeyId ?? '');
  /** The calls of a role from a region, as IAM is asked. */
  const recorded = (role: RoleName, side: Side): Request[] =>
    site.cloud.proxy.requests.filter((call) => roleOf(call) === `${role} ${side}`).flatMap(requestsOf);
  const policiesOf = (role: RoleName, side: Side): Statement[] =>
    statementsOf(site.cloud.policiesOf(role, side));
  const sides = ['primary', 'dr'] as const;
  /** Of a bucket: its own policy denies, too. The principal is looked at here. */
  const denials = (role: RoleName, side: Side, { resource }: Request): Statement[] => {
    const bucket = sides.find((each) => resource.startsWith(`arn:aws:s3:::${site.cloud.bucket(each)}/`));
    const arn = `arn:aws:iam::${ACCOUNT}:role/${site.cloud.name}-${REGION[side]}-${role}`;
    if (bucket === undefined) return [];
    return statementsOf([site.cloud.bucketPolicyOf(bucket)]).filter(
      ({ Effect, Condition = {} }) =>
        Effect === 'Deny' &&
        (Condition['ArnEquals'] === undefined ||
          listOf(Condition['ArnEquals']['aws:PrincipalArn']!).includes(arn)),
    );
  };
  const allowed = (role: RoleName, side: Side, request: Request): boolean => {
    const context = {
      ...request.context,
      'aws:SecureTransport': 'true',
      'aws:PrincipalArn': `arn:aws:iam::${ACCOUNT}:role/${site.cloud.name}-${REGION[side]}-${role}`,
    };
    return isAllowed([...policiesOf(role, side), ...denials(role, side, request)], { ...request, context });
  };
  const worked: [RoleName, Side][] = [
    ...ROLE_NAMES.filter((role) => role !== 'node-reader').map((role): [RoleName, Side] => [role, 'primary']),
    ...(['node-writer', 'relay', 'notify', 'witness'] as const).map((role): [RoleName, Side] => [role, 'dr']),
  ];

  test.each(worked)(
    '%s of the %s region was allowed by its policy, and the bucket’s, whatever it asked for',
    (role, side) => {
      const asked = recorded(role, side);
      expect(asked.length).toBeGreaterThan(3);
      const missing = asked.filter((request) => !allowed(role, side, request));
      expect(missing.map(({ action, resource, context }) => [action, resource, context]).slice(0, 5)).toEqual(
        [],
      );
    },
  );

  /**
   * Grants that are used by a service on the role's behalf, or by work that this test does not do; each with what it is for.
   */
  const UNSEEN: { role: RoleName; action: RegExp; why: string }[] = [
    ...ROLE_NAMES.map((role) => ({ role, action: /^kms:/, why: 'S3 asks KMS for whoever asks S3' })),
    ...FUNCTION_NAMES.flatMap((role) => [
      { role, action: /^logs:/, why: 'Lambda writes the log' },
      { role, action: /^sqs:/, why: 'Lambda reads the queue, and lays aside what failed' },
      {
        role,
        action: /^dynamodb:(DescribeStream|GetRecords|GetShardIterator|ListStreams)$/,
        why: 'Lambda reads the stream',
      },
    ]),
    { role: 'operator', action: /^(lambda|sqs):/, why: 'by hand, from the runbook of alarms' },
    {
      role: 'operator',
      action: /^dynamodb:DeleteItem$/,
      why: 'node drop; a spill that comes home or is set aside',
    },
  ];

  test.each(ROLE_NAMES.filter((role) => role !== 'node-reader'))(
    'nothing is allowed to %s that it never asks for',
    (role) => {
      const asked = sides.flatMap((side) => recorded(role, side));
      const idle = policiesOf(role, 'primary').flatMap((statement) =>
        listOf(statement.Action)
          .filter((action) => !UNSEEN.some((one) => one.role === role && one.action.test(action)))
          .filter((action) => {
            const alone = {
              ...statement,
              Action: action,
              Resource: listOf(statement.Resource).map(anyRegion),
              Condition: undefined,
            };
            return !asked.some((request) => matches(alone as unknown as Statement, request));
          })
          .map((action) => [action, ...listOf(statement.Resource)]),
      );
      expect(idle).toEqual([]);
    },
  );

  describe('what must never go through', () => {
    const partition = `main/7300000000000000001`;
    const key = `${partition}/wal/00000001/x.zst`;
    const s3 = (
      action: string,
      side: Side = 'primary',
      context: Request['context'] = {},
      path = key,
    ): Request => ({
      ...{ action: `s3:${action}`, resource: `arn:aws:s3:::${site.cloud.bucket(side)}/${path}`, context },
    });
    const row = (action: string, pk: string | undefined, side: Side = 'primary'): Request => ({
      action: `dynamodb:${action}`,
      resource: `arn:aws:dynamodb:${REGION[side]}:${ACCOUNT}:table/${site.cloud.name}`,
      context: pk === undefined ? {} : { 'dynamodb:LeadingKeys': [pk] },
    });
    const topic = (what: 'notices' | 'arrivals'): Request => ({
      action: 'sns:Publish',
      resource: site.cloud.topic(what, 'primary'),
      context: {},
    });
    const once = { 's3:if-none-match': '*' };
    const table: [string, RoleName[], () => Request][] = [
      [
        'delete an object',
        ['node-writer', 'node-reader', 'operator', 'relay', 'notify', 'witness'],
        () => s3('DeleteObject'),
      ],
      ['overwrite an object', ['node-writer'], () => s3('PutObject')],
      ['overwrite one in the other region', ['node-writer'], () => s3('PutObject', 'dr')],
      [
        'write an object at all',
        ['node-reader', 'retention', 'notify', 'witness'],
        () => s3('PutObject', 'primary', once),
      ],
      ['read an object', ['retention', 'notify', 'witness'], () => s3('GetObject')],
      [
        'write a control object',
        ['node-writer', 'node-reader', 'retention', 'notify', 'witness'],
        () => s3('PutObject', 'primary', once, 'main/control/9-x.json'),
      ],
      [
        'write an object of another cluster',
        ROLE_NAMES.slice(),
        () => s3('PutObject', 'primary', once, `other/1/wal/00000001/x.zst`),
      ],
      [
        'end the protection of a bucket',
        ROLE_NAMES.slice(),
        () => ({
          action: 's3:PutBucketPolicy',
          resource: `arn:aws:s3:::${site.cloud.bucket('primary')}`,
          context: {},
        }),
      ],
      [
        'raise an epoch',
        ['node-writer', 'node-reader', 'retention', 'notify', 'witness'],
        () => row('PutItem', 'main'),
      ],
      [
        'raise one in the other region',
        ['node-writer', 'node-reader', 'retention', 'notify', 'witness'],
        () => row('PutItem', 'main', 'dr'),
      ],
      [
        'delete a row',
        ['node-writer', 'node-reader', 'notify', 'witness'],
        () => row('DeleteItem', partition),
      ],
      ['write any row', ['node-reader', 'notify'], () => row('PutItem', partition)],
      ['write a row of another cluster', ROLE_NAMES.slice(), () => row('PutItem', 'other/1')],
      ['read another cluster', ['node-writer', 'node-reader', 'operator'], () => row('Query', 'other/1')],
      [
        'write the list of clusters',
        ['node-writer', 'node-reader', 'retention', 'notify', 'witness'],
        () => row('PutItem', '#clusters'),
      ],
      [
        'write what functions keep of whom they told',
        ['node-writer', 'node-reader', 'operator', 'retention', 'witness'],
        () => row('PutItem', '#notices#main'),
      ],
      ['write with no key named', ROLE_NAMES.slice(), () => row('PutItem', undefined)],
      ['scan the table', ROLE_NAMES.slice(), () => row('Scan', undefined)],
      ['update a row in place', ROLE_NAMES.slice(), () => row('UpdateItem', partition)],
      ['delete the table', ROLE_NAMES.slice(), () => row('DeleteTable', undefined)],
      [
        'tell people something',
        ['node-writer', 'node-reader', 'operator', 'retention', 'relay', 'witness'],
        () => topic('notices'),
      ],
    ];
    test.each(table)('%s', (_, roles, request) => {
      for (const role of roles)
        for (const side of sides)
          expect([role, side, allowed(role, side, request())]).toEqual([role, side, false]);
    });

    test('the emulator itself refuses a node what it knows of', async () => {
      const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN } =
        await site.cloud.roleEnv('node-writer');
      const credentials = {
        accessKeyId: AWS_ACCESS_KEY_ID!,
        secretAccessKey: AWS_SECRET_ACCESS_KEY!,
        sessionToken: AWS_SESSION_TOKEN!,
      };
      const place = { region: REGION.primary, endpoint: site.cloud.emulator.endpoint, credentials };
      const bucket = new S3Client({ ...place, forcePathStyle: true });
      const manifest = new DynamoDBClient(place);
      const denied = { name: expect.stringMatching(/AccessDenied/) };
      const Bucket = site.cloud.bucket('primary');
      await expect(bucket.send(new DeleteObjectCommand({ Bucket, Key: key }))).rejects.toMatchObject(denied);
      await expect(
        bucket.send(new PutObjectCommand({ Bucket, Key: 'other/1/wal/x', Body: 'x' })),
      ).rejects.toMatchObject(denied);
      const TableName = site.cloud.name;
      const Key = { pk: { S: partition }, sk: { S: 'head' } };
      await expect(manifest.send(new DeleteItemCommand({ TableName, Key }))).rejects.toMatchObject(denied);
      await expect(manifest.send(new ScanCommand({ TableName }))).rejects.toMatchObject(denied);
      bucket.destroy();
      manifest.destroy();
    });
  });
});

/** A statement of one region's role, as the same of the other's. */
const anyRegion = (resource: string): string =>
  resource.replaceAll(new RegExp(Object.values(REGION).join('|'), 'g'), '*');
