import { getEventListeners } from 'node:events';

import { Keyed } from 'sluice/keyed';
import { RateLimiter } from 'sluice/rate-limiter';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

/**
 * What has gone wrong in other limiters, each reproduced on the published package or told of in the
 * thread that is named, and what this one does instead.
 */

const DAY = 86_400_000;

/** The instants at which calls are granted, as they come. */
function instants(clock: ManualClock, calls: readonly Promise<unknown>[]): number[] {
  const at: number[] = [];
  for (const call of calls) {
    call.then(
      () => at.push(clock.now()),
      () => {},
    );
  }
  return at;
}

describe('time', () => {
  it('p-throttle 8.1 (sindresorhus/p-throttle#40), rate-limiter-flexible 11 (#71, #231): an interval over 2^31 ms is one of 1 ms', async () => {
    for (const days of [30, 400]) {
      const clock = new ManualClock();
      const setTimeout = vi.spyOn(clock, 'setTimeout');
      const limiter = new RateLimiter({ limit: 1, intervalMs: days * DAY, clock });
      const at = instants(
        clock,
        [1, 2].map(() => limiter.acquire()),
      );
      await clock.advance(days * DAY - 1);
      expect(at).toEqual([0]);
      await clock.advance(1);
      expect(at).toEqual([0, days * DAY]);
      for (const [, ms] of setTimeout.mock.calls) expect(ms).toBeLessThanOrEqual(2 ** 31 - 1);
    }
  });

  it('limiter 3.0: a long wait is a loop of timers', async () => {
    const clock = new ManualClock();
    const setTimeout = vi.spyOn(clock, 'setTimeout');
    const limiter = new RateLimiter({ limit: 1, intervalMs: 30 * DAY, clock });
    limiter.tryAcquire();
    void limiter.acquire();
    await clock.advance(30 * DAY);
    // One for each 2^31 ms.
    expect(setTimeout).toHaveBeenCalledTimes(2);
  });

  it('p-throttle 8.1: a wall clock set back an hour stalls everything', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 10, clock });
    limiter.tryAcquire(10);
    vi.useFakeTimers({ toFake: ['Date'], now: 1_700_000_000_000 });
    try {
      const at = instants(clock, [limiter.acquire()]);
      vi.setSystemTime(1_700_000_000_000 - 3_600_000);
      await clock.advance(100);
      expect(at).toEqual([100]);
    } finally {
      vi.useRealTimers();
    }
  });

  it('golang/go#71360, tikv/pd#10745: a reading from the past makes tokens, in any call', () => {
    const clock = new ManualClock();
    let now = 1_000_000;
    clock.now = () => now;
    const limiter = new RateLimiter({ limit: 10, clock });
    const lease = limiter.tryAcquire(4)!;
    limiter.tryAcquire(6);
    now -= 999_999;
    lease.settle(4);
    limiter.configure({ limit: 20 });
    limiter.configure({ limit: 10 });
    limiter.pause(0);
    limiter.sync({ remaining: 10 });
    expect(limiter.tryAcquire()).toBeUndefined();
    now = 1_000_000;
    expect(limiter.available()).toBe(0);
    now += 100;
    expect(limiter.available()).toBe(1);
  });

  it('vladimir-bukhtoyarov/bucket4j#51: hours of idling overflow', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1_000_000_007, intervalMs: 1009, burst: 5, clock });
    limiter.tryAcquire(5);
    await clock.advance(400 * DAY);
    expect(limiter.available()).toBe(5);
  });
});

