/**
 * What IAM would say to a request, by the policies of one role and of the bucket: the rules of one account, as far as the policies of
 * infra/ use them. The emulator does not know dynamodb:LeadingKeys nor s3:if-none-match, so what rests on those is shown with this.
 *
 * An operator, a variable or an element that is not known here throws: a policy that is not understood must not pass for a good one.
 * Source: AWS IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators".
 */
export type Statement = {
  Sid?: string;
  Effect: 'Allow' | 'Deny';
  Principal?: '*' | { AWS?: string | string[]; Service?: string | string[] };
  Action: string | string[];
  Resource: string | string[];
  Condition?: Record<string, Record<string, string | string[]>>;
};
export type Policy = { Statement: Statement | Statement[] };

export type Request = {
  /** 's3:PutObject' */
  action: string;
  /** ARN. */
  resource: string;
  /** Condition keys that the request carries; several values: a list. Names as AWS writes them. */
  context: Readonly<Record<string, string | readonly string[]>>;
};

const KNOWN = new Set(['Sid', 'Effect', 'Principal', 'Action', 'Resource', 'Condition']);

export const listOf = <T>(value: T | readonly T[]): readonly T[] =>
  Array.isArray(value) ? (value as T[]) : [value as T];

export function statementsOf(policies: readonly Policy[]): Statement[] {
  const statements = policies.flatMap(({ Statement: found }) => [...listOf(found)]);
  for (const statement of statements) {
    const strange = Object.keys(statement).find((element) => !KNOWN.has(element));
    if (strange !== undefined) throw new Error(`element ${strange} of a policy is not known here`);
  }
  return statements;
}

/** A denial that is written wins; then an allowance; what nobody allows is denied. */
export function isAllowed(statements: readonly Statement[], request: Request): boolean {
  const matching = statements.filter((statement) => matches(statement, request));
  return (
    !matching.some(({ Effect }) => Effect === 'Deny') && matching.some(({ Effect }) => Effect === 'Allow')
  );
}

/** Does this statement speak of this request? Its principal is not looked at. */
export function matches(statement: Statement, { action, resource, context }: Request): boolean {
  return (
    listOf(statement.Action).some((pattern) => like(action.toLowerCase(), pattern.toLowerCase())) &&
    listOf(statement.Resource).some((pattern) => like(resource, pattern)) &&
    Object.entries(statement.Condition ?? {}).every(([operator, keys]) =>
      Object.entries(keys).every(([key, wanted]) =>
        holds(operator, valuesOf(context, key), listOf(wanted).map(String)),
      ),
    )
  );
}

function valuesOf(context: Request['context'], key: string): readonly string[] | undefined {
  const found = Object.entries(context).find(([name]) => name.toLowerCase() === key.toLowerCase());
  return found && listOf<string>(found[1]);
}

const COMPARE: Record<string, (actual: string, wanted: string) => boolean> = {
  StringEquals: (actual, wanted) => actual === wanted,
  StringLike: like,
  ArnEquals: like,
  ArnLike: like,
  Bool: (actual, wanted) => actual.toLowerCase() === wanted.toLowerCase(),
};
const NEGATED: Record<string, string> = { StringNotEquals: 'StringEquals', StringNotLike: 'StringLike' };

function holds(operator: string, actual: readonly string[] | undefined, wanted: readonly string[]): boolean {
  if (operator === 'Null') return (actual === undefined) === (wanted[0] === 'true');
  const [, quantifier, bare, ifExists] =
    /^(ForAllValues:|ForAnyValue:)?(\w+?)(IfExists)?$/.exec(operator) ?? [];
  const compare = COMPARE[bare ?? ''] ?? COMPARE[NEGATED[bare ?? ''] ?? ''];
  if (compare === undefined) throw new Error(`operator ${operator} of a policy is not known here`);
  const isNegated = COMPARE[bare!] === undefined;
  const fits = (value: string): boolean => wanted.some((each) => compare(value, each)) !== isNegated;
  if (actual === undefined)
    return (
      ifExists !== undefined || quantifier === 'ForAllValues:' || (isNegated && quantifier === undefined)
    );
  if (quantifier === 'ForAllValues:') return actual.every(fits);
  if (quantifier === 'ForAnyValue:') return actual.some(fits);
  if (actual.length !== 1)
    throw new Error(`${operator} compares one value, the request has ${actual.length}`);
  return fits(actual[0]!);
}

/** `*` is any text, `?` any character. */
function like(actual: string, pattern: string): boolean {
  if (pattern.includes('${')) throw new Error(`variable in ${pattern} is not known here`);
  const source = pattern
    .replace(/[.+^$(){}|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's').test(actual);
}
