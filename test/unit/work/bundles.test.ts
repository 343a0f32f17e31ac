import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseBackupManifest } from '../../../core/work/backup-manifest.ts';
import { BundleWriter, type FullBundle } from '../../../core/work/bundles.ts';

const capacity = 16 * 1024;

async function bundled(
  files: { path: string; content: Buffer }[],
  pieceSize: number,
  store = async () => {},
) {
  const bundles: FullBundle[] = [];
  let [now, most] = [0, 0];
  const writer = new BundleWriter({
    bundleSizeBytes: capacity,
    parallel: 3,
    store: async (bundle) => {
      most = Math.max(most, (now += 1));
      bundles.push({ ...bundle, bytes: Buffer.from(bundle.bytes) }); // the buffer is lent
      await store();
      now -= 1;
    },
  });
  for (const { path, content } of files) {
    await writer.begin(path, 0o600, content.length);
    for (let at = 0; at < content.length; at += pieceSize)
      await writer.content(content.subarray(at, at + pieceSize));
  }
  await writer.finish();
  return { bundles: bundles.sort((left, right) => left.number - right.number), most };
}

describe('bundles', () => {
  test('every file comes out of them as it went in, none larger than a bundle may be', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(5 * capacity), { maxLength: 30 }),
        fc.integer({ min: 100, max: 40_000 }),
        async (sizes, piece) => {
          const files = sizes.map((size, index) => ({
            path: `f${index}`,
            content: Buffer.alloc(size, index + 1),
          }));
          const { bundles } = await bundled(files, piece);
          const read = new Map(files.map(({ path, content }) => [path, Buffer.alloc(content.length)]));
          const got = new Map<string, number>();
          for (const { bytes, files: parts } of bundles) {
            expect(bytes.length).toBeLessThanOrEqual(capacity);
            for (const part of parts) {
              bytes.copy(read.get(part.path)!, part.fileOffset, part.offset, part.offset + part.length);
              got.set(part.path, (got.get(part.path) ?? 0) + part.length);
            }
          }
          for (const { path, content } of files) {
            expect(got.get(path)).toBe(content.length);
            expect(read.get(path)!.equals(content)).toBe(true);
          }
          // what fits into a bundle is never cut
          const cut = bundles.flatMap(({ files: parts }) =>
            parts.filter(({ length, sizeBytes }) => length < sizeBytes),
          );
          expect(cut.every(({ sizeBytes }) => sizeBytes > capacity - 2048)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('several are stored at once, never more than allowed', async () => {
    const files = Array.from({ length: 20 }, (_, index) => ({
      path: `f${index}`,
      content: Buffer.alloc(12_000, 1),
    }));
    const { bundles, most } = await bundled(files, 5000, () => sleep(5));
    expect(bundles).toHaveLength(20);
    expect(most).toBe(3);
  });

  test('a failure to store ends the writing', async () => {
    const files = Array.from({ length: 50 }, (_, index) => ({
      path: `f${index}`,
      content: Buffer.alloc(12_000, 1),
    }));
    let calls = 0;
    const store = async () => {
      calls += 1;
      await sleep(1);
      throw new Error('no room');
    };
    await expect(bundled(files, 5000, store)).rejects.toThrow('no room');
    expect(calls).toBeLessThan(10);
  });
});

describe('backup_manifest', () => {
  const make = (body: string) =>
    `${body}"Manifest-Checksum": "${createHash('sha256').update(body).digest('hex')}"}\n`;
  const body = `{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": 7710917037797987417,\n"Files": [\n{ "Path": "a", "Size": 3, "Last-Modified": "2026-11-22 08:56:32 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "aa" },\n{ "Encoded-Path": "62", "Size": 0, "Last-Modified": "2026-11-22 08:56:32 GMT" }\n],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }\n],\n`;

  test('says every file, and a system identifier that is not rounded', () => {
    const manifest = parseBackupManifest(make(body));
    expect(manifest.systemIdentifier).toBe('7710917037797987417');
    expect(manifest.files.get('a')).toEqual({ path: 'a', sizeBytes: 3, algorithm: 'sha256', checksum: 'aa' });
    expect(manifest.files.get('b')).toMatchObject({ sizeBytes: 0, algorithm: null });
  });

  test('one byte changed, or the end cut off, is refused', () => {
    expect(() => parseBackupManifest(make(body).replace('"Size": 3', '"Size": 4'))).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
    expect(() => parseBackupManifest(make(body).slice(0, -20))).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
    expect(() => parseBackupManifest('')).toThrow(expect.objectContaining({ code: 'corrupt' }));
    expect(() => parseBackupManifest(make(body.replace('Version": 2', 'Version": 3')))).toThrow(
      expect.objectContaining({ code: 'format' }),
    );
  });
});
