/**
 * Reads a page of docs/runbook into the steps that test/system/runbooks.test.ts runs. The convention is in
 * docs/runbook/README.md, "How a page is written".
 *
 * Strict: a block of `sh` without a comment, a comment of an unknown kind, a misspelt attribute is an error, so that nothing in
 * a page is silently left out of the test.
 */
export type NodeRole = 'primary' | 'standby';

export type Step =
  | { kind: 'run'; on: string; script: string; exits: number; prints: string[]; line: number }
  | { kind: 'happens'; what: (typeof HAPPENINGS)[number]; node: string; line: number }
  | { kind: 'vault'; what: (typeof VAULT_HAPPENINGS)[number]; vault: VaultName; line: number }
  | { kind: 'relay'; runs: boolean; line: number }
  | { kind: 'until'; node: string; is: (typeof STATES)[number]; line: number }
  | { kind: 'until vault'; vault: VaultName; is: (typeof VAULT_STATES)[number]; line: number };

type VaultName = 'A' | 'B';

export type Runbook = {
  title: string;
  /** `vault`: the one that the node follows or archives into; B is the DR vault, which a site has where a node names it. */
  begins: { node: string; role: NodeRole; vault: VaultName }[];
  steps: Step[];
};

const HAPPENINGS = ['writes', 'crash', 'freeze', 'wake', 'archive'] as const;
const VAULT_HAPPENINGS = ['away', 'back'] as const;
const STATES = ['primary', 'standby', 'down', 'fenced', 'absent'] as const;
const VAULT_STATES = ['active', 'replica', 'level'] as const;

/** @param file  for messages @throws Error with file and line, where the page does not keep the convention */
export function readRunbook(text: string, file: string): Runbook {
  const lines = text.split('\n');
  const title = lines.find((line) => line.startsWith('# '))?.slice(2);
  const steps: Step[] = [];
  let begins: Runbook['begins'] | undefined;
  let above: { comment: string; line: number } | undefined;
  for (let index = 0; index < lines.length; index++) {
    const line = index + 1;
    const bad = (message: string): Error => new Error(`${file}:${line}: ${message}`);
    const here = lines[index]!;
    const fence = /^( *)(`{3,})(\S*)\s*$/.exec(here);
    if (fence !== null) {
      const [, indent = '', ticks = '', language = ''] = fence;
      const end = lines.findIndex((each, at) => at > index && each.trim() === ticks);
      if (end < 0) throw bad('this block has no end');
      if (language === 'sh') {
        if (above === undefined)
          throw bad(`a block of sh wants '<!-- runs on: NODE -->' or '<!-- not run: why -->' above it`);
        const script = lines
          .slice(index + 1, end)
          .map((each) => each.slice(each.startsWith(indent) ? indent.length : 0))
          .join('\n');
        if (!above.comment.startsWith('not run:'))
          steps.push({ ...readRun(above.comment, bad), script, line: line + 1 });
        above = undefined;
      }
      index = end;
    } else if (/^\s*<!--/.test(here)) {
      const comment = /^\s*<!-- (.*) -->\s*$/.exec(here)?.[1];
      if (comment === undefined) throw bad('a comment of a runbook is one line: <!-- … -->');
      if (/^(runs on|not run): \S/.test(comment)) above = { comment, line };
      else if (comment.startsWith('begins with: ')) begins = readBegins(comment, bad);
      else steps.push({ ...readWord(comment, bad), line });
      continue;
    }
    if (above !== undefined && here.trim() !== '')
      throw bad(`the comment of line ${above.line} stands above no block of sh`);
  }
  if (title === undefined) throw new Error(`${file}: no title`);
  if (begins === undefined)
    throw new Error(`${file}: no '<!-- begins with: db1 primary, db2 standby, db3 standby -->'`);
  return { title, begins, steps };
}

type Bad = (message: string) => Error;

function readRun(comment: string, bad: Bad): { kind: 'run'; on: string; exits: number; prints: string[] } {
  const run = { kind: 'run' as const, on: '', exits: 0, prints: [] as string[] };
  for (const part of comment.split(/;\s+/)) {
    const [, name, value = ''] = /^([a-z ]+): (.+)$/.exec(part.trim()) ?? [];
    if (name === 'runs on') run.on = value;
    else if (name === 'exits' && /^\d+$/.test(value)) run.exits = Number(value);
    else if (name === 'prints') run.prints.push(value);
    else throw bad(`'${part}' is none of runs on, exits, prints`);
  }
  return run;
}

function readBegins(comment: string, bad: Bad): Runbook['begins'] {
  return comment
    .slice('begins with: '.length)
    .split(', ')
    .map((part) => {
      const [, node, role, vault = 'A'] = /^(\w+) (primary|standby)(?: in ([AB]))?$/.exec(part) ?? [];
      if (node === undefined) throw bad(`'${part}' is not NODE primary, NODE standby or NODE standby in B`);
      return { node, role: role as NodeRole, vault: vault as VaultName };
    });
}

function readWord(comment: string, bad: Bad) {
  const [, way] = /^happens: relay (starts|stops)$/.exec(comment) ?? [];
  if (way !== undefined) return { kind: 'relay' as const, runs: way === 'starts' };
  const [, event, one] = /^(happens: away|happens: back|until:) ([AB])\b/.exec(comment) ?? [];
  if (one !== undefined) return readVaultWord(comment, event!, one as VaultName, bad);
  const [, happening, place] = /^happens: (\w+) (?:on )?(\w+)$/.exec(comment) ?? [];
  const what = HAPPENINGS.find((each) => each === happening);
  if (what !== undefined && place !== undefined) return { kind: 'happens' as const, what, node: place };
  const [, node, state] = /^until: (\w+) (\w+)$/.exec(comment) ?? [];
  const is = STATES.find((each) => each === state);
  if (is !== undefined && node !== undefined) return { kind: 'until' as const, node, is };
  throw unknown(comment, bad);
}

function readVaultWord(comment: string, event: string, vault: VaultName, bad: Bad) {
  const what = VAULT_HAPPENINGS.find((each) => comment === `happens: ${each} ${vault}`);
  if (what !== undefined) return { kind: 'vault' as const, what, vault };
  const is = VAULT_STATES.find((each) => event === 'until:' && comment === `until: ${vault} ${each}`);
  if (is !== undefined) return { kind: 'until vault' as const, vault, is };
  throw unknown(comment, bad);
}

const unknown = (comment: string, bad: Bad): Error =>
  bad(`'${comment}' is no comment that a runbook knows (docs/runbook/README.md)`);
