/** Which (PostgreSQL version, vault) pairs a run of the system tests meets: WALVAULT_TEST_PAIRS, e.g. `18:file,15:s3`. */

export type Pair = { major: number; vault: 'file' | 's3' };

const given = process.env['WALVAULT_TEST_PAIRS'] ?? '18:file';

export const pairs: (Pair & { title: string })[] = given.split(',').map((text) => {
  const [major, vault] = text.split(':');
  if (vault !== 'file' && vault !== 's3')
    throw new Error(`WALVAULT_TEST_PAIRS: ${text} is not VERSION:file or VERSION:s3`);
  return { major: Number(major), vault, title: `PostgreSQL ${major}, ${vault} vault` };
});

/** One pair for what need not be shown on each: `turn` spreads the files of a run over the pairs. */
export function onePair(turn: number): (typeof pairs)[number] {
  return pairs[turn % pairs.length]!;
}
