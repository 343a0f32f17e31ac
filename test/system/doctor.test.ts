/**
 * Doctor on a real site: faults are planted one by one, doctor must find each, and its advice, followed literally (the command run
 * as it stands, the sentence done as it says), must end it.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import {
  chmodSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { keys } from '../../core/cluster/facts.ts';
import { after } from '../../core/vault/manifest.ts';
import { openCluster } from '../../core/work/cluster.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { onePair } from '../harness/pairs.ts';
import { pgBin, type TestServer } from '../harness/postgres.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite, walvaultFile } from '../harness/site.ts';
import { endOf } from '../harness/walvault-command.ts';

type Finding = { what: string; state: 'ok' | 'warn' | 'bad'; says: string; fix?: string; run?: string };

const pair = onePair(0);

describe(`doctor on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer;
  let db2: TestServer;
  const state = (name = '') => path.join(site.state('db1'), name);
  const edit = (file: string, change: (text: string) => string) =>
    writeFileSync(file, change(readFileSync(file, 'utf8')));

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      linkedWal: true,
      pathPiece: " o'clock",
      // its record would have archive_timeout end a segment
      settings: { checkpoint_timeout: '1h' },
      walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' },
    });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    await site.canBeTarget('db2');
    await site.archiveNow();
  });
  afterAll(() => site.close());

  /** Doctor's exit status and findings, at a node. */
  async function doctor(node = 'db1', ...args: string[]): Promise<{ status: number; findings: Finding[] }> {
    const words = ['doctor', '--pgdata', site.server(node).pgdata, '--json', ...args];
    const { status, stdout, stderr } = await site.walvaultAt(node, ...words);
    try {
      return { status, findings: (JSON.parse(stdout) as { findings: Finding[] }).findings };
    } catch (cause) {
      throw new Error(`doctor ended with ${status}: ${stdout}${stderr}`, { cause });
    }
  }

  /** As a person pastes it: by sh, with walvault and PostgreSQL's own programs in the PATH. */
  async function paste(line: string): Promise<void> {
    const folders = [path.dirname(walvaultFile), pgBin(pair.major), process.env['PATH']];
    const env = { ...site.personEnv, ...db1.env, PATH: folders.join(':'), PGUSER: 'postgres' };
    const shared = Object.fromEntries(
      Object.entries(site.personEnv).filter(([name]) => name.startsWith('WALVAULT_')),
    );
    const { status, stdout, stderr } = await endOf('/bin/sh', ['-c', line], {
      env: { ...env, ...shared },
      cwd: site.scratch,
    });
    if (status !== 0) throw new Error(`${line}\nended with ${status}: ${stdout}${stderr}`);
  }

  const amiss = (findings: Finding[]) => findings.filter(({ state: how }) => how !== 'ok');

  /** On an agent that was ended, or a report that has not come yet: it is there within seconds. Exit status 0, and every line ok. */
  async function isWell(node = 'db1'): Promise<void> {
    let last: Finding[] = [];
    await waitFor(`${node} is well`, 20_000, async () => {
      const { status, findings } = await doctor(node);
      last = findings;
      return amiss(findings).length === 0 && status === 0;
    }).catch((cause: unknown) => {
      throw new Error(`${node} is not well: ${JSON.stringify(amiss(last), null, 2)}`, { cause });
    });
  }

  /** Nothing waits to be archived, and archive_timeout ends no segment within the next minute: no hook starts an agent again. */
  const isQuiet = async (node = 'db1') => {
    await site.archiveNow(node);
    await site.server(node).allArchived();
  };
  const stopAgent = async () => {
    await isQuiet();
    await killHard(site.agentPids('db1'));
  };

  type Fault = {
    /** The check that finds it, and how bad it is. */
    found: [what: string, state: 'warn' | 'bad', says: RegExp];
    plant: () => Promise<void> | void;
    /** Where the advice is a sentence: what it must say, and doing that. */
    sentence?: [RegExp, (findings: Finding[]) => Promise<void> | void];
    /** A finding may be of the other node. */
    node?: string;
  };

  const configured = (name: string, value: string) => async () => {
    await db1.query(`ALTER SYSTEM SET ${name} = '${value.replaceAll("'", "''")}'`);
    await db1.reload();
    await waitFor(`${name} is ${value}`, 5000, async () => (await db1.value(`SHOW ${name}`)) === value);
  };

  const FAULTS: Record<string, Fault> = {
    'a wrapper is gone': {
      found: ['wrappers', 'bad', /archive is not there/],
      plant: () => rmSync(state('archive')),
    },
    'a wrapper cannot be executed': {
      found: ['wrappers', 'bad', /restore cannot be executed \(600\)/],
      plant: () => chmodSync(state('restore'), 0o600),
    },
    'a wrapper was edited': {
      found: ['wrappers', 'bad', /cleanup is not what this version writes/],
      plant: () => edit(state('cleanup'), (text) => text.replace('exit 0', 'exit 1')),
    },
    'a wrapper can be written by everybody': {
      found: ['permissions', 'bad', /archive can be written by others \(777\)/],
      plant: () => chmodSync(state('archive'), 0o777),
    },
    'the state directory is open to others': {
      found: ['permissions', 'warn', /open to others \(755/],
      plant: () => chmodSync(state(), 0o755),
    },
    'the state directory is closed to everybody': {
      found: ['state directory', 'bad', /closed to its own user \(000\)/],
      plant: () => chmodSync(state(), 0),
    },
    'settings.toml cannot be read': {
      found: ['permissions', 'bad', /settings.toml cannot be read/],
      plant: () => chmodSync(state('settings.toml'), 0),
    },
    'settings.toml holds what nobody knows': {
      found: ['settings', 'bad', /unknown setting "colour"/],
      plant: () => edit(state('settings.toml'), (text) => `${text}\ncolour = "red"\n`),
      sentence: [
        /take that line out/,
        () => edit(state('settings.toml'), (text) => text.replace('colour = "red"\n', '')),
      ],
    },
    'settings.toml names another cluster than the person': {
      found: ['settings', 'warn', /cluster is main by environment, but other in settings.toml/],
      plant: () =>
        edit(state('settings.toml'), (text) => text.replace('cluster = "main"', 'cluster = "other"')),
    },
    'the program link leads nowhere': {
      found: ['program', 'bad', /where no walvault is/],
      plant: () => {
        unlinkSync(state('program'));
        symlinkSync('/nowhere/walvault', state('program'));
      },
    },
    'the link to Node is gone': {
      found: ['program', 'bad', /node is not there/],
      plant: () => unlinkSync(state('node')),
    },
    'identity.json is gone': {
      found: ['identity', 'bad', /no identity.json/],
      plant: () => rmSync(state('identity.json')),
    },
    'the data directory is another one than was configured': {
      found: ['identity', 'bad', /is another directory/],
      plant: () => edit(state('identity.json'), (text) => text.replace(/"inode": "\d+"/, '"inode": "1"')),
    },
    'the state directory came from another machine': {
      found: ['identity', 'bad', /configured on machine elsewhere/],
      plant: () =>
        edit(state('identity.json'), (text) =>
          text.replace(/"machineId": "[^"]+"/, '"machineId": "elsewhere"'),
        ),
    },
    'archive_command is that of another tool': {
      found: ['parameters', 'bad', /archive_command is false/],
      plant: configured('archive_command', 'false'),
    },
    'archiving stands still': {
      found: ['archiving', 'bad', /stands still: \d+ files? waits?/],
      plant: async () => {
        await configured('archive_command', 'false')();
        await db1.query(`SELECT pg_create_restore_point('still')`);
        await db1.query('SELECT pg_switch_wal()');
        await waitFor('a try that failed', 20_000, async () =>
          Boolean(await db1.value('SELECT last_failed_time > last_archived_time FROM pg_stat_archiver')),
        );
      },
      sentence: [
        /the reason is among the other findings/,
        async (findings) => {
          expect(findings.find(({ says }) => /pg_wal is full in about \d+ min/.test(says))).toBeDefined();
          await paste(findings.find(({ what, state: how }) => what === 'parameters' && how === 'bad')!.run!);
        },
      ],
    },
    'restore_command was taken away': {
      found: ['parameters', 'bad', /restore_command is not set/],
      plant: configured('restore_command', ''),
    },
    'archive_cleanup_command was taken away': {
      found: ['parameters', 'warn', /archive_cleanup_command is not set/],
      plant: configured('archive_cleanup_command', ''),
    },
    'recovery_end_command is another': {
      found: ['parameters', 'warn', /recovery_end_command is true/],
      plant: configured('recovery_end_command', 'true'),
    },
    'archive_timeout is off': {
      found: ['parameters', 'warn', /archive_timeout is 0/],
      plant: configured('archive_timeout', '0'),
    },
    'wal_retrieve_retry_interval is slow': {
      found: ['parameters', 'warn', /wal_retrieve_retry_interval is 5s/],
      plant: configured('wal_retrieve_retry_interval', '5s'),
    },
    'archive_mode is off': {
      found: ['parameters', 'bad', /archive_mode is off/],
      plant: async () => {
        await db1.query('ALTER SYSTEM SET archive_mode = off');
        await db1.stop();
        await db1.start();
      },
    },
    'a change waits for a restart': {
      found: ['pending', 'warn', /archive_mode: written, and not in force before a restart/],
      plant: async () => {
        await db1.query('ALTER SYSTEM SET archive_mode = always');
        await db1.reload();
        await waitFor('pending', 5000, async () =>
          Boolean(await db1.value(`SELECT pending_restart FROM pg_settings WHERE name = 'archive_mode'`)),
        );
      },
    },
    'a change waits for a reload': {
      found: ['pending', 'warn', /archive_timeout: written, and not in force before a reload/],
      plant: async () => void (await db1.query(`ALTER SYSTEM SET archive_timeout = '61s'`)),
    },
    'postgresql.conf has a line that PostgreSQL refuses': {
      found: ['pending', 'bad', /postgresql.conf \(work_mem\)/],
      plant: () => db1.configure({ work_mem: 'banana' }),
      sentence: [
        /take line \d+ out of .+postgresql.conf/,
        () =>
          edit(path.join(db1.pgdata, 'postgresql.conf'), (text) => text.replace(`work_mem = 'banana'\n`, '')),
      ],
    },
    'the agent was killed': {
      found: ['agent', 'warn', /none runs/],
      plant: stopAgent,
    },
    'the agent hangs': {
      found: ['agent', 'bad', /does not answer/],
      plant: async () => {
        await isQuiet(); // a hook that it does not answer would be at work beside the advice
        const [pid] = await waitFor(
          'an agent',
          20_000,
          () => site.agentPids('db1').length === 1 && site.agentPids('db1'),
        );
        process.kill(pid!, 'SIGSTOP');
      },
    },
    'segments went to another archive for a while': {
      found: ['chain', 'bad', /PostgreSQL takes it for archived, the vault has not got it/],
      plant: async () => {
        const command = String(await db1.value('SHOW archive_command'));
        await configured('archive_command', 'true')();
        await killHard(site.agentPids('db1'));
        await db1.query(`SELECT pg_create_restore_point('elsewhere')`);
        const name = String(await db1.value('SELECT pg_walfile_name(pg_switch_wal())'));
        await waitFor(`${name} is done`, 20_000, () =>
          existsSync(path.join(db1.pgdata, 'pg_wal/archive_status', `${name}.done`)),
        );
        await configured('archive_command', command)();
      },
    },
    'standby.signal beside the open primary': {
      found: ['signal files', 'bad', /beside the open primary/],
      plant: () => writeFileSync(path.join(db1.pgdata, 'standby.signal'), ''),
    },
    'a tablespace link leads nowhere': {
      found: ['tablespaces', 'bad', /where nothing is/],
      plant: () => symlinkSync('/nowhere/space', path.join(db1.pgdata, 'pg_tblspc/99999')),
      sentence: [/remove the link/, () => unlinkSync(path.join(db1.pgdata, 'pg_tblspc/99999'))],
    },
    'the vault is away': {
      found: ['vault', 'bad', /\[(unconfigured|unreachable|local)\]/],
      plant: () => renameSync(fileURLToPath(site.vault.url), path.join(site.scratch, 'away')),
      sentence: [/./, () => renameSync(path.join(site.scratch, 'away'), fileURLToPath(site.vault.url))],
    },
    'the server crashed': {
      found: ['server', 'warn', /no server runs/],
      plant: () => db1.stop('immediate'),
    },
    'another copy of this node wrote': {
      found: ['writer', 'bad', /\[copied\]/],
      plant: async () => {
        await stopAgent();
        edit(state('writer.json'), () => JSON.stringify({ epoch: 1, nonce: '0123456789abcdef', next: null }));
      },
    },
    'a trigger file was left behind': {
      found: ['signal files', 'bad', /a file 'promote' was left behind/],
      plant: async () => {
        await db1.stop();
        writeFileSync(path.join(db1.pgdata, 'promote'), '');
      },
    },
    'no base backup is complete': {
      found: ['backups', 'warn', /none is complete/],
      plant: async () => {
        if (db1.pid() === undefined) await db1.start();
        await site.withVault(async ({ manifest }) => {
          const { cluster } = site;
          const id = (await manifest.get(keys.control(cluster)))!['systemIdentifier'] as string;
          const pk = keys.partition(cluster, id);
          for await (const row of manifest.query({ pk, from: 'backup#', to: after('backup#') }))
            await manifest.transact([
              { do: 'put', row: { ...row, rev: row.rev + 1, state: 'failed' }, when: { rev: row.rev } },
            ]);
        });
      },
    },
    'a node fell silent': {
      found: ['nodes', 'warn', /db2 \(standby\) was last heard of 2 h ago/],
      plant: async () => {
        await db2.stop();
        await waitFor('the end of the agent of db2', 20_000, () => site.agentPids('db2').length === 0);
        await site.withVault(async (vault) => {
          const cluster = await openCluster(vault, site.cluster);
          const at = new Date(Date.now() - 2 * 3_600_000).toISOString();
          await reportNode(cluster, { name: 'db2' }, at);
        });
      },
      sentence: [/start it/, () => db2.start()],
    },
    'a standby whose replay was paused': {
      node: 'db2',
      found: ['server', 'warn', /replay is paused/],
      plant: async () => void (await db2.query('SELECT pg_wal_replay_pause()')),
      sentence: [
        /SELECT pg_wal_replay_resume\(\)/,
        async () => void (await db2.query('SELECT pg_wal_replay_resume()')),
      ],
    },
    'a standby that stops at a recovery target': {
      node: 'db2',
      found: ['parameters', 'bad', /recovery_target_name is never: this standby stops there/],
      plant: async () => {
        await db2.query(`ALTER SYSTEM SET recovery_target_name = 'never'`);
        await db2.stop();
        await db2.start();
      },
    },
    'a standby that lost its signal file': {
      node: 'db2',
      found: ['signal files', 'bad', /no signal file, though the server was in recovery/],
      plant: async () => {
        await db2.stop('immediate');
        rmSync(path.join(db2.pgdata, 'standby.signal'));
      },
    },
  };

  test('a node that is well: every line is ok, exit 0, of primary and standby', async () => {
    for (const node of ['db1', 'db2']) await isWell(node);
  });

  test.each(Object.keys(FAULTS))('%s: found, and its advice mends it', async (name) => {
    const { node = 'db1', found, plant, sentence } = FAULTS[name]!;
    const [what, how, says] = found;
    await plant();
    const planted = await doctor(node);
    const finding = planted.findings.find((one) => one.what === what && says.test(one.says));
    if (finding === undefined)
      throw new Error(`not found: ${JSON.stringify(amiss(planted.findings), null, 2)}`);
    expect(finding.state).toBe(how);
    expect(planted.status).toBe(planted.findings.some(({ state: worst }) => worst === 'bad') ? 2 : 1);
    if (sentence !== undefined) {
      expect(finding.fix).toMatch(sentence[0]);
      await sentence[1](planted.findings);
    } else expect(finding.run).toBeDefined();
    if (finding.run !== undefined) await paste(finding.run);
    await waitFor(`the end of: ${finding.says}`, 6_000, async () => {
      const { findings } = await doctor(node);
      return !findings.some((one) => one.what === what && one.state !== 'ok');
    });
  });

  test('all of it mended, both are well, and segments arrive', async () => {
    for (const server of [db1, db2]) if (server.pid() === undefined) await server.start();
    await site.archiveNow();
    for (const node of ['db1', 'db2']) await isWell(node);
  });

  test('a primary that was fenced: stopped and made a standby by its advice', async () => {
    await db1.stop('immediate');
    await killHard(site.agentPids('db1'));
    await site.trigger('fast', 'db2');
    await site.promoted('db2', 20_000);
    await db1.start();
    const { status, findings } = await doctor();
    const writer = findings.find(({ what }) => what === 'writer');
    expect({ status, writer }).toMatchObject({
      status: 2,
      writer: { state: 'bad', says: expect.stringMatching(/^\[fenced\]/) as string },
    });
    await site.backup('db2');
    await paste(writer!.run!);
    await site.archiveNow('db2');
    await isWell();
  });

  test('looks only: neither the vault nor a file of the node is changed; --probe says what it did', async () => {
    await isQuiet('db2');
    const before = await site.contents();
    await doctor('db2');
    expect((await site.contents()).objects).toEqual(before.objects);
    const { findings } = await doctor('db2', '--probe');
    const said = findings.filter(({ what }) => what === 'probe');
    expect(said.map(({ state: how, says }) => `${how} ${says.split(':')[0]}`)).toEqual([
      ...['ok bucket', 'ok manifest', 'ok delete'],
    ]);
    expect((await site.contents()).objects.filter((key) => key.endsWith('db2.probe'))).toEqual([]);
  });

  test('--debug tells statements and questions with their times, and no secret', async () => {
    const env = { ...site.personEnvOf('db2'), PGPASSWORD: 'geheim-1', AWS_SECRET_ACCESS_KEY: 'geheim-2' };
    const words = ['doctor', '--pgdata', db2.pgdata, '--debug'];
    const { stderr, stdout } = await endOf(walvaultFile, words, { env, cwd: site.scratch });
    expect(stderr).toMatch(/^DEBUG: \+\d+ ms connect to .+ as postgres: done/m);
    expect(stderr).toMatch(/^DEBUG: \+\d+ ms sql SELECT .* \(\d+\.\d ms\)$/m);
    expect(stderr).toMatch(/^DEBUG: \+\d+ ms manifest get main control/m);
    expect(stderr + stdout).not.toContain('geheim');
  });
});
