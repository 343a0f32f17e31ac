/**
 * What a look at a cluster, each minute, tells people: a replica behind, WAL that waits on the primary, nodes that are silent, have
 * diverged, or whose clocks are wrong; each once when it begins, and once when it has been well for a while. What swings about a limit is
 * not well, so it tells nothing more.
 *
 * A node is silent when its heartbeat does not move between two looks, by this function's clock; how long WAL waits is reckoned by the
 * primary's clock alone. Only the age of what a replica lacks is a difference of two clocks: where they are known to differ it says so.
 *
 * Pure.
 */
import type { Control, NodeRow } from './facts.ts';
import { composeNotice, type Notice, type NoticeParts } from './notice.ts';

/** Of one cluster, as its manifest has it. */
export type LookFacts = {
  cluster: string;
  /** URL. */
  vault: string;
  control: Pick<Control, 'epoch' | 'primary' | 'role' | 'archiving'>;
  nodes: readonly Pick<NodeRow, 'name' | 'role' | 'heartbeatAt' | 'waitingSince' | 'trouble'>[];
  /** Replicas that this vault feeds; empty where it is not active. */
  replicas: readonly {
    id: string;
    url: string;
    rows: number;
    /** Age of the oldest segment that it lacks. */
    seconds: number;
    /** When the relay was heard of; null: never. */
    at: string | null;
    trouble: string | null;
  }[];
};

/** ms */
export type LookLimits = { lagMs: number; archiveMs: number; silenceMs: number };

/** What the next look has to know. */
export type LookState = {
  /** The last look; null: there was none. */
  at: string | null;
  nodes: { [name: string]: Heard };
  /** What was told and is not well again. `calmSince`: since when it looks well. */
  bad: { [subject: string]: { since: string; calmSince: string | null } };
};

type Heard = {
  heartbeatAt: string;
  /** When a look saw it move, by the function's clock; at first: what it says itself. */
  movedAt: string;
  /** How much the node's clock is ahead (negative: behind), at least, ms. */
  aheadMs: number;
};

/** For the alarms; a member is absent where there is nothing to measure. */
export type LookFigures = { archiveWait?: number; relayLag?: number; silentNodes: number };

export type Look = { notices: Notice[]; state: LookState; figures: LookFigures };

export const NO_LOOK: LookState = { at: null, nodes: {}, bad: {} };

/** Longest that something has to look well before that is told, ms. */
const CALM_MS = 600_000;
/** A clock that differs by more is told; by less than CLOCK_WELL_MS it is well, ms. */
const CLOCK_MS = 300_000;
const CLOCK_WELL_MS = 60_000;

/** `level`: bad, well, or between the two, where what was said last stands. */
type Subject = {
  key: string;
  level: 'bad' | 'between' | 'well';
  calmMs: number;
  bad: Words;
  well: Words;
};
type Words = Omit<NoticeParts, 'cluster' | 'vault' | 'epoch' | 'at' | 'id'>;

export function decideLook(before: LookState, facts: LookFacts, limits: LookLimits, now: Date): Look {
  const at = now.toISOString();
  const nodes = Object.fromEntries(
    facts.nodes.flatMap(({ name, heartbeatAt }) =>
      heartbeatAt === null ? [] : [[name, hear(before, name, heartbeatAt, now)]],
    ),
  );
  const silences = silencesOf(before, facts, nodes, now);
  const waitMs = archiveWaitMs(facts);
  const subjects = [
    ...silences.map((silence) => silenceSubject(silence, facts, limits)),
    ...facts.nodes.filter(isTroubleOwn).map(troubleSubject),
    ...Object.entries(nodes).map(([name, { aheadMs }]) => clockSubject(name, aheadMs)),
    ...(waitMs === undefined ? [] : [waitSubject(waitMs, facts, limits)]),
    ...facts.replicas.map((replica) => lagSubject(replica, facts, nodes, limits, now)),
  ];
  const bad: LookState['bad'] = {};
  const notices: Notice[] = [];
  const tell = (key: string, words: Words): void =>
    void notices.push(
      composeNotice({
        ...words,
        ...{ cluster: facts.cluster, vault: facts.vault, epoch: facts.control.epoch },
        ...{ at, id: `look#${key}#${at}` },
      }),
    );
  for (const subject of subjects) {
    const known = before.bad[subject.key];
    if (known === undefined) {
      if (subject.level !== 'bad') continue;
      bad[subject.key] = { since: at, calmSince: null };
      tell(subject.key, subject.bad);
      continue;
    }
    const calmSince = subject.level === 'well' ? (known.calmSince ?? at) : null;
    if (calmSince !== null && now.getTime() - Date.parse(calmSince) >= subject.calmMs)
      tell(subject.key, subject.well);
    else bad[subject.key] = { since: known.since, calmSince };
  }
  const lags = facts.replicas.map(({ seconds }) => seconds);
  return {
    notices,
    state: { at, nodes, bad },
    figures: {
      ...(waitMs === undefined ? {} : { archiveWait: waitMs / 1000 }),
      ...(lags.length === 0 ? {} : { relayLag: Math.max(...lags) }),
      silentNodes: silences.filter(({ silentMs }) => silentMs > limits.silenceMs).length,
    },
  };
}

