/**
 * Where this program lives: the checkout or the installed package, found from the running file upwards, so that it is the same
 * from a bundle in dist/ and from the sources.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** The folder that holds package.json. */
export function programRoot(from: string = import.meta.dirname): string {
  let folder = from;
  while (!existsSync(path.join(folder, 'package.json'))) {
    const parent = path.dirname(folder);
    if (parent === folder) throw new Error(`no package.json above ${from}`);
    folder = parent;
  }
  return folder;
}

/** As package.json says. */
export function programVersion(): string {
  const parsed: unknown = JSON.parse(readFileSync(path.join(programRoot(), 'package.json'), 'utf8'));
  if (typeof parsed === 'object' && parsed !== null && 'version' in parsed) return String(parsed.version);
  return '0.0.0';
}
