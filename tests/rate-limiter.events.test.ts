import { type Lease, RateLimiter, type RateLimiterOptions } from 'sluice/rate-limiter';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { optionNames } from '../src/internal/options.ts';
import { LIMITER_EVENTS, record } from './support/events.ts';

/** A limiter of one limit on a clock that stands at 0. */
function setUp(options: Omit<RateLimiterOptions & { limits?: undefined }, 'clock'>): {
  clock: ManualClock;
  limiter: RateLimiter;
} {
  const clock = new ManualClock();
  return { clock, limiter: new RateLimiter({ ...options, clock }) };
}

const never = (): Promise<never> => new Promise(() => {});
const ignore = (promise: Promise<unknown>): void => void promise.catch(() => undefined);

describe('RateLimiter', () => {
  describe('events', () => {
    it('are told before the call that brings them about returns', async () => {
      const { clock, limiter } = setUp({ limit: 4, intervalMs: 400, maxWaiting: 1 });
      const events = record(limiter, LIMITER_EVENTS);
      const told = (call: () => unknown): string[] => {
        call();
        return events.splice(0).map(([name]) => name);
      };
      let lease!: Lease;
      expect(told(() => (lease = limiter.tryAcquire(3)!))).toEqual(['granted']);
      expect(told(() => limiter.tryAcquire(2))).toEqual(['limited']);
      expect(told(() => lease.settle(2))).toEqual(['settled']);
      expect(told(() => limiter.acquire())).toEqual(['granted']);
      expect(told(() => limiter.run(never))).toEqual(['granted']);
      expect(told(() => limiter.acquire({ cost: 2 }))).toEqual(['queued']);
      expect(told(() => ignore(limiter.acquire()))).toEqual(['refused']);
      expect(told(() => ignore(limiter.run(() => 1)))).toEqual(['refused']);
      expect(told(() => limiter.pause(10))).toEqual(['paused']);
      await clock.advance(10);
      expect(told(() => limiter.sync({ remaining: 2 }, { raise: true }))).toEqual([
        'resumed',
        'granted',
      ]);
      expect(told(() => limiter.configure({ limit: 5 }))).toEqual(['configured']);
      expect(told(() => limiter.close())).toEqual(['closed']);
      expect(told(() => limiter.close())).toEqual([]);
      expect(told(() => ignore(limiter.run(() => 1)))).toEqual(['refused']);
    });

    it('tell who ran out of time, and who had given up before it came', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const events = record(limiter, LIMITER_EVENTS);
      ignore(limiter.acquire({ priority: 2, waitTimeoutMs: 150 }));
      ignore(limiter.acquire({ priority: 1 }));
      ignore(limiter.acquire({ signal: AbortSignal.abort() }));
      await clock.advance(150);
      expect(events.filter(([name]) => name === 'timedOut' || name === 'refused')).toEqual([
        ['refused', { id: 4, cost: 1, code: undefined, active: 0, waiting: 2 }],
        ['timedOut', { id: 2, cost: 1, waitedMs: 150, active: 0, waiting: 0 }],
      ]);
      expect(limiter.stats()).toMatchObject({ refused: 1, timedOut: 1, cancelled: 0 });
    });

    it('tell how long somebody had waited, from when it came', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      await clock.advance(1000);
      limiter.tryAcquire();
      const events = record(limiter, LIMITER_EVENTS);
      const quitter = new AbortController();
      await clock.advance(10);
      const late = limiter.acquire({ waitTimeoutMs: 120 }).catch((error: unknown) => error);
      ignore(limiter.acquire({ signal: quitter.signal }));
      await clock.advance(5);
      const urgent = limiter.acquire({ priority: 1 });
      quitter.abort();
      expect(events.at(-1)).toMatchObject(['cancelled', { waitedMs: 5 }]);
      await clock.advance(200);
      await urgent;
      expect(events).toContainEqual([
        'granted',
        { id: 4, cost: 1, waitedMs: 85, active: 0, waiting: 1 },
      ]);
      expect(events).toContainEqual([
        'timedOut',
        { id: 2, cost: 1, waitedMs: 120, active: 0, waiting: 0 },
      ]);
      expect(await late).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 120 });
      expect(limiter.stats().waitMs).toEqual({ count: 1, mean: 85, max: 85 });
    });

    it('tell of a wait that would be too long, and of the last task that ends', async () => {
      const { limiter } = setUp({ limit: 1, intervalMs: 100 });
      const events = record(limiter, LIMITER_EVENTS);
      await limiter.run(async () => 1);
      expect(events.map(([name]) => name)).toEqual(['granted', 'idle']);
      ignore(limiter.acquire({ waitTimeoutMs: 10 }));
      expect(events.at(-1)).toMatchObject(['limited', { retryAfterMs: 100 }]);
      expect(limiter.stats()).toMatchObject({ limited: 1, refused: 0 });
    });

    it('tell the new limits', () => {
      const { limiter } = setUp({ limit: 2 });
      const events = record(limiter, LIMITER_EVENTS);
      limiter.configure({ limit: 3 });
      const limits = [
        { name: undefined, limit: 3, intervalMs: 1000, burst: 3, available: 2, debt: 0 },
      ];
      expect(events).toEqual([['configured', { limits, active: 0, waiting: 0 }]]);
    });

    it('tell nothing of a pause that is none, nor twice of the same', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      await clock.advance(1000);
      const events = record(limiter, LIMITER_EVENTS);
      limiter.pause(0);
      expect(events).toEqual([]);
      limiter.pause(100);
      limiter.pause(100);
      expect(events.map(([name]) => name)).toEqual(['paused']);
    });
  });

  describe('.stats()', () => {
    it('counts those who gave up, before they came and in line', async () => {
      const { limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const quitter = new AbortController();
      const calls = [1, 2].map(() => limiter.acquire({ signal: quitter.signal }));
      quitter.abort();
      calls.push(limiter.acquire({ signal: quitter.signal }));
      await Promise.allSettled(calls);
      expect(limiter.stats()).toMatchObject({ queued: 2, cancelled: 2, refused: 1, timedOut: 0 });
    });
  });

  describe('.tryAcquire()', () => {
    it('takes nothing while somebody waits or a pause lasts, be it there', () => {
      const { limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(9);
      ignore(limiter.acquire({ cost: 5 }));
      expect(limiter.tryAcquire()).toBeUndefined();
      const paused = setUp({ limit: 10 }).limiter;
      paused.pause(10);
      expect(paused.tryAcquire()).toBeUndefined();
      expect([limiter.available(), paused.available()]).toEqual([1, 10]);
    });
  });

  describe('.retryAfterMs()', () => {
    it('plays through what those ahead take of several limits, after a pause too', async () => {
      const clock = new ManualClock();
      const limiter = new RateLimiter({
        limits: { a: { limit: 1, intervalMs: 100 }, b: { limit: 1, intervalMs: 150 } },
        clock,
      });
      limiter.tryAcquire({ a: 1, b: 1 });
      ignore(limiter.acquire({ cost: { a: 1 }, priority: 1 }));
      ignore(limiter.acquire({ cost: { a: 1, b: 1 }, priority: 5 }));
      expect(limiter.retryAfterMs({ a: 1 })).toBe(300);
      expect(limiter.retryAfterMs({ b: 1 })).toBe(350);
      const urgent = { cost: { a: 1 }, priority: 1, waitTimeoutMs: 1 };
      await expect(limiter.acquire(urgent)).rejects.toMatchObject({
        retryAfterMs: 300,
        estimatedWaitMs: 200,
        limit: 'a',
      });
      limiter.pause(1000);
      expect(limiter.retryAfterMs({ a: 1 })).toBe(1200);
    });
  });

  describe('.full', () => {
    it('wants every token of every limit', async () => {
      const clock = new ManualClock();
      const limiter = new RateLimiter({ limits: { a: { limit: 2 }, b: { limit: 2 } }, clock });
      expect(limiter.full).toBe(true);
      limiter.tryAcquire({ a: 1 });
      expect(limiter.full).toBe(false);
      await clock.advance(500);
      expect(limiter.full).toBe(true);
    });
  });

  describe('.acquire()', () => {
    it('reckons with those ahead only, not with the less urgent', async () => {
      const { clock, limiter } = setUp({ limit: 10, burst: 10 });
      limiter.tryAcquire(10);
      ignore(limiter.acquire({ priority: 1 }));
      ignore(limiter.acquire({ priority: 5, cost: 5 }));
      const call = limiter.acquire({ priority: 1, waitTimeoutMs: 250 });
      await clock.advance(200);
      expect(await call).toMatchObject({ cost: 1 });
    });

    it('hands on at once when a heavy head runs out of time', async () => {
      const { clock, limiter } = setUp({ limit: 10, intervalMs: 1000 });
      limiter.tryAcquire(10);
      ignore(limiter.acquire({ cost: 10, waitTimeoutMs: 1000 }));
      ignore(limiter.acquire({ cost: 10, priority: 1 }));
      await clock.advance(500);
      const light = limiter.acquire({ cost: 1, priority: 5 });
      let grantedAt: number | undefined;
      void light.then(() => (grantedAt = clock.now()));
      await clock.advance(1600);
      expect(grantedAt).toBe(1100);
    });

    it('keeps one waiting whose time is over at the very end of a pause', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const call = limiter.acquire({ waitTimeoutMs: 100 });
      limiter.pause(100);
      expect(limiter.waiting).toBe(1);
      await clock.advance(100);
      await call;
    });

    it('grants at the very instant at which the time is over', async () => {
      const { clock, limiter } = setUp({ limit: 1, intervalMs: 100 });
      limiter.tryAcquire();
      const call = limiter.acquire({ waitTimeoutMs: 100 });
      await clock.advance(100);
      await call;
      expect(limiter.stats()).toMatchObject({ granted: 2, timedOut: 0, waiting: 0 });
    });
  });

  describe('.sync()', () => {
    it('raises to the count that it is given and not beyond, and lowers nothing by it', () => {
      const { limiter } = setUp({ limit: 10 });
      limiter.tryAcquire(8);
      limiter.sync({ remaining: 5 }, { raise: true });
      expect(limiter.available()).toBe(5);
      limiter.sync({ remaining: 1, resetMs: 0 }, { raise: true });
      expect(limiter.available()).toBe(5);
    });

    it('holds nothing back that is reset now: who waits for it goes at once', async () => {
      const { limiter } = setUp({ limit: 10 });
      limiter.sync({ remaining: 0, resetMs: 60_000 });
      const call = limiter.acquire({ cost: 10 });
      limiter.sync({ remaining: 0, resetMs: 0 });
      expect(limiter.waiting).toBe(0);
      await call;
    });
  });

  it('cannot be changed by a listener, in nothing of them (H034)', () => {
    const limiter = new RateLimiter({ limits: { a: { limit: 5 } }, clock: new ManualClock() });
    const heard: unknown[] = [];
    for (const name of ['granted', 'settled', 'configured'] as const) {
      limiter.on(name, (event) => heard.push(...Object.values(event)));
    }
    limiter.tryAcquire({ a: 2 })!.settle({ a: 1 });
    limiter.configure({ a: { limit: 6 } });
    const parts = heard.flatMap((part) => (Array.isArray(part) ? [part, ...part] : part));
    expect(parts.filter((part) => typeof part === 'object')).toHaveLength(5);
    expect(parts.every((part) => Object.isFrozen(part))).toBe(true);
  });

  describe('.pause()', () => {
    it('leaves the limiter idle where it turns the last one away', async () => {
      const { limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      ignore(limiter.acquire({ waitTimeoutMs: 2000 }));
      const events = record(limiter, LIMITER_EVENTS);
      const idle = limiter.idle();
      limiter.pause(5000);
      expect(events.map(([name]) => name)).toEqual(['paused', 'limited', 'idle']);
      await idle;
    });
  });

  describe('.close()', () => {
    it('finds nobody to reject where nobody has ever waited', () => {
      const { limiter } = setUp({ limit: 1 });
      limiter.close({ waiting: 'reject' });
      expect(limiter.stats()).toMatchObject({ closed: true, cancelled: 0 });
    });

    it('says who is closed, to who waits and to who comes', async () => {
      const { limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const call = limiter.acquire();
      limiter.close({ waiting: 'reject' });
      await expect(call).rejects.toThrow('The rate limiter is closed.');
      await expect(limiter.acquire()).rejects.toThrow('The rate limiter is closed.');
      expect(() => limiter.close({ waiting: 'drop' as never })).toThrow(
        new TypeError('Expected `waiting` to be one of "finish", "reject", got "drop".'),
      );
    });
  });

  describe('.run()', () => {
    it('wants a task', async () => {
      await expect(setUp({ limit: 1 }).limiter.run(undefined as never)).rejects.toThrow(
        new TypeError('Expected `task` to be a function, got undefined.'),
      );
    });

    it('refuses a newcomer where the clock tells no time any more', async () => {
      const { clock, limiter } = setUp({ limit: 1 });
      clock.now = () => Number.NaN;
      for (const call of [limiter.acquire(), limiter.run(never)]) {
        await expect(call).rejects.toThrow(
          new RangeError('Expected `clock.now()` to be a finite number of milliseconds.'),
        );
      }
      expect(limiter.stats()).toMatchObject({ granted: 0, waiting: 0 });
    });

    it('leaves the signal that aborts while it is being subscribed to', async () => {
      const { limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const quitter = new AbortController();
      const { signal } = quitter;
      let left = 0;
      Object.defineProperties(signal, {
        addEventListener: { value: () => quitter.abort('gone') },
        removeEventListener: { value: () => left++ },
      });
      const call = limiter.acquire({ signal });
      expect(left).toBe(1);
      await expect(call).rejects.toBe('gone');
    });

    it('refuses one whose signal aborts while it is being subscribed to', async () => {
      const { limiter } = setUp({ limit: 1 });
      limiter.tryAcquire();
      const quitter = new AbortController();
      const reason = new Error('gone');
      const hostile = Object.defineProperty(quitter.signal, 'addEventListener', {
        value(...args: Parameters<EventTarget['addEventListener']>) {
          quitter.abort(reason);
          EventTarget.prototype.addEventListener.apply(this, args);
        },
      });
      await expect(limiter.run(() => 1, { signal: hostile })).rejects.toBe(reason);
      await settle();
      expect(limiter.stats()).toMatchObject({ waiting: 0, queued: 0, cancelled: 0, refused: 1 });
    });
  });

  it('lets nobody who would not wait stand behind others, be their limit another one', async () => {
    const limits = { requests: { limit: 1 }, tokens: { limit: 10 } };
    const limiter = new RateLimiter({ limits, clock: new ManualClock() });
    limiter.tryAcquire({ requests: 1, tokens: 0 });
    ignore(limiter.acquire({ cost: { requests: 1, tokens: 0 } }));
    const call = limiter.acquire({ cost: { requests: 0, tokens: 1 }, waitTimeoutMs: 0 });
    await expect(call).rejects.toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfterMs: 1000 });
    expect(limiter.waiting).toBe(1);
  });

  it('says when the next one can come, also where an upstream holds tokens back', async () => {
    const { limiter } = setUp({ limit: 4, burst: 1 });
    limiter.sync({ remaining: 0, resetMs: 78 });
    ignore(limiter.acquire());
    const call = limiter.acquire({ waitTimeoutMs: 0 });
    await expect(call).rejects.toMatchObject({ retryAfterMs: 78 + 250 });
    // There is enough for both when it comes back, which is no reason to wait for it.
    const { limiter: large } = setUp({ limit: 5 });
    large.sync({ remaining: 0, resetMs: 60 });
    ignore(large.acquire());
    const refused = large.acquire({ waitTimeoutMs: 0 });
    await expect(refused).rejects.toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfterMs: 60 });
    expect([limiter.waiting, large.waiting]).toEqual([1, 1]);
  });

  it('names the call that was given an option it does not know', async () => {
    const { limiter } = setUp({ limit: 1 });
    const options = { limit: 1, cots: 1 } as never;
    expect(() => new RateLimiter(options)).toThrow(/"cots" of RateLimiter;/);
    await expect(limiter.acquire(options)).rejects.toThrow(/"limit" of acquire;/);
    await expect(limiter.run(never, options)).rejects.toThrow(/"limit" of run;/);
    expect(() => limiter.sync(options)).toThrow(/"cots" of sync;/);
    expect(() => limiter.sync({ remaining: 1 }, options)).toThrow(/"limit" of sync;/);
    expect(() => limiter.configure(options)).toThrow(/"cots" of configure;/);
    expect(() => limiter.close(options)).toThrow(/"limit" of close;/);
    const named = new RateLimiter({ limits: { a: { limit: 1 } } });
    expect(() => named.sync({ a: options })).toThrow(/"cots" of sync of "a";/);
    expect(() => named.configure({ b: {} } as never)).toThrow(/"b" of configure;/);
  });

  it('tells `compose` which options it knows', () => {
    expect([...setUp({ limit: 1 }).limiter[optionNames]].toSorted()).toEqual([
      'cost',
      'priority',
      'signal',
      'waitTimeoutMs',
    ]);
  });
});
