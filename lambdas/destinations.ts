/**
 * Where notices go: SNS topics of any region, and a webhook. What these throw names no secret: the path of a webhook often is one.
 */
import type { Settings } from '../core/settings/read.ts';
import type { Destination } from '../core/work/tell-once.ts';
import { publish } from './topics.ts';

/** ms */
const ANSWER_MS = 10_000;
/** A destination that has failed so often within one call of the function is not waited for again in it. */
const FAILURES = 2;

/** @throws VaultError usage  no topic is given */
export function destinationsOf(settings: Settings): Destination[] {
  const { webhook } = settings;
  const topics = settings.need('noticeTopics').map(topic);
  return [...topics, ...(webhook === 'none' ? [] : [postTo(webhook)])].map(notForEver);
}

function topic(arn: string): Destination {
  return {
    name: arn,
    async tell({ subject, text, kind, urgency, cluster }) {
      try {
        await publish({ topic: arn, subject, text, attributes: { kind, urgency, cluster } });
      } catch (cause) {
        throw new Error(`${arn} was not told: ${(cause as Error).message}`, { cause });
      }
    },
  };
}

/** POST of the notice as JSON. Credentials in the URL go into a header, as fetch itself refuses them. */
function postTo(given: string): Destination {
  const url = new URL(given);
  const { username, password, host } = url;
  [url.username, url.password] = ['', ''];
  const basic = Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString(
    'base64',
  );
  return {
    name: 'webhook',
    async tell({ cluster, vault, kind, urgency, subject, text, node, epoch, at, id }) {
      let answer: Response;
      try {
        answer = await fetch(url, {
          method: 'POST',
          headers: {
            'content-type': 'application/json',
            ...(username === '' && password === '' ? {} : { authorization: `Basic ${basic}` }),
          },
          body: JSON.stringify({ cluster, vault, kind, urgency, subject, text, node, epoch, at, id }),
          // who answers with another place has not taken it, and that place is nobody's that was named
          redirect: 'manual',
          signal: AbortSignal.timeout(ANSWER_MS),
        });
        await answer.body?.cancel();
      } catch (error) {
        throw new Error(`the webhook at ${host} was not told: ${reasonOf(error)}`);
      }
      if (!answer.ok) throw new Error(`the webhook at ${host} was not told: it answered ${answer.status}`);
    },
  };
}

/** Name and code of an error, whose message may hold a URL. */
function reasonOf(error: unknown): string {
  const { name, cause } = error as { name?: string; cause?: { code?: string } };
  return [name ?? 'failed', cause?.code].filter((part) => part !== undefined).join(' ');
}

/** One that hangs must not use up the time in which the others could be told. */
function notForEver(destination: Destination): Destination {
  let failures = 0;
  return {
    name: destination.name,
    async tell(notice) {
      if (failures >= FAILURES)
        throw new Error(`${destination.name} was not tried: it has failed ${failures} times just before`);
      try {
        await destination.tell(notice);
      } catch (error) {
        failures += 1;
        throw error;
      }
    },
  };
}
