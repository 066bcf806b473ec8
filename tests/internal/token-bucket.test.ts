import { describe, expect, it, vi } from 'vitest';

import {
  Bucket,
  charge,
  giveBack,
  holdBack,
  letGo,
  MAX_INTERVAL_MS,
  quotaOf,
  refill,
  reshape,
  take,
  TICKS_PER_MS,
  tickOfLevel,
  ticksAt,
} from '../../src/internal/token-bucket.ts';

/** A bucket at tick 0 with so many tokens. */
function bucketOf(tokens: number, limit: number, intervalMs: number, burst = limit): Bucket {
  const bucket = new Bucket(quotaOf(limit, intervalMs, burst), 0);
  bucket.tokens = tokens;
  return bucket;
}

const ticks = (ms: number): number => ms * TICKS_PER_MS;

describe('ticksAt()', () => {
  it('counts the ticks that are over', () => {
    expect(ticksAt(1)).toBe(1024);
    expect(ticksAt(1.0009)).toBe(1024);
    expect(ticksAt(1_700_000_000_000.5)).toBe(1_740_800_000_000_512);
  });
});

describe('MAX_INTERVAL_MS', () => {
  it('is the longest of which the ticks are safe integers', () => {
    expect(Number.isSafeInteger(MAX_INTERVAL_MS * TICKS_PER_MS)).toBe(true);
    expect(Number.isSafeInteger((MAX_INTERVAL_MS + 1) * TICKS_PER_MS)).toBe(false);
  });
});

describe('quotaOf()', () => {
  it('is the same one for those that are alike one after the other', () => {
    const first = quotaOf(1, 1000, 5, 'a');
    expect(quotaOf(1, 1000, 5, 'a')).toBe(first);
    expect(quotaOf(1, 1000, 5, 'b')).toMatchObject({ burst: 5, name: 'b' });
    expect(quotaOf(1, 2000, 5, 'b')).toMatchObject({ intervalMs: 2000, name: 'b' });
    expect(quotaOf(1, 2000, 6, 'b')).toMatchObject({ intervalMs: 2000, burst: 6 });
    expect(quotaOf(3, 2000, 6, 'b')).toMatchObject({ limit: 3, burst: 6 });
  });

  it('has the rate in lowest terms', () => {
    expect(quotaOf(450_000, 60_000, 5)).toMatchObject({ gain: 15, per: 2048, burst: 5 });
  });
});

describe('refill()', () => {
  it('gains whole tokens and keeps the rest as a fraction', () => {
    const bucket = bucketOf(0, 10, 1000);
    refill(bucket, ticks(250));
    expect(bucket.tokens).toBe(2);
    refill(bucket, ticks(300));
    expect(bucket).toMatchObject({ tokens: 3, fraction: 0 });
  });

  it('stops at the burst, and has no fraction there', () => {
    const bucket = bucketOf(0, 10, 1000, 3);
    refill(bucket, ticks(345));
    expect(bucket).toMatchObject({ tokens: 3, fraction: 0, at: ticks(345) });
  });

  it('stands while the clock goes back, and goes on when it has caught up (H250)', () => {
    const bucket = bucketOf(0, 10, 1000);
    refill(bucket, ticks(500));
    refill(bucket, ticks(100));
    expect(bucket).toMatchObject({ tokens: 5, at: ticks(500) });
    refill(bucket, ticks(600));
    expect(bucket.tokens).toBe(6);
  });

  it('pays a debt off that is no 32-bit integer', () => {
    const bucket = bucketOf(-(2 ** 40), 1, 1000);
    refill(bucket, ticks(3000));
    expect(bucket.tokens).toBe(3 - 2 ** 40);
  });

  it('is exact where products leave the safe integers', () => {
    // 2^53 - 111 is prime: no common factor to take out.
    const limit = 2 ** 53 - 111;
    const bucket = bucketOf(0, limit, 86_400_000);
    refill(bucket, ticks(43_200_000));
    expect(bucket.tokens).toBe((limit - 1) / 2);
    refill(bucket, ticks(86_400_000));
    expect(bucket).toMatchObject({ tokens: limit, fraction: 0 });
  });
});

