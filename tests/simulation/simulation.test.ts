import { describe, expect, it } from 'vitest';

import { simulate } from './runner.ts';

const STEPS = 1500;

describe('The simulation', () => {
  it.each([1, 2, 3])('finds nothing with seed %i', async (seed) => {
    const { violation, trace, steps } = await simulate(seed, STEPS);
    expect({ violation, trace }).toEqual({ violation: undefined, trace: [] });
    expect(steps).toBeGreaterThanOrEqual(STEPS);
  });

  it('goes the same way again with the same seed, and another way with another', async () => {
    const runs = [await simulate(9, STEPS), await simulate(9, STEPS), await simulate(5, STEPS)];
    const [first, second, other] = runs.map(({ hash }) => hash);
    expect(second).toBe(first);
    expect(other).not.toBe(first);
  });
});
