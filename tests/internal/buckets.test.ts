import { describe, expect, it } from 'vitest';

import {
  costOf,
  countsOf,
  demandOf,
  each,
  exceeded,
  LinkedBucket,
  takeAll,
  turnOf,
} from '../../src/internal/buckets.ts';
import { quotaOf, TICKS_PER_MS } from '../../src/internal/token-bucket.ts';

/** Full buckets of these names, each of ten per second. */
function bucketsOf(...names: readonly (string | undefined)[]): LinkedBucket {
  return names.reduceRight<LinkedBucket | undefined>(
    (next, name) => new LinkedBucket(quotaOf(10, 1000, 10, name), 0, next),
    undefined,
  )!;
}

describe('demandOf()', () => {
  it('takes no counts where there are no names, not even one of `undefined`', () => {
    expect(() => demandOf(bucketsOf(undefined), { undefined: 1 })).toThrow(
      new TypeError('Expected `cost` to be a positive integer, got a value of type object.'),
    );
  });

  it('is the counts in the order of the buckets, none of them -0', () => {
    const first = bucketsOf('a', 'b', 'c');
    expect(demandOf(first, { c: 2, a: -0 })).toEqual([0, 0, 2]);
    expect(demandOf(first, 3)).toBe(3);
  });

  it('is for something', () => {
    const nothing = new RangeError('Expected `cost` to be above 0 for at least one limit.');
    expect(() => demandOf(bucketsOf('a', 'b'), { a: 0, b: 0 })).toThrow(nothing);
    expect(() => demandOf(bucketsOf('a', 'b'), {})).toThrow(nothing);
  });
});

describe('countsOf()', () => {
  it('fills in what is missing', () => {
    const first = bucketsOf('a', 'b');
    expect(countsOf(first, 'actual', { b: 0 }, [5, 6])).toEqual([5, 0]);
    expect(countsOf(first, 'actual', { b: undefined }, 4)).toEqual([4, 4]);
  });

  it('names the first name that no bucket has, and where it stands', () => {
    expect(() => countsOf(bucketsOf('a', 'b'), 'actual', { b: 1, B: 1, A: 1 }, 0)).toThrow(
      new TypeError('Unknown limit "B" in `actual`.'),
    );
  });

  it('names a count that is none', () => {
    expect(() => countsOf(bucketsOf('a', 'b'), 'actual', { b: -1 }, 0)).toThrow(
      new RangeError('Expected `actual.b` to be an integer from 0 to 9007199254740991, got -1.'),
    );
  });
});

describe('costOf()', () => {
  it('is the demand by name, or the number', () => {
    expect(costOf(bucketsOf('a', 'b'), [0, 2])).toEqual({ a: 0, b: 2 });
    expect(costOf(bucketsOf('a', 'b'), 2)).toBe(2);
  });
});

describe('exceeded()', () => {
  it('is the first bucket of which more is wanted than it can hold, wherever it is', () => {
    const first = bucketsOf('a', 'b', 'c');
    const [, b, c] = each(first);
    expect(exceeded(first, [10, 10, 10])).toBeUndefined();
    expect(exceeded(first, [10, 10, 11])).toEqual({ wanted: 11, bucket: c });
    expect(exceeded(first, [10, 12, 11])).toEqual({ wanted: 12, bucket: b });
  });
});

describe('turnOf()', () => {
  it('names the first of those that keep one waiting longest, and none if nobody waits', () => {
    const first = bucketsOf('a', 'b', 'c');
    expect(turnOf(first, 1, 7)).toEqual({ tick: 7, limit: undefined });
    takeAll(first, [9, 10, 10]);
    expect(turnOf(first, 1, 7)).toEqual({ tick: 100 * TICKS_PER_MS, limit: 'b' });
    expect([...each(first)].map(({ tokens }) => tokens)).toEqual([1, 0, 0]);
  });
});
