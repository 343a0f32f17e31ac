/**
 * The commands of each page of docs/runbook, run from the page itself on a real site, so that a page cannot go stale.
 * How a page is written: docs/runbook/README.md.
 */
import { execFile } from 'node:child_process';
import { openSync, readdirSync, readFileSync, closeSync, mkdtempSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseLsn } from '../../core/wal/lsn.ts';
import { DrSite } from '../harness/dr-site.ts';
import { freezeMachine, wakeMachine } from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { pgBin, type TestServer } from '../harness/postgres.ts';
import { readRunbook, type Runbook, type Step } from '../harness/runbook.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { COMMAND_LIMIT_MS, walvaultFile } from '../harness/walvault-command.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const folder = path.resolve(import.meta.dirname, '../../docs/runbook');
/** Those that say `<!-- run by: FILE -->` want what this site has not, and are run by a test of their own. */
const all = readdirSync(folder).filter((name) => name.endsWith('.md') && name !== 'README.md');
const pages = all.filter((name) => !readFileSync(path.join(folder, name), 'utf8').includes('<!-- run by: '));
const pair = onePair(0);

/** A site, and what the steps of one page did to it. */
class Rehearsal {
  readonly site: TestSite;
  /** The same site, where it has two vaults. */
  private readonly pairSite: DrSite | undefined;
  private relay: ReturnType<DrSite['startRelay']> | undefined;
  /** What the active vault was when a step looked last. */
  private active: 'A' | 'B' = 'A';
  private readonly page: string;
  private readonly bin: string;
  /** `archived`: the highest row known to be in the vault, which is all that must be left of a writer whose server crashed. */
  private readonly writers: { node: string; writer: SteadyWriter; archived: number; crashed: boolean }[] = [];
  /** A node that the page may add; not there at the beginning. */
  private readonly fresh: TestServer | undefined;

  private constructor(site: TestSite, page: string, fresh: TestServer | undefined) {
    this.site = site;
    this.pairSite = site instanceof DrSite ? site : undefined;
    this.fresh = fresh;
    this.page = page;
    // one folder with just what a page may call, before everything else on the PATH
    this.bin = mkdtempSync(path.join(site.scratch, 'bin'));
    symlinkSync(walvaultFile, path.join(this.bin, 'walvault'));
  }

  static async open(page: string, begins: Runbook['begins']): Promise<Rehearsal> {
    const hasTwo = begins.some(({ vault }) => vault === 'B');
    const walvault = { WALVAULT_HEARTBEAT_INTERVAL: '1s', WALVAULT_SWEEP_INTERVAL: '1s' };
    const site = await (hasTwo ? DrSite : TestSite).open({ pair, walvault });
    const [first, ...standbys] = [...begins].sort((left) => (left.role === 'primary' ? -1 : 1));
    if (first?.role !== 'primary') throw new Error(`${page}: a site begins with a primary`);
    await site.makePrimary(first.node);
    await site.backup(first.node);
    if (site instanceof DrSite) await site.relayOnce();
    for (const { node, vault } of standbys)
      await (site instanceof DrSite && vault === 'B' ? site.addDrStandby(node) : site.addStandby(node));
    const fresh = hasTwo || site.servers.has('db3') ? undefined : site.declare('db3');
    const rehearsal = new Rehearsal(site, page, fresh);
    if (hasTwo) await rehearsal.switchRelay(true);
    for (const { node } of standbys) await site.caughtUp(node, first.node);
    for (const { node } of standbys) await rehearsal.until(node, 'standby');
    return rehearsal;
  }

  async take(step: Step): Promise<void> {
    if (step.kind === 'run') await this.run(step);
    else if (step.kind === 'until') await this.until(step.node, step.is);
    else if (step.kind === 'until vault') await this.untilVault(step.vault, step.is);
    else if (step.kind === 'relay') await this.switchRelay(step.runs);
    else if (step.kind === 'vault') this.switchVault(step.vault, step.what);
    else await this.happen(step.what, step.node);
  }

  private get two(): DrSite {
    if (this.pairSite === undefined) throw new Error(`${this.page}: this site has one vault`);
    return this.pairSite;
  }

  private switchVault(vault: 'A' | 'B', what: 'away' | 'back'): void {
    if (what === 'away') this.two.cut(vault);
    else this.two.mend(vault);
  }

  /** The relay as a service somewhere: from the active vault to the other one, turning round by itself. */
  private async switchRelay(runs: boolean): Promise<void> {
    await this.relay?.stop();
    const from = runs ? await this.findActive() : 'A';
    const to = from === 'A' ? 'B' : 'A';
    this.relay = runs ? this.two.startRelay({ from, to }) : undefined;
  }

  private async findActive(): Promise<'A' | 'B'> {
    for (const vault of ['A', 'B'] as const) {
      const { control } = await this.two.view(vault).heart();
      // A vault that was lost may still believe that it is the one.
      if (control.role === 'active' && control.supersedes !== null) return (this.active = vault);
      if (control.role === 'active') this.active = vault;
    }
    return this.active;
  }

  private async untilVault(vault: 'A' | 'B', is: 'active' | 'replica' | 'level'): Promise<void> {
    const from = vault === 'A' ? 'B' : 'A';
    if (is === 'level') return this.two.relayed({ from, to: vault }, 90_000);
    await waitFor(`${vault} is ${is} (${this.page})`, 90_000, async () => {
      return (await this.two.view(vault).heart()).control.role === is;
    });
  }

