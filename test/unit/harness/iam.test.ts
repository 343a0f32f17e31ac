/** The judge of the roles' tests is judged first: by the examples of the IAM User Guide. */
import { isAllowed, statementsOf, type Policy, type Request } from '../../harness/iam.ts';

const table = 'arn:aws:dynamodb:eu-west-1:1:table/walvault';
const object = 'arn:aws:s3:::b/p/main/7/wal/00000001/x';
const allow = (more: object): Policy => ({
  Statement: { Effect: 'Allow', Action: '*', Resource: '*', ...more },
});
const deny = (more: object): Policy => ({
  Statement: [{ Effect: 'Deny', Action: '*', Resource: '*', ...more }],
});
const put = (context: Request['context'] = {}): Request => ({
  action: 's3:PutObject',
  resource: object,
  context,
});
const item = (context: Request['context']): Request => ({
  action: 'dynamodb:PutItem',
  resource: table,
  context,
});
const keys = (...pks: string[]): Request => item({ 'dynamodb:LeadingKeys': pks });
const leading = (...patterns: string[]) => ({
  'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': patterns },
});

test.each<[string, Policy[], Request, boolean]>([
  ['nobody allows', [], put(), false],
  ['an allowance', [allow({})], put(), true],
  ['a denial wins', [allow({}), deny({})], put(), false],
  ['a denial of something else', [allow({}), deny({ Action: 's3:GetObject' })], put(), true],
  ['action by pattern, whatever its case', [allow({ Action: ['S3:put*'] })], put(), true],
  ['another action', [allow({ Action: 's3:GetObject' })], put(), false],
  ['resource by pattern', [allow({ Resource: 'arn:aws:s3:::b/p/*/*/wal/*' })], put(), true],
  ['a dot is a dot', [allow({ Resource: object.replace('b/p', 'b.p') })], put(), false],
  ['another prefix', [allow({ Resource: 'arn:aws:s3:::b/q/*' })], put(), false],
  ['leading key', [allow({ Condition: leading('*/*') })], keys('main/7'), true],
  ['one of two leading keys', [allow({ Condition: leading('*/*') })], keys('main/7', 'main'), false],
  ['ForAllValues with no key at all holds', [allow({ Condition: leading('*/*') })], item({}), true],
  [
    'which Null prevents',
    [allow({ Condition: { ...leading('*/*'), Null: { 'dynamodb:LeadingKeys': 'false' } } })],
    item({}),
    false,
  ],
  [
    'ForAnyValue with no key does not',
    [allow({ Condition: { 'ForAnyValue:StringLike': { k: '*' } } })],
    put(),
    false,
  ],
  [
    'denied where a header is missing',
    [allow({}), deny({ Condition: { Null: { 's3:if-none-match': 'true' } } })],
    put(),
    false,
  ],
  [
    'and not where it is there',
    [allow({}), deny({ Condition: { Null: { 's3:if-none-match': 'true' } } })],
    put({ 's3:if-none-match': '*' }),
    true,
  ],
  [
    'key names have no case',
    [allow({ Condition: { StringEquals: { 'AWS:sourceIp': 'x' } } })],
    put({ 'aws:SourceIp': 'x' }),
    true,
  ],
  ['a missing key does not equal', [allow({ Condition: { StringEquals: { k: 'x' } } })], put(), false],
  ['and is not equal', [allow({ Condition: { StringNotEquals: { k: 'x' } } })], put(), true],
  ['IfExists', [allow({ Condition: { StringEqualsIfExists: { k: 'x' } } })], put(), true],
  [
    'all operators must hold',
    [allow({ Condition: { StringEquals: { k: 'x' }, Bool: { s: 'true' } } })],
    put({ k: 'x', s: 'false' }),
    false,
  ],
])('%s', (_, policies, request, expected) => {
  expect(isAllowed(statementsOf(policies), request)).toBe(expected);
});

test.each<[string, () => unknown]>([
  [
    'an operator',
    () => isAllowed(statementsOf([allow({ Condition: { NumericEquals: { k: '1' } } })]), put({ k: '1' })),
  ],
  [
    'a variable',
    () => isAllowed(statementsOf([allow({ Resource: 'arn:aws:s3:::b/${aws:username}' })]), put()),
  ],
  ['an element', () => statementsOf([allow({ NotAction: 's3:*' })])],
])('%s that is not known is no answer', (_, ask) => {
  expect(ask).toThrow('not known here');
});
