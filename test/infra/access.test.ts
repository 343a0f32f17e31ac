/**
 * Who may do what in the templates, as a whole: what each statement of a policy has to have, who may take a role, and that what one region
 * says of the other is there. Single requests are judged by template.test.ts.
 */
import { ROLE_NAMES, type RoleName } from '../../infra/roles.ts';
import { listOf, matches, statementsOf, type Policy, type Request, type Statement } from '../harness/iam.ts';
import { ACCOUNT, synthesise, type DeployedTemplate } from '../harness/template.ts';

const KEYS = {
  'eu-west-1': `arn:aws:kms:eu-west-1:${ACCOUNT}:key/11111111-2222-3333-4444-555555555555`,
  'eu-central-1': `arn:aws:kms:eu-central-1:${ACCOUNT}:key/66666666-7777-8888-9999-000000000000`,
};
const REGIONS = '[regions]\nprimary = "eu-west-1"\ndr = "eu-central-1"';
const alone = synthesise('regions.primary = "eu-west-1"').primary;
const pair = synthesise(REGIONS);
const narrow = synthesise(`
  clusters = ["main", "crm"]
  prefix = "prod/pg"
  nodes.principals = ["arn:aws:iam::${ACCOUNT}:role/db-host", "arn:aws:iam::${ACCOUNT}:user/dba"]
  kms.primary = "${KEYS['eu-west-1']}"
  kms.dr = "${KEYS['eu-central-1']}"
  ${REGIONS}`);
const every: [string, DeployedTemplate][] = [
  ['one region alone', alone],
  ['the primary region of two', pair.primary],
  ['the DR region', pair.dr!],
  ['the primary region, narrowed', narrow.primary],
  ['the DR region, narrowed', narrow.dr!],
];
const both: [string, DeployedTemplate, DeployedTemplate][] = [
  ['the primary region of the DR region', pair.primary, pair.dr!],
  ['the DR region of the primary region', pair.dr!, pair.primary],
  ['the primary region of the DR region, with keys given', narrow.primary, narrow.dr!],
  ['the DR region of the primary region, with keys given', narrow.dr!, narrow.primary],
];

const rolesOf = (template: DeployedTemplate): RoleName[] =>
  ROLE_NAMES.filter((role) => role !== 'relay' || template !== alone);
const resourceOf = (template: DeployedTemplate, role: RoleName) =>
  template.one('AWS::IAM::Role', { RoleName: `walvault-${template.region}-${role}` }).Properties;
const documentsOf = (template: DeployedTemplate, role: RoleName): Policy[] =>
  (resourceOf(template, role)['Policies'] as { PolicyDocument: Policy }[]).map(
    ({ PolicyDocument }) => PolicyDocument,
  );
const grantsOf = (template: DeployedTemplate, role: RoleName): Statement[] =>
  statementsOf(documentsOf(template, role));
const actionsOf = (statements: readonly Statement[]): string[] =>
  statements.flatMap(({ Action }) => [...listOf(Action)]);
const leadingKeys = ({ Condition }: Statement): readonly string[] =>
  listOf(Condition?.['ForAllValues:StringLike']?.['dynamodb:LeadingKeys'] ?? []);

