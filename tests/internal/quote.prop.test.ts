import { test } from '@fast-check/vitest';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { quote } from '../../src/internal/quote.ts';

describe('quote()', () => {
  it('leaves text that can be read as it is', () => {
    for (const text of ['', 'ticket-1', 'Zoë', 'заявка', '票号', 'a "b" \\c', '👩🏽']) {
      expect(quote(text)).toBe(JSON.stringify(text));
    }
  });

  it('escapes what a terminal or a log could take for more than text (H157)', () => {
    expect(quote('\r\n\t\0')).toBe(String.raw`"\r\n\t\u0000"`);
    expect(quote('\u001B[31m')).toBe(String.raw`"\u001b[31m"`);
    expect(quote('\u007F\u009B31m')).toBe(String.raw`"\u{7f}\u{9b}31m"`);
    expect(quote('\u2028\u2029')).toBe(String.raw`"\u{2028}\u{2029}"`);
    expect(quote('\u202Eevil\u200B\uFEFF')).toBe(String.raw`"\u{202e}evil\u{200b}\u{feff}"`);
    expect(quote('\u{E0041}')).toBe(String.raw`"\u{e0041}"`);
    expect(quote('\uD800')).toBe(String.raw`"\ud800"`);
  });

  it('cuts what is longer than 64 characters, also within a pair', () => {
    expect(quote('x'.repeat(64))).toBe(`"${'x'.repeat(64)}"`);
    expect(quote('x'.repeat(65))).toBe(`"${'x'.repeat(64)}…"`);
    expect(quote(`${'x'.repeat(63)}👍`)).toBe(String.raw`"${'x'.repeat(63)}\ud83d…"`);
  });

  test.prop([fc.string({ unit: 'binary', maxLength: 200, size: 'max' })])(
    'makes one short well-formed line of visible characters of any text',
    (text) => {
      const quoted = quote(text);
      expect(quoted.isWellFormed()).toBe(true);
      expect(quoted).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u);
      expect(quoted.length).toBeLessThanOrEqual(64 * 9 + 3);
    },
  );
});
