/** The command line without any server: what is printed where, and which exit code. */
import { COMMANDS } from '../../../bin/command-list.ts';
import { FAILURES } from '../../../core/errors.ts';
import { flagOf, settingsOf } from '../../../core/settings/settings.ts';
import { walvault } from '../../harness/command.ts';

const paths = COMMANDS.map(({ path }) => path);

test.each(paths)("'%s --help' has examples, settings with their variables, and ends well", async (path) => {
  const { code, out, err } = await walvault([...path.split(' '), '--help']);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toContain(`Usage: walvault ${path}`);
  expect(out).toContain('Examples:');
  expect(out).toMatch(/WALVAULT_(VAULT|PGDATA|POLL_INTERVAL)/);
});

test.each(paths)("'help %s' is the same page", async (path) => {
  const [one, other] = [
    await walvault(['help', ...path.split(' ')]),
    await walvault([...path.split(' '), '--help']),
  ];
  expect(one).toEqual(other);
});

test('--help lists every command and the way from nothing to a standby', async () => {
  const { code, out } = await walvault(['--help']);
  expect(code).toBe(0);
  for (const path of paths) expect(out).toContain(path.split(' ')[0]);
  expect(out).toContain('walvault standby create --pgdata $S --node db2');
});

test('--version is that of package.json', async () => {
  expect((await walvault(['--version'])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
});

describe('what is mistyped is a usage failure with a hint, on standard error only', () => {
  test.each([
    [[], /a command is wanted/, /walvault --help/],
    [['standby'], /a command is wanted/, /walvault standby --help/],
    [['stauts'], /unknown command 'stauts'.*Did you mean status/, /walvault --help/],
    [['status', '--jsno'], /unknown option '--jsno'.*Did you mean --json/, /walvault status --help/],
    [['status', 'main'], /too many arguments/, /walvault status --help/],
    [['trigger', '--to', 'db2'], /missing required argument 'mode'/, /walvault trigger --help/],
    [['trigger', 'soft', '--to', 'db2'], /'soft'.*smart, fast/, /walvault trigger --help/],
    [['trigger', 'smart', '--to'], /argument missing/, /walvault trigger --help/],
    [
      ['trigger', 'smart', '--vault', 'memory:usage', '--cluster', 'main'],
      /the target is missing/,
      /--to NODE/,
    ],
    [['status', '--cluster', 'main'], /vault is not given/, /--vault.*WALVAULT_VAULT/],
    [['status', '--vault', 'memory:usage'], /cluster is not given/, /--cluster/],
    [['status', '--vault', 'nonsense', '--cluster', 'main'], /--vault: "nonsense" is not a URL/, /s3:/],
    [['status', '--vault', 'memory:usage', '--cluster', 'a/b'], /--cluster: "a\/b" is not a name/, /letters/],
    [['status', '--vault-timeout', '10'], /--vault-timeout: "10" needs a unit/, /10|20s/],
  ])('walvault %j', async (words, message, hint) => {
    const { code, out, err } = await walvault(words);
    expect({ code, out }).toEqual({ code: FAILURES.usage.exit, out: '' });
    expect(err).toMatch(/^walvault: \[usage\] /);
    expect(err).toMatch(message);
    expect(err).toMatch(hint);
    expect(err.trimEnd().split('\n').at(-1)).toMatch(/^HINT: /);
  });
});

test('with --json a failure is one JSON object on standard error, and nothing else is said', async () => {
  const { code, out, err } = await walvault([
    'status',
    '--vault',
    'memory:empty',
    '--cluster',
    'main',
    '--json',
  ]);
  expect({ code, out }).toEqual({ code: FAILURES.unconfigured.exit, out: '' });
  expect(JSON.parse(err)).toEqual({
    error: {
      code: 'unconfigured',
      exit: FAILURES.unconfigured.exit,
      retry: false,
      message: expect.stringContaining('no cluster main'),
      hint: expect.any(String),
    },
  });
});

test('--debug adds the stack of a failure, which is not shown without it', async () => {
  const words = ['status', '--vault', 'memory:empty', '--cluster', 'main'];
  expect((await walvault(words)).err).not.toMatch(/ at /);
  expect((await walvault([...words, '--debug'])).err).toMatch(/DEBUG: .* at /);
});

test('--debug tells what was asked, and where settings came from; without it nobody listens', async () => {
  const words = ['status', '--vault', 'memory:empty', '--cluster', 'main'];
  const { err } = await walvault([...words, '--debug']);
  expect(err).toMatch(/^DEBUG: cluster = main \(flag\)$/m);
  expect(err).toMatch(/^DEBUG: \+\d+ ms manifest get main control: nothing \(\d+\.\d ms\)$/m);
  expect((await walvault(words, { WALVAULT_DEBUG: '1' })).err).toMatch(/manifest get/);
  expect((await walvault(words)).err).not.toContain('DEBUG');
});

test('--debug of a setting that may hold a secret says that it is given, no more', async () => {
  const words = ['configure', 'primary', '--vault', 'memory:empty', '--cluster', 'main', '--debug'];
  const { err } = await walvault([...words, '--on-role-change', 'curl -H token:geheim dns']);
  expect(err).toContain('DEBUG: on_role_change = (given) (flag)');
  expect(err).not.toContain('geheim');
});

test('vault, cluster and node are taken in front of the command, too', async () => {
  const { err } = await walvault(['--vault', 'memory:empty', '--cluster', 'other', 'status']);
  expect(err).toMatch(/no cluster other in memory:empty/);
});

test('--show-settings says of each setting where it came from, and does nothing', async () => {
  const { code, out } = await walvault(['status', '--show-settings', '--cluster', 'main', '--json'], {
    WALVAULT_VAULT: 'file:///nowhere',
    AWS_REGION: 'eu-west-1',
  });
  expect(code).toBe(0);
  const rows = JSON.parse(out) as { name: string; value: string; origin: string }[];
  expect(rows).toEqual(
    expect.arrayContaining([
      { name: 'vault', value: 'file:///nowhere', origin: 'environment' },
      { name: 'cluster', value: 'main', origin: 'flag' },
      { name: 'aws_region', value: 'eu-west-1', origin: 'environment' },
      { name: 'vault_timeout', value: '10s', origin: 'default' },
      { name: 'pgdata', value: null, origin: 'not given' },
    ]),
  );
});

test('every setting that configure keeps, or a command uses, is an option of one', () => {
  const taken = new Set(COMMANDS.flatMap(({ settings }) => settings.map(flagOf)));
  for (const user of ['operator', 'configure', 'backup', 'standby create'] as const)
    for (const name of settingsOf(user)) expect(taken).toContain(flagOf(name));
});
