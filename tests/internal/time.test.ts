import { describe, expect, it, vi } from 'vitest';

import type { Clock } from '../../src/clock.ts';
import { Alarm, Time } from '../../src/internal/time.ts';
import { ManualClock, settle } from '../../src/testing.ts';

const MAX_TIMER_MS = 2 ** 31 - 1;
const DAY_MS = 86_400_000;

/** A clock whose timers fire only when the test says so, be that early, late, twice or cleared. */
class LooseClock implements Clock {
  time = 0;
  readonly armed: { callback: () => void; ms: number; cleared: boolean }[] = [];

  now(): number {
    return this.time;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    const timer = { callback, ms, cleared: false };
    this.armed.push(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    (handle as { cleared: boolean }).cleared = true;
  }

  get live(): number {
    return this.armed.filter((timer) => !timer.cleared).length;
  }

  fire(timer = this.armed[0]!): void {
    if (this.armed.includes(timer)) this.armed.splice(this.armed.indexOf(timer), 1);
    timer.callback();
  }
}

function clockThat(now: () => unknown): Clock {
  return { now: now as () => number, setTimeout: () => undefined, clearTimeout: () => undefined };
}

describe('Time', () => {
  it('refuses a clock without one of the three methods, by its name', () => {
    for (const method of ['now', 'setTimeout', 'clearTimeout'] as const) {
      const clock = { ...clockThat(() => 0), [method]: undefined };
      expect(() => new Time(clock as never)).toThrow(
        new TypeError(`Expected \`clock\` to have a method \`${method}\`.`),
      );
    }
    for (const clock of [null, 5, 'clock', {}]) {
      expect(() => new Time(clock as never)).toThrow(
        new TypeError('Expected `clock` to have a method `now`.'),
      );
    }
  });

  it('refuses a clock that tells no time from the start (H090)', () => {
    for (const now of [Number.NaN, undefined, Infinity, '5']) {
      expect(() => new Time(clockThat(() => now))).toThrow(
        new RangeError('Expected `clock.now()` to be a finite number of milliseconds.'),
      );
    }
  });

  it('calls the methods on the clock itself', () => {
    const clock = new ManualClock();
    expect(new Time(clock).now()).toBe(0);
  });

  it('reads the system clock where none is given', () => {
    expect(new Time().now()).toBeGreaterThan(1.7e12);
    expect(new Time(undefined).clock).toBe(new Time().clock);
  });

  describe('.now()', () => {
    it('stands while the clock tells no time (H090)', () => {
      let reading: unknown = 5;
      const time = new Time(clockThat(() => reading));
      for (const bad of [Number.NaN, undefined, null, Infinity, -Infinity, '9']) {
        reading = bad;
        expect(time.now()).toBe(5);
      }
      reading = 6;
      expect(time.now()).toBe(6);
    });

    it('never goes back (H077)', () => {
      const readings = [5, 5, 7.5, 3, -1, 7.5, 8];
      const time = new Time(clockThat(() => readings.shift()));
      expect([1, 2, 3, 4, 5, 6].map(() => time.now())).toEqual([5, 7.5, 7.5, 7.5, 7.5, 8]);
    });

    it('takes a clock that counts from anywhere, below 0 too', () => {
      expect(new Time(clockThat(() => -1e15)).now()).toBe(-1e15);
    });
  });

  describe('.read()', () => {
    it('throws for what is not a time, and takes it for nothing (H090)', () => {
      let reading: unknown = 5;
      const time = new Time(clockThat(() => reading));
      time.read();
      for (const bad of [Number.NaN, undefined, null, Infinity, -Infinity, '9', 9n, new Date(9)]) {
        reading = bad;
        expect(() => time.read()).toThrow(
          new RangeError('Expected `clock.now()` to be a finite number of milliseconds.'),
        );
      }
      reading = 6;
      expect(time.read()).toBe(6);
      reading = 3;
      expect(time.read()).toBe(6);
    });
  });
});

describe('Alarm', () => {
  it('rings once, at the instant it is set for', async () => {
    const clock = new ManualClock();
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    expect(alarm.at).toBe(Infinity);
    alarm.set(10);
    expect(alarm.at).toBe(10);
    await clock.advance(9);
    expect(rung).toEqual([]);
    await clock.advance(1);
    expect(rung).toEqual([10]);
    expect(alarm.at).toBe(Infinity);
    expect(clock.timers).toBe(0);
    await clock.advance(1000);
    expect(rung).toEqual([10]);
  });

  it('rings as soon as it can where the instant has passed, but not within set (H089)', async () => {
    const clock = new ManualClock();
    await clock.advance(10);
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    alarm.set(5);
    expect(rung).toEqual([]);
    await clock.advance(0);
    expect(rung).toEqual([10]);
  });

  it('looks again when a timer fires early, and waits whole milliseconds (H019, H080)', () => {
    const clock = new LooseClock();
    const ring = vi.fn<() => void>();
    const alarm = new Alarm(new Time(clock), ring);
    alarm.set(10.25);
    expect(clock.armed).toMatchObject([{ ms: 11 }]);
    for (const [time, ms] of [
      [9.2, 2],
      [10.2, 1],
      [10.249, 1],
    ] as const) {
      clock.time = time;
      clock.fire();
      expect(ring).not.toHaveBeenCalled();
      expect(clock.armed).toMatchObject([{ ms }]);
    }
    clock.time = 10.25;
    clock.fire();
    expect(ring).toHaveBeenCalledExactlyOnceWith(10.25);
    expect(clock.armed).toEqual([]);
  });

  it('holds out for longer than a timer can (H017)', async () => {
    const clock = new ManualClock();
    const armed = vi.spyOn(clock, 'setTimeout');
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    alarm.set(100 * DAY_MS);
    await clock.advance(100 * DAY_MS - 1);
    expect(rung).toEqual([]);
    expect(clock.timers).toBe(1);
    await clock.advance(1);
    expect(rung).toEqual([100 * DAY_MS]);
    expect(armed.mock.calls.map(([, ms]) => ms)).toEqual([
      MAX_TIMER_MS,
      MAX_TIMER_MS,
      MAX_TIMER_MS,
      MAX_TIMER_MS,
      100 * DAY_MS - 4 * MAX_TIMER_MS,
    ]);
  });

  it('moves to an earlier instant with a timer of its own', async () => {
    const clock = new ManualClock();
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    alarm.set(100);
    alarm.set(10);
    expect(clock.timers).toBe(1);
    await clock.runAll();
    expect(rung).toEqual([10]);
    expect(clock.now()).toBe(10);
  });

  it('moves to a later instant without touching the timer', async () => {
    const clock = new ManualClock();
    const armed = vi.spyOn(clock, 'setTimeout');
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    alarm.set(10);
    for (let at = 11; at <= 1000; at++) alarm.set(at);
    expect(armed).toHaveBeenCalledOnce();
    await clock.runAll();
    expect(rung).toEqual([1000]);
    expect(armed).toHaveBeenCalledTimes(2);
  });

  it('leaves a timer alone that fires at the very instant', () => {
    const clock = new LooseClock();
    const alarm = new Alarm(new Time(clock), () => undefined);
    alarm.set(5);
    alarm.set(5);
    expect(clock.armed.map(({ ms, cleared }) => [ms, cleared])).toEqual([[5, false]]);
  });

  it('is off at Infinity, with no timer', async () => {
    const clock = new ManualClock();
    const ring = vi.fn<() => void>();
    const alarm = new Alarm(new Time(clock), ring);
    alarm.set(Infinity);
    alarm.set(10);
    alarm.set(Infinity);
    expect(alarm.at).toBe(Infinity);
    expect(clock.timers).toBe(0);
    await clock.advance(20);
    expect(ring).not.toHaveBeenCalled();
  });

  it('can be set and turned off within its own ring (H093)', async () => {
    const clock = new ManualClock();
    const rung: number[] = [];
    const alarm: Alarm = new Alarm(new Time(clock), (now) => {
      rung.push(now);
      if (now === 10) {
        alarm.set(30);
        alarm.set(20);
        alarm.set(25);
      } else if (now === 25) {
        alarm.set(40);
        alarm.set(Infinity);
      }
    });
    alarm.set(10);
    await clock.advance(100);
    expect(rung).toEqual([10, 25]);
    expect(clock.timers).toBe(0);
  });

  it('can be set again where its ring throws (H086)', async () => {
    const clock = new ManualClock();
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => {
      rung.push(now);
      if (now === 10) throw new Error('ring');
    });
    alarm.set(10);
    await expect(clock.advance(10)).rejects.toThrow('ring');
    alarm.set(20);
    await clock.advance(10);
    expect(rung).toEqual([10, 20]);
  });

  it('rings late, once, where the clock has jumped over its instant (H078)', () => {
    const clock = new LooseClock();
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    alarm.set(10);
    clock.time = DAY_MS;
    clock.fire();
    expect(rung).toEqual([DAY_MS]);
    expect(clock.armed).toEqual([]);
  });

  it('does not ring again, nor earlier, because the clock went back (H077)', () => {
    const clock = new LooseClock();
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    clock.time = 100;
    alarm.set(110);
    clock.time = 50;
    clock.fire();
    expect(rung).toEqual([]);
    expect(clock.armed).toMatchObject([{ ms: 10 }]);
    clock.time = 110;
    clock.fire();
    expect(rung).toEqual([110]);
  });

  it('knows its own timer: one that was cleared and fires all the same does nothing', () => {
    const clock = new LooseClock();
    const rung: number[] = [];
    const alarm = new Alarm(new Time(clock), (now) => rung.push(now));
    alarm.set(10);
    const cleared = clock.armed[0]!;
    alarm.set(5);
    expect(cleared.cleared).toBe(true);
    clock.fire(cleared);
    expect(clock.armed).toHaveLength(1);
    clock.time = 5;
    clock.fire();
    clock.fire(cleared);
    expect(rung).toEqual([5]);
  });

  it('never rings within set, though the clock calls back at once (H089)', async () => {
    const clock = new LooseClock();
    vi.spyOn(clock, 'setTimeout').mockImplementation((callback, ms) => {
      if (ms > 0) return LooseClock.prototype.setTimeout.call(clock, callback, ms);
      callback();
      return undefined;
    });
    let within = false;
    const rung: number[] = [];
    const alarm: Alarm = new Alarm(new Time(clock), (now) => {
      expect(within).toBe(false);
      rung.push(now);
      // To a later instant: its timer must not be mixed up with the one that has just fired.
      if (rung.length === 1) alarm.set(50);
    });
    within = true;
    alarm.set(0);
    within = false;
    await settle();
    expect(rung).toEqual([0]);
    expect(clock.live).toBe(1);
    alarm.set(Infinity);
    expect(clock.live).toBe(0);
  });

  it('can be set again where the clock could not arm a timer', () => {
    const clock = new LooseClock();
    const alarm = new Alarm(new Time(clock), () => undefined);
    vi.spyOn(clock, 'setTimeout').mockImplementationOnce(() => {
      throw new Error('no timers left');
    });
    expect(() => alarm.set(10)).toThrow('no timers left');
    alarm.set(10);
    expect(clock.live).toBe(1);
  });

  it('keeps the process alive unless it is for housekeeping (H087)', () => {
    const unref = vi.fn<() => void>();
    const clock = { ...clockThat(() => 0), setTimeout: () => ({ unref }) };
    new Alarm(new Time(clock), () => undefined).set(1);
    expect(unref).not.toHaveBeenCalled();
    new Alarm(new Time(clock), () => undefined, true).set(1);
    expect(unref).toHaveBeenCalledOnce();
    for (const handle of [7, undefined, null, {}]) {
      const plain = { ...clockThat(() => 0), setTimeout: () => handle };
      new Alarm(new Time(plain), () => undefined, true).set(1);
    }
  });
});
