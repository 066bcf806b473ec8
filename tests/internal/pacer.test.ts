import { describe, expect, it } from 'vitest';

import { Pacer } from '../../src/internal/pacer.ts';
import { Time } from '../../src/internal/time.ts';
import { ManualClock } from '../../src/testing.ts';

function paced(): { clock: ManualClock; pacer: Pacer<number>; turns: number[] } {
  const clock = new ManualClock();
  const turns: number[] = [];
  return { clock, turns, pacer: new Pacer(new Time(clock), (subject) => turns.push(subject)) };
}

describe('Pacer', () => {
  it('gives turns at once while there are few', async () => {
    const { clock, pacer, turns } = paced();
    for (let i = 0; i < 64; i++) pacer.enter(i);
    expect(turns).toHaveLength(64);
    await clock.advance(5);
    for (let i = 64; i < 128; i++) pacer.enter(i);
    expect(turns).toEqual(Array.from({ length: 128 }, (_, i) => i));
  });

  it('spreads a flood, in its order, and arms nothing when it is over', async () => {
    const { clock, pacer, turns } = paced();
    for (let i = 0; i < 200; i++) pacer.enter(i);
    const counts = [turns.length];
    for (let i = 0; i < 4; i++) {
      await clock.advance(5);
      counts.push(turns.length);
    }
    expect(counts).toEqual([64, 128, 192, 200, 200]);
    expect(turns).toEqual(Array.from({ length: 200 }, (_, i) => i));
    await clock.advance(5);
    expect(clock.timers).toBe(0);
  });

  it('counts the 5 ms from the first turn', async () => {
    const { clock, pacer, turns } = paced();
    pacer.enter(0);
    await clock.advance(3);
    for (let i = 1; i <= 64; i++) pacer.enter(i);
    await clock.advance(1);
    expect(turns).toHaveLength(64);
    await clock.advance(1);
    expect(turns).toHaveLength(65);
  });

  it('gives one turn to one that enters twice', async () => {
    const { clock, pacer, turns } = paced();
    for (let i = 0; i < 67; i++) pacer.enter(i);
    pacer.enter(65);
    await clock.advance(5);
    expect(turns.slice(64)).toEqual([64, 65, 66]);
  });

  it('lets a turn enter again, after those in line', async () => {
    const clock = new ManualClock();
    let again = 100;
    const pacer = new Pacer<string>(new Time(clock), (subject) => {
      if (again-- > 0) pacer.enter(subject);
    });
    pacer.enter('a');
    expect(again).toBe(36);
    await clock.advance(5);
    expect(again).toBe(-1);
  });
});