describe('rates', () => {
  it('effect 3.22: 10 000 per second is 584 per second, since a token takes at least 1 ms', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 450_000, intervalMs: 60_000, burst: 450, clock });
    let granted = -450;
    for (let ms = 0; ms <= 60_000; ms += 30) {
      while (limiter.tryAcquire() !== undefined) granted++;
      await clock.advance(30);
    }
    expect(granted).toBe(450_000);
  });

  it('golang/go#34861: a rate that is no round number does not grant its first', () => {
    // 0.7692307692307693 per second.
    const limiter = new RateLimiter({ limit: 10, intervalMs: 13_000, clock: new ManualClock() });
    expect(limiter.tryAcquire(10)).toBeDefined();
    expect(limiter.retryAfterMs()).toBe(1300);
  });

  it('golang/go#71154: the wait at a tiny rate overflows (H248)', () => {
    const limiter = new RateLimiter({
      limit: 1,
      intervalMs: 2 ** 43 - 1,
      burst: 10,
      clock: new ManualClock(),
    });
    limiter.tryAcquire(10);
    expect(limiter.retryAfterMs()).toBe(2 ** 43 - 1);
    expect(limiter.retryAfterMs(10)).toBe(10 * (2 ** 43 - 1));
  });

  it('boinkor-net/governor#203: over 1e9 per second the interval of a token is 0 (H248)', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1_000_000_001, burst: 2_000_000_000, clock });
    limiter.tryAcquire(2_000_000_000);
    await clock.advance(1000);
    expect(limiter.available()).toBe(1_000_000_001);
  });

  it('governor: 36 000 001 per minute runs 4e-4 too fast, since intervals are whole ns', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({
      limit: 36_000_001,
      intervalMs: 60_000,
      burst: 2 ** 40,
      clock,
    });
    limiter.tryAcquire(2 ** 40);
    await clock.advance(60_000 * 1000);
    expect(limiter.available()).toBe(36_000_001_000);
  });

  it('boinkor-net/governor#107, #249: one more than the burst after idling', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 5, burst: 5, clock });
    await clock.advance(2000);
    for (let i = 0; i < 5; i++) expect(limiter.tryAcquire()).toBeDefined();
    expect(limiter.tryAcquire()).toBeUndefined();
  });

  it('firecracker-microvm/firecracker#3370: the part of a token that is under way is thrown away', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 3, intervalMs: 10, burst: 100, clock });
    limiter.tryAcquire(100);
    let granted = 0;
    for (let ms = 0; ms < 1000; ms++) {
      await clock.advance(1);
      if (limiter.tryAcquire() !== undefined) granted++;
    }
    expect(granted).toBe(300);
  });

  it('langchain_core: a bucket smaller than one token waits for ever (H248)', () => {
    expect(() => new RateLimiter({ limit: 1, burst: 0.5 })).toThrow(RangeError);
    expect(() => new RateLimiter({ limit: 0 })).toThrow(RangeError);
  });
});

describe('windows', () => {
  it('p-throttle (#26, #49), bottleneck (SGrondin/bottleneck#153), rate-limiter-flexible: twice the limit around the edge of a window', async () => {
    const clock = new ManualClock();
    // What counts 10 in any second: 10 = burst + limit * 1 s.
    const limiter = new RateLimiter({ limit: 8, burst: 2, clock });
    const granted: number[] = [];
    for (let ms = 0; ms < 5000; ms++) {
      while (limiter.tryAcquire() !== undefined) granted.push(clock.now());
      await clock.advance(1);
    }
    for (const start of granted) {
      expect(granted.filter((at) => at >= start && at <= start + 1000).length).toBeLessThanOrEqual(
        10,
      );
    }
    expect(granted.length).toBe(2 + 8 * 5 - 1);
  });

  it('limiter 3.0: callers that come at once all pass the check of the window', async () => {
    const limiter = new RateLimiter({ limit: 5, clock: new ManualClock() });
    const calls = Array.from({ length: 20 }, () => limiter.acquire({ waitTimeoutMs: 0 }));
    const outcomes = await Promise.allSettled(calls);
    expect(outcomes.filter(({ status }) => status === 'fulfilled').length).toBe(5);
  });

  it('BerriAI/litellm#18730: 5 concurrent calls pass a limit of 100 tokens with 663', () => {
    const limiter = new RateLimiter({
      limits: {
        requests: { limit: 100, intervalMs: 60_000 },
        tokens: { limit: 100, intervalMs: 60_000 },
      },
      clock: new ManualClock(),
    });
    const leases = Array.from({ length: 5 }, () => limiter.tryAcquire({ requests: 1, tokens: 60 }));
    expect(leases.filter((lease) => lease !== undefined).length).toBe(1);
    leases[0]!.settle({ tokens: 133 });
    // What was used above the limit is waited for.
    expect(limiter.retryAfterMs({ requests: 1, tokens: 60 })).toBe(((33 + 60) / 100) * 60_000);
  });
});

