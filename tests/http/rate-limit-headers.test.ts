import { fc, test } from '@fast-check/vitest';
import { RateLimiter } from 'sluice';
import { parseRateLimitHeaders, parseRetryAfter } from 'sluice/http';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

const DATE = 'Fri, 21 Aug 2026 12:41:00 GMT';

describe('parseRateLimitHeaders()', () => {
  it('reads those of OpenAI', () => {
    expect(
      parseRateLimitHeaders({
        'x-ratelimit-limit-requests': '60',
        'x-ratelimit-limit-tokens': '150000',
        'x-ratelimit-remaining-requests': '59',
        'x-ratelimit-remaining-tokens': '149984',
        'x-ratelimit-reset-requests': '1s',
        'x-ratelimit-reset-tokens': '6m0s',
      }),
    ).toEqual({
      requests: { limit: 60, remaining: 59, resetMs: 1000 },
      tokens: { limit: 150_000, remaining: 149_984, resetMs: 360_000 },
    });
  });

  it('reads those of Anthropic, whose times may be over', () => {
    expect(
      parseRateLimitHeaders({
        date: DATE,
        'anthropic-ratelimit-requests-limit': '50',
        'anthropic-ratelimit-requests-remaining': '49',
        'anthropic-ratelimit-requests-reset': '2026-08-21T12:40:59Z',
        'anthropic-ratelimit-input-tokens-limit': '40000',
        'anthropic-ratelimit-input-tokens-remaining': '39000',
        'anthropic-ratelimit-input-tokens-reset': '2026-08-21t14:41:02+02:00',
        'anthropic-ratelimit-output-tokens-limit': '8000',
        'anthropic-ratelimit-output-tokens-remaining': '0',
        'anthropic-ratelimit-output-tokens-reset': '2026-08-21T12:42:00.500Z',
        'anthropic-ratelimit-unified-reset': '1787316060',
      }),
    ).toEqual({
      requests: { limit: 50, remaining: 49, resetMs: 0 },
      inputTokens: { limit: 40_000, remaining: 39_000, resetMs: 2000 },
      outputTokens: { limit: 8000, remaining: 0, resetMs: 60_500 },
    });
  });

  it("reads the IETF's, with the quotas of the policy", () => {
    expect(
      parseRateLimitHeaders({
        'ratelimit-policy': '"burst";q=100;w=60,"daily";q=1000;w=86400',
        ratelimit: '"burst";r=50;t=30, "daily";r=900;t=4000',
      }),
    ).toEqual({
      burst: { limit: 100, remaining: 50, resetMs: 30_000 },
      daily: { limit: 1000, remaining: 900, resetMs: 4_000_000 },
    });
    expect(parseRateLimitHeaders({ ratelimit: '"a";r=50 , "b";r=7' })).toEqual({
      a: { remaining: 50 },
      b: { remaining: 7 },
    });
    expect(parseRateLimitHeaders({ ratelimit: '"a\\"b\\\\";r=1;pk=:c?=:;t=2' })).toBeUndefined();
    expect(
      parseRateLimitHeaders({ ratelimit: '"a\\"b\\\\"; r=1;x;y=?0;z=tok;s="q\\"";d=-1.25' }),
    ).toEqual({ 'a"b\\': { remaining: 1 } });
  });

  it('reads over the keys of partitions, as express-rate-limit sends them', () => {
    expect(
      parseRateLimitHeaders({
        'ratelimit-policy': '"100-in-15min"; q=100; w=900; pk=:MTI3Lj+/A==:',
        ratelimit: '"100-in-15min"; r=99; t=900; pk=::',
      }),
    ).toEqual({ '100-in-15min': { limit: 100, remaining: 99, resetMs: 900_000 } });
  });

  it('leaves places at once out: they are not tokens', () => {
    expect(
      parseRateLimitHeaders({
        'ratelimit-policy': '"jobs";q=10;qu="concurrent-requests","default";q=5',
        ratelimit: '"jobs";r=3,"default";r=4',
      }),
    ).toEqual({ default: { limit: 5, remaining: 4 } });
  });

  it("reads the IETF's older drafts", () => {
    const expected = { default: { limit: 100, remaining: 50, resetMs: 5000 } };
    for (const ratelimit of [
      'limit=100, remaining=50, reset=5',
      'limit=100 ,remaining=50,reset=5',
    ]) {
      expect(parseRateLimitHeaders({ ratelimit })).toEqual(expected);
    }
    for (const limit of ['100, 100;w=60', '100;w=60', '100 , 50']) {
      expect(
        parseRateLimitHeaders({
          'ratelimit-limit': limit,
          'ratelimit-remaining': '50',
          'ratelimit-reset': '5',
        }),
      ).toEqual(expected);
    }
  });

  it('reads those with a time: of GitHub in seconds, of others in ms', () => {
    const seconds = Date.UTC(2026, 7, 21, 12, 42, 0) / 1000;
    for (const reset of [`${seconds}`, `${seconds}000`, 'Fri, 21 Aug 2026 12:42:00 GMT']) {
      expect(
        parseRateLimitHeaders({
          date: DATE,
          'x-ratelimit-limit': '5000',
          'x-ratelimit-remaining': '4999',
          'x-ratelimit-reset': reset,
        }),
      ).toEqual({ default: { limit: 5000, remaining: 4999, resetMs: 60_000 } });
    }
  });

  it('takes a number for a time from 30 years on: in seconds, or in ms', () => {
    const resetMsOf = (reset: string): number | undefined =>
      parseRateLimitHeaders({
        date: 'Sun, 09 Sep 2001 01:46:40 GMT',
        'x-ratelimit-remaining': '1',
        'x-ratelimit-reset': reset,
      })!['default']!.resetMs;
    expect(resetMsOf('999999999')).toBe(999_999_999_000);
    expect(resetMsOf('1000000000')).toBe(0);
    expect(resetMsOf('1000000000000')).toBe(0);
  });

  it('reads names of several words', () => {
    expect(parseRateLimitHeaders({ 'x-ratelimit-remaining-input--tokens-': '1' })).toEqual({
      inputTokens: { remaining: 1 },
    });

    expect(
      parseRateLimitHeaders(
        new Headers({
          'X-RateLimit-Remaining-Requests-Day': '14399',
          'X-RateLimit-Reset-Requests-Day': '33011.382867',
        }),
      ),
    ).toEqual({ requestsDay: { remaining: 14_399, resetMs: 33_011_383 } });
  });

  it.each([
    ['12ms', 12],
    ['1s', 1000],
    ['6m0s', 360_000],
    ['1h2m3.5s', 3_723_500],
    ['2m59.56s', 179_560],
    ['7.66s', 7660],
    ['1d', 86_400_000],
    ['500us', 1],
    ['500µs', 1],
    ['1ns', 0],
    ['0s', 0],
    ['0', 0],
    ['2.5', 2500],
    ['', undefined],
    ['s', undefined],
    ['1', 1000],
    ['1x', undefined],
    ['1m s', undefined],
    ['-1s', undefined],
    ['1.s', undefined],
    ['9007199254740991ms', Number.MAX_SAFE_INTEGER],
    ['9007199254740992ms', undefined],
    ['9'.repeat(400), undefined],
    [`${'9'.repeat(400)}h`, undefined],
    ['2026-13-01T00:00:00Z', undefined],
    ['2026-08-21', undefined],
    ['+002999-08-21T12:41:00Z', undefined],
    ['2999-08-21T12:41:00Z or so', undefined],
    ['tomorrow', undefined],
  ])('takes a reset of %o for %o ms', (reset, ms) => {
    expect(
      parseRateLimitHeaders({ 'x-ratelimit-remaining': '1', 'x-ratelimit-reset': reset }),
    ).toEqual({ default: ms === undefined ? { remaining: 1 } : { remaining: 1, resetMs: ms } });
  });

  it.each([
    [{}],
    [{ 'x-ratelimit-limit-tokens': '5' }],
    [{ 'x-ratelimit-remaining-tokens': '-1' }],
    [{ 'x-ratelimit-remaining-tokens': '' }],
    [{ 'x-ratelimit-remaining-tokens': 'NaN' }],
    [{ 'x-ratelimit-remaining-tokens': '1.5' }],
    [{ 'x-ratelimit-remaining-tokens': '9007199254740993' }],
    [{ 'x-ratelimit-remaining-tokens': '5', 'x-ratelimit-limit-tokens': '-1' }],
    [{ 'x-ratelimit-remaining-tokens': '10x,' }],
    [{ 'my-x-ratelimit-remaining-tokens': '5' }],
    [{ 'x-ratelimit-remaining-tokens2': '5' }],
    [{ 'my-anthropic-ratelimit-tokens-remaining': '5' }],
    [{ 'anthropic-ratelimit-tokens-remaining-2': '5' }],
    [{ 'my-ratelimit-remaining': '5' }],
    [{ 'ratelimit-remaining-tokens': '5' }],
    [{ ratelimit: '"default"' }],
    [{ ratelimit: '"default";r=-1' }],
    [{ ratelimit: '"default;r=5' }],
    [{ ratelimit: '"default";r=5,"' }],
    [{ ratelimit: '"default";r=5,' }],
    [{ ratelimit: ' ,"default";r=5' }],
    [{ ratelimit: '"default";r=5;' }],
    [{ ratelimit: '"default";r=5;t=' }],
    [{ ratelimit: '"default";r=5 x' }],
    [{ ratelimit: 'limit=5, remaining' }],
    [{ ratelimit: 'limit=5, remaining=3x' }],
    [{ ratelimit: 'limit=5, -remaining=3' }],
    [{ ratelimit: '"default";r=5', age: '12' }],
    [{ ratelimit: `${'"a";r=1,'.repeat(1000)}"a";r=1` }],
  ])('takes %o for nothing', (headers) => {
    expect(parseRateLimitHeaders(headers)).toBeUndefined();
  });

  it('takes hostile names for plain ones', () => {
    const limits = parseRateLimitHeaders({ ratelimit: '"__proto__";r=5, "constructor";r=6' })!;
    expect(Object.keys(limits)).toEqual(['__proto__', 'constructor']);
    expect(Object.getPrototypeOf(limits)).toBe(Object.prototype);
    expect(({} as { remaining?: number }).remaining).toBeUndefined();
  });

  it('goes into RateLimiter.sync as it is', () => {
    const limiter = new RateLimiter({
      limits: { requests: { limit: 60 }, tokens: { limit: 1000 } },
      clock: new ManualClock(),
    });
    const { requests, tokens } = parseRateLimitHeaders({
      'x-ratelimit-limit-tokens': '1000',
      'x-ratelimit-remaining-tokens': '250',
      'x-ratelimit-reset-tokens': '45s',
    })!;
    limiter.sync({ requests, tokens });
    expect([limiter.available('requests'), limiter.available('tokens')]).toEqual([60, 250]);
  });

  const name = fc.constantFrom(
    'age',
    'date',
    'retry-after',
    'retry-after-ms',
    'ratelimit',
    'ratelimit-policy',
    'ratelimit-remaining',
    'ratelimit-reset',
    'x-ratelimit-limit-tokens',
    'x-ratelimit-remaining-tokens',
    'x-ratelimit-reset-tokens',
    'anthropic-ratelimit-tokens-remaining',
    'anthropic-ratelimit-tokens-reset',
  );
  const value = fc.oneof(
    fc.string({ unit: 'grapheme' }),
    fc.stringMatching(/^[0-9.,;:="a-zTZ -]{0,40}$/),
    fc.stringMatching(/^"[a-z]{1,3}"(;[rtq]=[0-9]{1,20}){0,3}$/),
    fc.stringMatching(/^[0-9]{1,400}(ms|s|m|h)?$/),
    fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()),
    fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
  );

  test.prop([fc.dictionary(name, value)], { numRuns: 5000 })(
    'never throws and never makes up a number (NaN, negative, not whole, without end)',
    (headers) => {
      const numbers = Object.values(parseRateLimitHeaders(headers) ?? {}).flatMap((limit) =>
        Object.values(limit!),
      );
      const wait = parseRetryAfter(headers);
      if (wait !== undefined) numbers.push(wait);
      for (const number of numbers) {
        expect(Number.isFinite(number) && number >= 0 && Number.isInteger(number)).toBe(true);
      }
    },
  );

  it.each([
    ['x-ratelimit-reset-tokens', '1'.repeat(1000)],
    ['x-ratelimit-reset-tokens', '1.1s'.repeat(250)],
    ['ratelimit', `"${'\\"'.repeat(500)}`],
    ['ratelimit', `"a"${';r'.repeat(500)}!`],
    ['ratelimit', ','.repeat(1000)],
  ])('is done in no time with a hostile %s (H162)', (header, hostile) => {
    const start = performance.now();
    for (let i = 0; i < 100; i++) {
      parseRateLimitHeaders({ 'x-ratelimit-remaining-tokens': '1', [header]: hostile });
    }
    expect(performance.now() - start).toBeLessThan(1000);
  });
});
