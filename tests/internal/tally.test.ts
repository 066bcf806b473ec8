import { describe, expect, it } from 'vitest';

import { Tally } from '../../src/internal/tally.ts';

describe('Tally', () => {
  it('has no mean and no maximum of nothing', () => {
    const tally = new Tally();
    expect(tally.summary()).toEqual({ count: 0, mean: undefined, max: undefined });
  });

  it('counts, and knows the mean and the maximum, also of values below 0', () => {
    const tally = new Tally();
    for (const value of [-3, -1, -2]) tally.add(value);
    expect([tally.count, tally.summary()]).toEqual([3, { count: 3, mean: -2, max: -1 }]);
    const before = tally.summary();
    tally.add(10);
    expect(before.count).toBe(3);
    expect(tally.summary()).toEqual({ count: 4, mean: 1, max: 10 });
  });
});