describe.each(every)('%s', (_name, template) => {
  test.each(ROLE_NAMES)('grants %s rows by their partition, and never a request that names none', (role) => {
    if (!rolesOf(template).includes(role)) return expect(template).toBe(alone);
    const rows = grantsOf(template, role).filter(({ Action }) =>
      /^dynamodb:(?!\w+Streams?$|GetRecords|GetShardIterator)/.test(String(listOf(Action)[0])),
    );
    expect(rows.length).toBeGreaterThan(0);
    for (const { Condition, ...statement } of rows) {
      expect(leadingKeys({ Condition: Condition!, ...statement }).length).toBeGreaterThan(0);
      // a quantifier holds of a request without a key, too
      expect(Condition).toMatchObject({ Null: { 'dynamodb:LeadingKeys': 'false' } });
    }
  });

  test('nodes delete nothing, and write no row of a partition that decides who is primary', () => {
    for (const role of ['node-writer', 'node-reader'] as const) {
      const statements = grantsOf(template, role);
      for (const action of actionsOf(statements))
        expect([role, action, /Delete|Update|Batch|Scan/.test(action)]).toEqual([role, action, false]);
      for (const statement of statements.filter((each) => actionsOf([each]).includes('dynamodb:PutItem')))
        for (const key of leadingKeys(statement)) expect(key).toContain('/');
    }
    expect(actionsOf(grantsOf(template, 'node-writer'))).toContain('dynamodb:PutItem');
    expect(
      actionsOf(grantsOf(template, 'node-reader')).filter((action) => /Put|Generate/.test(action)),
    ).toEqual([]);
  });

  test('roles of functions are taken by Lambda, those of nodes by people and EC2, the operator’s by people', () => {
    const people = Object.values(narrow).includes(template)
      ? [`arn:aws:iam::${ACCOUNT}:role/db-host`, `arn:aws:iam::${ACCOUNT}:user/dba`]
      : [`arn:aws:iam::${ACCOUNT}:root`];
    for (const role of rolesOf(template)) {
      const { Statement: trusted } = resourceOf(template, role)['AssumeRolePolicyDocument'] as Policy;
      const principals = listOf(trusted).map(({ Effect, Action, Condition, Principal }) => {
        expect([Effect, Action, Condition]).toEqual(['Allow', 'sts:AssumeRole', undefined]);
        return Principal;
      });
      const isNode = role.startsWith('node-');
      expect([role, principals]).toEqual([
        role,
        isNode || role === 'operator'
          ? [...people.map((AWS) => ({ AWS })), ...(isNode ? [{ Service: 'ec2.amazonaws.com' }] : [])]
          : [{ Service: 'lambda.amazonaws.com' }],
      ]);
    }
    expect(template.ofType('AWS::IAM::InstanceProfile').map(({ Properties }) => Properties['Roles'])).toEqual(
      [[`walvault-${template.region}-node-writer`], [`walvault-${template.region}-node-reader`]],
    );
  });

  test('what nodes may not overwrite is said of nodes only, and by one action', () => {
    const [statement, ...more] = statementsOf([template.bucketPolicy]).filter(
      ({ Sid }) => Sid === 'NodesNeverOverwrite',
    );
    expect(more).toEqual([]);
    const other = template.region === 'eu-west-1' ? 'eu-central-1' : 'eu-west-1';
    const ordered = template === alone ? ['eu-west-1'] : [template.region, other];
    expect(statement).toEqual({
      Sid: 'NodesNeverOverwrite',
      Effect: 'Deny',
      Principal: { AWS: '*' },
      Action: 's3:PutObject',
      Resource: `arn:aws:s3:::walvault-${ACCOUNT}-${template.region}/*`,
      Condition: {
        ArnEquals: {
          'aws:PrincipalArn': ordered.map(
            (region) => `arn:aws:iam::${ACCOUNT}:role/walvault-${region}-node-writer`,
          ),
        },
        Null: { 's3:if-none-match': 'true' },
      },
    });
  });

  test('a key of ours is the account’s, whose roles decide, and each use of it goes by S3', () => {
    for (const { Properties } of template.ofType('AWS::KMS::Key')) {
      expect(Properties['EnableKeyRotation']).toBe(true);
      const allowed = statementsOf([Properties['KeyPolicy'] as Policy]);
      expect(allowed.map(({ Effect, Principal }) => [Effect, Principal])).toEqual([
        ['Allow', { AWS: `arn:aws:iam::${ACCOUNT}:root` }],
      ]);
    }
    for (const role of rolesOf(template))
      for (const { Condition } of grantsOf(template, role).filter(({ Action }) =>
        String(listOf(Action)[0]).startsWith('kms:'),
      ))
        expect(String(Condition!['StringEquals']!['kms:ViaService'])).toMatch(
          /^s3\.eu-(west|central)-1\.amazonaws\.com$/,
        );
  });
});

describe.each(both)('what is said in %s', (_name, own, other) => {
  test('is there, under that name', () => {
    const said = textsOf(own.resources).filter((text) => text.includes(other.region));
    const kinds = new Set<string>();
    for (const text of said) {
      const kind = whatIsNamed(text, other);
      expect([text, kind]).toEqual([text, expect.any(String)]);
      kinds.add(kind!);
    }
    expect([...kinds].sort()).toEqual(['bucket', 'endpoint', 'key', 'role', 'table', 'topic', 'vault']);
  });

  test('of its key: by its ARN where it is given, else any that has the alias', () => {
    for (const role of ['node-writer', 'operator', 'relay'] as const) {
      const may = (key: string, aliases?: string[]) =>
        own.may(`walvault-${own.region}-${role}`, {
          ...{ action: 'kms:Decrypt', resource: key },
          context: {
            'kms:ViaService': `s3.${other.region}.amazonaws.com`,
            ...(aliases === undefined ? {} : { 'kms:ResourceAliases': aliases }),
          },
        });
      const key = other.outputs['KeyArn']!;
      const strange = `arn:aws:kms:${other.region}:${ACCOUNT}:key/99999999-2222-3333-4444-555555555555`;
      if (Object.values(narrow).includes(own)) {
        expect(key).toBe(KEYS[other.region as keyof typeof KEYS]);
        expect([may(key), may(strange), may(strange, ['alias/walvault'])]).toEqual([true, false, false]);
      } else {
        expect([may(key, ['alias/walvault', 'alias/more']), may(key, ['alias/more']), may(key)]).toEqual([
          ...[true, false, false],
        ]);
      }
    }
  });
});

