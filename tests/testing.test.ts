import { afterEach, describe, expect, it, vi } from 'vitest';

import { ManualClock, settle } from 'sluice/testing';

async function afterTicks(ticks: number): Promise<void> {
  for (let i = 0; i < ticks; i++) await Promise.resolve();
}

describe('settle()', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('resolves when every promise that can settle has', async () => {
    let done = false;
    void afterTicks(10_000).then(() => {
      done = true;
    });
    await settle();
    expect(done).toBe(true);
  });

  it('does not wait for fake timers, nor does a clock that is moved', async () => {
    vi.useFakeTimers();
    await settle();
    const clock = new ManualClock();
    await clock.advance(5);
    expect(clock.now()).toBe(5);
  });

  it('waits for no timer', async () => {
    let fired = false;
    const timer = setTimeout(() => {
      fired = true;
    }, 60_000);
    await settle();
    expect(fired).toBe(false);
    clearTimeout(timer);
  });
});

describe('ManualClock', () => {
  it('starts at 0 and stands still', async () => {
    const clock = new ManualClock();
    expect(clock.now()).toBe(0);
    await settle();
    expect(clock.now()).toBe(0);
    expect(clock.timers).toBe(0);
  });

  describe('.setTimeout()', () => {
    it('fires at its instant, not before', async () => {
      const clock = new ManualClock();
      const fired = vi.fn<() => void>();
      clock.setTimeout(fired, 10.5);
      await clock.advance(10.25);
      expect(fired).not.toHaveBeenCalled();
      await clock.advance(0.25);
      expect(fired).toHaveBeenCalledExactlyOnceWith();
      expect(clock.now()).toBe(10.5);
    });

    it('takes a time below 0 for 0, and fires neither at once', async () => {
      const clock = new ManualClock();
      const fired: string[] = [];
      clock.setTimeout(() => fired.push('zero'), 0);
      clock.setTimeout(() => fired.push('below'), -5);
      expect(fired).toEqual([]);
      await clock.advance(0);
      expect(fired).toEqual(['zero', 'below']);
      expect(clock.now()).toBe(0);
    });

    it('refuses what no timer can hold, and arms nothing', () => {
      const clock = new ManualClock();
      for (const ms of [Number.NaN, Infinity, -Infinity, '5', undefined]) {
        expect(() => clock.setTimeout(() => undefined, ms as number)).toThrow(
          new RangeError(`Expected \`ms\` to be a finite number, got ${String(ms)}.`),
        );
      }
      expect(clock.timers).toBe(0);
    });
  });

  describe('.clearTimeout()', () => {
    it('takes a timer off, and ignores what is none', async () => {
      const clock = new ManualClock();
      const fired = vi.fn<() => void>();
      const handle = clock.setTimeout(fired, 5);
      expect(clock.timers).toBe(1);
      for (const other of [undefined, null, {}, 5]) clock.clearTimeout(other);
      expect(clock.timers).toBe(1);
      clock.clearTimeout(handle);
      clock.clearTimeout(handle);
      expect(clock.timers).toBe(0);
      await clock.advance(10);
      expect(fired).not.toHaveBeenCalled();
    });

    it('takes off a timer of the same instant that has not fired yet', async () => {
      const clock = new ManualClock();
      const fired: string[] = [];
      clock.setTimeout(() => {
        fired.push('first');
        clock.clearTimeout(second);
      }, 5);
      const second = clock.setTimeout(() => fired.push('second'), 5);
      await clock.advance(5);
      expect(fired).toEqual(['first']);
    });
  });

  describe('.advance()', () => {
    it('fires in the order of the instants, those of one instant in the order of setTimeout', async () => {
      const clock = new ManualClock();
      const fired: string[] = [];
      for (const [name, ms] of [
        ['c', 20],
        ['a', 10],
        ['d', 20],
        ['b', 10],
      ] as const) {
        clock.setTimeout(() => fired.push(`${name} at ${clock.now()}`), ms);
      }
      await clock.advance(100);
      expect(fired).toEqual(['a at 10', 'b at 10', 'c at 20', 'd at 20']);
      expect(clock.now()).toBe(100);
    });

    it('fires timers that timers arm on the way, in their turn', async () => {
      const clock = new ManualClock();
      const fired: string[] = [];
      clock.setTimeout(() => {
        fired.push('10');
        clock.setTimeout(() => fired.push('10 + 0'), 0);
        clock.setTimeout(() => fired.push('10 + 5'), 5);
        clock.setTimeout(() => fired.push('10 + 50'), 50);
      }, 10);
      clock.setTimeout(() => fired.push('10 too'), 10);
      clock.setTimeout(() => fired.push('12'), 12);
      await clock.advance(20);
      expect(fired).toEqual(['10', '10 too', '10 + 0', '12', '10 + 5']);
      expect(clock.timers).toBe(1);
    });

    it('lets promises settle before the first timer, between any two, and at the end', async () => {
      const clock = new ManualClock();
      const seen: string[] = [];
      const note = (what: string): void => {
        void settle().then(() => seen.push(what));
      };
      void Promise.resolve().then(() => clock.setTimeout(() => seen.push('armed late'), 5));
      clock.setTimeout(() => note('after the first'), 5);
      clock.setTimeout(() => {
        seen.push('second');
        note('after the second');
      }, 5);
      await clock.advance(5);
      await settle();
      expect(seen).toEqual(['after the first', 'second', 'after the second', 'armed late']);
    });

    it('settles a wait for the end of the way', async () => {
      const clock = new ManualClock();
      let at: number | undefined;
      void new Promise<void>((resolve) => clock.setTimeout(resolve, 10)).then(() => {
        at = clock.now();
      });
      await clock.advance(10);
      expect(at).toBe(10);
    });

    it('refuses a span that is none, and stays where it is', async () => {
      const clock = new ManualClock();
      for (const ms of [-1, Number.NaN, Infinity, undefined, 'x']) {
        await expect(clock.advance(ms as number)).rejects.toThrow(
          new RangeError(`Expected \`ms\` to be a non-negative number, got ${String(ms)}.`),
        );
      }
      expect(clock.now()).toBe(0);
    });

    it('rejects with what a timer throws, and goes on from there when called again', async () => {
      const clock = new ManualClock();
      const fired: number[] = [];
      clock.setTimeout(() => {
        throw new Error('timer');
      }, 10);
      clock.setTimeout(() => fired.push(clock.now()), 20);
      await expect(clock.advance(30)).rejects.toThrow('timer');
      expect(clock.now()).toBe(10);
      await clock.advance(10);
      expect(fired).toEqual([20]);
    });

    it('never goes back, though called again before the first call is over', async () => {
      const clock = new ManualClock();
      await Promise.all([clock.advance(100), clock.advance(50)]);
      expect(clock.now()).toBe(100);
    });
  });

  describe('.runAll()', () => {
    it('goes from timer to timer until none is armed', async () => {
      const clock = new ManualClock();
      const fired: number[] = [];
      const again = (): void => {
        fired.push(clock.now());
        if (fired.length < 4) clock.setTimeout(again, 100);
      };
      clock.setTimeout(again, 100);
      await clock.runAll();
      expect(fired).toEqual([100, 200, 300, 400]);
      expect(clock.now()).toBe(400);
      expect(clock.timers).toBe(0);
    });

    it('fails where there is no end', async () => {
      const clock = new ManualClock();
      const again = (): void => {
        clock.setTimeout(again, 1);
      };
      again();
      await expect(clock.runAll(50)).rejects.toThrow(
        new Error('Timers are still being armed: this would never end.'),
      );
      expect(clock.now()).toBe(50);
    });
  });
});
