/**
 * How long the policies of a role come out: names of clusters and prefix stand in them once for each folder, and IAM refuses what is too
 * long only half way through a deployment.
 *
 * Source: AWS IAM User Guide, "IAM and AWS STS quotas": 10,240 characters for all inline policies of a role, white space not counted.
 */
import type { Stack } from 'aws-cdk-lib';
import type { PolicyDocument } from 'aws-cdk-lib/aws-iam';
import { RegionInfo } from 'aws-cdk-lib/region-info';
import { VaultError } from '../core/errors.ts';

const LONGEST = 10_240;
/** Put for a reference to a thing of the stack: as long as the longest ARN of ours. */
const ARN_LENGTH = 100;

/** @throws VaultError usage  the role's policies would be refused */
export function checkPolicySize(role: string, documents: readonly PolicyDocument[], stack: Stack): void {
  const lengths = {
    'AWS::AccountId': 12,
    'AWS::Partition': (RegionInfo.get(stack.region).partition ?? 'aws').length,
  };
  const characters = documents
    .map((document) => JSON.stringify(asDeployed(stack.resolve(document), lengths)).length)
    .reduce((sum, each) => sum + each, 0);
  if (characters <= LONGEST) return;
  throw new VaultError(
    'usage',
    `clusters: the policies of role ${role} come to ${characters} characters, and IAM takes ${LONGEST}`,
    {
      hint: 'Name fewer clusters, or leave clusters out: the roles then reach each cluster of this vault. Or deploy a second vault under another name.',
    },
  );
}

/** With text as long as what the account puts in. */
function asDeployed(value: unknown, lengths: Readonly<Record<string, number>>): unknown {
  if (Array.isArray(value)) return value.map((each) => asDeployed(each, lengths));
  if (typeof value !== 'object' || value === null) return value;
  const { Ref, 'Fn::Join': join, 'Fn::GetAtt': attribute } = value as Record<string, unknown>;
  if (join !== undefined) {
    const [between, parts] = join as [string, unknown[]];
    return parts.map((part) => asDeployed(part, lengths)).join(between);
  }
  if (Ref !== undefined || attribute !== undefined) return 'x'.repeat(lengths[String(Ref)] ?? ARN_LENGTH);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, asDeployed(each, lengths)]));
}
