/**
 * The commands of each page of docs/runbook, run from the page itself on a real site, so that a page cannot go stale.
 * How a page is written: docs/runbook/README.md.
 */
import { execFile } from 'node:child_process';
import { openSync, readdirSync, readFileSync, closeSync, mkdtempSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { parseLsn } from '../../core/wal/lsn.ts';
import { onePair } from '../harness/pairs.ts';
import { pgBin, type TestServer } from '../harness/postgres.ts';
import { readRunbook, type Runbook, type Step } from '../harness/runbook.ts';
import { processTree, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { COMMAND_LIMIT_MS, walvaultFile } from '../harness/walvault-command.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const folder = path.resolve(import.meta.dirname, '../../docs/runbook');
const pages = readdirSync(folder).filter((name) => name.endsWith('.md') && name !== 'README.md');
const pair = onePair(0);

/** A site, and what the steps of one page did to it. */
class Rehearsal {
  readonly site: TestSite;
  private readonly page: string;
  private readonly bin: string;
  /** `archived`: the highest row known to be in the vault, which is all that must be left of a writer whose server crashed. */
  private readonly writers: { node: string; writer: SteadyWriter; archived: number; crashed: boolean }[] = [];
  /** A node that the page may add; not there at the beginning. */
  private readonly fresh: TestServer | undefined;

  private constructor(site: TestSite, page: string, fresh: TestServer | undefined) {
    this.site = site;
    this.fresh = fresh;
    this.page = page;
    // one folder with just what a page may call, before everything else on the PATH
    this.bin = mkdtempSync(path.join(site.scratch, 'bin'));
    symlinkSync(walvaultFile, path.join(this.bin, 'walvault'));
  }

  static async open(page: string, begins: Runbook['begins']): Promise<Rehearsal> {
    const site = await TestSite.open({ pair, walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' } });
    const [first, ...standbys] = [...begins].sort((left) => (left.role === 'primary' ? -1 : 1));
    if (first?.role !== 'primary') throw new Error(`${page}: a site begins with a primary`);
    await site.makePrimary(first.node);
    await site.backup(first.node);
    for (const { node } of standbys) await site.addStandby(node);
    for (const { node } of standbys) await site.caughtUp(node, first.node);
    const rehearsal = new Rehearsal(site, page, site.servers.has('db3') ? undefined : site.declare('db3'));
    for (const { node } of standbys) await rehearsal.until(node, 'standby');
    return rehearsal;
  }

  async take(step: Step): Promise<void> {
    if (step.kind === 'run') await this.run(step);
    else if (step.kind === 'until') await this.until(step.node, step.is);
    else await this.happen(step.what, step.node);
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
    const { site } = this;
    const person = {
      ...site.personEnv,
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
    const everyPid = () => [...processTree(server.pid() ?? 0), ...this.site.agentPids(node)];
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
        for (const pid of everyPid()) process.kill(pid, 'SIGSTOP');
        return;
      case 'wake':
        for (const pid of everyPid()) process.kill(pid, 'SIGCONT');
        return;
    }
  }

  private async until(node: string, is: (Step & { kind: 'until' })['is']): Promise<void> {
    const { site } = this;
    await waitFor(`${node} is ${is} (${this.page})`, 90_000, async () => {
      if (is === 'down') return site.server(node).pid() === undefined;
      const status = await site.status();
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
    const { primary } = await this.site.status();
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
  expect(pages.filter((page) => !index.includes(`](${page})`))).toEqual([]);
  expect(
    [...index.matchAll(/\]\(([a-z-]+\.md)\)/g)]
      .map(([, page]) => page)
      .filter((page) => !pages.includes(page!)),
  ).toEqual([]);
});

test.each(pages)('%s does what it says', async (page) => {
  const { begins, steps } = readRunbook(readFileSync(path.join(folder, page), 'utf8'), page);
  const rehearsal = await Rehearsal.open(page, begins);
  for (const step of steps) await rehearsal.take(step);
  await rehearsal.finish();
  await rehearsal.site.close();
});