describe('tickOfLevel()', () => {
  it('is the very tick at which the level is reached', () => {
    const bucket = bucketOf(0, 3, 1000);
    expect(tickOfLevel(bucket, 1, 0)).toBe(Math.ceil(ticks(1000) / 3));
    expect(tickOfLevel(bucket, 3, 0)).toBe(ticks(1000));
    expect(bucket).toMatchObject({ tokens: 0, at: 0 });
  });

  it('is the start where there is enough then', () => {
    const bucket = bucketOf(0, 10, 1000, 5);
    expect(tickOfLevel(bucket, 5, ticks(10_000))).toBe(ticks(10_000));
    // What is over the burst at the start is lost.
    expect(tickOfLevel(bucket, 7, ticks(10_000))).toBe(ticks(10_200));
  });

  it('is finite and not early where products leave the safe integers', () => {
    const bucket = bucketOf(0, 1, 30 * 86_400_000, 2 ** 40);
    expect(tickOfLevel(bucket, 2 ** 40, 0)).toBe(ticks(30 * 86_400_000) * 2 ** 40);
    const slow = bucketOf(0, 1, MAX_INTERVAL_MS, 2);
    expect(tickOfLevel(slow, 2, 0)).toBe(2 * ticks(MAX_INTERVAL_MS));
    const odd = bucketOf(0, 2 ** 53 - 111, 86_400_000);
    const tick = tickOfLevel(odd, 2 ** 52, 0);
    refill(odd, tick - 1);
    expect(odd.tokens).toBeLessThan(2 ** 52);
    refill(odd, tick);
    expect(odd.tokens).toBeGreaterThanOrEqual(2 ** 52);
  });

  it('counts on what is held back, from when it comes back', () => {
    const bucket = bucketOf(10, 1, 1000, 10);
    holdBack(bucket, 2, ticks(3000));
    expect(tickOfLevel(bucket, 4, 0)).toBe(ticks(2000));
    expect(tickOfLevel(bucket, 6, 0)).toBe(ticks(3000));
    expect(tickOfLevel(bucket, 12, 0)).toBe(ticks(5000));
  });
});

describe('giveBack() and charge()', () => {
  it('give back up to the burst and charge below 0', () => {
    const bucket = bucketOf(5, 10, 1000);
    charge(bucket, 12);
    expect(bucket.tokens).toBe(-7);
    giveBack(bucket, 10);
    expect(bucket.tokens).toBe(3);
    refill(bucket, ticks(50));
    giveBack(bucket, 7);
    expect(bucket).toMatchObject({ tokens: 10, fraction: 0 });
  });
});

describe('holdBack() and letGo()', () => {
  it('hold back what is above the count, until then', () => {
    const bucket = bucketOf(8, 1, 1000, 10);
    holdBack(bucket, 3, ticks(500));
    expect(bucket.tokens).toBe(3);
    refill(bucket, ticks(499));
    expect(bucket.tokens).toBe(3);
    refill(bucket, ticks(500));
    expect(bucket).toMatchObject({ tokens: 8, hold: undefined });
    for (const enough of [8, 9]) {
      holdBack(bucket, enough, ticks(900));
      expect(bucket).toMatchObject({ tokens: 8, hold: undefined });
    }
    holdBack(bucket, 1, Infinity);
    expect(bucket).toMatchObject({ tokens: 1, hold: undefined });
  });

  it('make no present of what would have been too much anyway', () => {
    const bucket = bucketOf(2, 1, 1, 2);
    holdBack(bucket, 0, ticks(3));
    refill(bucket, ticks(2));
    take(bucket, 1);
    refill(bucket, ticks(3));
    // Without the hold it would have been 2 all the time, of which one was taken and came back.
    expect(bucket).toMatchObject({ tokens: 2, hold: undefined });
    take(bucket, 2);
    holdBack(bucket, -1, ticks(10));
    charge(bucket, 1);
    giveBack(bucket, 2);
    reshape(bucket, quotaOf(1, 1000, 2));
    letGo(bucket);
    expect(bucket.tokens).toBe(1);
  });

  it('go on with what is held back as if it were there', () => {
    const bucket = bucketOf(2, 1, 1, 2);
    holdBack(bucket, 0, ticks(3));
    refill(bucket, ticks(2));
    take(bucket, 2);
    refill(bucket, ticks(3));
    // Full until both were taken, and one came in after that.
    expect(bucket).toMatchObject({ tokens: 1, hold: undefined });
    bucket.tokens = 2;
    holdBack(bucket, 0, ticks(9));
    reshape(bucket, quotaOf(1, 1000, 1));
    letGo(bucket);
    expect(bucket.tokens).toBe(1);
  });

  it('let go early', () => {
    const bucket = bucketOf(8, 1, 1000, 10);
    holdBack(bucket, 3, ticks(500));
    letGo(bucket);
    letGo(bucket);
    expect(bucket).toMatchObject({ tokens: 8, hold: undefined });
  });
});

describe('reshape()', () => {
  it('keeps the tokens and the part of one that is under way', () => {
    const bucket = bucketOf(0, 10, 1000);
    refill(bucket, ticks(250));
    reshape(bucket, quotaOf(1, 1000, 100));
    expect(bucket.tokens).toBe(2);
    expect(tickOfLevel(bucket, 3, bucket.at)).toBe(ticks(750));
    expect(bucket.fraction).toBeGreaterThan(0);
    reshape(bucket, quotaOf(1, 1000, 2));
    expect(bucket).toMatchObject({ tokens: 2, fraction: 0 });
    reshape(bucket, quotaOf(1, 1000, 1));
    expect(bucket).toMatchObject({ tokens: 1, fraction: 0 });
  });
});

describe('quotaOf(), the first of a process', () => {
  it('gives what it gives later, and shares what is the same', async () => {
    vi.resetModules();
    const { quotaOf: first } = await import('../../src/internal/token-bucket.ts');
    const quota = first(3, 9, 5);
    expect(quota).toEqual({
      name: undefined,
      limit: 3,
      intervalMs: 9,
      burst: 5,
      gain: 1,
      per: 3072,
    });
    expect(first(3, 9, 5)).toBe(quota);
  });
});
