import { type Lease, RateLimiter, type RateLimiterOptions } from 'sluice/rate-limiter';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { PriorityLine } from '../src/internal/priority-line.ts';
import { HandClock } from './support/hand-clock.ts';
import { LIMITER_EVENTS, record } from './support/events.ts';

/** A limiter of one limit on a clock that stands at 0. */
function setUp(options: Omit<RateLimiterOptions & { limits?: undefined }, 'clock'>): {
  clock: ManualClock;
  limiter: RateLimiter;
} {
  const clock = new ManualClock();
  return { clock, limiter: new RateLimiter({ ...options, clock }) };
}

type Outcome = 'waiting' | 'granted' | { readonly code: string | undefined; readonly at: number };

/** What has become of a call so far. */
function follow(clock: ManualClock, call: Promise<unknown>): { outcome: Outcome; at?: number } {
  const followed: { outcome: Outcome; at?: number } = { outcome: 'waiting' };
  call.then(
    () => {
      followed.outcome = 'granted';
      followed.at = clock.now();
    },
    (error: { code?: string }) => {
      followed.outcome = { code: error.code, at: clock.now() };
    },
  );
  return followed;
}

function take(limiter: RateLimiter, times: number): number {
  let granted = 0;
  for (let i = 0; i < times; i++) if (limiter.tryAcquire() !== undefined) granted++;
  return granted;
}