describe('lines', () => {
  it('limiter 4.1 (jhurliman/node-rate-limiter#50, #56): light calls starve a heavy one (H253)', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 10, clock });
    limiter.tryAcquire(10);
    const at = instants(clock, [limiter.acquire({ cost: 10 })]);
    let light = 0;
    for (let ms = 0; ms < 1500; ms += 50) {
      if (limiter.tryAcquire() !== undefined) light++;
      await clock.advance(50);
    }
    expect(at).toEqual([1000]);
    expect(light).toBe(4);
  });

  it('sindresorhus/p-throttle#65: a lighter call overlooks what a heavier one before it has reserved', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 5, intervalMs: 100, clock });
    const first = limiter.acquire({ cost: 4 });
    const second = limiter.acquire({ cost: 5 });
    await clock.advance(50);
    const third = limiter.acquire({ cost: 1 });
    const at = instants(clock, [first, second, third]);
    await clock.advance(200);
    expect(at).toEqual([50, 80, 100]);
  });

  it('smithy-typescript util-retry 4.0: 20 callers all wait for the same instant, and go together', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 10, burst: 1, clock });
    limiter.tryAcquire();
    const at = instants(
      clock,
      Array.from({ length: 20 }, () => limiter.acquire()),
    );
    await clock.advance(2000);
    expect(at).toEqual(Array.from({ length: 20 }, (_, k) => (k + 1) * 100));
  });

  it('bottleneck, effect 3: a cost over the burst hangs for ever and blocks everybody behind it', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 5, clock });
    await expect(limiter.acquire({ cost: 6 })).rejects.toMatchObject({
      code: 'ERR_EXCEEDS_CAPACITY',
    });
    expect(limiter.waiting).toBe(0);
    expect(limiter.tryAcquire(5)).toBeDefined();
  });

  it('effect 4.1: a waiter that is interrupted keeps what it has reserved (H075)', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1, intervalMs: 2000, clock });
    limiter.tryAcquire();
    const quitter = new AbortController();
    const quitted = limiter.acquire({ signal: quitter.signal });
    const at = instants(clock, [limiter.acquire()]);
    quitter.abort();
    await expect(quitted).rejects.toBeDefined();
    expect(limiter.retryAfterMs()).toBe(4000);
    await clock.advance(2000);
    expect(at).toEqual([2000]);
  });

  it('golang/go#56924, #69419: cancelling one in the middle gives back too little', () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 10, burst: 30, clock });
    limiter.tryAcquire(15);
    const middle = limiter.tryAcquire(10)!;
    limiter.tryAcquire(2);
    middle.cancel();
    expect(limiter.available()).toBe(13);
  });

  it('songzhibin97/gkit#134: a wait that was over before it began takes a token', async () => {
    const limiter = new RateLimiter({ limit: 1, clock: new ManualClock() });
    await expect(limiter.acquire({ signal: AbortSignal.abort() })).rejects.toBeDefined();
    expect(limiter.available()).toBe(1);
  });

  it('resilience4j AtomicRateLimiter: one who cannot be served sleeps its whole timeout before it is told', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1, intervalMs: 60_000, clock });
    limiter.tryAcquire();
    await expect(limiter.acquire({ waitTimeoutMs: 30_000 })).rejects.toMatchObject({
      code: 'ERR_RATE_LIMITED',
      retryAfterMs: 60_000,
    });
    expect(clock.now()).toBe(0);
  });

  it('Netflix LifoBlockingLimiter: a timeout that races with the grant loses the token', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1, clock });
    limiter.tryAcquire();
    const quitter = new AbortController();
    // The time is over, the signal aborts and the token comes at the same instant.
    const call = limiter.acquire({ waitTimeoutMs: 1000, signal: quitter.signal });
    clock.setTimeout(() => quitter.abort('too late'), 1000);
    const at = instants(clock, [call, limiter.acquire()]);
    await clock.advance(3000);
    await call;
    expect(at).toEqual([1000, 2000]);
    expect(limiter.available()).toBe(1);
  });

  it('golang.org/x/time/rate: who waits is held to the rate that was when it came', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1, intervalMs: 60_000, clock });
    limiter.tryAcquire();
    const at = instants(clock, [limiter.acquire(), limiter.acquire()]);
    limiter.configure({ intervalMs: 100 });
    await clock.advance(1000);
    expect(at).toEqual([100, 200]);
  });

  it('SGrondin/bottleneck#152, #194, #199: calls that stay queued for days', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 50, intervalMs: 60_000, burst: 5, clock });
    const signals = new Set<AbortSignal>();
    let open = 0;
    let seed = 1;
    const random = (below: number): number => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    for (let i = 0; i < 2000; i++) {
      const quitter = new AbortController();
      signals.add(quitter.signal);
      open++;
      const lease = limiter.acquire({
        cost: 1 + random(5),
        priority: 1 + random(5),
        signal: quitter.signal,
        waitTimeoutMs: random(2) === 0 ? undefined : random(20_000),
      });
      lease.then(
        (granted) => {
          open--;
          granted.settle(random(8));
        },
        () => open--,
      );
      if (random(10) === 0) quitter.abort();
      if (random(50) === 0) limiter.pause(random(10_000));
      await clock.advance(random(4000));
    }
    await clock.advance(DAY);
    expect(open).toBe(0);
    expect(limiter.waiting).toBe(0);
    expect(clock.timers).toBe(0);
    for (const signal of signals) expect(getEventListeners(signal, 'abort')).toEqual([]);
    expect(limiter.available()).toBe(5);
  });

  it('storyblok/monoblok#706: while nothing can be granted, waiters keep rescheduling', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 1, maxPauseMs: Infinity, clock });
    limiter.pause(2 ** 31 * 3);
    const quitter = new AbortController();
    const quitted = limiter.acquire({ signal: quitter.signal });
    const at = instants(clock, [limiter.acquire()]);
    const setTimeout = vi.spyOn(clock, 'setTimeout');
    await clock.advance(DAY);
    expect(setTimeout).not.toHaveBeenCalled();
    quitter.abort('bored');
    await expect(quitted).rejects.toBe('bored');
    await clock.advance(2 ** 31 * 3);
    expect(at).toEqual([2 ** 31 * 3]);
  });
});

