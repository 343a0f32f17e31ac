import fc from 'fast-check';
import { formatLsn, LAST_LSN, parseLsn } from '../../../core/wal/lsn.ts';

const anyLsn = fc.bigInt({ min: 0n, max: LAST_LSN });

test.each([
  ['0/0', 0n],
  ['0/3000060', 0x3000060n],
  ['A/FE000028', 0xa_fe00_0028n],
  ['FFFFFFFF/FFFFFFFF', LAST_LSN],
])('%s is read and written as PostgreSQL prints it', (text, lsn) => {
  expect(parseLsn(text)).toBe(lsn);
  expect(formatLsn(lsn)).toBe(text);
});

test('lower case and the padded form of PostgreSQL 19 are read too', () => {
  expect(parseLsn('a/fe000028')).toBe(0xa_fe00_0028n);
  expect(parseLsn('0/03000060')).toBe(0x3000060n);
});

test.each([
  '',
  '0',
  '/',
  '0/',
  '/0',
  '0/0/0',
  '0/0 ',
  ' 0/0',
  '0/0\n',
  '0x1/0',
  '-1/0',
  '123456789/0',
  '0/123456789',
  'G/0',
])('%j is refused, not read as some other position', (text) => {
  expect(() => parseLsn(text)).toThrow(RangeError);
});

test('every position comes back from its text', () => {
  fc.assert(fc.property(anyLsn, (lsn) => parseLsn(formatLsn(lsn)) === lsn));
});

test('whatever the text: a position within 64 bits, or a RangeError', () => {
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'0123456789AF/xg ') })),
      (text) => {
        try {
          const lsn = parseLsn(text);
          return lsn >= 0n && lsn <= LAST_LSN;
        } catch (error) {
          return error instanceof RangeError;
        }
      },
    ),
  );
});

test('a position outside 64 bits has no text', () => {
  expect(() => formatLsn(-1n)).toThrow(RangeError);
  expect(() => formatLsn(LAST_LSN + 1n)).toThrow(RangeError);
});
