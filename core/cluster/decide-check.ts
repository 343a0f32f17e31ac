/**
 * What a monitoring plug-in says of one cluster: a level, why, and the figures behind it.
 *
 * What cannot mend itself is a finding whatever the thresholds (no primary, a gap that no backup lies behind); what is a matter of degree
 * has two of them. A figure that is not known is no finding: who is expected to report and does not is found by its silence.
 *
 * Pure. Source of levels and figures: Monitoring Plugins Development Guidelines, "Plugin Return Codes" and "Performance data".
 */

export const LEVELS = ['ok', 'warning', 'critical', 'unknown'] as const;
export type Level = (typeof LEVELS)[number];

/** Exit status of a plug-in. */
export const exitOf = (level: Level): number => LEVELS.indexOf(level);

export const MEASURES = {
  silence: { default: '1m,10m', means: 'a node has not reported' },
  lag: {
    default: '5m,30m',
    means: 'a standby is behind: age of the oldest segment that it has not restored',
  },
  waiting: { default: '2m,10m', means: 'the oldest finished segment waits on the primary to be archived' },
  backup: { default: '2d,8d', means: 'age of the newest complete backup' },
  relay: { default: '5m,30m', means: 'the replica is behind, or its relay says nothing' },
  trigger: { default: '2m,10m', means: 'a promotion is under way' },
} as const;

export type Measure = keyof typeof MEASURES;

/** In ms; undefined: never. */
export type Threshold = { warning: number | undefined; critical: number | undefined };
export type Thresholds = Readonly<Record<Measure, Threshold>>;

export type CheckFacts = {
  cluster: string;
  role: 'active' | 'replica' | 'converging';
  primary: string | null;
  archiving: boolean;
  epoch: number;
  timeline: number;
  lastSegment: string | null;
  nodes: readonly {
    name: string;
    role: 'primary' | 'standby' | 'fenced' | 'unknown';
    silentMs: number | null;
    lagMs: number | null;
    trouble: string | null;
  }[];
  /** Of the primary, as it said last; null: it did not say. */
  waitingMs: number | null;
  flushed: boolean;
  /** Complete ones. */
  backups: readonly { startSegment: string; ageMs: number }[];
  gaps: readonly { from: string; to: string }[];
  relays: readonly {
    direction: 'to' | 'from';
    id: string;
    url: string;
    lagMs: number;
    silentMs: number;
    trouble: string | null;
  }[];
  spilledFiles: number;
  triggerMs: number | null;
};

export type Finding = { level: 'warning' | 'critical'; text: string };
export type Figure = {
  label: string;
  seconds: number;
  warning: number | undefined;
  critical: number | undefined;
};
export type Check = {
  cluster: string;
  level: Level;
  findings: Finding[];
  figures: Figure[];
  summary: string;
};

