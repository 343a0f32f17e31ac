/** `walvault status --check`: one line for a monitoring system, and its exit status; also where nothing can be read. */
import { VaultError } from '../core/errors.ts';
import {
  checkLine,
  decideCheck,
  exitOf,
  MEASURES,
  unknownCheck,
  worstOf,
  type Check,
  type Measure,
  type Thresholds,
} from '../core/cluster/decide-check.ts';
import { duration } from '../core/settings/kinds.ts';
import { checkFacts, lookAtAll, readHealth } from '../core/work/health.ts';
import type { Context, OptionRow } from './command.ts';

const NAMES = Object.keys(MEASURES) as Measure[];
const LIMIT = duration('0', '3650d');

export const thresholdOptions: readonly OptionRow[] = NAMES.map((measure) => ({
  flags: `--${measure} <thresholds>`,
  summary: `--check: ${MEASURES[measure].means} (${MEASURES[measure].default})`,
}));

export async function checkStatus(context: Context): Promise<void> {
  const checks = await decide(context);
  const level = worstOf(checks.map((check) => check.level));
  context.exit = exitOf(level);
  context.answer({ level, checks }, () => checkLine(checks));
}

async function decide(context: Context): Promise<Check[]> {
  const isAll = context.flag('all');
  try {
    const thresholds = Object.fromEntries(
      NAMES.map((measure) => [measure, thresholdOf(measure, context.text(measure))]),
    ) as Thresholds;
    const now = new Date();
    if (!isAll) {
      const health = await readHealth(await context.cluster(), now);
      return [decideCheck(checkFacts(health, now.getTime()), thresholds)];
    }
    return (await lookAtAll(await context.vault(), now)).map(({ cluster, health, failure }) =>
      failure === undefined
        ? decideCheck(checkFacts(health, now.getTime()), thresholds)
        : unknownCheck(cluster, `[${failure.code}] ${failure.message}`),
    );
  } catch (error) {
    // a plug-in answers whatever happens: what it cannot find out is 'unknown'
    if (!(error instanceof VaultError)) throw error;
    const name = isAll ? 'vault' : (context.settings.cluster ?? 'cluster');
    return [unknownCheck(name, `[${error.code}] ${error.message}`)];
  }
}

/** '1m,10m': warning and critical; none in place of either, or of both. @throws VaultError usage */
export function thresholdOf(measure: Measure, given: string | undefined): Thresholds[Measure] {
  const text = given ?? MEASURES[measure].default;
  if (text === 'none') return { warning: undefined, critical: undefined };
  const parts = text.split(',');
  try {
    if (parts.length !== 2) throw new RangeError('is not two durations');
    const [warning, critical] = parts.map((part) => (part === 'none' ? undefined : LIMIT.parse(part)));
    if (warning !== undefined && critical !== undefined && warning > critical)
      throw new RangeError('is critical before it is a warning');
    return { warning, critical };
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new VaultError('usage', `--${measure}: '${text}' ${cause.message}`, {
      hint: `It takes two durations, for warning and critical; for example ${MEASURES[measure].default}, or 1h,none.`,
    });
  }
}
