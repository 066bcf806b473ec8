import { fc, test } from '@fast-check/vitest';
import { describe, expect, it } from 'vitest';

import { LinkedBucket, takeAll } from '../../src/internal/buckets.ts';
import { type Gap, gapsOf, keptOf, turnsIn } from '../../src/internal/gaps.ts';
import { holdBack, quotaOf, TICKS_PER_MS } from '../../src/internal/token-bucket.ts';

/** Empty buckets, of one token per ms, that hold up to ten. */
function emptyBuckets(count: number): LinkedBucket {
  let first: LinkedBucket | undefined;
  for (let i = count; i > 0; i--) first = new LinkedBucket(quotaOf(1, 1, 10, `b${i}`), 0, first);
  takeAll(first!, 10);
  return first!;
}

function waiting(...all: readonly (readonly [demand: number | number[], priority: number])[]): {
  demand: number | number[];
  priority: number;
}[] {
  return all.map(([demand, priority]) => ({ demand, priority }));
}

describe('gapsOf()', () => {
  it('shows what is left between the grants of those who are less urgent', () => {
    const line = waiting([3, 1], [2, 2], [5, 3]);
    const gaps = Array.from(gapsOf(line, emptyBuckets(1), 1, 0), ({ left, tick, until }) => [
      left.tokens,
      tick / TICKS_PER_MS,
      until / TICKS_PER_MS,
    ]);
    expect(gaps).toEqual([
      [0, 3, 5],
      [0, 5, 10],
      [0, 10, Infinity],
    ]);
  });

  it('leaves the buckets that it is given alone', () => {
    const first = emptyBuckets(2);
    expect([...gapsOf(waiting([3, 1], [2, 2]), first, 1, 0)]).toHaveLength(2);
    expect([first.tokens, first.next!.tokens, first.at]).toEqual([0, 0, 0]);
  });
});

describe('turnsIn()', () => {
  const ms = (tick: number): number => tick / TICKS_PER_MS;

  it('is the turn in line and the turn of one who comes back', () => {
    const line = waiting([2, 2], [3, 2], [2, 2]);
    const turnsOf = (demand: number): number[] => {
      const { wait, retry } = turnsIn(gapsOf(line, emptyBuckets(1), 1, 0), demand);
      return [ms(wait.tick), ms(retry.tick)];
    };
    expect(turnsOf(1)).toEqual([1, 1]);
    // At 2 ms the first in line goes first.
    expect(turnsOf(2)).toEqual([2, 4]);
    expect(turnsOf(3)).toEqual([3, 10]);
  });

  it('tells the limit that is short', () => {
    const gaps = gapsOf(waiting([[1, 4], 2]), emptyBuckets(2), 1, 0);
    expect(turnsIn(gaps, [5, 0])).toEqual({
      wait: { tick: 5 * TICKS_PER_MS, limit: 'b1' },
      retry: { tick: 6 * TICKS_PER_MS, limit: 'b1' },
    });
  });
});

describe('keptOf()', () => {
  it('keeps the first gap and those that hold more than all before', () => {
    const line = waiting([1, 2], [4, 2], [4, 2], [3, 2], [6, 2], [6, 2]);
    const kept = keptOf(gapsOf(line, emptyBuckets(1), 1, 0));
    expect(kept.map(({ tick }) => tick / TICKS_PER_MS)).toEqual([0, 1, 12, 24]);
  });

  const count = fc.integer({ min: 1, max: 3 });
  const demand = fc.array(fc.nat({ max: 10 }), { minLength: 3, maxLength: 3 });
  const priority = fc.integer({ min: 1, max: 3 });

  test.prop(
    [
      count,
      fc.array(fc.record({ demand, priority }), { maxLength: 20 }),
      fc.array(demand, { minLength: 1, maxLength: 5 }),
      priority,
      fc.record({ remaining: fc.nat({ max: 10 }), ms: fc.nat({ max: 30 }), start: fc.nat(20) }),
    ],
    { numRuns: 2000 },
  )('R3 tells everybody the same as all the gaps do', (buckets, line, demands, urgency, hold) => {
    const first = emptyBuckets(buckets);
    first.tokens = 10;
    if (hold.ms > 0) holdBack(first, hold.remaining, hold.ms * TICKS_PER_MS);
    line.sort((a, b) => a.priority - b.priority);
    const gaps = (): Iterable<Gap> => gapsOf(line, first, urgency, hold.start * TICKS_PER_MS);
    const kept = keptOf(gaps());
    for (const wanted of demands) expect(turnsIn(kept, wanted)).toEqual(turnsIn(gaps(), wanted));
  });
});
