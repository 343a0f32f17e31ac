/** A standby in wait mode, as a test sees it: by the processes of its restore command, its log, and what its server has not done. */
import {
  existsSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { TestServer } from './postgres.ts';
import { listProcesses, waitFor } from './scratch.ts';
import type { TestSite } from './site.ts';

export class WaitNode {
  readonly site: TestSite;
  readonly name: string;

  constructor(site: TestSite, name: string) {
    this.site = site;
    this.name = name;
  }

  static async create(site: TestSite, name: string, args: string[] = [], start = true): Promise<WaitNode> {
    await site.addStandby(name, { args: ['--mode', 'wait', ...args], start });
    return new WaitNode(site, name);
  }

  get server(): TestServer {
    return this.site.server(this.name);
  }

  /** The restore command that runs: Node, and what it waits for. */
  command(): { pid: number; parent: number; file: string } | undefined {
    const called = `/restore.cjs ${this.site.state(this.name)} `;
    for (const { pid, parent, command, state } of listProcesses()) {
      const at = command.indexOf(called);
      if (at === -1 || state === 'Z') continue;
      return { pid, parent, file: command.slice(at + called.length).split(' ')[0]! };
    }
    return undefined;
  }

  /** Until it waits for just this file. @returns the process that does */
  async waitsFor(file: string, withinMs = 20_000): Promise<number> {
    return waitFor(`${this.name} waits for ${file}`, withinMs, () => {
      const command = this.command();
      return command?.file === file ? command.pid : undefined;
    });
  }

  /** Until it has taken everything that the vault holds (a primary may end one more segment meanwhile), and waits for what comes next. */
  async waits(): Promise<number> {
    return waitFor(`${this.name} waits for what comes next`, 20_000, async () => {
      const { lastSegment } = await this.site.status(this.name);
      const command = this.command();
      return command?.file === following(lastSegment!, this.site.segmentMiB) ? command.pid : undefined;
    });
  }

  /** Ends the running segment of `from`, and until this node has taken it. */
  async takesWhatComes(from = 'db1'): Promise<string> {
    const name = await this.site.archiveNow(from);
    await this.waits();
    return name;
  }

  /** Whether the server is, or would be started, read-only on the timeline it followed; by its own files. */
  traits() {
    const { pgdata } = this.server;
    return {
      signals: ['standby.signal', 'recovery.signal'].filter((name) => existsSync(path.join(pgdata, name))),
      opened: /archive recovery complete|selected new timeline/.test(this.server.log(100_000)),
    };
  }

  /** What its server last began with: lines of its log since the last start. */
  lately(): string {
    const log = this.server.log(100_000);
    return log.slice(log.lastIndexOf('starting PostgreSQL'));
  }

  /**
   * From now on a start of Node by a hook for which the line of sh `when` is true waits until release().
   *
   * @returns held(): one waits now
   */
  holdNode(when: string): { held: () => boolean; release: () => void } {
    const state = this.site.state(this.name);
    const link = path.join(state, 'node');
    const real = readlinkSync(link);
    const mark = path.join(state, 'held');
    const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
    const go = `${mark}.go`;
    for (const file of [mark, go]) rmSync(file, { force: true });
    const script = `#!/bin/sh\nif ${when}; then : > ${quoted(mark)}; until [ -e ${quoted(go)} ]; do sleep 0.05; done; fi\nexec ${quoted(real)} "$@"\n`;
    writeFileSync(`${link}.holding`, script, { mode: 0o755 });
    rmSync(link);
    renameSync(`${link}.holding`, link);
    return {
      held: () => existsSync(mark),
      release: () => {
        writeFileSync(go, '');
        symlinkSync(real, `${link}.real`);
        renameSync(`${link}.real`, link);
      },
    };
  }

  /** Segments and histories in its pg_wal that lie on `timeline`. */
  onTimeline(timeline: number): string[] {
    const digits = timeline.toString(16).padStart(8, '0').toUpperCase();
    return readdirSync(path.join(this.server.pgdata, 'pg_wal')).filter((file) => file.startsWith(digits));
  }
}

/** The segment after `name`, on the same timeline. */
export function following(name: string, segmentMiB: number): string {
  const perLog = 4096 / segmentMiB;
  const index = parseInt(name.slice(8, 16), 16) * perLog + parseInt(name.slice(16, 24), 16) + 1;
  const hex = (value: number) => value.toString(16).padStart(8, '0').toUpperCase();
  return name.slice(0, 8) + hex(Math.floor(index / perLog)) + hex(index % perLog);
}
