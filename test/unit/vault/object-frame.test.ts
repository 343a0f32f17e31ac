import { hash } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import { FRAME_BYTES, makeFrame, readFrame } from '../../../core/vault/object-frame.ts';

const body = Buffer.from('the body');

test('facts, size and hash come back from the frame', () => {
  const frame = makeFrame(body, { node: 'db1' });
  expect(frame).toHaveLength(FRAME_BYTES);
  expect(readFrame('k', frame, FRAME_BYTES + body.length)).toEqual({
    sizeBytes: 8,
    sha256: hash('sha256', body, 'hex'),
    facts: { node: 'db1' },
  });
});

test('the frame is one that zstd skips: its magic number, and a length that leads to the body', () => {
  const object = Buffer.concat([makeFrame(body, {}), zstdCompressSync(body)]);
  expect(object.readUInt32LE(0) & 0xfffffff0).toBe(0x184d2a50);
  const next = 8 + object.readUInt32LE(4);
  expect(next).toBe(FRAME_BYTES);
  expect(object.readUInt32LE(next)).toBe(0xfd2fb528); // a zstd frame
});

test('a person can read the frame: text, with a line feed at its end', () => {
  const text = makeFrame(body, { node: 'db1' }).toString('latin1', 8);
  expect(text).toMatch(/^\{"walvault":1,.*"facts":\{"node":"db1"\}\} +\n$/);
});

test.each([
  ['empty', () => Buffer.alloc(0)],
  ['cut within the frame', (object: Buffer) => object.subarray(0, 1000)],
  ['cut within the body', (object: Buffer) => object.subarray(0, object.length - 1)],
  ['longer', (object: Buffer) => Buffer.concat([object, Buffer.from('x')])],
  ['zeroed', (object: Buffer) => Buffer.alloc(object.length)],
  ['zeroed in the facts', (object: Buffer) => Buffer.from(object).fill(0, 20, 60)],
])('an object that is %s is corrupt', (_, damage) => {
  const damaged = damage(Buffer.concat([makeFrame(body, { node: 'db1' }), body]));
  expect(() => readFrame('main/a', damaged, damaged.length)).toThrow(
    expect.objectContaining({ code: 'corrupt' }),
  );
});

test('a frame of a later format is said to be newer, not corrupt', () => {
  const later = Buffer.from(
    makeFrame(body, {}).toString('latin1').replace('"walvault":1', '"walvault":2'),
    'latin1',
  );
  expect(() => readFrame('main/a', later, FRAME_BYTES + body.length)).toThrow(
    expect.objectContaining({ code: 'format' }),
  );
});
