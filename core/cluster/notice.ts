/**
 * A message to people about a cluster: one fact, readable as it stands, with what to do. Whoever sends it adds nothing.
 */

/** info: for the record. warning: somebody should look today. alert: now. */
export type Urgency = 'info' | 'warning' | 'alert';

export type Notice = {
  cluster: string;
  /** URL of the vault that says it. */
  vault: string;
  kind: string;
  urgency: Urgency;
  /** One line of printable ASCII, under 100 characters. Source: Amazon SNS API Reference, Publish. */
  subject: string;
  text: string;
  node: string | null;
  /** null: it belongs to none. */
  epoch: number | null;
  at: string;
  /** Of the fact: the same however often, and by whomever, it is told. */
  id: string;
};

export type NoticeParts = Omit<Notice, 'subject' | 'text'> & {
  /** A few words, in the subject. */
  title: string;
  /** What was written down, or measured. */
  what: string;
  means: string;
  todo: string;
  /** In docs/runbook. */
  page: string;
};

const SUBJECT = 99;
/** Of what others wrote: SNS takes 256 KB, a person less. */
const WHAT = 4000;

export function composeNotice(parts: NoticeParts): Notice {
  const { title, what, means, todo, page, ...notice } = parts;
  const { cluster, vault, urgency, node, epoch, at, id } = notice;
  const where = [node, epoch === null ? null : `epoch ${epoch}`].filter((part) => part !== null).join(', ');
  const subject = `walvault ${urgency}: ${cluster}: ${title}${where === '' ? '' : ` (${where})`}`;
  const lines = [
    `${title[0]?.toUpperCase() ?? ''}${title.slice(1)}.`,
    '',
    `What:     ${what.length > WHAT ? `${what.slice(0, WHAT)}…` : what}`,
    `Cluster:  ${cluster}`,
    `Vault:    ${vault}`,
    ...(node === null ? [] : [`Node:     ${node}`]),
    ...(epoch === null ? [] : [`Epoch:    ${epoch}`]),
    `When:     ${at}`,
    '',
    `It means: ${means}`,
    `To do:    ${todo}`,
    `Runbook:  docs/runbook/${page}`,
    '',
    `Id:       ${id}`,
  ];
  return { ...notice, subject: oneLine(subject), text: lines.join('\n') };
}

function oneLine(text: string): string {
  const ascii = text.replace(/[^\x20-\x7e]+/g, '?');
  return ascii.length <= SUBJECT ? ascii : `${ascii.slice(0, SUBJECT - 3)}...`;
}
