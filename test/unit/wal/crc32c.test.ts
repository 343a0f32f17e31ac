import fc from 'fast-check';
import { crc32c } from '../../../core/wal/crc32c.ts';

test('it is CRC-32C: the check value of the catalogue of CRCs, and the vectors of RFC 3720', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe306_9283);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a91_36aa);
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8_ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, at) => at))).toBe(0x46dd_794e);
  expect(crc32c(new Uint8Array(0))).toBe(0);
});

test('summed piece by piece it is what the whole gives, wherever the pieces lie', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(100), fc.nat(100), (bytes, one, two) => {
      const [from, to] = [one, two].map((at) => Math.min(at, bytes.length)).sort((a, b) => a - b);
      const pieces = crc32c(bytes.subarray(to), crc32c(bytes, crc32c(bytes.subarray(0, from)), from, to));
      expect(pieces).toBe(crc32c(bytes));
    }),
  );
});