  private async run(step: Step & { kind: 'run' }): Promise<void> {
    const said = path.join(this.site.scratch, 'said');
    const output = openSync(said, 'w');
    const file = path.join(this.site.scratch, 'block.sh');
    const status = await new Promise<number>((resolve, reject) => {
      // a file, no pipe: a server that the block starts would keep a pipe open for its whole life
      const words = ['-c', `exec /bin/sh -eu -s >"$1" 2>&1`, file, said];
      const child = execFile('/bin/sh', words, {
        env: this.environment(step.on),
        cwd: this.site.scratch,
        timeout: COMMAND_LIMIT_MS,
      });
      child.on('error', reject);
      child.on('exit', (code) => resolve(code ?? 128));
      child.stdin?.end(`${step.script}\n`);
      child.stdout?.destroy();
      child.stderr?.destroy();
    });
    closeSync(output);
    const text = readFileSync(said, 'utf8');
    const where = `${this.page}:${step.line} (on ${step.on})`;
    if (status !== step.exits)
      throw new Error(`${where} ended with ${status}, not ${step.exits}:\n${step.script}\n---\n${text}`);
    for (const wanted of step.prints)
      if (!text.includes(wanted))
        throw new Error(`${where} did not print '${wanted}':\n${step.script}\n---\n${text}`);
  }

  /** What the README promises a person to have. */
  private environment(on: string): NodeJS.ProcessEnv {
    const { site, pairSite } = this;
    const party = on === 'operator' ? undefined : on;
    const two =
      pairSite === undefined
        ? {}
        : {
            VAULT_A: pairSite.url('A', party),
            VAULT_B: pairSite.url('B', party),
            NEW_VAULT: pathToFileURL(path.join(site.scratch, 'new vault')).href,
          };
    const person = {
      ...site.personEnvOf(party),
      ...two,
      PATH: [this.bin, pgBin(pair.major), process.env['PATH']].join(path.delimiter),
    };
    if (on === 'operator')
      return this.fresh === undefined
        ? person
        : { ...person, NEW_PGDATA: this.fresh.pgdata, NEW_PORT: String(this.fresh.port) };
    const { pgdata, sockets, port } = site.server(on);
    return { ...person, PGDATA: pgdata, PGHOST: sockets, PGPORT: String(port) };
  }

  private async happen(what: (Step & { kind: 'happens' })['what'], node: string): Promise<void> {
    const server = this.site.server(node);
    switch (what) {
      case 'writes':
        this.writers.push({
          ...{ node, archived: 0, crashed: false },
          writer: await SteadyWriter.start(server, { pauseMs: 20 }),
        });
        return;
      case 'archive': {
        const lsn = parseLsn(String(await server.value('SELECT pg_current_wal_lsn()')));
        await this.site.archiveNow(node);
        for (const one of this.writers)
          if (one.node === node) one.archived = Math.max(one.archived, one.writer.rowsBefore(lsn));
        return;
      }
      case 'crash':
        for (const one of this.writers) if (one.node === node) one.crashed = true;
        return await server.kill9();
      case 'freeze':
        return freezeMachine(this.site, node);
      case 'wake':
        return wakeMachine(this.site, node);
    }
  }

  private async until(node: string, is: (Step & { kind: 'until' })['is']): Promise<void> {
    const { site } = this;
    await waitFor(`${node} is ${is} (${this.page})`, 90_000, async () => {
      if (is === 'down') return site.server(node).pid() === undefined;
      const status = await site.status(node);
      const found = status.nodes.find(({ name }) => name === node);
      if (is === 'absent') return found === undefined;
      if (is === 'fenced')
        return found?.role === 'fenced' || (found?.role === 'unknown' && found.trouble !== null);
      const recovering = await site.server(node).value('SELECT pg_is_in_recovery()');
      if (is === 'primary') return status.primary === node && status.trigger === null && recovering === false;
      return (
        recovering === true && found?.role === 'standby' && found.trouble === null && found.lagSegments === 0
      );
    });
  }

  /** Every row that had to stay is on the primary, whichever that is by now. */
  async finish(): Promise<void> {
    if (this.pairSite !== undefined) await this.findActive();
    const { primary } =
      this.pairSite === undefined ? await this.site.status() : await this.pairSite.statusOf(this.active);
    await Promise.all(this.writers.map(({ writer }) => writer.stop()));
    const due = this.writers.map(({ writer, archived, crashed }) =>
      crashed ? archived : (writer.acknowledged.at(-1)?.id ?? 0),
    );
    expect(this.writers.map(({ writer }) => writer.acknowledged.length)).not.toContain(0);
    expect(await missingRows(this.site.server(primary ?? ''), Math.max(...due))).toBe(0);
  }
}

test('the runbook has all its pages, and its index names them', () => {
  const index = readFileSync(path.join(folder, 'README.md'), 'utf8');
  expect(all.filter((page) => !index.includes(`](${page})`))).toEqual([]);
  expect([...index.matchAll(/\]\(([a-z-]+\.md)\)/g)].filter(([, page]) => !all.includes(page!))).toEqual([]);
});

test.each(pages)('%s does what it says', async (page) => {
  const { begins, steps } = readRunbook(readFileSync(path.join(folder, page), 'utf8'), page);
  const rehearsal = await Rehearsal.open(page, begins);
  for (const step of steps) await rehearsal.take(step);
  await rehearsal.finish();
  await rehearsal.site.close();
});