test('a key that is given is used, and none is made', () => {
  for (const template of Object.values(narrow) as DeployedTemplate[]) {
    expect(template.ofType('AWS::KMS::Key')).toEqual([]);
    expect(template.ofType('AWS::KMS::Alias')).toEqual([]);
    const key = KEYS[template.region as keyof typeof KEYS];
    expect(JSON.stringify(template.one('AWS::S3::Bucket').Properties)).toContain(`"KMSMasterKeyID":"${key}"`);
    for (const role of ['node-writer', 'node-reader', 'operator', 'relay'] as const) {
      const context = { 'kms:ViaService': `s3.${template.region}.amazonaws.com` };
      const request: Request = { action: 'kms:Decrypt', resource: key, context };
      expect(grantsOf(template, role).some((statement) => matches(statement, request))).toBe(true);
    }
  }
});

test('names of clusters narrow objects and rows of every role, in both regions', () => {
  for (const own of [narrow.primary, narrow.dr!])
    for (const role of ROLE_NAMES) {
      const statements = grantsOf(own, role);
      const objects = statements
        .filter(({ Action }) => /^s3:\w+Object$/.test(String(listOf(Action)[0])))
        .flatMap(({ Resource }) => [...listOf(Resource)]);
      for (const object of objects)
        expect(object).toMatch(/^arn:aws:s3:::walvault-\d+-eu-(west|central)-1\/prod\/pg\/(main|crm)\//);
      if (role !== 'notify' && role !== 'witness') expect(objects.length).toBeGreaterThan(0);
      for (const key of statements.flatMap((statement) => [...leadingKeys(statement)]))
        expect(key).toMatch(/^((main|crm)(\/\*)?|#clusters|#notices#(main|crm))$/);
    }
});

test('so many clusters as IAM has room for are taken, and more are refused before anything is made', () => {
  const named = (count: number) =>
    synthesise(
      `clusters = [${Array.from({ length: count }, (_, index) => `"cluster-${index}"`).join()}]
      witness = { auto_failover = "on", dr_failover = "on" }
      ${REGIONS}`,
    );
  const { primary } = named(7);
  for (const role of ROLE_NAMES) {
    const characters = documentsOf(primary, role).map((document) => JSON.stringify(document).length);
    expect(characters.reduce((sum, each) => sum + each, 0)).toBeLessThanOrEqual(10_240);
  }
  expect(() => named(9)).toThrow(
    expect.objectContaining({
      code: 'usage',
      message: expect.stringMatching(/^clusters: .* and IAM takes 10240$/) as string,
    }),
  );
});

test('a reader, retention and notify have nothing of the other region’s vault', () => {
  for (const own of [pair.primary, pair.dr!]) {
    const other = own === pair.primary ? 'eu-central-1' : 'eu-west-1';
    for (const role of ['node-reader', 'retention', 'notify'] as const) {
      const places = grantsOf(own, role).flatMap(({ Resource }) => [...listOf(Resource)]);
      expect([role, places.filter((place) => place.includes(other))]).toEqual([
        role,
        role === 'notify' ? [`arn:aws:sns:${other}:${ACCOUNT}:walvault-notices`] : [],
      ]);
    }
  }
});

/** Every text in it: what stands in a list of ARNs or URLs with commas is taken apart. */
function textsOf(value: unknown): string[] {
  if (typeof value === 'string') return value.split(',');
  if (typeof value !== 'object' || value === null) return [];
  return Object.values(value).flatMap(textsOf);
}

/** Which kind of thing of that region a text names, where it is there; undefined: it is not there, or the text is not understood. */
function whatIsNamed(text: string, region: DeployedTemplate): string | undefined {
  const has = (type: string, property: string, name: string | undefined): boolean =>
    region.ofType(type).some(({ Properties }) => Properties[property] === name);
  if (text === `s3.${region.region}.amazonaws.com`) return 'endpoint';
  if (text === region.outputs['VaultUrl']) return 'vault';
  const [, , service, place, account, ...rest] = text.split(':');
  const name = rest.join(':');
  if (service === 's3')
    return has('AWS::S3::Bucket', 'BucketName', name.split('/')[0]) ? 'bucket' : undefined;
  if (account !== ACCOUNT) return undefined;
  if (service === 'iam')
    return has('AWS::IAM::Role', 'RoleName', name.replace('role/', '')) ? 'role' : undefined;
  if (place !== region.region) return undefined;
  if (service === 'dynamodb')
    return has('AWS::DynamoDB::Table', 'TableName', name.replace('table/', '')) ? 'table' : undefined;
  if (service === 'sns') return has('AWS::SNS::Topic', 'TopicName', name) ? 'topic' : undefined;
  // any of that region: the alias in the condition says which
  if (service === 'kms' && name === 'key/*')
    return has('AWS::KMS::Alias', 'AliasName', 'alias/walvault') ? 'key' : undefined;
  return service === 'kms' && text === region.outputs['KeyArn'] ? 'key' : undefined;
}
