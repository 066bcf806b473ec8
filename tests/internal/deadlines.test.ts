import { describe, expect, it, vi } from 'vitest';

import { type Deadline, Deadlines } from '../../src/internal/deadlines.ts';
import { Time } from '../../src/internal/time.ts';
import { ManualClock } from '../../src/testing.ts';

interface Batch {
  readonly due: string[];
  readonly now: number;
}

function setUp(): { clock: ManualClock; deadlines: Deadlines<string>; batches: Batch[] } {
  const clock = new ManualClock();
  const batches: Batch[] = [];
  const deadlines = new Deadlines<string>(new Time(clock), (due, now) => {
    batches.push({ due, now });
  });
  return { clock, deadlines, batches };
}

describe('Deadlines', () => {
  it('reports what is due, each at its own instant', async () => {
    const { clock, deadlines, batches } = setUp();
    deadlines.add('b', 20);
    deadlines.add('a', 10);
    deadlines.add('c', 30);
    await clock.advance(25);
    expect(batches).toEqual([
      { due: ['a'], now: 10 },
      { due: ['b'], now: 20 },
    ]);
    expect(deadlines.size).toBe(1);
  });

  it('reports in time who takes the place of one that was far behind', async () => {
    const { clock, deadlines, batches } = setUp();
    const made = [1, 10, 2, 11, 12, 3, 4].map((at) => deadlines.add(`${at}`, at));
    deadlines.remove(made[3]!);
    await clock.advance(20);
    expect(batches).toEqual([1, 2, 3, 4, 10, 12].map((at): Batch => ({ due: [`${at}`], now: at })));
  });

  it('reports those of one instant in one batch, in the order in which they were added (H092)', async () => {
    const { clock, deadlines, batches } = setUp();
    const names = Array.from({ length: 20 }, (_, i) => `${i}`);
    for (const name of names) deadlines.add(name, 10);
    await clock.advance(10);
    expect(batches).toEqual([{ due: names, now: 10 }]);
  });

  it('reports what a late timer finds instant by instant, in their order (H078, H081)', async () => {
    const { clock, deadlines, batches } = setUp();
    let late: (() => void) | undefined;
    vi.spyOn(clock, 'setTimeout').mockImplementation((callback) => {
      late = callback;
      return undefined;
    });
    deadlines.add('30', 30);
    deadlines.add('10', 10);
    deadlines.add('20', 20);
    deadlines.add('10 again', 10);
    deadlines.add('later', 101);
    await clock.advance(100);
    late!();
    expect(batches).toEqual([
      { due: ['10', '10 again'], now: 100 },
      { due: ['20'], now: 100 },
      { due: ['30'], now: 100 },
    ]);
    expect(deadlines.size).toBe(1);
  });

  it('leaves what is added by a report to the next timer, and what it takes back unsaid', async () => {
    const clock = new ManualClock();
    const told: string[] = [];
    const deadlines: Deadlines<string> = new Deadlines(new Time(clock), (due, now) => {
      told.push(...due);
      if (due.includes('first')) {
        deadlines.add('added', now);
        deadlines.remove(second);
      }
    });
    deadlines.add('first', 10.2);
    const second = deadlines.add('second', 10.4);
    deadlines.add('third', 10.6);
    await clock.advance(10.9);
    expect(told).toEqual([]);
    clock.setTimeout(() => told.push('|'), 0.1);
    await clock.advance(0.1);
    expect(told).toEqual(['first', 'third', '|', 'added']);
    expect([deadlines.size, clock.timers]).toEqual([0, 0]);
  });

  it('has one timer, for the earliest, and none when it is empty (H084, H085)', async () => {
    const { clock, deadlines, batches } = setUp();
    expect(clock.timers).toBe(0);
    const added = [50, 40, 30, 60].map((at) => deadlines.add(`${at}`, at));
    expect(clock.timers).toBe(1);
    for (const deadline of added) deadlines.remove(deadline);
    expect(clock.timers).toBe(0);
    expect(deadlines.size).toBe(0);
    deadlines.add('x', 70);
    await clock.advance(70);
    expect(clock.timers).toBe(0);
    expect(batches).toEqual([{ due: ['x'], now: 70 }]);
  });

  it('arms no timer for a deadline that comes after the earliest', () => {
    const { clock, deadlines } = setUp();
    const armed = vi.spyOn(clock, 'setTimeout');
    for (let at = 10; at < 1000; at++) deadlines.add('x', at);
    expect(armed).toHaveBeenCalledOnce();
  });

  it('arms a timer per interval, not per deadline, where each goes before it is due', async () => {
    const { clock, deadlines } = setUp();
    const armed = vi.spyOn(clock, 'setTimeout');
    for (let i = 0; i < 1000; i++) {
      const deadline = deadlines.add('x', clock.now() + 1000);
      const keep = deadlines.add('y', clock.now() + 1000);
      await clock.advance(1);
      deadlines.remove(deadline);
      if (i % 2 === 0) deadlines.remove(keep);
    }
    expect(armed.mock.calls.length).toBeLessThan(10);
  });

  it('leaves the timer where it is when a later one goes, wherever between two ms it is', () => {
    const { clock, deadlines } = setUp();
    const armed = vi.spyOn(clock, 'setTimeout');
    deadlines.add('a', 10.5);
    deadlines.remove(deadlines.add('b', 20));
    expect(armed).toHaveBeenCalledOnce();
  });

  it('reports nothing when the earliest has gone, and then the next', async () => {
    const { clock, deadlines, batches } = setUp();
    const first = deadlines.add('a', 10);
    deadlines.add('b', 20);
    deadlines.remove(first);
    await clock.advance(10);
    expect(batches).toEqual([]);
    await clock.advance(10);
    expect(batches).toEqual([{ due: ['b'], now: 20 }]);
  });

  it('ignores a deadline that is due or gone', async () => {
    const { clock, deadlines, batches } = setUp();
    const due = deadlines.add('due', 10);
    await clock.advance(10);
    const gone = deadlines.add('gone', 20);
    deadlines.remove(gone);
    deadlines.add('a', 30);
    deadlines.add('b', 40);
    for (const deadline of [due, gone, gone]) deadlines.remove(deadline);
    expect(deadlines.size).toBe(2);
    await clock.advance(30);
    expect(batches.flatMap((batch) => batch.due)).toEqual(['due', 'a', 'b']);
  });

  it('has forgotten a batch before it reports it, and takes new ones meanwhile', async () => {
    const clock = new ManualClock();
    const seen: string[] = [];
    const made: Deadline[] = [];
    const deadlines: Deadlines<string> = new Deadlines(new Time(clock), (due, now) => {
      expect(deadlines.size).toBe(1);
      seen.push(...due);
      for (const deadline of made.splice(0)) deadlines.remove(deadline);
      expect(deadlines.size).toBe(1);
      if (now < 30) made.push(deadlines.add(`at ${now + 10}`, now + 10));
    });
    deadlines.add('last', 1000);
    made.push(deadlines.add('at 10', 10), deadlines.add('at 10 too', 10));
    await clock.advance(100);
    expect(seen).toEqual(['at 10', 'at 10 too', 'at 20', 'at 30']);
    expect(clock.timers).toBe(1);
  });

  it('goes on with the rest where the report of a batch throws (H086)', async () => {
    const clock = new ManualClock();
    const seen: string[] = [];
    const deadlines = new Deadlines<string>(new Time(clock), (due) => {
      seen.push(...due);
      if (due[0] === 'a') throw new Error('report');
    });
    deadlines.add('a', 10);
    deadlines.add('b', 20);
    await expect(clock.advance(10)).rejects.toThrow('report');
    await clock.advance(10);
    expect(seen).toEqual(['a', 'b']);
  });

  it('reports a deadline in the past as soon as it can, not within add', async () => {
    const { clock, deadlines, batches } = setUp();
    await clock.advance(100);
    deadlines.add('past', 50);
    expect(batches).toEqual([]);
    await clock.advance(0);
    expect(batches).toEqual([{ due: ['past'], now: 100 }]);
  });

  it('keeps no process alive for housekeeping', () => {
    const clock = new ManualClock();
    const unref = vi.fn<() => void>();
    vi.spyOn(clock, 'setTimeout').mockReturnValue({ unref });
    new Deadlines(new Time(clock), () => undefined).add('x', 10);
    expect(unref).not.toHaveBeenCalled();
    new Deadlines(new Time(clock), () => undefined, true).add('x', 10);
    expect(unref).toHaveBeenCalledOnce();
  });
});
