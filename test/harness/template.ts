/**
 * The templates of infra/ as they would be deployed: synthesised in this process, with what the account would put for references, so that
 * names of the two regions can be compared and policies judged by test/harness/iam.ts.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { App } from 'aws-cdk-lib';
import { FUNCTION_NAMES } from '../../core/settings/environment.ts';
import { makeApp } from '../../infra/app.ts';
import { readConfiguration } from '../../infra/configuration.ts';
import { isAllowed, statementsOf, type Policy, type Request } from './iam.ts';

export const ACCOUNT = '111122223333';

export type Resource = {
  Type: string;
  Properties: Record<string, unknown>;
  DeletionPolicy?: string;
  UpdateReplacePolicy?: string;
};

export class DeployedTemplate {
  readonly region: string;
  readonly resources: Record<string, Resource>;
  readonly outputs: Record<string, string>;
  readonly #raw: Record<string, Resource>;

  constructor(region: string, template: { Resources: Record<string, Resource>; Outputs?: object }) {
    this.region = region;
    this.#raw = template.Resources;
    this.resources = this.#resolve(template.Resources) as Record<string, Resource>;
    const outputs = this.#resolve(template.Outputs ?? {}) as Record<string, { Value: string }>;
    this.outputs = Object.fromEntries(Object.entries(outputs).map(([name, { Value }]) => [name, Value]));
  }

  ofType(type: string): Resource[] {
    return Object.values(this.resources).filter((resource) => resource.Type === type);
  }

  /** The only one of its type that has these properties. */
  one(type: string, properties: Record<string, unknown> = {}): Resource {
    const found = this.ofType(type).filter((resource) =>
      Object.entries(properties).every(([name, value]) => resource.Properties[name] === value),
    );
    if (found.length !== 1)
      throw new Error(`${found.length} resources of type ${type} with ${JSON.stringify(properties)}`);
    return found[0]!;
  }

  /** May this role of the template do that? By its own policies and by those of the buckets given, where the request names them. */
  may(role: string, request: Request, buckets: readonly Policy[] = []): boolean {
    const { Policies } = this.one('AWS::IAM::Role', { RoleName: role }).Properties;
    const own = (Policies as { PolicyDocument: Policy }[]).map(({ PolicyDocument }) => PolicyDocument);
    const principal = {
      'aws:PrincipalArn': `arn:aws:iam::${ACCOUNT}:role/${role}`,
      'aws:SecureTransport': 'true',
    };
    return isAllowed(statementsOf([...own, ...buckets]), {
      ...request,
      context: { ...principal, ...request.context },
    });
  }

  get bucketPolicy(): Policy {
    return this.one('AWS::S3::BucketPolicy').Properties['PolicyDocument'] as Policy;
  }

  #resolve(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((each) => this.#resolve(each));
    if (typeof value !== 'object' || value === null) return value;
    const [[key, argument] = ['', undefined], ...others] = Object.entries(value) as [string, unknown][];
    if (others.length === 0) {
      if (key === 'Ref') return this.#reference(argument as string);
      if (key === 'Fn::GetAtt') return this.#attribute(argument as [string, string]);
      if (key === 'Fn::Join') {
        const [between, parts] = argument as [string, unknown[]];
        return (this.#resolve(parts) as string[]).join(between);
      }
      if (key === 'Fn::Sub')
        return (argument as string).replaceAll(/\$\{([^}]+)\}/g, (_, id: string) => this.#reference(id));
      if (key.startsWith('Fn::')) throw new Error(`${key} is not known here`);
    }
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.#resolve(each)]));
  }

  #reference(id: string): string {
    const pseudo: Record<string, string> = {
      'AWS::AccountId': ACCOUNT,
      'AWS::Partition': 'aws',
      'AWS::Region': this.region,
      'AWS::URLSuffix': 'amazonaws.com',
    };
    if (pseudo[id] !== undefined) return pseudo[id];
    const { Type } = this.#resourceOf(id);
    if (Type === 'AWS::SQS::Queue')
      return `https://sqs.${this.region}.amazonaws.com/${ACCOUNT}/${this.#nameOf(id)}`;
    return Type === 'AWS::SNS::Topic' ? this.#arnOf(id) : this.#nameOf(id);
  }

  #attribute([id, attribute]: [string, string]): string {
    if (attribute === 'Arn') return this.#arnOf(id);
    if (attribute === 'StreamArn') return `${this.#arnOf(id)}/stream/2026-01-01T00:00:00.000`;
    if (attribute === 'QueueName') return this.#nameOf(id);
    if (attribute === 'TopicName') return this.#nameOf(id);
    throw new Error(`attribute ${attribute} of ${id} is not known here`);
  }

  #arnOf(id: string): string {
    const name = this.#nameOf(id);
    const here = `${this.region}:${ACCOUNT}`;
    const arns: Record<string, string> = {
      'AWS::S3::Bucket': `arn:aws:s3:::${name}`,
      'AWS::DynamoDB::Table': `arn:aws:dynamodb:${here}:table/${name}`,
      'AWS::SQS::Queue': `arn:aws:sqs:${here}:${name}`,
      'AWS::SNS::Topic': `arn:aws:sns:${here}:${name}`,
      'AWS::Lambda::Function': `arn:aws:lambda:${here}:function:${name}`,
      'AWS::KMS::Key': `arn:aws:kms:${here}:key/${name}`,
      'AWS::IAM::Role': `arn:aws:iam::${ACCOUNT}:role/${name}`,
      'AWS::Logs::LogGroup': `arn:aws:logs:${here}:log-group:${name}:*`,
      'AWS::Events::Rule': `arn:aws:events:${here}:rule/${name}`,
    };
    const arn = arns[this.#resourceOf(id).Type];
    if (arn === undefined) throw new Error(`the ARN of ${id} is not known here`);
    return arn;
  }

  /** As the template gives it; a key has none but its id. */
  #nameOf(id: string): string {
    const { Properties } = this.#resourceOf(id);
    const property = Object.keys(Properties).find((name) =>
      [
        'BucketName',
        'TableName',
        'QueueName',
        'TopicName',
        'FunctionName',
        'RoleName',
        'LogGroupName',
        'Name',
      ].includes(name),
    );
    return property === undefined ? id : (this.#resolve(Properties[property]) as string);
  }

  #resourceOf(id: string): Resource {
    const found = this.#raw[id];
    if (found === undefined) throw new Error(`the template refers to ${id}, which it has not`);
    return found;
  }
}

/** @param toml  a configuration; bundles are folders with a few bytes in them, since no template tells what is in a bundle */
export function synthesise(toml: string): { primary: DeployedTemplate; dr: DeployedTemplate | undefined } {
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'walvault-template-'));
  try {
    const bundles = path.join(scratch, 'lambdas');
    for (const name of FUNCTION_NAMES) {
      mkdirSync(path.join(bundles, name), { recursive: true });
      writeFileSync(path.join(bundles, name, 'index.js'), '');
    }
    const configuration = readConfiguration(toml);
    const app = new App({ outdir: path.join(scratch, 'cdk.out'), analyticsReporting: false });
    const { stacks } = makeApp(configuration, app, bundles);
    const assembly = app.synth();
    const [primary, dr] = stacks.map(
      (stack) =>
        new DeployedTemplate(
          stack.region,
          assembly.getStackArtifact(stack.artifactId).template as ConstructorParameters<
            typeof DeployedTemplate
          >[1],
        ),
    );
    return { primary: primary!, dr };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
