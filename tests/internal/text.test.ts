import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { cut, printable, utf8Length } from '../../src/internal/text.ts';

const anyText = fc.string({ unit: fc.nat({ max: 0xffff }).map((c) => String.fromCharCode(c)) });

describe('printable()', () => {
  it.each([
    ['line feed', 'a\nb'],
    ['carriage return', 'a\rb'],
    ['NUL', 'a\0b'],
    ['escape', 'a\u001bb'],
    ['delete', 'a\u007fb'],
    ['C1 control', 'a\u009bb'],
    ['line separator', 'a\u2028b'],
    ['paragraph separator', 'a\u2029b'],
    ['right-to-left override', 'a\u202eb'],
    ['half a surrogate pair', 'a\ud800b'],
  ])('replaces a %s', (_name, text) => {
    expect(printable(text)).toBe('a\ufffdb');
  });

  it('leaves everything else alone', () => {
    const text = 'Grüße, 你好, 👩‍👩‍👧, e\u0301 "quoted" \\ <b>';
    expect(printable(text)).toBe(text);
  });
});

describe('cut()', () => {
  it('leaves a short text alone and keeps the beginning of a long one', () => {
    expect(cut('abc', 3)).toBe('abc');
    expect(cut('abcd', 3)).toBe('abc');
    expect(cut('a\ud83d\ude00', 2)).toBe('a\ud83d');
  });
});

describe('utf8Length()', () => {
  it('is longer by one where UTF-8 is', () => {
    const last = ['\u007f', '\u07ff', '\uffff', '\u{10ffff}'];
    const first = ['\0', '\u0080', '\u0800', '\u{10000}'];
    expect(first.map(utf8Length)).toEqual([1, 2, 3, 4]);
    expect(last.map(utf8Length)).toEqual([1, 2, 3, 4]);
  });

  test.prop([fc.oneof(anyText, fc.string({ unit: 'binary' }))])(
    'is the number of bytes that an encoder writes',
    (text) => {
      expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length);
    },
  );
});
