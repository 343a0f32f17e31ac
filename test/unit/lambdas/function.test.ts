import path from 'node:path';
import { createVault } from '../../../core/vault/open-vault.ts';
import { loadSettings } from '../../../core/settings/read.ts';
import { keptVault } from '../../../lambdas/function.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

test('a vault that could not be opened is tried again by the next call; one that was is kept', async () => {
  const scratch = makeScratch();
  try {
    const url = `file://${path.join(scratch, 'vault')}`;
    const settings = loadSettings({ flags: {}, env: {} });
    await expect(keptVault(url, settings)).rejects.toMatchObject({ code: 'unconfigured' });
    await (await createVault(url)).close();
    const vault = await keptVault(url, settings);
    expect(await keptVault(url, settings)).toBe(vault);
    await vault.close();
  } finally {
    await removeScratch(scratch);
  }
});
