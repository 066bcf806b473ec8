import { afterEach, describe, expect, it, vi } from 'vitest';

import { systemClock } from 'sluice';

describe('systemClock', () => {
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  describe('.now()', () => {
    it('counts milliseconds from the Unix epoch', () => {
      // The wall clock may have been set since the process started, but not by an hour.
      expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(3_600_000);
    });

    it('does so from its first reading on', async () => {
      vi.resetModules();
      const { systemClock: unread } = await import('../src/clock.ts');
      expect(Math.abs(unread.now() - systemClock.now())).toBeLessThan(3_600_000);
    });

    it('does not go back, and moves on', () => {
      const first = systemClock.now();
      let latest = first;
      while (latest < first + 2) {
        const now = systemClock.now();
        expect(now).toBeGreaterThanOrEqual(latest);
        latest = now;
      }
    });

    it('does not follow the wall clock when that is set (H076)', () => {
      const before = systemClock.now();
      vi.spyOn(Date, 'now').mockReturnValue(0);
      expect(systemClock.now()).toBeGreaterThanOrEqual(before);
      expect(Date.now).not.toHaveBeenCalled();
    });
  });

  it('calls back once, and not after clearTimeout', async () => {
    const calls: string[] = [];
    await new Promise<void>((resolve) => {
      const cleared = systemClock.setTimeout(() => calls.push('cleared'), 1);
      systemClock.setTimeout(() => calls.push('first'), 1);
      systemClock.setTimeout(resolve, 5);
      systemClock.clearTimeout(cleared);
      systemClock.clearTimeout(cleared);
      systemClock.clearTimeout(undefined);
    });
    expect(calls).toEqual(['first']);
  });

  it('hands out handles that can be unref-ed', () => {
    const handle = systemClock.setTimeout(() => undefined, 10) as NodeJS.Timeout;
    expect(handle.unref().hasRef()).toBe(false);
    systemClock.clearTimeout(handle);
  });

  it('goes with fake timers, which are looked up at each call (H088)', () => {
    const fired = vi.fn<() => void>();
    vi.useFakeTimers();
    const before = systemClock.now();
    systemClock.setTimeout(fired, 1000);
    vi.advanceTimersByTime(999);
    expect(fired).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(fired).toHaveBeenCalledOnce();
    expect(systemClock.now() - before).toBeCloseTo(1000, 3);
  });
});
