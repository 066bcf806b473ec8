import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import {
  Bucket,
  copyOf,
  holdBack,
  type Quota,
  quotaOf,
  refill,
  take,
  tickOfLevel,
  TICKS_PER_MS,
} from '../../src/internal/token-bucket.ts';

const small = fc.integer({ min: 1, max: 1000 });
const any = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const quota = fc.oneof(
  fc.tuple(small, small, small),
  fc.tuple(any, fc.integer({ min: 1, max: 2 ** 43 - 1 }), any),
);
const span = fc.oneof(fc.nat({ max: 5000 }), fc.nat({ max: 2 ** 45 }));

/** The same as one exact number: in parts of a token, of which a token has `parts`. */
class Exact {
  readonly parts: bigint;
  readonly perTick: bigint;
  readonly full: bigint;
  level: bigint;

  constructor(limit: number, intervalMs: number, burst: number) {
    this.parts = BigInt(intervalMs) * BigInt(TICKS_PER_MS);
    this.perTick = BigInt(limit);
    this.full = BigInt(burst) * this.parts;
    this.level = this.full;
  }

  advance(ticks: number): void {
    const level = this.level + BigInt(ticks) * this.perTick;
    this.level = level < this.full ? level : this.full;
  }

  take(tokens: number): void {
    this.level -= BigInt(tokens) * this.parts;
  }
}

/** The level of a bucket in the parts of `Exact`. */
function levelOf({ tokens, fraction, quota: { per } }: Bucket, { parts }: Exact): bigint {
  return BigInt(tokens) * parts + (BigInt(fraction) * parts) / BigInt(per);
}

describe('refill()', () => {
  test.prop([quota, fc.array(fc.tuple(span, fc.double({ min: 0, max: 1, noNaN: true })))], {
    numRuns: 2000,
  })('is exact to the last part of a token, however it is cut up', (numbers, steps) => {
    const exact = new Exact(...numbers);
    const bucket = new Bucket(quotaOf(...numbers), 0);
    let now = 0;
    for (const [ticks, share] of steps) {
      now += ticks;
      refill(bucket, now);
      exact.advance(ticks);
      expect(levelOf(bucket, exact)).toBe(exact.level);
      const amount = Math.floor(share * Math.max(0, bucket.tokens));
      take(bucket, amount);
      exact.take(amount);
    }
  });
});

describe('tickOfLevel()', () => {
  test.prop([quota, fc.double({ min: 0, max: 1, noNaN: true }), span, span, fc.nat()], {
    numRuns: 5000,
  })('is the first tick at which the level is there', (numbers, left, since, later, wanted) => {
    const [, , burst] = numbers;
    const bucket = new Bucket(quotaOf(...numbers), 0);
    take(bucket, burst - Math.floor(left * burst));
    refill(bucket, since);
    const level = 1 + (wanted % burst);
    const start = since + later;
    const tick = tickOfLevel(bucket, level, start);
    fc.pre(Number.isSafeInteger(tick));
    expect(tick).toBeGreaterThanOrEqual(start);
    const at = (instant: number): number => {
      const copy = copyOf(bucket);
      refill(copy, instant);
      return copy.tokens;
    };
    expect(at(tick)).toBeGreaterThanOrEqual(level);
    if (tick > start) expect(at(tick - 1)).toBeLessThan(level);
  });

  test.prop(
    [fc.tuple(small, small, small), fc.nat(), fc.integer({ min: 1, max: 100_000 }), fc.nat()],
    {
      numRuns: 2000,
    },
  )('counts with what is held back', (numbers, remaining, until, wanted) => {
    const [, , burst] = numbers;
    const bucket = new Bucket(quotaOf(...numbers), 0);
    holdBack(bucket, remaining % burst, until);
    const level = 1 + (wanted % burst);
    const tick = tickOfLevel(bucket, level, 0);
    const before = copyOf(bucket);
    refill(before, tick - 1);
    refill(bucket, tick);
    expect(bucket.tokens).toBeGreaterThanOrEqual(level);
    if (tick > 0) expect(before.tokens).toBeLessThan(level);
  });
});

describe('ten simulated years', () => {
  const DAY = 86_400_000;
  const YEARS = 3653 * DAY;

  /** Takes everything that is there, again and again, at odd times. */
  function drain(of: Quota, ticksPerStep: number): { granted: bigint; ticks: number } {
    const bucket = new Bucket(of, 0);
    let granted = 0n;
    let now = 0;
    while (now < YEARS * TICKS_PER_MS) {
      refill(bucket, now);
      granted += BigInt(bucket.tokens);
      take(bucket, bucket.tokens);
      // Never the same step twice, and hardly ever whole ms.
      now += ticksPerStep + (now % 1009);
    }
    refill(bucket, now);
    return { granted: granted + BigInt(bucket.tokens), ticks: now };
  }

  it.each([
    ['10 per second', 10, 1000],
    ['7 per second', 7, 1000],
    ['333 333 per minute', 333_333, 60_000],
    ['36 000 001 per minute', 36_000_001, 60_000],
    ['1 000 000 007 per second', 1_000_000_007, 1000],
    ['500 per day', 500, DAY],
    ['1 per 30 days', 1, 30 * DAY],
    ['150 000 001 per 30 days', 150_000_001, 30 * DAY],
  ])('gain and lose no token at %s (H251)', (_, limit, intervalMs) => {
    const burst = limit * 86_400 * 40;
    const { granted, ticks } = drain(quotaOf(limit, intervalMs, burst), 300_000_001);
    const gained = (BigInt(ticks) * BigInt(limit)) / BigInt(intervalMs * TICKS_PER_MS);
    expect(granted).toBe(BigInt(burst) + gained);
  });
});