describe('RateLimiter', () => {
  describe('constructor', () => {
    it('takes one limit, with a burst of that limit and an interval of a second', () => {
      const { limiter } = setUp({ limit: 3 });
      expect(limiter.stats().limits).toEqual([
        { name: undefined, limit: 3, intervalMs: 1000, burst: 3, available: 3, debt: 0 },
      ]);
    });

    it('takes several limits by name', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 5 }, tokens: { limit: 100, intervalMs: 60_000, burst: 40 } },
      });
      expect(limiter.stats().limits).toEqual([
        { name: 'requests', limit: 5, intervalMs: 1000, burst: 5, available: 5, debt: 0 },
        { name: 'tokens', limit: 100, intervalMs: 60_000, burst: 40, available: 40, debt: 0 },
      ]);
    });

    it.each([
      [{}, TypeError, 'limit'],
      [{ limit: 0 }, RangeError, 'limit'],
      [{ limit: -1 }, RangeError, 'limit'],
      [{ limit: 1.5 }, RangeError, 'limit'],
      [{ limit: Number.NaN }, RangeError, 'limit'],
      [{ limit: Infinity }, RangeError, 'limit'],
      [{ limit: '2' }, TypeError, 'limit'],
      [{ limit: 2n }, TypeError, 'limit'],
      [{ limit: 2 ** 53 }, RangeError, 'limit'],
      [{ limit: 1, burst: 0 }, RangeError, 'burst'],
      [{ limit: 1, burst: 0.5 }, RangeError, 'burst'],
      [{ limit: 1, intervalMs: 0 }, RangeError, 'intervalMs'],
      [{ limit: 1, intervalMs: 0.5 }, RangeError, 'intervalMs'],
      [{ limit: 1, intervalMs: Infinity }, RangeError, 'intervalMs'],
      [{ limit: 1, intervalMs: 2 ** 43 }, RangeError, 'intervalMs'],
      [{ limit: 1, maxWaiting: -1 }, RangeError, 'maxWaiting'],
      [{ limit: 1, maxWaiting: Number.NaN }, RangeError, 'maxWaiting'],
      [{ limit: 1, priorities: 0 }, RangeError, 'priorities'],
      [{ limit: 1, priorities: 33 }, RangeError, 'priorities'],
      [{ limit: 1, maxPauseMs: -1 }, RangeError, 'maxPauseMs'],
      [{ limit: 1, clock: {} }, TypeError, 'clock'],
      [{ limits: {} }, TypeError, 'limits'],
      [{ limits: 3 }, TypeError, 'limits'],
      [{ limits: { a: { limit: 0 } } }, RangeError, 'limits.a.limit'],
      [{ limits: { a: { limit: 1, per: 1 } } }, TypeError, 'per'],
      [{ limits: { a: { limit: 1 } }, burst: 3 }, TypeError, 'limits'],
      [{ limt: 1 }, TypeError, 'limt'],
    ])('refuses %o by name', (options, kind, name) => {
      const construct = (): unknown => new RateLimiter(options as never);
      expect(construct).toThrow(kind);
      expect(construct).toThrow(name);
    });

    it.each([
      [{ limit: null }, 'limit'],
      [{ limit: 1, intervalMs: null }, 'intervalMs'],
      [{ limit: 1, burst: null }, 'burst'],
      [{ limit: 1, maxWaiting: null }, 'maxWaiting'],
      [{ limit: 1, priorities: null }, 'priorities'],
      [{ limit: 1, maxPauseMs: null }, 'maxPauseMs'],
      [{ limit: 1, limits: null }, 'options of limits'],
      [{ limits: { a: null } }, 'options of "a"'],
      [{ limits: { a: { limit: null } } }, 'limits.a.limit'],
      [{ limits: { a: { limit: 1, intervalMs: null } } }, 'limits.a.intervalMs'],
      [{ limits: { a: { limit: 1, burst: null } } }, 'limits.a.burst'],
      [null, 'options of RateLimiter'],
    ])('refuses the null in %j by name', (options, name) => {
      const construct = (): unknown => new RateLimiter(options as never);
      expect(construct).toThrow(TypeError);
      expect(construct).toThrow(new RegExp(`\`${name}\` .* got null`));
    });

    it.each([
      [{ limit: 1, clock: null }, '`clock`'],
      [{ limits: { a: { limit: 1 } }, limit: null }, '`limit`'],
      [{ limits: { a: { limit: 1 } }, burst: null }, '`burst`'],
    ])('does not take the null in %j for nothing', (options, name) => {
      const construct = (): unknown => new RateLimiter(options as never);
      expect(construct).toThrow(TypeError);
      expect(construct).toThrow(name);
    });

    it('reads options as own properties only (H013)', () => {
      const options = Object.assign(Object.create({ burst: 100 }) as object, { limit: 2 });
      expect(new RateLimiter(options as RateLimiterOptions).available()).toBe(2);
    });

    it('says which of the two ways to give limits it was', () => {
      const limits = { a: { limit: 1 } };
      for (const extra of [{ limit: 1 }, { intervalMs: 1 }, { burst: 1 }]) {
        expect(() => new RateLimiter({ limits, ...extra } as never)).toThrow(
          new TypeError('Expected either `limit`, `intervalMs` and `burst` or `limits`, got both.'),
        );
      }
      expect(() => new RateLimiter({ limits: {} })).toThrow(
        new TypeError('Expected `limits` to have at least one limit.'),
      );
    });

    it('refuses a clock that tells no time', () => {
      const clock = new ManualClock();
      clock.now = () => Number.NaN;
      expect(() => new RateLimiter({ limit: 1, clock })).toThrow(
        new RangeError('Expected `clock.now()` to be a finite number of milliseconds.'),
      );
    });
  });

  describe('.tryAcquire()', () => {
    it('grants the burst at once, then at the rate', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 3 });
      expect(take(limiter, 5)).toBe(3);
      await clock.advance(99);
      expect(take(limiter, 5)).toBe(0);
      await clock.advance(1);
      expect(take(limiter, 5)).toBe(1);
      await clock.advance(250);
      expect(take(limiter, 5)).toBe(2);
    });

    it('saves up the burst and no more (H242)', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 3 });
      take(limiter, 3);
      await clock.advance(365 * 86_400_000);
      expect(take(limiter, 10)).toBe(3);
    });

    it('keeps the fraction of a token that is under way (H252)', async () => {
      const { clock, limiter } = setUp({ limit: 7, burst: 7 });
      take(limiter, 7);
      let granted = 0;
      for (let i = 0; i < 100; i++) {
        await clock.advance(100);
        granted += take(limiter, 10);
      }
      expect(granted).toBe(70);
    });

    it('does not overtake those who wait, even if there would be enough for it (H253)', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 10 });
      limiter.tryAcquire(8);
      const heavy = follow(clock, limiter.acquire({ cost: 5 }));
      expect(limiter.available()).toBe(2);
      expect(limiter.tryAcquire()).toBeUndefined();
      await clock.advance(300);
      expect(heavy).toEqual({ outcome: 'granted', at: 300 });
    });

    it('refuses what is over the burst, and whatever is asked of a closed limiter', () => {
      const { limiter } = setUp({ limit: 2 });
      expect(limiter.tryAcquire(3)).toBeUndefined();
      limiter.close();
      expect(limiter.tryAcquire()).toBeUndefined();
    });

    it.each([0, -1, 0.5, Number.NaN, Infinity, '1', null, {}, 2 ** 53])(
      'throws for a cost of %o and takes nothing (H246)',
      (cost) => {
        const { limiter } = setUp({ limit: 2 });
        expect(() => limiter.tryAcquire(cost as number)).toThrow(/`cost`/);
        expect(limiter.available()).toBe(2);
      },
    );

    it('is exact up to the largest safe integer (H247)', async () => {
      const most = Number.MAX_SAFE_INTEGER;
      const { clock, limiter } = setUp({ limit: most, burst: most });
      expect(limiter.tryAcquire(most - 1)).toBeDefined();
      expect([limiter.available(), limiter.tryAcquire(2)]).toEqual([1, undefined]);
      expect(limiter.tryAcquire()).toBeDefined();
      for (const ms of [1, 6, 93, 401, 498, 1]) {
        await clock.advance(ms);
        const gained = (BigInt(most) * BigInt(clock.now())) / 1000n;
        expect(BigInt(limiter.available())).toBe(gained);
      }
      expect(() => limiter.tryAcquire(most + 1)).toThrow(RangeError);
    });

    it('takes of all limits or of none (H268)', async () => {
      const clock = new ManualClock();
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 100 } },
        clock,
      });
      expect(limiter.tryAcquire({ requests: 1, tokens: 80 })).toBeDefined();
      expect(limiter.tryAcquire({ requests: 1, tokens: 80 })).toBeUndefined();
      expect(limiter.available('requests')).toBe(9);
      expect(limiter.available('tokens')).toBe(20);
      await clock.advance(600);
      expect(limiter.tryAcquire({ requests: 1, tokens: 80 })).toBeDefined();
    });

    it('takes a plain number of each limit, and of a limit that is not named nothing', () => {
      const limiter = new RateLimiter({
        limits: { perSecond: { limit: 10 }, perDay: { limit: 1000, intervalMs: 86_400_000 } },
      });
      limiter.tryAcquire(3);
      expect([limiter.available('perSecond'), limiter.available('perDay')]).toEqual([7, 997]);
      limiter.tryAcquire({ perDay: 7 });
      expect([limiter.available('perSecond'), limiter.available('perDay')]).toEqual([7, 990]);
      expect(limiter.available()).toBe(7);
      expect(() => limiter.available('perHour' as never)).toThrow(
        new TypeError('Unknown limit "perHour".'),
      );
    });

    it.each([
      [{ tokns: 1 }, 'tokns'],
      [{ tokens: -1 }, 'cost.tokens'],
      [{ tokens: 0.5 }, 'cost.tokens'],
      [{ tokens: 0 }, 'above 0'],
      [{}, 'above 0'],
    ])('throws for a cost of %o by name', (cost, message) => {
      const limiter = new RateLimiter({ limits: { tokens: { limit: 5 } } });
      expect(() => limiter.tryAcquire(cost as never)).toThrow(message);
      expect(limiter.available()).toBe(5);
    });
  });

  describe('.acquire()', () => {
    it('waits in line, first come first served', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      const calls = [1, 2, 3, 4].map(() => follow(clock, limiter.acquire()));
      expect(limiter.waiting).toBe(3);
      await clock.advance(1000);
      expect(calls.map(({ at }) => at)).toEqual([0, 100, 200, 300]);
      expect(clock.timers).toBe(0);
    });

    it('keeps one timer armed, however many wait (H085, H258)', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      for (let i = 0; i < 50; i++) void limiter.acquire({ waitTimeoutMs: 60_000 });
      expect(clock.timers).toBe(1);
      await clock.advance(49_000);
      expect(limiter.waiting).toBe(0);
      expect(clock.timers).toBe(0);
    });

    it('grants nothing early where timers fire early (H243)', async () => {
      const clock = new (class extends ManualClock {
        override setTimeout(callback: () => void, ms: number): unknown {
          return super.setTimeout(callback, ms * 0.9);
        }
      })();
      const limiter = new RateLimiter({ limit: 10, clock });
      limiter.tryAcquire(10);
      const calls = [1, 2, 3].map(() => follow(clock, limiter.acquire()));
      await clock.advance(500);
      const late = calls.map(({ at }, index) => at! - (index + 1) * 100);
      expect(Math.min(...late)).toBeGreaterThanOrEqual(0);
      expect(Math.max(...late)).toBeLessThan(1);
    });

    it('waits no longer where the clock went back before and comes right again (H250)', async () => {
      const clock = new ManualClock();
      const limiter = new RateLimiter({ limit: 10, clock });
      await clock.advance(1000);
      limiter.tryAcquire(10);
      const now = vi.spyOn(clock, 'now').mockReturnValue(-86_400_000);
      const call = limiter.acquire();
      now.mockRestore();
      const followed = follow(clock, call);
      await clock.advance(100);
      expect(followed).toEqual({ outcome: 'granted', at: 1100 });
    });

    it('grants all that has come in when a timer is late, and no more than the burst (H244, H267)', async () => {
      const clock = new HandClock();
      const limiter = new RateLimiter({ limit: 10, burst: 5, clock });
      limiter.tryAcquire(5);
      const granted: number[] = [];
      for (let i = 0; i < 14; i++) void limiter.acquire().then(() => granted.push(i));
      const after = async (ms: number): Promise<number> => {
        clock.jump(ms);
        await settle();
        return granted.length;
      };
      expect([await after(450), await after(365 * 86_400_000)]).toEqual([4, 9]);
      expect([await after(99), await after(1), await after(200)]).toEqual([9, 10, 12]);
      expect(granted).toEqual(granted.toSorted((a, b) => a - b));
      expect([limiter.waiting, clock.timers]).toEqual([2, 1]);
    });

    it.each([
      [0, [undefined, 200, 300]],
      [1, [500, undefined, 600]],
      [2, [500, 700, undefined]],
    ])(
      'plans anew for those behind when number %d leaves, and only for them (H254)',
      async (which, expected) => {
        const { clock, limiter } = setUp({ limit: 10 });
        limiter.tryAcquire(10);
        const quitters = [5, 2, 1].map(() => new AbortController());
        const calls = [5, 2, 1].map((cost, index) =>
          follow(clock, limiter.acquire({ cost, signal: quitters[index]!.signal })),
        );
        await clock.advance(100);
        quitters[which]!.abort();
        expect(clock.timers).toBe(1);
        await clock.advance(1000);
        expect(calls.map(({ at }) => at)).toEqual(expected);
        expect(clock.timers).toBe(0);
      },
    );

    it('serves the more urgent first and does not let a lighter one overtake (H233)', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 10 });
      limiter.tryAcquire(10);
      const order: string[] = [];
      const join = (name: string, cost: number, priority?: number): void => {
        void limiter.acquire({ cost, priority }).then(() => order.push(name));
      };
      join('heavy', 9);
      join('light', 1);
      join('urgent', 2, 1);
      join('middling', 1, 3);
      await clock.advance(1300);
      expect(order).toEqual(['urgent', 'middling', 'heavy', 'light']);
    });

    it('grants an urgent one at once while less urgent ones wait for more than there is', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 10 });
      limiter.tryAcquire(7);
      const heavy = follow(clock, limiter.acquire({ cost: 5 }));
      const urgent = follow(clock, limiter.acquire({ cost: 1, priority: 1 }));
      await settle();
      expect(urgent.outcome).toBe('granted');
      await clock.advance(300);
      expect(heavy).toEqual({ outcome: 'granted', at: 300 });
    });

    it('takes nothing before the grant, so that one who gives up has cost nothing', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const quitter = new AbortController();
      const reason = new Error('gone');
      const first = limiter.acquire({ signal: quitter.signal });
      const second = follow(clock, limiter.acquire());
      await clock.advance(50);
      quitter.abort(reason);
      await expect(first).rejects.toBe(reason);
      await clock.advance(50);
      expect(second).toEqual({ outcome: 'granted', at: 100 });
    });

    it('lets lighter ones through at once when the head gives up (H053)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(7);
      const quitter = new AbortController();
      const head = follow(clock, limiter.acquire({ cost: 10, signal: quitter.signal }));
      const lights = [1, 2].map(() => follow(clock, limiter.acquire()));
      quitter.abort();
      await settle();
      expect(head.outcome).not.toBe('waiting');
      expect(lights.map(({ outcome }) => outcome)).toEqual(['granted', 'granted']);
      expect(clock.timers).toBe(0);
    });

    it('refuses an aborted signal without taking anything, tokens or not (H051)', async () => {
      const { limiter } = setUp({ limit: 1 });
      const reason = new Error('gone');
      const call = limiter.acquire({ signal: AbortSignal.abort(reason) });
      await expect(call).rejects.toBe(reason);
      expect(limiter.available()).toBe(1);
    });

    it('lets a grant stand that was made before the abort (H055, H255)', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const quitter = new AbortController();
      limiter.on('granted', () => quitter.abort());
      const call = follow(clock, limiter.acquire({ signal: quitter.signal }));
      await clock.advance(100);
      expect(call.outcome).toBe('granted');
    });

    it('refuses at once what can never be granted, and says how much could', async () => {
      const { limiter } = setUp({ limit: 5, burst: 8 });
      await expect(limiter.acquire({ cost: 9 })).rejects.toMatchObject({
        code: 'ERR_EXCEEDS_CAPACITY',
        requested: 9,
        capacity: 8,
      });
    });

    it('refuses at once a wait that is known to be too long (H257)', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 1000 });
      limiter.tryAcquire();
      void limiter.acquire();
      await expect(limiter.acquire({ waitTimeoutMs: 1999 })).rejects.toMatchObject({
        code: 'ERR_RATE_LIMITED',
        retryAfterMs: 2000,
      });
      const inTime = follow(clock, limiter.acquire({ waitTimeoutMs: 2000 }));
      await clock.advance(2000);
      expect(inTime).toEqual({ outcome: 'granted', at: 2000 });
    });

    it('refuses at once a wait that is too long for what an upstream has left (R7)', async () => {
      const { clock, limiter } = setUp({ limit: 60, intervalMs: 60_000 });
      limiter.sync({ remaining: 0, resetMs: 20_000 });
      const calls: unknown[] = [];
      // One a second, and the reset brings what was held back.
      for (const [before, turn] of [
        [10, 11_000],
        [67, 20_000],
      ] as const) {
        for (let i = 0; i < before; i++) void limiter.acquire();
        const tooEarly = limiter.acquire({ waitTimeoutMs: turn - 1 });
        const told = { code: 'ERR_RATE_LIMITED', retryAfterMs: turn };
        await expect(tooEarly).rejects.toMatchObject(told);
        calls.push(follow(clock, limiter.acquire({ waitTimeoutMs: turn })));
      }
      await clock.advance(20_000);
      expect(calls).toEqual([11_000, 20_000].map((at) => ({ outcome: 'granted', at })));
    });

    it('tells who is more urgent than the line when to come back, and what a wait would be (R3)', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      for (let i = 0; i < 3; i++) void limiter.acquire({ priority: 5 });
      await expect(limiter.acquire({ priority: 1, waitTimeoutMs: 0 })).rejects.toMatchObject({
        code: 'ERR_RATE_LIMITED',
        retryAfterMs: 4000,
        estimatedWaitMs: 1000,
      });
      const urgent = follow(clock, limiter.acquire({ priority: 1, waitTimeoutMs: 1000 }));
      await clock.advance(1000);
      expect(urgent).toEqual({ outcome: 'granted', at: 1000 });
      expect(limiter.waiting).toBe(3);
    });

    it('tells an urgent one to come back while a heavier one waits for the rest (R3)', async () => {
      const { clock, limiter } = setUp({ limit: 10, maxWaiting: 3 });
      limiter.tryAcquire(10);
      for (const cost of [2, 6, 2]) void limiter.acquire({ priority: 5, cost });
      const urgent = { priority: 1, cost: 3, waitTimeoutMs: 0 };
      const told = { retryAfterMs: 500, estimatedWaitMs: 300 };
      await expect(limiter.acquire(urgent)).rejects.toMatchObject({
        code: 'ERR_QUEUE_FULL',
        ...told,
      });
      await clock.advance(499);
      await expect(limiter.acquire(urgent)).rejects.toMatchObject({ retryAfterMs: 1 });
      await clock.advance(1);
      await limiter.acquire(urgent);
    });

    it('looks at nobody in line to tell one who wants as much as they do (R3)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      for (let i = 0; i < 3; i++) void limiter.acquire();
      const urgent = { priority: 1, waitTimeoutMs: 0 };
      const look = vi.spyOn(PriorityLine.prototype, Symbol.iterator);
      const told = { retryAfterMs: 400, estimatedWaitMs: 100 };
      await expect(limiter.acquire(urgent)).rejects.toMatchObject(told);
      expect(look).not.toHaveBeenCalled();
      look.mockRestore();
      // It comes before a heavier one behind them, also when there is a lighter one behind that.
      for (const cost of [2, 1]) void limiter.acquire({ cost });
      await expect(limiter.acquire(urgent)).rejects.toMatchObject(told);
      await clock.advance(400);
      await limiter.acquire(urgent);
    });

    it('reckons with a grant whose timer is late as coming now (R3)', () => {
      let now = 0;
      const clock = { now: () => now, setTimeout: () => undefined, clearTimeout: () => undefined };
      const limits = { a: { limit: 1 }, b: { limit: 10 } };
      const limiter = new RateLimiter({ limits, clock });
      limiter.tryAcquire({ a: 1 });
      void limiter.acquire({ cost: { a: 1 } });
      now = 500;
      expect(limiter.retryAfterMs({ a: 1 })).toBe(1500);
      // The one who waits should have had it at 1000; from then on the bucket has been full.
      now = 1500;
      expect(limiter.retryAfterMs({ a: 1 })).toBe(1000);
      expect(limiter.tryAcquire({ a: 1 })).toBeUndefined();
      now = 2499;
      expect(limiter.tryAcquire({ a: 1 })).toBeUndefined();
      now = 2500;
      expect(limiter.tryAcquire({ a: 1 })).toBeDefined();
    });

    it('says anew when to come back after an urgent one has been granted (R3)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(8);
      void limiter.acquire({ cost: 6, priority: 5 });
      const urgent = { cost: 3, priority: 1, waitTimeoutMs: 0 };
      await expect(limiter.acquire(urgent)).rejects.toMatchObject({ retryAfterMs: 100 });
      await limiter.acquire({ cost: 2, priority: 1 });
      await expect(limiter.acquire(urgent)).rejects.toMatchObject({ retryAfterMs: 300 });
      await clock.advance(300);
      await limiter.acquire(urgent);
    });

    it('takes a waitTimeoutMs of 0 for now or not at all (H082)', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      await expect(limiter.acquire({ waitTimeoutMs: 0 })).resolves.toBeDefined();
      await expect(limiter.acquire({ waitTimeoutMs: 0 })).rejects.toMatchObject({
        code: 'ERR_RATE_LIMITED',
        retryAfterMs: 1000,
      });
      expect(clock.timers).toBe(0);
    });

    it('names the limit that is short', async () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 10, intervalMs: 60_000 } },
        clock: new ManualClock(),
      });
      limiter.tryAcquire({ requests: 10, tokens: 10 });
      await expect(
        limiter.acquire({ cost: { requests: 1, tokens: 1 }, waitTimeoutMs: 100 }),
      ).rejects.toMatchObject({ limit: 'tokens', retryAfterMs: 6000 });
    });

    it('refuses one too many, and says when to come back', async () => {
      const { limiter } = setUp({ limit: 1, maxWaiting: 2 });
      limiter.tryAcquire();
      void limiter.acquire();
      void limiter.acquire();
      await expect(limiter.acquire()).rejects.toMatchObject({
        code: 'ERR_QUEUE_FULL',
        waiting: 2,
        maxWaiting: 2,
        estimatedWaitMs: 3000,
        retryAfterMs: 3000,
      });
    });

    it('times out when its wait has become longer than it can be', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      const late = follow(clock, limiter.acquire({ waitTimeoutMs: 500, cost: 4 }));
      const urgent = follow(clock, limiter.acquire({ priority: 1, cost: 8 }));
      await clock.advance(1000);
      expect(late.outcome).toEqual({ code: 'ERR_WAIT_TIMEOUT', at: 500 });
      expect(urgent).toEqual({ outcome: 'granted', at: 800 });
      expect(limiter.available()).toBe(2);
    });

    it('never throws synchronously', async () => {
      const { limiter } = setUp({ limit: 1 });
      for (const options of [
        { cost: 0 },
        { waitTimeoutMs: -1 },
        { waitTimeoutMs: Number.NaN },
        { priority: 0 },
        { priority: 6 },
        { priority: Number.NaN },
        { signal: 5 as never },
        { weight: 1 },
      ]) {
        await expect(limiter.acquire(options)).rejects.toThrow(/`|weight/);
      }
      expect(limiter.stats()).toMatchObject({ granted: 0, waiting: 0 });
    });

    it.each(['cost', 'signal', 'waitTimeoutMs', 'priority'])(
      'refuses null as a %s by name, as `run` does',
      async (name) => {
        const { limiter } = setUp({ limit: 1 });
        const options = { [name]: null } as never;
        for (const call of [limiter.acquire(options), limiter.run(() => {}, options)]) {
          await expect(call).rejects.toThrow(TypeError);
          await expect(call).rejects.toThrow(`\`${name}\` to be`);
          await expect(call).rejects.toThrow('got null');
        }
        await expect(limiter.acquire(null as never)).rejects.toThrow(/acquire.* got null/);
        await expect(limiter.run(() => {}, null as never)).rejects.toThrow(/run.* got null/);
        for (const signal of [0, '', false]) {
          await expect(limiter.acquire({ signal } as never)).rejects.toThrow('`signal`');
        }
        expect(limiter.available()).toBe(1);
      },
    );

    it('checks in the order of arguments, closed, aborted, too much, free, full, time (H198)', async () => {
      const { limiter } = setUp({ limit: 1, maxWaiting: 0 });
      const signal = AbortSignal.abort(new Error('aborted'));
      const hopeless = { cost: 9, signal, waitTimeoutMs: 0 };
      limiter.tryAcquire();
      await expect(limiter.acquire({ waitTimeoutMs: 0 })).rejects.toMatchObject({
        code: 'ERR_QUEUE_FULL',
      });
      await expect(limiter.acquire({ cost: 9, waitTimeoutMs: 0 })).rejects.toMatchObject({
        code: 'ERR_EXCEEDS_CAPACITY',
      });
      await expect(limiter.acquire(hopeless)).rejects.toThrow('aborted');
      limiter.close();
      await expect(limiter.acquire(hopeless)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await expect(limiter.acquire({ ...hopeless, cost: -1 })).rejects.toThrow(RangeError);
    });
  });

  describe('.run()', () => {
    it('calls the task at once where no wait is necessary, and settles as it does', async () => {
      const { limiter } = setUp({ limit: 2 });
      const task = vi.fn<() => string>(() => 'done');
      const call = limiter.run(task);
      expect(task).toHaveBeenCalledOnce();
      await expect(call).resolves.toBe('done');
      const error = new Error('failed');
      await expect(limiter.run(() => Promise.reject(error))).rejects.toBe(error);
    });

    it('takes a task that throws for one that rejects', async () => {
      const { limiter } = setUp({ limit: 1 });
      const error = new Error('thrown');
      const call = limiter.run(() => {
        throw error;
      });
      await expect(call).rejects.toBe(error);
      expect(limiter.active).toBe(0);
    });

    it('calls the task when it is its turn, with its lease and a signal', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const call = limiter.run(({ lease, signal }) => {
        expect(lease.cost).toBe(1);
        expect(signal.aborted).toBe(false);
        return clock.now();
      });
      await clock.advance(1000);
      await expect(call).resolves.toBe(1000);
    });

    it('rejects the caller at once when it gives up, and aborts the task', async () => {
      const { limiter } = setUp({ limit: 1 });
      const quitter = new AbortController();
      const reason = new Error('gone');
      let end!: () => void;
      let seen: AbortSignal | undefined;
      const call = limiter.run(
        ({ signal }) => {
          seen = signal;
          return new Promise<void>((resolve) => {
            end = resolve;
          });
        },
        { signal: quitter.signal },
      );
      quitter.abort(reason);
      await expect(call).rejects.toBe(reason);
      expect(seen?.reason).toBe(reason);
      expect(limiter.active).toBe(1);
      end();
      await limiter.idle();
      expect(limiter.active).toBe(0);
    });

    it('does not call the task of one who gave up after the grant, and gives its tokens back (H240)', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const quitter = new AbortController();
      const task = vi.fn<() => void>();
      limiter.on('granted', () => quitter.abort());
      const call = follow(clock, limiter.run(task, { signal: quitter.signal }));
      await clock.advance(100);
      expect(call.outcome).not.toBe('granted');
      expect(task).not.toHaveBeenCalled();
      expect(limiter.available()).toBe(1);
      expect(limiter.active).toBe(0);
    });

    it('counts a task as active from its grant to its settlement', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const call = limiter.run(() => 1);
      const gauges: unknown[] = [];
      limiter.on('granted', ({ active, waiting }) => gauges.push({ active, waiting }));
      const idle = follow(clock, limiter.idle());
      await clock.advance(99);
      expect(idle.outcome).toBe('waiting');
      await clock.advance(1);
      expect(gauges).toEqual([{ active: 1, waiting: 0 }]);
      expect(idle.outcome).toBe('granted');
      await call;
    });

    it('never throws synchronously', async () => {
      const { limiter } = setUp({ limit: 1 });
      await expect(limiter.run(undefined as never)).rejects.toThrow(TypeError);
      await expect(limiter.run(() => 1, { cost: 0 })).rejects.toThrow(RangeError);
    });

    it('leaves no listener on a signal (H058)', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 10 });
      const { signal } = new AbortController();
      const add = vi.spyOn(signal, 'addEventListener');
      const remove = vi.spyOn(signal, 'removeEventListener');
      const calls = [1, 2, 3, 4, 5].map(() => limiter.run(() => 1, { signal }));
      await clock.advance(100);
      await Promise.all(calls);
      expect(add.mock.calls.length).toBeGreaterThan(0);
      expect(remove).toHaveBeenCalledTimes(add.mock.calls.length);
    });
  });

  describe('.retryAfterMs()', () => {
    it('is 0 when it would be granted now', () => {
      const { limiter } = setUp({ limit: 2 });
      expect(limiter.retryAfterMs(2)).toBe(0);
    });

    it('is exact for a cost behind those who wait (H256)', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 5 });
      limiter.tryAcquire(5);
      void limiter.acquire({ cost: 4 });
      void limiter.acquire({ cost: 3 });
      expect(limiter.retryAfterMs(5)).toBe(1200);
      await clock.advance(250);
      expect(limiter.retryAfterMs(5)).toBe(950);
      const call = follow(clock, limiter.acquire({ cost: 5 }));
      await clock.advance(1000);
      expect(call).toEqual({ outcome: 'granted', at: 1200 });
    });

    it('plays several limits through, with what a full one loses meanwhile', async () => {
      const clock = new ManualClock();
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10, burst: 2 }, tokens: { limit: 100 } },
        clock,
      });
      limiter.tryAcquire({ requests: 2, tokens: 100 });
      void limiter.acquire({ cost: { requests: 1, tokens: 100 } });
      void limiter.acquire({ cost: { requests: 2 } });
      // At 1000 the tokens are there, and 2 requests, of which one is left: the next at 1100.
      const promised = limiter.retryAfterMs({ requests: 1 });
      expect(promised).toBe(1200);
      const call = follow(clock, limiter.acquire({ cost: { requests: 1 } }));
      await clock.advance(2000);
      expect(call).toEqual({ outcome: 'granted', at: promised });
    });

    it('is Infinity for what is never granted', () => {
      const { limiter } = setUp({ limit: 2 });
      expect(limiter.retryAfterMs(3)).toBe(Infinity);
      limiter.close();
      expect(limiter.retryAfterMs()).toBe(Infinity);
    });

    it('throws for a bad cost', () => {
      expect(() => setUp({ limit: 2 }).limiter.retryAfterMs(0)).toThrow(RangeError);
    });
  });

  describe('.settle() of a lease', () => {
    it('gives back what was not used, once', () => {
      const { limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(8)!;
      expect(lease.settle(3)).toBe(true);
      expect(limiter.available()).toBe(7);
      expect(lease.settle(0)).toBe(false);
      expect(lease.cancel()).toBe(false);
      expect(limiter.available()).toBe(7);
    });

    it('charges what was used above the estimate, as debt where it is not there', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(8)!;
      lease.settle(17);
      expect(limiter.stats().limits).toMatchObject([{ available: 0, debt: 7 }]);
      expect(limiter.available()).toBe(0);
      expect(limiter.retryAfterMs(1)).toBe(800);
      await clock.advance(799);
      expect(limiter.tryAcquire()).toBeUndefined();
      await clock.advance(1);
      expect(limiter.tryAcquire()).toBeDefined();
    });

    it('lets waiters through at once with what comes back', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(10)!;
      const waiting = follow(clock, limiter.acquire({ cost: 4 }));
      lease.settle(6);
      await settle();
      expect(waiting).toEqual({ outcome: 'granted', at: 0 });
      expect(clock.timers).toBe(0);
    });

    it('makes waiters wait for a debt (H264, H269)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(10)!;
      const waiting = follow(clock, limiter.acquire({ cost: 4 }));
      await clock.advance(300);
      lease.settle(20);
      await clock.advance(5000);
      expect(waiting).toEqual({ outcome: 'granted', at: 1400 });
    });

    it('holds a debt against those too who take nothing of that limit', async () => {
      const limits = { requests: { limit: 10 }, tokens: { limit: 100 } };
      const clock = new ManualClock();
      const limiter = new RateLimiter({ limits, clock });
      limiter.tryAcquire({ requests: 1, tokens: 100 })!.settle({ tokens: 150 });
      expect(limiter.retryAfterMs({ requests: 1 })).toBe(500);
      expect(limiter.tryAcquire({ requests: 1 })).toBeUndefined();
      await clock.advance(500);
      expect(limiter.tryAcquire({ requests: 1 })).toBeDefined();
    });

    it('never gives back more than there is room for (R1)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(8)!;
      await clock.advance(500);
      lease.cancel();
      expect(limiter.available()).toBe(10);
      await clock.advance(50);
      expect(limiter.available()).toBe(10);
      limiter.tryAcquire();
      await clock.advance(99);
      // A full bucket has nothing under way.
      expect(limiter.available()).toBe(9);
    });

    it('keeps the estimate of a limit that is not named', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 1000 } },
        clock: new ManualClock(),
      });
      limiter.tryAcquire({ requests: 1, tokens: 800 })!.settle({ tokens: 250 });
      expect([limiter.available('requests'), limiter.available('tokens')]).toEqual([9, 750]);
      limiter.tryAcquire({ requests: 1, tokens: 700 })!.settle({ requests: 0, tokens: 800 });
      expect([limiter.available('requests'), limiter.available('tokens')]).toEqual([9, 0]);
      expect(limiter.stats().limits[1]).toMatchObject({ name: 'tokens', debt: 50 });
    });

    it('throws for what is not a count, and leaves the lease as it is', () => {
      const { limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(8)!;
      for (const actual of [-1, 0.5, Number.NaN, Infinity, '3', undefined, null, {}, 2 ** 53]) {
        expect(() => lease.settle(actual as never)).toThrow(/`actual`/);
      }
      expect(lease.settle(0)).toBe(true);
      expect(limiter.available()).toBe(10);
    });

    it('wants the names where the cost had names: 950 tokens are not 950 requests', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 1000 } },
      });
      const lease = limiter.tryAcquire({ requests: 1, tokens: 800 })!;
      expect(() => lease.settle(950)).toThrow(
        new TypeError('Expected `actual` to name its limits, as the cost did.'),
      );
      expect(() => lease.settle({ token: 950 } as never)).toThrow('token');
      expect(() => lease.settle({ tokens: null } as never)).toThrow(/`actual\.tokens` .* got null/);
      expect(() => lease.settle(null as never)).toThrow(/`actual` .* got null/);
      expect(lease.settle({ tokens: 950 })).toBe(true);
      expect(limiter.tryAcquire(2)!.settle(1)).toBe(true);
    });

    it('tells of it', () => {
      const { limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(8)!;
      const events = record(limiter, LIMITER_EVENTS);
      lease.settle(3);
      expect(events).toEqual([['settled', { id: 1, cost: 8, actual: 3, active: 0, waiting: 0 }]]);
    });

    it('is bounded: a usage that is a bug does not break the arithmetic (H264)', () => {
      const { limiter } = setUp({ limit: 10 });
      const leases = [limiter.tryAcquire(5)!, limiter.tryAcquire(5)!];
      for (const lease of leases) lease.settle(Number.MAX_SAFE_INTEGER);
      expect(limiter.stats().limits).toMatchObject([{ debt: Number.MAX_SAFE_INTEGER }]);
      expect(limiter.retryAfterMs()).toBeLessThan(Infinity);
    });
  });

  describe('.cancel() of a lease', () => {
    it('gives everything back (H255)', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 1000 } },
        clock: new ManualClock(),
      });
      const lease = limiter.tryAcquire({ requests: 1, tokens: 800 })!;
      expect(lease.cost).toEqual({ requests: 1, tokens: 800 });
      expect(lease.cancel()).toBe(true);
      expect([limiter.available('requests'), limiter.available('tokens')]).toEqual([10, 1000]);
      expect(lease.settle({ tokens: 5 })).toBe(false);
    });

    it('is told in the form of the cost', async () => {
      const { clock } = setUp({ limit: 1 });
      const limits = { requests: { limit: 10 }, tokens: { limit: 1000 } };
      const limiter = new RateLimiter({ limits, clock });
      const actuals: unknown[] = [];
      limiter.on('settled', ({ actual }) => actuals.push(actual));
      limiter.tryAcquire(2)!.cancel();
      limiter.tryAcquire({ tokens: 800 })!.cancel();
      // Aborted between the grant and the task.
      const controller = new AbortController();
      limiter.once('granted', () => controller.abort('why'));
      const { signal } = controller;
      await expect(limiter.run(() => {}, { cost: { tokens: 800 }, signal })).rejects.toBe('why');
      expect(actuals).toEqual([0, { requests: 0, tokens: 0 }, { requests: 0, tokens: 0 }]);
    });
  });

  describe('disposal of a lease', () => {
    it('keeps the estimate', () => {
      const { limiter } = setUp({ limit: 10 });
      const lease = limiter.tryAcquire(8)!;
      {
        using held = lease;
        expect(held.cost).toBe(8);
      }
      expect(lease.cancel()).toBe(false);
      expect(limiter.available()).toBe(2);
    });
  });

  describe('.pause()', () => {
    it('holds every grant, and grants at its end what has come in meanwhile', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      limiter.pause(5000);
      const calls = [1, 2].map(() => follow(clock, limiter.acquire({ cost: 6 })));
      expect(limiter.retryAfterMs()).toBe(5300);
      await clock.advance(4999);
      expect(limiter.tryAcquire()).toBeUndefined();
      await clock.advance(2000);
      expect(calls.map(({ at }) => at)).toEqual([5000, 5200]);
      expect(limiter.available()).toBe(10);
    });

    it('holds also what has tokens, and those who wait already', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      const waiting = follow(clock, limiter.acquire());
      await clock.advance(50);
      limiter.pause(1000);
      expect(limiter.stats().pausedMs).toBe(1000);
      await clock.advance(999);
      expect(waiting.outcome).toBe('waiting');
      expect(limiter.available()).toBe(10);
      await clock.advance(1);
      expect(waiting).toEqual({ outcome: 'granted', at: 1050 });
      expect(limiter.stats().pausedMs).toBe(0);
    });

    it('is never shortened by a shorter one', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.pause(1000);
      limiter.pause(10);
      limiter.pause(0);
      expect(limiter.retryAfterMs()).toBe(1000);
      await clock.advance(500);
      limiter.pause(600);
      expect(limiter.retryAfterMs()).toBe(600);
    });

    it('tells those at once who cannot wait for its end', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      const impatient = follow(clock, limiter.acquire({ cost: 5, waitTimeoutMs: 2000 }));
      const patient = follow(clock, limiter.acquire({ waitTimeoutMs: 3000 }));
      await clock.advance(100);
      limiter.pause(2500);
      await settle();
      expect(impatient.outcome).toEqual({ code: 'ERR_RATE_LIMITED', at: 100 });
      expect(patient.outcome).toBe('waiting');
      await expect(limiter.acquire({ waitTimeoutMs: 2000 })).rejects.toMatchObject({
        retryAfterMs: 2500,
      });
      await clock.advance(2500);
      expect(patient).toEqual({ outcome: 'granted', at: 2600 });
      expect(clock.timers).toBe(0);
    });

    it('is not waited for beyond maxPauseMs: an upstream may ask for days', async () => {
      const { clock, limiter } = setUp({ limit: 10, maxPauseMs: 60_000 });
      limiter.tryAcquire(10);
      const waiting = follow(clock, limiter.acquire());
      const days = 3 * 86_400_000;
      limiter.pause(days);
      await settle();
      expect(waiting.outcome).toEqual({ code: 'ERR_RATE_LIMITED', at: 0 });
      await expect(limiter.acquire()).rejects.toMatchObject({ retryAfterMs: days });
      expect(limiter.tryAcquire()).toBeUndefined();
      expect(clock.timers).toBe(0);
      await clock.advance(days - 60_000);
      const patient = follow(clock, limiter.acquire());
      await clock.advance(60_000);
      expect(patient).toEqual({ outcome: 'granted', at: days });
    });

    it('tells those when to come back with whom the others in line have been reckoned', async () => {
      const clock = new ManualClock();
      const limits = { a: { limit: 1, burst: 10 }, b: { limit: 1, burst: 2 } };
      const limiter = new RateLimiter({ limits, clock });
      limiter.tryAcquire({ a: 10 });
      // While the second waits for a, b is full and gains nothing for the two behind.
      for (const cost of [{ a: 10 }, { a: 5 }, { b: 2 }, { b: 2 }]) void limiter.acquire({ cost });
      const late = limiter.acquire({ cost: { b: 1 }, waitTimeoutMs: 20_000 });
      const urgent = limiter.acquire({ cost: { a: 1 }, waitTimeoutMs: 20_000, priority: 4 });
      const told: number[] = [];
      limiter.on('limited', ({ retryAfterMs }) => told.push(retryAfterMs));
      limiter.pause(30_000);
      expect(await Promise.allSettled([urgent, late])).toMatchObject([
        { reason: { retryAfterMs: 31_000, estimatedWaitMs: 30_000, limit: 'a' } },
        { reason: { retryAfterMs: 38_000, estimatedWaitMs: 38_000, limit: 'b' } },
      ]);
      expect(told).toEqual([31_000, 38_000]);
      expect(limiter.retryAfterMs({ b: 1 })).toBe(38_000);
    });

    it.each([undefined, Infinity])('may last for ever, with a maxPauseMs of %s', async (most) => {
      const { clock, limiter } = setUp({ limit: 10, maxPauseMs: most });
      limiter.tryAcquire(3);
      const waiting = follow(clock, limiter.acquire({ cost: 8 }));
      limiter.pause(Number.MAX_VALUE);
      await clock.advance(86_400_000);
      expect(waiting.outcome).toEqual(
        most === Infinity ? 'waiting' : { code: 'ERR_RATE_LIMITED', at: 0 },
      );
      await expect(limiter.acquire({ waitTimeoutMs: 5 })).rejects.toMatchObject({
        code: 'ERR_RATE_LIMITED',
      });
      expect(limiter.tryAcquire()).toBeUndefined();
      expect(limiter.retryAfterMs()).toBeGreaterThan(1e305);
    });

    it('arms no timer where nobody waits, and tells of its end with the next call', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      const events = record(limiter, LIMITER_EVENTS);
      limiter.pause(1000);
      expect(clock.timers).toBe(0);
      await clock.advance(2000);
      limiter.tryAcquire();
      expect(events.map(([name]) => name)).toEqual(['paused', 'resumed', 'granted']);
      expect(events[0]![1]).toEqual({ pausedMs: 1000, active: 0, waiting: 0 });
    });

    it('tells of its end when it comes where somebody waits', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.pause(1000);
      void limiter.acquire();
      const events = record(limiter, LIMITER_EVENTS);
      await clock.advance(1000);
      expect(events.map(([name]) => name)).toEqual(['resumed', 'granted', 'idle']);
    });

    it('tells of its end when it comes, though nobody who waits can be granted yet', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 5000 });
      limiter.tryAcquire();
      const waiting = follow(clock, limiter.acquire());
      limiter.pause(1000);
      const ends: number[] = [];
      limiter.on('resumed', () => ends.push(clock.now()));
      await clock.advance(5000);
      expect(ends).toEqual([1000]);
      expect(waiting).toEqual({ outcome: 'granted', at: 5000 });
    });

    it.each([-1, Number.NaN, Infinity, '5'])('throws for %o', (ms) => {
      const { limiter } = setUp({ limit: 1 });
      expect(() => limiter.pause(ms as number)).toThrow(/`ms`/);
      expect(limiter.retryAfterMs()).toBe(0);
    });
  });

  describe('.sync()', () => {
    it('takes over a lower count, for good where no reset is known', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.sync({ remaining: 3 });
      expect(limiter.available()).toBe(3);
      await clock.advance(200);
      expect(limiter.available()).toBe(5);
    });

    it('gives back at the reset what it took', async () => {
      const { clock, limiter } = setUp({ limit: 10, intervalMs: 100_000 });
      limiter.sync({ remaining: 3, resetMs: 5000 });
      await clock.advance(4999);
      expect(limiter.available()).toBe(3);
      expect(limiter.retryAfterMs(10)).toBe(1);
      await clock.advance(1);
      expect(limiter.available()).toBe(10);
    });

    it('wakes a waiter at the reset', async () => {
      const { clock, limiter } = setUp({ limit: 10, intervalMs: 100_000 });
      limiter.sync({ remaining: 0, resetMs: 5000 });
      expect(limiter.retryAfterMs(2)).toBe(5000);
      const waiting = follow(clock, limiter.acquire({ cost: 2 }));
      await clock.advance(6000);
      expect(waiting).toEqual({ outcome: 'granted', at: 5000 });
    });

    it('does not raise the count unless asked to', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      const waiting = follow(clock, limiter.acquire({ cost: 6 }));
      limiter.sync({ remaining: 8 });
      expect(limiter.available()).toBe(0);
      limiter.sync({ remaining: 8 }, { raise: true });
      await settle();
      expect(waiting).toEqual({ outcome: 'granted', at: 0 });
      expect(limiter.available()).toBe(2);
      limiter.sync({ remaining: 800 }, { raise: true });
      expect(limiter.available()).toBe(10);
    });

    it('replaces the answer before', async () => {
      const { clock, limiter } = setUp({ limit: 10, intervalMs: 100_000 });
      limiter.sync({ remaining: 2, resetMs: 5000 });
      limiter.sync({ remaining: 7, resetMs: 5000 });
      expect(limiter.available()).toBe(7);
      await clock.advance(5000);
      expect(limiter.available()).toBe(10);
    });

    it('heeds no count that is over already: a reset of 0', () => {
      const { limiter } = setUp({ limit: 10 });
      limiter.sync({ remaining: 0, resetMs: 0 });
      expect(limiter.available()).toBe(10);
    });

    it('is by name where limits have names', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 1000 } },
        clock: new ManualClock(),
      });
      limiter.sync({ tokens: { remaining: 10, resetMs: 1000 } });
      expect([limiter.available('requests'), limiter.available('tokens')]).toEqual([10, 10]);
      expect(() => limiter.sync({ tokn: { remaining: 1 } } as never)).toThrow('tokn');
    });

    it.each([
      [{ remaining: -1 }, 'remaining'],
      [{ remaining: Number.NaN }, 'remaining'],
      [{ remaining: 1, resetMs: -1 }, 'resetMs'],
      [{ remaining: 1, reset: 1 }, 'reset'],
      [{}, 'remaining'],
      [{ remaining: null }, 'remaining'],
      [{ remaining: 1, resetMs: null }, 'resetMs'],
      [{ remaining: 1, limit: null }, 'limit'],
      [null, 'options of sync'],
    ])('throws for %o and changes nothing', (count, name) => {
      const { limiter } = setUp({ limit: 10 });
      expect(() => limiter.sync(count as never)).toThrow(name);
      expect(limiter.available()).toBe(10);
    });
  });

  describe('what `sync`, `pause`, `configure` and `close` are told', () => {
    it('is never null', () => {
      const limiter = new RateLimiter({ limits: { a: { limit: 10 } }, clock: new ManualClock() });
      const before = limiter.stats();
      for (const [call, name] of [
        [() => limiter.sync({ a: null } as never), 'options of sync of "a"'],
        [() => limiter.sync({ a: { remaining: 1 } }, null as never), 'options of sync'],
        [() => limiter.sync({ a: { remaining: 1 } }, { raise: null } as never), 'raise'],
        [() => limiter.pause(null as never), 'ms'],
        [() => limiter.configure({ a: null } as never), 'options of configure of "a"'],
        [() => limiter.configure({ a: { limit: null } } as never), 'limits.a.limit'],
        [() => limiter.configure({ a: { intervalMs: null } } as never), 'limits.a.intervalMs'],
        [() => limiter.configure({ a: { burst: null } } as never), 'limits.a.burst'],
        [() => limiter.close(null as never), 'options of close'],
        [() => limiter.close({ waiting: null } as never), 'waiting'],
        [() => limiter.tryAcquire({ a: null } as never), 'cost.a'],
        [() => limiter.retryAfterMs(null as never), 'cost'],
      ] as const) {
        expect(call, name).toThrow(TypeError);
        expect(call).toThrow(`\`${name}\` to be`);
        expect(call).toThrow('got null');
      }
      expect(limiter.stats()).toEqual(before);
    });
  });

  describe('.configure()', () => {
    it('goes on with the new rate from now on, and with what is there (H249)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(10);
      await clock.advance(250);
      limiter.configure({ limit: 100, burst: 50 });
      expect(limiter.available()).toBe(2);
      // Half a token was under way.
      await clock.advance(5);
      expect(limiter.available()).toBe(3);
      await clock.advance(10_000);
      expect(limiter.available()).toBe(50);
    });

    it('keeps what it is not told, and a burst that is the limit with it', () => {
      const { limiter } = setUp({ limit: 10, intervalMs: 60_000 });
      limiter.configure({ limit: 5 });
      expect(limiter.stats().limits).toMatchObject([
        { limit: 5, intervalMs: 60_000, burst: 5, available: 5 },
      ]);
      limiter.configure({ burst: 2 });
      limiter.configure({ limit: 7, intervalMs: 1000 });
      expect(limiter.stats().limits).toMatchObject([
        { limit: 7, intervalMs: 1000, burst: 2, available: 2 },
      ]);
    });

    it('plans anew for those who wait', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const calls = [1, 2].map(() => follow(clock, limiter.acquire()));
      await clock.advance(500);
      limiter.configure({ limit: 10 });
      await clock.advance(1000);
      expect(calls.map(({ at }) => at)).toEqual([550, 650]);
      void limiter.acquire({ cost: 10 });
      limiter.configure({ intervalMs: 10_000 });
      expect(limiter.retryAfterMs(1)).toBe(2500);
    });

    it('rejects waiters whose cost has become impossible, and goes on (H245)', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(6);
      const heavy = follow(clock, limiter.acquire({ cost: 8 }));
      const light = follow(clock, limiter.acquire({ cost: 2 }));
      const events = record(limiter, LIMITER_EVENTS);
      limiter.configure({ limit: 5 });
      await settle();
      expect(heavy.outcome).toEqual({ code: 'ERR_EXCEEDS_CAPACITY', at: 0 });
      expect(light.outcome).toBe('granted');
      expect(events.map(([name]) => name)).toEqual(['configured', 'cancelled', 'granted', 'idle']);
    });

    it('changes one of several limits', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 1000 } },
        clock: new ManualClock(),
      });
      limiter.configure({ tokens: { limit: 500 } });
      expect([limiter.available('requests'), limiter.available('tokens')]).toEqual([10, 500]);
      expect(() => limiter.configure({ tokns: { limit: 1 } } as never)).toThrow('tokns');
    });

    it('throws before it changes anything (H020)', () => {
      const limiter = new RateLimiter({
        limits: { requests: { limit: 10 }, tokens: { limit: 1000 } },
        clock: new ManualClock(),
      });
      const before = limiter.stats();
      for (const bad of [
        { requests: { limit: 5 }, tokens: { limit: 0 } },
        { requests: { limit: 5 }, tokens: { burst: Number.NaN } },
        { requests: { limit: 5 }, tokens: { lmit: 4 } },
        { requests: { limit: 5 }, tokens: 5 },
      ]) {
        expect(() => limiter.configure(bad as never)).toThrow(/`configure|limit|burst|lmit|tokens/);
      }
      expect(limiter.stats()).toEqual(before);
    });
  });

  describe('.full', () => {
    it('tells whether a new limiter would do as well', async () => {
      const { clock, limiter } = setUp({ limit: 10 });
      expect(limiter.full).toBe(true);
      limiter.tryAcquire();
      expect(limiter.full).toBe(false);
      await clock.advance(100);
      expect(limiter.full).toBe(true);
      limiter.pause(1000);
      expect(limiter.full).toBe(false);
      await clock.advance(1000);
      expect(limiter.full).toBe(true);
      limiter.sync({ remaining: 9, resetMs: 5000 });
      await clock.advance(100);
      // The tokens are there again, but the upstream's answer still counts.
      expect(limiter.full).toBe(false);
      await clock.advance(4900);
      expect(limiter.full).toBe(true);
    });
  });

  describe('.close()', () => {
    it('takes nobody new and serves those who wait (H265)', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const waiting = follow(clock, limiter.acquire());
      const drained = follow(clock, limiter.drain());
      await expect(limiter.acquire()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await clock.advance(1000);
      expect(waiting).toEqual({ outcome: 'granted', at: 1000 });
      expect(drained).toEqual({ outcome: 'granted', at: 1000 });
    });

    it('rejects those who wait if asked to, and leaves no timer (H265)', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const calls = [1, 2].map(() => follow(clock, limiter.acquire({ waitTimeoutMs: 5000 })));
      limiter.close({ waiting: 'reject' });
      await limiter.idle();
      expect(calls.map(({ outcome }) => outcome)).toEqual([
        { code: 'ERR_CLOSED', at: 0 },
        { code: 'ERR_CLOSED', at: 0 },
      ]);
      expect(clock.timers).toBe(0);
    });

    it('is asynchronous disposal', async () => {
      const { limiter } = setUp({ limit: 1 });
      await limiter[Symbol.asyncDispose]();
      expect(limiter.stats().closed).toBe(true);
    });
  });

  describe('.idle()', () => {
    it('resolves at once when nothing is going on, and after the last task otherwise', async () => {
      const { limiter } = setUp({ limit: 5 });
      await limiter.idle();
      let end!: () => void;
      const call = limiter.run(
        () =>
          new Promise<void>((resolve) => {
            end = resolve;
          }),
      );
      let idle = false;
      const waiting = limiter.idle().then(() => {
        idle = true;
      });
      await settle();
      expect(idle).toBe(false);
      end();
      await waiting;
      await call;
    });
  });

  describe('events', () => {
    it('tell the story of each caller under one id', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100, maxWaiting: 2 });
      const events = record(limiter, LIMITER_EVENTS);
      const quitter = new AbortController();
      limiter.tryAcquire();
      const granted = limiter.acquire();
      const cancelled = limiter.acquire({ signal: quitter.signal, priority: 2 });
      const refused = limiter.acquire();
      limiter.tryAcquire();
      quitter.abort();
      await Promise.allSettled([cancelled, refused]);
      await clock.advance(100);
      await granted;
      limiter.close();
      expect(events).toEqual([
        ['granted', { id: 1, cost: 1, waitedMs: 0, active: 0, waiting: 0 }],
        ['queued', { id: 2, cost: 1, priority: 5, active: 0, waiting: 1 }],
        ['queued', { id: 3, cost: 1, priority: 2, active: 0, waiting: 2 }],
        ['refused', { id: 4, cost: 1, code: 'ERR_QUEUE_FULL', active: 0, waiting: 2 }],
        ['limited', { id: 5, cost: 1, retryAfterMs: 300, limit: undefined, active: 0, waiting: 2 }],
        ['cancelled', { id: 3, cost: 1, waitedMs: 0, active: 0, waiting: 1 }],
        ['granted', { id: 2, cost: 1, waitedMs: 100, active: 0, waiting: 0 }],
        ['idle', { active: 0, waiting: 0 }],
        ['closed', { active: 0, waiting: 0 }],
      ]);
    });

    it('come after the state, and may call back', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const order: string[] = [];
      let again = true;
      limiter.on('granted', ({ id }) => {
        order.push(`granted ${id}`);
        if (!again) return;
        again = false;
        void limiter.acquire();
      });
      limiter.on('queued', ({ id }) => order.push(`queued ${id}`));
      void limiter.acquire();
      void limiter.acquire();
      await clock.advance(300);
      expect(order).toEqual([
        'queued 2',
        'queued 3',
        'granted 2',
        'queued 4',
        'granted 3',
        'granted 4',
      ]);
    });
  });

  describe('.stats()', () => {
    it('counts by outcome', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100, maxWaiting: 1 });
      const lease: Lease | undefined = limiter.tryAcquire();
      expect(lease).toBeDefined();
      const waiting = limiter.acquire();
      await Promise.allSettled([limiter.acquire(), limiter.acquire({ cost: 2 })]);
      limiter.tryAcquire();
      await clock.advance(100);
      await waiting;
      expect(limiter.stats()).toEqual({
        limits: [{ name: undefined, limit: 1, intervalMs: 100, burst: 1, available: 0, debt: 0 }],
        active: 0,
        waiting: 0,
        pausedMs: 0,
        closed: false,
        granted: 2,
        queued: 1,
        limited: 1,
        refused: 2,
        cancelled: 0,
        timedOut: 0,
        waitMs: { count: 1, mean: 100, max: 100 },
      });
    });
  });
});
