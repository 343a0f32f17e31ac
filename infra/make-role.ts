/** A role of the deployment, by its name; IAM is not asked before the stack is made whether it takes its policies. */
import type { Stack } from 'aws-cdk-lib';
import { type PolicyDocument, Role, type RoleProps } from 'aws-cdk-lib/aws-iam';
import type { Region } from './names.ts';
import { checkPolicySize } from './policy-size.ts';
import type { RoleName } from './roles.ts';

/** @throws VaultError usage  its policies are too long */
export function makeRole(
  stack: Stack,
  own: Region,
  name: RoleName,
  props: Omit<RoleProps, 'roleName'> & { inlinePolicies: Record<string, PolicyDocument> },
): Role {
  const roleName = own.role(name);
  checkPolicySize(roleName, Object.values(props.inlinePolicies), stack);
  return new Role(stack, `Role-${name}`, { roleName, ...props });
}
