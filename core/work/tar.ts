/**
 * The tar format, as far as BASE_BACKUP and our bundles use it: ustar headers of 512 bytes, contents padded to 512, files,
 * directories and links.
 *
 * Bundles are plain tar so that a backup can be unpacked by hand, with zstd and tar alone, should this program be lost.
 * Pure. Source: POSIX, pax Interchange Format, "ustar Interchange Format"; PostgreSQL, src/port/tar.c.
 */
import { VaultError } from '../errors.ts';

export const BLOCK = 512;
/** Two blocks of zeros end an archive. */
export const END_OF_ARCHIVE = 2 * BLOCK;

export type TarEntry = {
  kind: 'file' | 'directory' | 'link';
  /** As the header says, without a `/` at the end. */
  path: string;
  /** Permission bits. */
  mode: number;
  sizeBytes: number;
  /** Where a link leads to; '' else. */
  target: string;
};

export type TarPiece =
  { kind: 'entry'; entry: TarEntry } | { kind: 'content'; bytes: Buffer } | { kind: 'end'; entry: TarEntry };

/** Bytes that a content of this size takes in an archive. */
export const padded = (sizeBytes: number): number => Math.ceil(sizeBytes / BLOCK) * BLOCK;

/** Cuts one archive, which comes in chunks of any size, into entries and contents; keeps at most one header. */
export class TarReader {
  #header: Buffer = Buffer.alloc(0);
  #entry: TarEntry | undefined;
  #contentLeft = 0;
  #padLeft = 0;
  #over = false;

  /** Contents are views on `chunk`. @throws VaultError corrupt (a header whose checksum is wrong) */
  *read(chunk: Buffer): Generator<TarPiece, void, void> {
    let at = 0;
    while (at < chunk.length && !this.#over) {
      if (this.#contentLeft > 0) {
        const take = Math.min(this.#contentLeft, chunk.length - at);
        yield { kind: 'content', bytes: chunk.subarray(at, at + take) };
        at += take;
        this.#contentLeft -= take;
        if (this.#contentLeft === 0) yield* this.#finish();
      } else if (this.#padLeft > 0) {
        const skip = Math.min(this.#padLeft, chunk.length - at);
        at += skip;
        this.#padLeft -= skip;
      } else {
        const take = Math.min(BLOCK - this.#header.length, chunk.length - at);
        this.#header = Buffer.concat([this.#header, chunk.subarray(at, at + take)]);
        at += take;
        if (this.#header.length === BLOCK) yield* this.#open();
      }
    }
  }

  /** @throws VaultError corrupt  when the archive stops in the middle of something */
  end(): void {
    if (this.#over || (this.#entry === undefined && this.#header.length === 0)) return;
    throw new VaultError(
      'corrupt',
      `a tar archive of the base backup ends within ${this.#entry?.path ?? 'a header'}`,
    );
  }

  *#open(): Generator<TarPiece, void, void> {
    const header = this.#header;
    this.#header = Buffer.alloc(0);
    if (header.every((byte) => byte === 0)) {
      this.#over = true;
      return;
    }
    this.#entry = parseHeader(header);
    this.#contentLeft = this.#entry.sizeBytes;
    this.#padLeft = padded(this.#contentLeft) - this.#contentLeft;
    yield { kind: 'entry', entry: this.#entry };
    if (this.#contentLeft === 0) yield* this.#finish();
  }

  *#finish(): Generator<TarPiece, void, void> {
    const entry = this.#entry;
    this.#entry = undefined;
    if (entry !== undefined) yield { kind: 'end', entry };
  }
}

function parseHeader(header: Buffer): TarEntry {
  if (Number(octal(header.subarray(148, 156))) !== checksum(header)) {
    throw new VaultError('corrupt', 'a tar header of the base backup has a wrong checksum');
  }
  const prefix = text(header.subarray(345, 500));
  const name = text(header.subarray(0, 100));
  const path = prefix === '' ? name : `${prefix}/${name}`;
  const type = String.fromCharCode(header[156] ?? 0);
  const kind =
    type === '5' ? 'directory' : type === '2' ? 'link' : type === '0' || type === '\0' ? 'file' : undefined;
  if (kind === undefined)
    throw new VaultError('corrupt', `the base backup holds ${path} of tar type ${JSON.stringify(type)}`);
  return {
    kind,
    path: path.replace(/^\.\//, '').replace(/\/+$/, ''),
    mode: octal(header.subarray(100, 108)) & 0o7777,
    sizeBytes: kind === 'file' ? octal(header.subarray(124, 136)) : 0,
    target: kind === 'link' ? text(header.subarray(157, 257)) : '',
  };
}

/**
 * Header of a file. A path that ustar cannot hold (a part longer than its 100 + 155 bytes) is shortened: only a reader by
 * hand sees it, the index of the backup has the true one.
 */
export function fileHeader(path: string, mode: number, sizeBytes: number): Buffer {
  const header = Buffer.alloc(BLOCK);
  const { prefix, name } = splitPath(path);
  header.write(name, 0, 100);
  header.write(`${(mode & 0o7777).toString(8).padStart(7, '0')}\0`, 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  writeNumber(header, 124, 12, sizeBytes);
  header.write('00000000000\0', 136);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar\0', 257);
  header.write('00', 263);
  header.write(prefix, 345, 155);
  header.write(`${checksum(header).toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

function splitPath(path: string): { prefix: string; name: string } {
  if (Buffer.byteLength(path) <= 100) return { prefix: '', name: path };
  for (let at = path.indexOf('/'); at > 0; at = path.indexOf('/', at + 1)) {
    const prefix = path.slice(0, at);
    const name = path.slice(at + 1);
    if (Buffer.byteLength(name) <= 100 && Buffer.byteLength(prefix) <= 155) return { prefix, name };
  }
  return {
    prefix: '',
    name: Buffer.from(path)
      .subarray(-90)
      .toString('latin1')
      .replaceAll(/[^\x20-\x7e]/g, '_'),
  };
}

/** Octal, or base 256 where octal is too short (files of 8 GiB and more). */
function writeNumber(header: Buffer, at: number, length: number, value: number): void {
  const digits = value.toString(8);
  if (digits.length < length) {
    header.write(`${digits.padStart(length - 1, '0')}\0`, at);
    return;
  }
  header[at] = 0x80;
  header.writeBigUInt64BE(BigInt(value), at + length - 8);
}

function octal(field: Buffer): number {
  if (((field[0] ?? 0) & 0x80) !== 0) return Number(field.readBigUInt64BE(field.length - 8));
  const digits = field.toString('latin1').replaceAll(/[\0 ]/g, '');
  return digits === '' ? 0 : parseInt(digits, 8);
}

function checksum(header: Buffer): number {
  let sum = 0;
  for (let index = 0; index < BLOCK; index += 1)
    sum += index >= 148 && index < 156 ? 32 : (header[index] ?? 0);
  return sum;
}

function text(field: Buffer): string {
  const end = field.indexOf(0);
  const bytes = end < 0 ? field : field.subarray(0, end);
  const decoded = bytes.toString('utf8');
  if (!Buffer.from(decoded).equals(bytes)) {
    throw new VaultError(
      'refused',
      `the data directory holds a file whose name is not UTF-8: ${bytes.toString('latin1')}`,
      {
        hint: 'Such a file is not of PostgreSQL: move it out of the data directory.',
      },
    );
  }
  return decoded;
}
