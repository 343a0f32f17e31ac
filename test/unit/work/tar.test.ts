import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import {
  BLOCK,
  END_OF_ARCHIVE,
  fileHeader,
  padded,
  TarReader,
  type TarEntry,
} from '../../../core/work/tar.ts';

const archiveOf = (files: { path: string; content: Buffer }[]): Buffer =>
  Buffer.concat([
    ...files.flatMap(({ path, content }) => [
      fileHeader(path, 0o640, content.length),
      content,
      Buffer.alloc(padded(content.length) - content.length),
    ]),
    Buffer.alloc(END_OF_ARCHIVE),
  ]);

/** Reads an archive that comes in pieces cut at these places. */
function readIn(archive: Buffer, pieceSize: number): { entry: TarEntry; content: Buffer }[] {
  const reader = new TarReader();
  const found: { entry: TarEntry; content: Buffer }[] = [];
  for (let at = 0; at < archive.length; at += pieceSize) {
    for (const piece of reader.read(archive.subarray(at, at + pieceSize))) {
      if (piece.kind === 'entry') found.push({ entry: piece.entry, content: Buffer.alloc(0) });
      else if (piece.kind === 'content') {
        const last = found.at(-1)!;
        last.content = Buffer.concat([last.content, piece.bytes]);
      }
    }
  }
  reader.end();
  return found;
}

describe('tar', () => {
  test('what is written is read again, however the stream is cut', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            size: fc.nat(2000),
            path: fc.stringMatching(/^[a-z]{1,40}(\/[a-zA-Z0-9_.]{1,50}){0,3}[a-z]$/),
          }),
          { maxLength: 8 },
        ),
        fc.integer({ min: 1, max: 3000 }),
        (files, pieceSize) => {
          const written = files.map(({ path, size }, index) => ({
            path,
            content: Buffer.alloc(size, index + 1),
          }));
          const read = readIn(archiveOf(written), pieceSize);
          expect(read.map(({ entry, content }) => ({ path: entry.path, content }))).toEqual(written);
          expect(read.every(({ entry }) => entry.mode === 0o640 && entry.kind === 'file')).toBe(true);
        },
      ),
    );
  });

  test('the tar of this machine reads it too, long paths and all', () => {
    const long = `base/${'d'.repeat(60)}/${'f'.repeat(80)}.part-00001`;
    const archive = archiveOf([
      { path: 'PG_VERSION', content: Buffer.from('15\n') },
      { path: long, content: Buffer.alloc(700, 7) },
    ]);
    expect(execFileSync('tar', ['-t'], { input: archive, encoding: 'utf8' }).split('\n').slice(0, 2)).toEqual(
      ['PG_VERSION', long],
    );
  });

  test('directories and links of the tar of this machine are told apart', () => {
    const archive = execFileSync('sh', [
      '-c',
      'd=$(mktemp -d) && cd $d && mkdir -p a/b && ln -s /else a/link && echo hi > a/b/f && tar --format=ustar -c a && rm -r $d',
    ]);
    expect(readIn(archive, 333).map(({ entry }) => [entry.kind, entry.path, entry.target])).toEqual(
      expect.arrayContaining([
        ['directory', 'a', ''],
        ['link', 'a/link', '/else'],
        ['file', 'a/b/f', ''],
      ]),
    );
  });

  test('a file of 8 GiB and more has its size in base 256', () => {
    const [entry] = [...new TarReader().read(fileHeader('large', 0o600, 20 * 2 ** 30))];
    expect(entry).toMatchObject({ kind: 'entry', entry: { sizeBytes: 20 * 2 ** 30 } });
  });

  test('a damaged header and a stream that stops in the middle are refused', () => {
    const archive = archiveOf([{ path: 'x', content: Buffer.alloc(600) }]);
    const damaged = Buffer.from(archive);
    damaged[3] = 1;
    expect(() => readIn(damaged, BLOCK)).toThrow(expect.objectContaining({ code: 'corrupt' }));
    expect(() => readIn(archive.subarray(0, 900), BLOCK)).toThrow(
      expect.objectContaining({ code: 'corrupt' }),
    );
  });
});
