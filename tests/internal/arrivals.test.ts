import { describe, expect, it } from 'vitest';

import { Arrivals } from '../../src/internal/arrivals.ts';

describe('Arrivals', () => {
  it('says nothing before there are 256 of them', () => {
    const arrivals = new Arrivals(2);
    for (let i = 0; i < 255; i++) arrivals.add(i, 1);
    expect(arrivals.ratePerMsAbove(2, 1000)).toBe(0);
    arrivals.add(255, 1);
    expect(arrivals.ratePerMsAbove(2, 1000)).toBe(256 / 1000);
  });

  it('counts those who are more urgent, since the oldest of them', () => {
    const arrivals = new Arrivals(3);
    for (let i = 0; i < 256; i++) arrivals.add(1000 + i, i < 16 ? 1 : i < 56 ? 2 : 3);
    const rates = [1, 2, 3].map((priority) => arrivals.ratePerMsAbove(priority, 3000));
    expect(rates).toEqual([0, 16 / 2000, 56 / 2000]);
  });

  it('forgets the oldest with each that comes, whatever its priority', () => {
    const arrivals = new Arrivals(3);
    for (let i = 0; i < 100; i++) arrivals.add(i, 1);
    for (let i = 100; i < 256; i++) arrivals.add(i, 2);
    for (let i = 256; i < 286; i++) arrivals.add(i, 3);
    expect(arrivals.ratePerMsAbove(2, 530)).toBe(70 / 500);
    expect(arrivals.ratePerMsAbove(3, 530)).toBe(226 / 500);
    for (let i = 286; i < 600; i++) arrivals.add(i, 3);
    expect(arrivals.ratePerMsAbove(3, 1000)).toBe(0);
  });

  it('has no rate of what came all at once', () => {
    const arrivals = new Arrivals(2);
    for (let i = 0; i < 256; i++) arrivals.add(7, 1);
    expect(arrivals.ratePerMsAbove(2, 7)).toBe(0);
    expect(arrivals.ratePerMsAbove(2, 8)).toBe(256);
  });
});
