/**
 * The cloud on this machine: the stacks of infra/ deployed to the emulator by the CDK's own command, as `npm run deploy` does it. Functions
 * run as processes of the emulator; they, the servers and the person go through a proxy that records what each of them asks for.
 */
import { CloudFormationClient, DescribeStacksCommand, type Stack } from '@aws-sdk/client-cloudformation';
import {
  GetRolePolicyCommand,
  IAMClient,
  ListRolePoliciesCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import {
  DeleteBucketPolicyCommand,
  GetBucketPolicyCommand,
  PutBucketPolicyCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { GetTopicAttributesCommand, SetTopicAttributesCommand, SNSClient } from '@aws-sdk/client-sns';
import { AssumeRoleCommand, STSClient } from '@aws-sdk/client-sts';
import { execFile } from 'node:child_process';
import { hash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { FUNCTION_NAMES, type FunctionName } from '../../core/settings/environment.ts';
import { ROLE_NAMES, type RoleName } from '../../infra/roles.ts';
import { startAwsProxy, type AwsProxy } from './aws-proxy.ts';
import { type Emulator, startMinistack } from './emulators.ts';
import type { Policy } from './iam.ts';
import { Subscription } from './subscription.ts';

export type Side = 'primary' | 'dr';
export const REGION: Record<Side, string> = { primary: 'us-east-1', dr: 'eu-west-1' };
const ACCOUNT = '000000000000';
/** The emulator takes this key for the account's root, whatever it asks. */
const ROOT = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' };
/** A deployment of the CDK takes seconds here; it ends what hangs. */
const CDK_LIMIT_MS = 300_000;

const root = path.resolve(import.meta.dirname, '../..');

export class Cloud {
  readonly proxy: AwsProxy;
  readonly emulator: Emulator;
  readonly name = 'wvt';
  private readonly folder: string;
  private readonly config: string;
  private readonly heard: Subscription[] = [];
  /** Who has which key, as they were given out: 'node-writer primary'. */
  private readonly holders = new Map<string, string>();

  private constructor(folder: string, config: string, emulator: Emulator, proxy: AwsProxy) {
    this.folder = folder;
    this.config = config;
    this.emulator = emulator;
    this.proxy = proxy;
  }

  /**
   * Nothing is deployed yet.
   *
   * @param folder  of configuration and CDK; is made @param config  more lines of the configuration @param auth  IAM is asked
   */
  static async open(folder: string, { config = '', auth = false } = {}): Promise<Cloud> {
    const proxy = await startAwsProxy();
    const emulator = await startMinistack({
      AWS_ENDPOINT_URL: proxy.endpoint,
      ...(auth ? { AUTH: 'true' } : {}),
    });
    proxy.targetPort = emulator.port;
    const file = path.join(folder, 'walvault.toml');
    mkdirSync(path.join(folder, 'home'), { recursive: true });
    writeFileSync(
      file,
      `name = "wvt"\n${config}\n[regions]\nprimary = "${REGION.primary}"\ndr = "${REGION.dr}"\n`,
    );
    const cloud = new Cloud(folder, file, emulator, proxy);
    try {
      await cloud.cdk('bootstrap', ...Object.values(REGION).map((region) => `aws://${ACCOUNT}/${region}`));
    } catch (error) {
      await cloud.close();
      throw error;
    }
    if (auth)
      for (const region of Object.values(REGION))
        await cloud.allowHttp(`cdk-hnb659fds-assets-${ACCOUNT}-${region}`, region);
    return cloud;
  }

  /** One of the launcher's commands around the CDK. @returns its standard output */
  async cdk(command: 'bootstrap' | 'deploy' | 'destroy', ...words: string[]): Promise<string> {
    const args = [path.join(root, 'bin/launcher/cloud.mjs'), command, '--config', this.config, ...words];
    return await new Promise((resolve, reject) => {
      const child = execFile(
        process.execPath,
        args,
        { env: this.env(ROOT), timeout: CDK_LIMIT_MS, maxBuffer: 64 << 20, cwd: this.folder },
        (error, stdout, stderr) => {
          if (error) reject(new Error(`${command}: ${error.message}\n${stdout}\n${stderr.slice(-4000)}`));
          else resolve(stdout);
        },
      );
      child.stdin?.end();
    });
  }

  /** The environment of who holds these keys, straight at the emulator. */
  private env(keys: Record<string, string>): NodeJS.ProcessEnv {
    return {
      ...{ PATH: process.env['PATH'], HOME: path.join(this.folder, 'home'), TMPDIR: process.env['TMPDIR'] },
      ...{ AWS_ENDPOINT_URL: this.emulator.endpoint, AWS_EC2_METADATA_DISABLED: 'true' },
      ...{ AWS_REGION: REGION.primary, AWS_DEFAULT_REGION: REGION.primary, CDK_DEFAULT_ACCOUNT: ACCOUNT },
      ...keys,
    };
  }

  bucket(side: Side): string {
    return `${this.name}-${ACCOUNT}-${REGION[side]}`;
  }

  /** As the stack's output says it. */
  url(side: Side): string {
    return `s3://${this.bucket(side)}?table=${this.name}&region=${REGION[side]}`;
  }

  /** Past the proxy, for the test's own eyes and hands. */
  direct(side: Side): string {
    return `${this.url(side)}&endpoint=${encodeURIComponent(this.emulator.endpoint)}`;
  }

  topic(what: 'notices' | 'arrivals', side: Side): string {
    return `arn:aws:sns:${REGION[side]}:${ACCOUNT}:${this.name}-${what}`;
  }

  /** 'relay dr'; the key itself where nobody here has it. */
  roleOf(accessKey: string): string {
    return this.holders.get(accessKey) ?? this.functionKeys().get(accessKey) ?? accessKey;
  }

  /** The emulator gives a function keys that are made from its name and its role's. */
  private functionKeys(): Map<string, string> {
    const keys = new Map<string, string>();
    for (const side of ['primary', 'dr'] as const)
      for (const name of FUNCTION_NAMES) {
        const functionArn = `arn:aws:lambda:${REGION[side]}:${ACCOUNT}:function:${this.name}-${name}`;
        const roleArn = `arn:aws:iam::${ACCOUNT}:role/${this.name}-${REGION[side]}-${name}`;
        const digest = hash('sha256', `${functionArn}:${roleArn}`, 'hex').slice(0, 16).toUpperCase();
        keys.set(`ASIA${digest}`, `${name} ${side}`);
      }
    return keys;
  }

  /** What processes with this role need in their environment; they go through the proxy. */
  async roleEnv(role: RoleName, side: Side = 'primary'): Promise<Record<string, string>> {
    const sts = new STSClient({
      region: REGION[side],
      endpoint: this.emulator.endpoint,
      credentials: rootCredentials,
    });
    const { Credentials } = await sts.send(
      new AssumeRoleCommand({
        RoleArn: `arn:aws:iam::${ACCOUNT}:role/${this.name}-${REGION[side]}-${role}`,
        RoleSessionName: 'test',
      }),
    );
    sts.destroy();
    this.holders.set(Credentials!.AccessKeyId!, `${role} ${side}`);
    return {
      AWS_ACCESS_KEY_ID: Credentials!.AccessKeyId!,
      AWS_SECRET_ACCESS_KEY: Credentials!.SecretAccessKey!,
      AWS_SESSION_TOKEN: Credentials!.SessionToken!,
      AWS_REGION: REGION[side],
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_ENDPOINT_URL: this.proxy.endpoint,
    };
  }

  /** Of no role: root's own, through the proxy. */
  rootEnv(): Record<string, string> {
    return {
      ...ROOT,
      AWS_REGION: REGION.primary,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_ENDPOINT_URL: this.proxy.endpoint,
    };
  }

  /** @returns what the function answered @throws Error  with what it threw */
  async invoke(name: FunctionName, event: object, side: Side = 'primary'): Promise<unknown> {
    const lambda = new LambdaClient({
      region: REGION[side],
      endpoint: this.emulator.endpoint,
      credentials: rootCredentials,
    });
    try {
      const answer = await lambda.send(
        new InvokeCommand({
          FunctionName: `${this.name}-${name}`,
          Payload: Buffer.from(JSON.stringify(event)),
        }),
      );
      const text = Buffer.from(answer.Payload ?? []).toString();
      if (answer.FunctionError !== undefined) throw new Error(`${name}: ${text}`);
      return text === '' ? undefined : JSON.parse(text);
    } finally {
      lambda.destroy();
    }
  }

  async listen(topic: string): Promise<Subscription> {
    const subscription = await Subscription.open(topic, this.emulator.endpoint, rootCredentials);
    this.heard.push(subscription);
    return subscription;
  }

  async stack(side: Side): Promise<Stack | undefined> {
    const client = new CloudFormationClient({
      region: REGION[side],
      endpoint: this.emulator.endpoint,
      credentials: rootCredentials,
    });
    try {
      const { Stacks = [] } = await client.send(new DescribeStacksCommand({}));
      return Stacks.find(
        ({ StackName, StackStatus }) =>
          StackName === `${this.name}-${side}` && StackStatus !== 'DELETE_COMPLETE',
      );
    } finally {
      client.destroy();
    }
  }

  private s3(region: string): S3Client {
    return new S3Client({
      region,
      endpoint: this.emulator.endpoint,
      forcePathStyle: true,
      credentials: rootCredentials,
    });
  }

  async bucketPolicy(bucket: string, region: string): Promise<Policy> {
    const client = this.s3(region);
    const { Policy: text } = await client.send(new GetBucketPolicyCommand({ Bucket: bucket }));
    client.destroy();
    return JSON.parse(text!) as Policy;
  }

  /** The emulator speaks plain HTTP, which a bucket that wants TLS denies to everybody as soon as IAM is asked. */
  async allowHttp(bucket: string, region: string): Promise<void> {
    const policy = await this.bucketPolicy(bucket, region);
    const kept = [policy.Statement]
      .flat()
      .filter(({ Condition }) => !JSON.stringify(Condition ?? {}).includes('aws:SecureTransport'));
    const client = this.s3(region);
    if (kept.length === 0) await client.send(new DeleteBucketPolicyCommand({ Bucket: bucket }));
    else
      await client.send(
        new PutBucketPolicyCommand({
          Bucket: bucket,
          Policy: JSON.stringify({ ...policy, Statement: kept }),
        }),
      );
    client.destroy();
  }

  /**
   * Makes the deployment one that the emulator can judge: buckets and topics without their "TLS only", roles without conditions on what it
   * never sees (whether a leading key is there, the namespace of a figure). What was deployed is kept for the test's own judge:
   * policiesOf(), bucketPolicyOf().
   */
  async fitToEmulator(): Promise<void> {
    for (const side of ['primary', 'dr'] as const) {
      this.bucketPolicies.set(side, await this.bucketPolicy(this.bucket(side), REGION[side]));
      await this.allowHttp(this.bucket(side), REGION[side]);
      for (const topic of ['notices', 'arrivals'] as const)
        await this.openTopic(this.topic(topic, side), REGION[side]);
      for (const role of ROLE_NAMES) this.policies.set(`${side} ${role}`, await this.dropGuards(role, side));
    }
  }

  private async openTopic(TopicArn: string, region: string): Promise<void> {
    const sns = new SNSClient({ region, endpoint: this.emulator.endpoint, credentials: rootCredentials });
    const { Attributes = {} } = await sns.send(new GetTopicAttributesCommand({ TopicArn }));
    const policy = JSON.parse(Attributes['Policy'] ?? '{"Statement":[]}') as Policy;
    const kept = [policy.Statement].flat().filter(({ Effect }) => Effect === 'Allow');
    const AttributeValue = JSON.stringify({ ...policy, Statement: kept });
    await sns.send(new SetTopicAttributesCommand({ TopicArn, AttributeName: 'Policy', AttributeValue }));
    sns.destroy();
  }

  private readonly policies = new Map<string, Policy[]>();
  private readonly bucketPolicies = new Map<Side, Policy>();

  /** Of a role, as deployed. */
  policiesOf(role: RoleName, side: Side): Policy[] {
    return this.policies.get(`${side} ${role}`) ?? [];
  }

  bucketPolicyOf(side: Side): Policy {
    return this.bucketPolicies.get(side)!;
  }

  private async dropGuards(role: RoleName, side: Side): Promise<Policy[]> {
    const iam = new IAMClient({
      region: REGION[side],
      endpoint: this.emulator.endpoint,
      credentials: rootCredentials,
    });
    const RoleName = `${this.name}-${REGION[side]}-${role}`;
    const { PolicyNames = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName }));
    const deployed: Policy[] = [];
    for (const PolicyName of PolicyNames) {
      const { PolicyDocument } = await iam.send(new GetRolePolicyCommand({ RoleName, PolicyName }));
      const policy = JSON.parse(decodeURIComponent(PolicyDocument!)) as Policy;
      deployed.push(policy);
      const Statement = [policy.Statement].flat().map((statement) => {
        const others = Object.fromEntries(
          Object.entries(statement.Condition ?? {}).filter(([operator]) => operator !== 'Null'),
        );
        const isOfNamespace = JSON.stringify(others).includes('cloudwatch:namespace');
        return { ...statement, Condition: isOfNamespace ? {} : others };
      });
      await iam.send(
        new PutRolePolicyCommand({
          RoleName,
          PolicyName,
          PolicyDocument: JSON.stringify({ ...policy, Statement }),
        }),
      );
    }
    iam.destroy();
    return deployed;
  }

  async close(): Promise<void> {
    for (const each of this.heard) each.close();
    await this.emulator.stop();
    await this.proxy.close();
  }
}

export const rootCredentials = {
  accessKeyId: ROOT.AWS_ACCESS_KEY_ID,
  secretAccessKey: ROOT.AWS_SECRET_ACCESS_KEY,
};