function hear(before: LookState, name: string, heartbeatAt: string, now: Date): Heard {
  const known = before.nodes[name];
  if (known?.heartbeatAt === heartbeatAt) return known;
  const said = Date.parse(heartbeatAt);
  const ahead = Math.max(0, said - now.getTime());
  // it was written after the last look, whatever it says
  const behind = known === undefined || before.at === null ? 0 : Math.max(0, Date.parse(before.at) - said);
  const aheadMs = ahead > 0 ? ahead : behind > 0 ? -behind : 0;
  const movedAt = known === undefined && said < now.getTime() ? heartbeatAt : now.toISOString();
  return { heartbeatAt, movedAt, aheadMs };
}

type Silence = { name: string; heartbeatAt: string; silentMs: number };

/** A node that is seen for the first time is not silent yet: an hour's silence may be a clock that is wrong by an hour. */
function silencesOf(
  before: LookState,
  facts: LookFacts,
  nodes: { [name: string]: Heard },
  now: Date,
): Silence[] {
  return facts.nodes.flatMap(({ name, trouble }) => {
    const heard = nodes[name];
    if (heard === undefined || trouble?.startsWith('detached') === true) return [];
    const silentMs =
      before.nodes[name] === undefined ? 0 : Math.max(0, now.getTime() - Date.parse(heard.movedAt));
    return [{ name, heartbeatAt: heard.heartbeatAt, silentMs }];
  });
}

/** undefined: there is nothing to say (another vault is active, archiving is off, an agent that does not report it). */
function archiveWaitMs({ control, nodes }: LookFacts): number | undefined {
  if (control.role !== 'active' || !control.archiving) return undefined;
  const primary = nodes.find(({ name }) => name === control.primary);
  if (primary === undefined || primary.heartbeatAt === null || primary.waitingSince === undefined)
    return undefined;
  if (primary.waitingSince === null) return 0;
  return Math.max(0, Date.parse(primary.heartbeatAt) - Date.parse(primary.waitingSince));
}

const levelOf = (ms: number, badAbove: number, wellBelow: number): Subject['level'] =>
  ms > badAbove ? 'bad' : ms < wellBelow ? 'well' : 'between';

function silenceSubject(
  { name, heartbeatAt, silentMs }: Silence,
  facts: LookFacts,
  limits: LookLimits,
): Subject {
  const { silenceMs } = limits;
  const isPrimary = name === facts.control.primary && facts.control.role === 'active';
  const common = { kind: 'silence', node: name } as const;
  return {
    key: `silence#${name}`,
    level: levelOf(silentMs, silenceMs, silenceMs),
    calmMs: Math.min(silenceMs, CALM_MS),
    bad: {
      ...common,
      urgency: isPrimary ? 'alert' : 'warning',
      title: isPrimary ? 'the primary is silent' : 'a node is silent',
      what: `${name} has said nothing for ${span(silentMs)}; its last word was at ${heartbeatAt}, by its own clock`,
      means: isPrimary
        ? 'The primary is down, its agent is, or it does not reach its vault. Nothing new comes into the vault then.'
        : 'The node is down, its agent is, or it does not reach its vault. Its WAL is kept until its lease ends.',
      todo: isPrimary
        ? `Look at the machine. If it is lost: 'walvault trigger smart --to NODE'.`
        : `Look at the machine. If it is gone for good, or follows another vault now: 'walvault node drop ${name}'.`,
      page: isPrimary ? 'failover.md' : 'standby-stop-and-restart.md',
    },
    well: {
      ...{
        ...common,
        urgency: 'info',
        title: isPrimary ? 'the primary is heard of again' : 'a node is heard of again',
      },
      what: `${name} reports again, last at ${heartbeatAt} by its own clock`,
      means: 'It is up and reaches its vault.',
      todo: `Nothing; 'walvault status' shows whether it is level.`,
      page: isPrimary ? 'failover.md' : 'standby-stop-and-restart.md',
    },
  };
}

/** What no event tells: a standby that cannot follow. Flushed and detached are meant, and were told. */
function isTroubleOwn({ role, trouble }: LookFacts['nodes'][number]): boolean {
  return role === 'standby' && !/^(flushed|detached)/.test(trouble ?? '');
}

