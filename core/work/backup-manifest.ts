/**
 * PostgreSQL's own backup_manifest: every file of a base backup with its size and checksum.
 *
 * Version 1 (15, 16) and 2 (17 on, with the system identifier). Its last line is the SHA-256 of all lines before it.
 * Pure. Source: PostgreSQL docs, "Backup Manifest Format".
 */
import { createHash } from 'node:crypto';
import { VaultError } from '../errors.ts';

export type ManifestFile = {
  path: string;
  sizeBytes: number;
  /** As node:crypto names it; null where the manifest was made without checksums. */
  algorithm: 'sha224' | 'sha256' | 'sha384' | 'sha512' | null;
  checksum: string | null;
};

export type BackupManifest = {
  version: number;
  /** Absent before 17. */
  systemIdentifier: string | undefined;
  files: Map<string, ManifestFile>;
};

const ALGORITHMS = { SHA224: 'sha224', SHA256: 'sha256', SHA384: 'sha384', SHA512: 'sha512' } as const;

/** @throws VaultError corrupt (its own checksum fails, or it is no manifest) | format (a version or checksum kind not known) */
export function parseBackupManifest(text: string): BackupManifest {
  const last = text.lastIndexOf('\n', text.length - 2) + 1;
  const stated = /^"Manifest-Checksum": "([0-9a-f]{64})"\}/.exec(text.slice(last))?.[1];
  const sum = createHash('sha256').update(text.slice(0, last)).digest('hex');
  if (stated !== sum) {
    throw new VaultError('corrupt', 'the backup_manifest does not agree with its own checksum', {
      hint: `Take another backup; 'walvault backups' lists those there are.`,
    });
  }
  const content = parse(text);
  const version = content['PostgreSQL-Backup-Manifest-Version'];
  if (version !== 1 && version !== 2)
    throw new VaultError('format', `backup_manifest has version ${String(version)}, known are 1 and 2`);
  const files = new Map<string, ManifestFile>();
  for (const file of content.Files ?? []) {
    const name = file.Path ?? Buffer.from(file['Encoded-Path'] ?? '', 'hex').toString('utf8');
    files.set(name, { path: name, sizeBytes: file.Size, ...checksumOf(name, file) });
  }
  // JSON.parse would round it: 64 bits do not fit a number
  const systemIdentifier = /^"System-Identifier": (\d+),$/m.exec(text)?.[1];
  return { version, systemIdentifier, files };
}

type Content = {
  'PostgreSQL-Backup-Manifest-Version'?: unknown;
  Files?: {
    Path?: string;
    'Encoded-Path'?: string;
    Size: number;
    'Checksum-Algorithm'?: string;
    Checksum?: string;
  }[];
};

function parse(text: string): Content {
  try {
    return JSON.parse(text) as Content;
  } catch (error) {
    throw new VaultError('corrupt', `the backup_manifest cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function checksumOf(
  name: string,
  file: { 'Checksum-Algorithm'?: string; Checksum?: string },
): Pick<ManifestFile, 'algorithm' | 'checksum'> {
  const stated = file['Checksum-Algorithm'];
  if (stated === undefined) return { algorithm: null, checksum: null };
  const algorithm = ALGORITHMS[stated as keyof typeof ALGORITHMS];
  if (algorithm === undefined || file.Checksum === undefined) {
    throw new VaultError(
      'format',
      `backup_manifest has a checksum of kind ${stated} for ${name}, which is not known here`,
    );
  }
  return { algorithm, checksum: file.Checksum };
}
