import { describe, expect, it } from 'vitest';

import { ServiceTimes } from '../../src/internal/service-times.ts';

describe('ServiceTimes', () => {
  it('says nothing before there are five', () => {
    const times = new ServiceTimes();
    for (const ms of [1, 2, 3, 4]) times.add(ms);
    expect(times.meanMs).toBeUndefined();
    times.add(5);
    expect(times.meanMs).toBe(3);
  });

  it('is the mean of the latest 256', () => {
    const times = new ServiceTimes();
    for (let i = 0; i < 1000; i++) times.add(1e6);
    for (let i = 0; i < 255; i++) times.add(10);
    expect(times.meanMs).toBeCloseTo((255 * 10 + 1e6) / 256, 6);
    times.add(10);
    expect(times.meanMs).toBe(10);
  });

  it('gathers no error of rounding, however long it goes on', () => {
    const times = new ServiceTimes();
    for (let i = 0; i < 100_000; i++) times.add(i % 2 === 0 ? 1e12 : 0.1);
    for (let i = 0; i < 512; i++) times.add(0.1);
    expect(times.meanMs).toBeCloseTo(0.1, 9);
  });

  it('is never below 0, whatever rounding loses', () => {
    const times = new ServiceTimes();
    for (let i = 0; i < 300; i++) times.add(((i * 7919) % 13) * 0.1 + 0.3);
    for (let i = 0; i < 256; i++) {
      times.add(0);
      expect(times.meanMs).toBeGreaterThanOrEqual(0);
    }
  });
});
