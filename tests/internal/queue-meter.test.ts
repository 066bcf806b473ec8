import { describe, expect, it } from 'vitest';

import { QueueMeter } from '../../src/internal/queue-meter.ts';

/** A meter that knows that a place is held for 100 ms. */
function experienced(priorities: number): QueueMeter {
  const meter = new QueueMeter(priorities);
  for (let i = 0; i < 5; i++) meter.served(0, 100);
  return meter;
}

describe('QueueMeter', () => {
  it('estimates nothing before it knows how long a place is held', () => {
    const meter = new QueueMeter(1);
    expect(meter.intervalMs(1)).toBeUndefined();
    expect(meter.estimateMs(1, 1, 1, 0)).toBeUndefined();
  });

  it('estimates a share of the mean for each of those ahead', () => {
    const meter = experienced(1);
    expect(meter.intervalMs(4)).toBe(25);
    expect([0, 1, 7].map((position) => meter.estimateMs(position, 1, 4, 0))).toEqual([0, 25, 175]);
  });

  it('leaves those who are more urgent and still to come their share of the time', () => {
    const meter = experienced(2);
    // 256 in 1280 ms is one in 5 ms; with one served in 10 ms, that would be twice of what there is.
    for (let i = 0; i < 256; i++) meter.arrived(0, 1);
    expect(meter.estimateMs(3, 1, 10, 1280)).toBe(30);
    expect(meter.estimateMs(3, 2, 10, 1280)).toBe(300);
    // One in 20 ms takes half of it.
    expect(meter.estimateMs(3, 2, 10, 5120)).toBe(60);
  });

  it('counts what has happened', () => {
    const meter = new QueueMeter(1);
    meter.accepted();
    meter.accepted();
    meter.started(4);
    meter.served(10, 6);
    meter.overrun();
    for (const how of ['completed', 'failed', 'failed', 'cancelled'] as const) meter.ended(how);
    for (const how of ['timedOut', 'shed', 'shed', 'refused'] as const) meter.ended(how);
    expect(meter.totals(2010)).toEqual({
      accepted: 2,
      started: 1,
      completed: 1,
      failed: 2,
      cancelled: 1,
      timedOut: 1,
      shed: 2,
      refused: 1,
      overrun: 1,
      waitMs: { count: 1, mean: 4, max: 4 },
      runMs: { count: 1, mean: 6, max: 6 },
      throughputPerSecond: 0.5,
    });
    expect(new QueueMeter(1).totals(0)).toMatchObject({ completed: 0, refused: 0, shed: 0 });
  });
});
