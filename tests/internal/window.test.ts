import { describe, expect, it } from 'vitest';

import { RateWindow } from '../../src/internal/window.ts';

describe('RateWindow', () => {
  it('is 0 before anything has happened', () => {
    expect(new RateWindow().perSecond(1e9)).toBe(0);
  });

  it('is taken over the time since the first, at least a second', () => {
    const window = new RateWindow();
    for (let i = 0; i < 10; i++) window.add(5000);
    expect([5000, 5500, 6000, 7000, 15_000].map((now) => window.perSecond(now))).toEqual([
      10, 10, 10, 5, 1,
    ]);
  });

  it('counts the seconds from the first', () => {
    const window = new RateWindow();
    window.add(250);
    window.add(1000);
    expect(window.perSecond(60_249) * 59.999).toBeCloseTo(2);
    expect(window.perSecond(60_250)).toBe(0);
  });

  it('is taken over a minute, and forgets what is older', () => {
    const window = new RateWindow();
    for (let second = 0; second < 120; second++) {
      for (let i = 0; i < 4; i++) window.add(second * 1000 + i * 250);
    }
    expect(window.perSecond(119_999)).toBe(4);
    expect(window.perSecond(150_000)).toBeCloseTo(2, 0);
    expect(window.perSecond(179_999)).toBe(0);
    expect(window.perSecond(1e9)).toBe(0);
    window.add(1e9);
    expect(window.perSecond(1e9)).toBe(1 / 60);
  });
});
