import { parseRetryAfter } from 'sluice/http';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

const NOW = Date.UTC(2026, 7, 21, 12, 40, 0);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'], now: 0 });
  vi.spyOn(performance, 'now').mockReturnValue(NOW - performance.timeOrigin);
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

describe('parseRetryAfter()', () => {
  it.each([
    ['0', 0],
    ['59', 59_000],
    ['61', 61_000],
    ['0.5', 500],
    ['1.0005', 1001],
    [' 5 ', 5000],
    ['86400', 86_400_000],
    // Honest, however long: to come back earlier would be wrong.
    ['3000000', 3_000_000_000],
  ])('takes %o for seconds', (value, ms) => {
    expect(parseRetryAfter({ 'retry-after': value })).toBe(ms);
  });

  it.each([
    ['Fri, 21 Aug 2026 12:41:00 GMT'],
    ['Friday, 21-Aug-26 12:41:00 GMT'],
    ['Fri Aug 21 12:41:00 2026'],
  ])('takes %o for a date', (value) => {
    expect(parseRetryAfter({ 'retry-after': value })).toBe(60_000);
  });

  it('takes a day of one digit, after two spaces, for a date', () => {
    const date = 'Tue, 01 Sep 2026 12:40:00 GMT';
    expect(parseRetryAfter({ date, 'retry-after': 'Tue Sep  1 12:41:00 2026' })).toBe(60_000);
  });

  it('reads a date relative to the Date of the answer, whatever the clock here says', () => {
    const headers = {
      date: 'Wed, 01 Jan 2020 00:00:10 GMT',
      'retry-after': 'Wed, 01 Jan 2020 00:01:00 GMT',
    };
    expect(parseRetryAfter(headers)).toBe(50_000);
  });

  it.each([
    [''],
    ['soon'],
    ['not a date'],
    ['-5'],
    ['+5'],
    ['1e3'],
    ['0x10'],
    ['NaN'],
    ['Infinity'],
    ['5 minutes'],
    ['5, 10'],
    ['9'.repeat(400)],
    ['Fri, 21 Aug 2015 12:41:00 GMT'],
    ['Fri, 41 Aug 2026 12:41:00 GMT'],
    ['Fri, 21 Foo 2026 12:41:00 GMT'],
    ['Fri, 21 anF 2026 12:41:00 GMT'],
    ['Fri, 21 Aug 2026 25:41:00 GMT'],
    ['Fri, 21 Aug 2026 12:41:00'],
    ['2026-08-21T12:41:00Z'],
    ['on Fri, 21 Aug 2026 12:41:00 GMT'],
    ['Fri, 21 Aug 2026 12:41:00 GMT+1'],
    ['on Friday, 21-Aug-26 12:41:00 GMT'],
    ['Friday, 21-Aug-26 12:41:00 GMT+1'],
    ['on Fri Aug 21 12:41:00 2026'],
    ['Fri Aug 21 12:41:00 2026 +1'],
    ['x'.repeat(100_000)],
  ])('takes %o for nothing', (value) => {
    expect(parseRetryAfter({ 'retry-after': value })).toBeUndefined();
  });

  it('takes the larger of Retry-After and retry-after-ms', () => {
    const both = (seconds: string, ms: string): number | undefined =>
      parseRetryAfter({ 'retry-after': seconds, 'retry-after-ms': ms });
    expect(both('2', '0')).toBe(2000);
    expect(both('2', '2500')).toBe(2500);
    expect(both('soon', '150.4')).toBe(151);
    expect(both('soon', '9007199254740991')).toBe(Number.MAX_SAFE_INTEGER);
    expect(both('soon', '9007199254740992')).toBeUndefined();
    expect(both('2', '-1')).toBe(2000);
    expect(both('soon', 'soon')).toBeUndefined();
  });

  it('reads headers of fetch and of node:http, in any case', () => {
    expect(parseRetryAfter(new Headers({ 'Retry-After': '7' }))).toBe(7000);
    expect(parseRetryAfter({ 'Retry-After': '7' })).toBe(7000);
    expect(parseRetryAfter({ 'retry-after': ['7', '9'] })).toBe(7000);
    expect(parseRetryAfter({ 'retry-after': 7 })).toBe(7000);
    expect(parseRetryAfter({})).toBeUndefined();
    expect(parseRetryAfter({ 'retry-after': undefined })).toBeUndefined();
    expect(parseRetryAfter({ 'Retry-After': undefined, 'retry-after': '7' })).toBe(7000);
  });

  it('reads headers of axios, which have a `get` and no `entries`', () => {
    class AxiosHeaders {
      readonly 'Retry-After' = '5';
      get(): string {
        return this['Retry-After'];
      }
    }
    expect(parseRetryAfter(new AxiosHeaders() as never)).toBe(5000);
  });

  it('finds nothing in a list of pairs, which are no headers yet', () => {
    expect(parseRetryAfter([['retry-after', '7']] as never)).toBeUndefined();
  });

  it('looks at no value of more than 1 kB', () => {
    expect(parseRetryAfter({ 'retry-after': '7'.padEnd(1024) })).toBe(7000);
    expect(parseRetryAfter({ 'retry-after': '7'.padEnd(1025) })).toBeUndefined();
  });

  it('takes a year of two digits for one that is at most 50 years ahead', () => {
    const date = 'Fri, 21 Aug 2026 12:40:00 GMT';
    const of = (year: string): number | undefined =>
      parseRetryAfter({ date, 'retry-after': `Friday, 21-Aug-${year} 12:40:00 GMT` });
    expect(of('70')).toBe(Date.UTC(2070, 7, 21, 12, 40) - NOW);
    expect(of('76')).toBe(Date.UTC(2076, 7, 21, 12, 40) - NOW);
    expect(of('77')).toBeUndefined();
    expect(of('94')).toBeUndefined();
  });
});
