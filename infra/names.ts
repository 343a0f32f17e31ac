/**
 * The physical names of a deployment. The two regions refer to each other by name, since a reference from stack to stack cannot go both
 * ways: a name says where everything lies before anything is there.
 */
import { Aws } from 'aws-cdk-lib';
import type { Configuration } from './configuration.ts';
import type { RoleName } from './roles.ts';

export type Region = {
  region: string;
  bucket: string;
  table: string;
  url: string;
  noticesTopic: string;
  arrivalsTopic: string;
  keyAlias: string;
  bucketArn: string;
  tableArn: string;
  /** Of the region's own roles; a role's name is the account's, hence the region in it. */
  role(name: RoleName): string;
};

export function namesOf({ name, prefix }: Configuration, region: string): Region {
  const bucket = `${name}-${Aws.ACCOUNT_ID}-${region}`;
  const arn = (service: string, resource: string) =>
    `arn:${Aws.PARTITION}:${service}:${region}:${Aws.ACCOUNT_ID}:${resource}`;
  return {
    ...{ region, bucket, table: name },
    url: `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}?table=${name}&region=${region}`,
    noticesTopic: arn('sns', `${name}-notices`),
    arrivalsTopic: arn('sns', `${name}-arrivals`),
    keyAlias: `alias/${name}`,
    bucketArn: `arn:${Aws.PARTITION}:s3:::${bucket}`,
    tableArn: arn('dynamodb', `table/${name}`),
    role: (role) => `${name}-${region}-${role}`,
  };
}