describe('several limits', () => {
  it('rate-limiter-flexible 11 RateLimiterUnion: what one limit refuses, the others have taken', () => {
    const limiter = new RateLimiter({
      limits: { requests: { limit: 10 }, tokens: { limit: 100 } },
      clock: new ManualClock(),
    });
    for (let i = 0; i < 5; i++) limiter.tryAcquire({ requests: 1, tokens: 101 });
    expect(limiter.available('requests')).toBe(10);
  });

  it('limiter 3.0: a parent bucket is charged twice', () => {
    const limiter = new RateLimiter({
      limits: { child: { limit: 100 }, parent: { limit: 100 } },
      clock: new ManualClock(),
    });
    for (let i = 0; i < 20; i++) limiter.tryAcquire();
    expect([limiter.available('child'), limiter.available('parent')]).toEqual([80, 80]);
  });

  it('rate-limiter-flexible 11, upstash/ratelimit-js#156, #161: a call that is refused counts', () => {
    const limiter = new RateLimiter({ limit: 5, clock: new ManualClock() });
    limiter.tryAcquire(6);
    for (let i = 0; i < 5; i++) expect(limiter.tryAcquire()).toBeDefined();
    for (let i = 0; i < 100; i++) limiter.tryAcquire();
    expect(limiter.retryAfterMs()).toBe(200);
  });

  it('bucket4j#417: taking what is left of a debt adds to it', () => {
    const limiter = new RateLimiter({ limit: 5, clock: new ManualClock() });
    limiter.tryAcquire(5)!.settle(8);
    expect(limiter.available()).toBe(0);
    expect(limiter.tryAcquire()).toBeUndefined();
    expect(limiter.stats().limits).toMatchObject([{ debt: 3 }]);
  });
});

describe('keys', () => {
  it('rate-limiter-flexible 11 RateLimiterQueue: an object for each key that was ever seen', async () => {
    const clock = new ManualClock();
    const limiters = new Keyed(() => new RateLimiter({ limit: 10, clock }), {
      maxKeys: 100_000,
      idleMs: 1000,
      clock,
    });
    for (let i = 0; i < 20_000; i++) limiters.get(`key ${i}`).tryAcquire();
    await clock.advance(2000);
    expect(limiters.size).toBe(0);
  });

  it('bottleneck 2.19 Group: the clean-up forgets a limiter that has calls waiting, and with it the quota', async () => {
    const clock = new ManualClock();
    const limiters = new Keyed(() => new RateLimiter({ limit: 2, intervalMs: 60_000, clock }), {
      maxKeys: 10,
      idleMs: 600,
      clock,
    });
    const at = instants(
      clock,
      Array.from({ length: 5 }, () => limiters.get('a').acquire()),
    );
    await clock.advance(2100);
    const later = instants(
      clock,
      Array.from({ length: 2 }, () => limiters.get('a').acquire()),
    );
    await clock.advance(1);
    expect([at.length, later.length]).toEqual([2, 0]);
    await clock.advance(300_000);
    expect(limiters.size).toBe(0);
    await settle();
  });
});