function troubleSubject({ name, trouble }: LookFacts['nodes'][number]): Subject {
  const common = { kind: 'trouble', node: name, page: 'old-primary-came-back.md' } as const;
  return {
    key: `trouble#${name}`,
    level: trouble === null ? 'well' : 'bad',
    calmMs: CALM_MS / 2,
    bad: {
      ...{ ...common, urgency: 'warning', title: 'a standby is not in order' },
      what: `${name}: ${trouble}`,
      means: 'It is no standby to fail over to until that is put right.',
      todo: `Do what it says; 'walvault rejoin' on it makes it anew where it has diverged.`,
    },
    well: {
      ...{ ...common, urgency: 'info', title: 'a standby is in order again' },
      what: `${name} reports no trouble any more`,
      means: 'It can be triggered again.',
      todo: 'Nothing.',
    },
  };
}

function clockSubject(name: string, aheadMs: number): Subject {
  const common = { kind: 'clock', node: name, page: 'README.md' } as const;
  return {
    key: `clock#${name}`,
    level: levelOf(Math.abs(aheadMs), CLOCK_MS, CLOCK_WELL_MS),
    calmMs: CALM_MS,
    bad: {
      ...{ ...common, urgency: 'warning', title: 'a clock is wrong' },
      what: `the clock of ${name} is ${differs(aheadMs)}`,
      means:
        'Nothing is decided by clocks, but every time and age that this node writes down is wrong by as much.',
      todo: 'Look at its time service (chronyc tracking, timedatectl).',
    },
    well: {
      ...{ ...common, urgency: 'info', title: 'a clock is right again' },
      what: `the clock of ${name} agrees with that of the notify function`,
      means: 'Times and ages can be relied on.',
      todo: 'Nothing.',
    },
  };
}

function waitSubject(waitMs: number, { control }: LookFacts, { archiveMs }: LookLimits): Subject {
  const node = control.primary;
  const common = { kind: 'archive-wait', node, page: 'failover.md' } as const;
  return {
    key: 'archive-wait',
    level: levelOf(waitMs, archiveMs, archiveMs / 2),
    calmMs: Math.min(archiveMs, CALM_MS),
    bad: {
      ...{ ...common, urgency: 'alert', title: 'WAL waits on the primary' },
      what: `the oldest finished segment has waited on ${node} for ${span(waitMs)} to be archived (limit ${span(archiveMs)})`,
      means: 'What is not archived is lost with the machine, and pg_wal grows until its disk is full.',
      todo: `On ${node}: agent.log in the state directory says why; 'walvault doctor'; see how much room pg_wal has left.`,
    },
    well: {
      ...{ ...common, urgency: 'info', title: 'WAL is archived again' },
      what: `the oldest finished segment on ${node} waits ${span(waitMs)}`,
      means: 'The vault takes WAL as it comes.',
      todo: 'Nothing.',
    },
  };
}

function lagSubject(
  replica: LookFacts['replicas'][number],
  { control }: LookFacts,
  nodes: { [name: string]: Heard },
  { lagMs }: LookLimits,
  now: Date,
): Subject {
  const { id, url, rows, seconds, at, trouble } = replica;
  const common = { kind: 'lag', node: null, page: 'relay-broken.md' } as const;
  const heard =
    at === null
      ? 'no relay to it was ever heard of'
      : `the relay was heard of last at ${at} (${span(now.getTime() - Date.parse(at))} ago)`;
  // Ages are by the clock of whoever archived.
  const aheadMs = nodes[control.primary ?? '']?.aheadMs ?? 0;
  const doubt =
    Math.abs(aheadMs) < CLOCK_WELL_MS ? '' : `; the clock of ${control.primary} is ${differs(aheadMs)}`;
  return {
    key: `lag#${id}`,
    level: levelOf(seconds * 1000, lagMs, lagMs / 2),
    calmMs: Math.min(lagMs, CALM_MS),
    bad: {
      ...{ ...common, urgency: 'alert', title: 'the replica is behind' },
      what: `${url} lacks ${segments(rows)}, the oldest ${span(seconds * 1000)} old (limit ${span(lagMs)}); ${heard}${trouble === null ? '' : `; its trouble: ${trouble}`}${doubt}`,
      means: 'In a disaster what the replica lacks is lost. Flush and switchover are refused meanwhile.',
      todo: `'walvault doctor' says why; 'walvault relay' goes on where the replica stands.`,
    },
    well: {
      ...{ ...common, urgency: 'info', title: 'the replica has caught up' },
      what: `${url} lacks ${segments(rows)}, the oldest ${span(seconds * 1000)} old; ${heard}${doubt}`,
      means: 'A disaster would cost little again.',
      todo: 'Nothing.',
    },
  };
}

const segments = (rows: number): string => `${rows} segment${rows === 1 ? '' : 's'}`;

const differs = (aheadMs: number): string =>
  `at least ${span(Math.abs(aheadMs))} ${aheadMs > 0 ? 'ahead of' : 'behind'} that of the notify function`;

/** '40 s', '12 min', '3 h 5 min', '2 d 3 h' */
function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h${minutes % 60 === 0 ? '' : ` ${minutes % 60} min`}`;
  return `${Math.floor(hours / 24)} d${hours % 24 === 0 ? '' : ` ${hours % 24} h`}`;
}