export function decideCheck(facts: CheckFacts, thresholds: Thresholds): Check {
  const findings: Finding[] = [];
  const figures: Figure[] = [];
  const find = (level: Finding['level'], text: string) => findings.push({ level, text });
  /** A figure, and a finding where it is beyond a threshold. */
  const measure = (measured: Measure, label: string, ms: number | null, text: (age: string) => string) => {
    if (ms === null) return;
    const { warning, critical } = thresholds[measured];
    figures.push({ label, seconds: Math.round(ms / 1000), warning, critical });
    if (critical !== undefined && ms >= critical) find('critical', text(inWords(ms)));
    else if (warning !== undefined && ms >= warning) find('warning', text(inWords(ms)));
  };

  if (facts.primary === null) find('critical', 'no primary');
  if (!facts.archiving) find('warning', 'archiving is off');
  if (facts.flushed)
    find('warning', 'the primary was flushed: nothing is archived until a trigger, or flush --undo');
  if (facts.role === 'converging') find('warning', 'this vault is being made a replica');
  if (facts.spilledFiles > 0)
    find('warning', `spilled, and waiting for the active vault: ${facts.spilledFiles} files`);
  measure('trigger', 'trigger', facts.triggerMs, (age) => `a promotion is under way for ${age}`);
  // a replica's primary reports to the active vault
  if (facts.role === 'active' && facts.primary !== null) {
    const own = facts.nodes.find(({ name }) => name === facts.primary);
    if (own === undefined || own.silentMs === null)
      find('warning', `the primary ${facts.primary} has never reported`);
    measure('waiting', 'waiting', facts.waitingMs, (age) => `a segment waits to be archived for ${age}`);
  }
  for (const node of facts.nodes) {
    const isPrimary = node.name === facts.primary;
    // without a primary nobody has fenced it
    const isFenced =
      facts.primary !== null && !isPrimary && (node.role === 'fenced' || node.role === 'primary');
    if (isFenced) find('warning', `${node.name} was the primary, and is fenced`);
    if (node.trouble !== null) find(isPrimary ? 'critical' : 'warning', `${node.name}: ${node.trouble}`);
    if (facts.role === 'active' || !isPrimary)
      measure('silence', `silence_${node.name}`, node.silentMs, (age) => `${node.name} is silent for ${age}`);
    if (!isPrimary && node.role === 'standby')
      measure('lag', `lag_${node.name}`, node.lagMs, (age) => `${node.name} is behind for ${age}`);
  }
  const newest = facts.backups.length === 0 ? null : Math.min(...facts.backups.map(({ ageMs }) => ageMs));
  if (newest === null) find('warning', 'no complete backup');
  measure('backup', 'backup', newest, (age) => `the newest complete backup is ${age} old`);
  const open = facts.gaps.filter(
    ({ to }) => !facts.backups.some(({ startSegment }) => startSegment.slice(8) > to.slice(8)),
  );
  if (open.length > 0)
    find('critical', `a gap from ${open[0]!.from} to ${open[0]!.to}, and no complete backup after it`);
  for (const relay of facts.relays) {
    const name = `relay ${relay.direction} ${relay.url}`;
    if (relay.trouble !== null) find('warning', `${name}: ${relay.trouble}`);
    const behind = relay.lagMs >= relay.silentMs;
    // of one direction there is seldom more than one
    const isAlone = facts.relays.filter(({ direction }) => direction === relay.direction).length === 1;
    const label = `relay_${relay.direction}${isAlone ? '' : `_${relay.id}`}`;
    measure('relay', label, Math.max(relay.lagMs, relay.silentMs), (age) =>
      behind ? `${name} is behind for ${age}` : `${name} is silent for ${age}`,
    );
  }
  findings.sort((one, other) => LEVELS.indexOf(other.level) - LEVELS.indexOf(one.level));
  const standbys = facts.nodes.filter(({ role }) => role === 'standby').length;
  return {
    cluster: facts.cluster,
    level: findings[0]?.level ?? 'ok',
    findings,
    figures,
    summary: `primary ${facts.primary ?? 'none'}, epoch ${facts.epoch}, timeline ${facts.timeline}, last segment ${facts.lastSegment ?? 'none'}, standbys ${standbys}`,
  };
}

/** What could not be read: the plug-in's own trouble, no state of the cluster. */
export const unknownCheck = (cluster: string, why: string): Check => ({
  ...{ cluster, level: 'unknown', findings: [], figures: [], summary: why },
});

/** From best to worst; what is known to be wrong is worse than what is not known. */
const BY_WEIGHT: readonly Level[] = ['ok', 'unknown', 'warning', 'critical'];

export function worstOf(levels: readonly Level[]): Level {
  return levels.reduce<Level>(
    (worst, level) => (BY_WEIGHT.indexOf(level) > BY_WEIGHT.indexOf(worst) ? level : worst),
    'ok',
  );
}

/**
 * The one line. Figures carry the cluster's name where there are several.
 *
 * @example 'WALVAULT WARNING - main: no complete backup | silence_db1=2s;60;600;0'
 */
export function checkLine(checks: readonly Check[]): string {
  const level = worstOf(checks.map((check) => check.level));
  const weight = (check: Check) => -BY_WEIGHT.indexOf(check.level);
  const words = [...checks]
    .sort((one, other) => weight(one) - weight(other))
    .map(({ cluster, findings, summary }) => {
      const text = findings.length === 0 ? summary : findings.map((finding) => finding.text).join(', ');
      return `${cluster}: ${text}`;
    });
  const prefix = ({ cluster }: Check) => (checks.length > 1 ? `${cluster}_` : '');
  const seconds = (ms: number | undefined) => (ms === undefined ? '' : ms / 1000);
  const figures = checks.flatMap((check) =>
    check.figures.map(
      (figure) =>
        `${prefix(check)}${figure.label}=${figure.seconds}s;${seconds(figure.warning)};${seconds(figure.critical)};0`,
    ),
  );
  // what follows '|' are figures, and what follows a line feed is not shown
  const text = (words.length === 0 ? 'no clusters' : words.join('; ')).replaceAll(/\s*[|\r\n]+\s*/g, ' ');
  return `WALVAULT ${level.toUpperCase()} - ${text}${figures.length === 0 ? '' : ` | ${figures.join(' ')}`}`;
}

function inWords(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 2) return `${Math.round(ms / 1000)} s`;
  if (minutes < 120) return `${minutes} min`;
  return minutes < 2880 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`;
}
