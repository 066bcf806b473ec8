import {
  AdmissionQueue,
  type Clock,
  Keyed,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
  TokenStreamer,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { HandClock } from '../support/hand-clock.ts';
import { codeOf } from '../support/promises.ts';
import { freeGate, GATE_NAMES, HOLDING_NAMES, takenGate } from '../support/scenes.ts';

/** A clock that says what it is told to, and whose timers fire when they are told to, due or not. */
class WildClock implements Clock {
  time = 0;
  readonly asked: number[] = [];
  readonly #timers = new Map<number, () => void>();
  #last = 0;

  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.time;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    this.asked.push(ms);
    this.#timers.set(++this.#last, callback);
    return this.#last;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as number);
  }

  async fire(): Promise<void> {
    const armed = [...this.#timers];
    for (const [handle, callback] of armed) {
      if (this.#timers.delete(handle)) callback();
    }
    await settle();
  }
}

const never = (): Promise<never> => new Promise(() => {});

function answersOf(promise: Promise<unknown>): unknown[] {
  const answers: unknown[] = [];
  promise.then(
    (value) => answers.push(value),
    (error: unknown) => answers.push(codeOf(error)),
  );
  return answers;
}

/** Everything that something happens for after `ms`, by itself: what comes of it, and when. */
const DEADLINES: Readonly<
  Record<string, (clock: Clock, ms: number) => unknown[] | Promise<unknown[]>>
> = {
  'waitTimeoutMs of a Semaphore': (clock, ms) => {
    const semaphore = new Semaphore({ capacity: 1, clock });
    semaphore.tryAcquire();
    return answersOf(semaphore.acquire({ waitTimeoutMs: ms }));
  },
  'runTimeoutMs of a Semaphore': (clock, ms) =>
    answersOf(new Semaphore({ capacity: 1, clock }).run(never, { runTimeoutMs: ms })),
  'graceMs of a Semaphore': (clock, ms) => {
    const semaphore = new Semaphore({ capacity: 1, clock });
    const control = new AbortController();
    semaphore.run(never, { signal: control.signal, graceMs: ms }).catch(() => {});
    control.abort();
    return answersOf(semaphore.acquire());
  },
  'maxHoldMs of a Semaphore': (clock, ms) => {
    const semaphore = new Semaphore({ capacity: 1, maxHoldMs: ms, clock });
    const told: unknown[] = [];
    semaphore.on('overheld', () => told.push('overheld'));
    semaphore.tryAcquire();
    return told;
  },
  'waitTimeoutMs of an AdmissionQueue': (clock, ms) => {
    const queue = new AdmissionQueue({ concurrency: 1, clock });
    void queue.run(never);
    return answersOf(queue.run(never, { waitTimeoutMs: ms }));
  },
  'runTimeoutMs of an AdmissionQueue': (clock, ms) =>
    answersOf(new AdmissionQueue({ concurrency: 1, runTimeoutMs: ms, clock }).run(never)),
  'graceMs of an AdmissionQueue': (clock, ms) => {
    const queue = new AdmissionQueue({ concurrency: 1, graceMs: ms, clock });
    const ticket = queue.enqueue(never);
    ticket.cancel();
    return answersOf(queue.run(() => 'let in'));
  },
  'the next token of a RateLimiter': (clock, ms) => {
    const limiter = new RateLimiter({ limit: 1000, intervalMs: 1000 * ms, burst: 1, clock });
    limiter.tryAcquire();
    return answersOf(limiter.acquire().then(() => 'granted'));
  },
  'the pause of a RateLimiter': (clock, ms) => {
    const limiter = new RateLimiter({ limit: 1, maxPauseMs: Infinity, clock });
    limiter.pause(ms);
    return answersOf(limiter.acquire().then(() => 'granted'));
  },
  'accessTimeoutMs of a SharedResource': (clock, ms) =>
    answersOf(
      new SharedResource({
        load: never,
        accessTimeoutMs: ms,
        loadTimeoutMs: Infinity,
        clock,
      }).acquire(),
    ),
  'loadTimeoutMs of a SharedResource': (clock, ms) =>
    answersOf(new SharedResource({ load: never, loadTimeoutMs: ms, clock }).preload()),
  'timeoutMs of a SessionManager': (clock, ms) =>
    answersOf(new SessionManager({ timeoutMs: ms, clock }).run(never)),
  'drainMs of a SessionManager': (clock, ms) => {
    const sessions = new SessionManager({ timeoutMs: Infinity, clock });
    sessions.open();
    return answersOf(sessions.shutdown({ drainMs: ms, forceMs: 0 }).then(() => 'shut down'));
  },
  'timeoutMs of a TokenStreamer': (clock, ms) => {
    const stream = new TokenStreamer({ timeoutMs: ms, clock }).stream(() => new ReadableStream());
    const [told, next] = [
      answersOf(stream.finished.then(() => 'finished')),
      stream.tokens().next(),
    ];
    next.catch(() => {});
    return told;
  },
  'firstTokenTimeoutMs of a TokenStreamer': (clock, ms) => {
    const streamer = new TokenStreamer({ firstTokenTimeoutMs: ms, clock });
    const stream = streamer.stream(() => new ReadableStream());
    return answersOf(stream.tokens().next());
  },
};

describe.each(Object.entries(DEADLINES))('%s', (_name, begin) => {
  const start = async (clock: Clock, ms = 1000): Promise<unknown[]> => {
    const answers = await begin(clock, ms);
    await settle();
    expect(answers).toEqual([]);
    return answers;
  };

  it('comes no earlier than asked, however early timers fire, and has them fire late enough (H019, H080, H094)', async () => {
    const clock = new WildClock();
    const answers = await start(clock);
    for (const time of [0.4, 500, 999.13, 999.999]) {
      clock.time = time;
      await clock.fire();
      expect([time, answers]).toEqual([time, []]);
    }
    expect(clock.asked.every((ms) => Number.isInteger(ms) && ms >= 0)).toBe(true);
    expect(clock.asked.at(-1)).toBe(1);
    clock.time = 1000;
    await clock.fire();
    expect(answers.length).toBe(1);
  });

  it('is not moved by a clock that goes back (H077)', async () => {
    const clock = new WildClock();
    clock.time = 5000;
    const answers = await start(clock);
    for (const time of [5500, 0, -1e9, 5999]) {
      clock.time = time;
      await clock.fire();
      expect([time, answers]).toEqual([time, []]);
    }
    clock.time = 6000;
    await clock.fire();
    expect(answers.length).toBe(1);
  });

  it('does not come while the clock stands, and comes when it goes on (H079)', async () => {
    const clock = new WildClock();
    const answers = await start(clock);
    for (let i = 0; i < 50; i++) await clock.fire();
    expect([answers, clock.timers]).toEqual([[], 1]);
    clock.time = 1000;
    await clock.fire();
    expect(answers.length).toBe(1);
  });

  it('comes once, at once, where the clock has jumped far over it (H078)', async () => {
    const clock = new WildClock();
    const answers = await start(clock);
    clock.time = 1e12;
    await clock.fire();
    await clock.fire();
    expect(answers.length).toBe(1);
  });

  it('comes in its time though that is longer than a timer can be (H017)', async () => {
    const clock = new WildClock();
    const month = 30 * 86_400_000;
    const answers = await start(clock, month);
    for (clock.time = 0; clock.time < month; clock.time += 86_400_000) {
      await clock.fire();
      expect(answers).toEqual([]);
    }
    expect(Math.max(...clock.asked)).toBeLessThan(2 ** 31);
    clock.time = month;
    await clock.fire();
    expect(answers.length).toBe(1);
  });
});

describe.each(GATE_NAMES)('the time of a %s', (name) => {
  it('that may be waited is none: granted or refused now, with no timer and no place in line (H082)', async () => {
    const free = await freeGate(name);
    expect(await free.run(() => 'ok', { waitTimeoutMs: 0 })).toBe('ok');
    const { gate, clock } = await takenGate(name);
    const events: string[] = [];
    gate.on('queued', () => events.push('queued'));
    const answers = answersOf(gate.run(() => 'ok', { waitTimeoutMs: 0 }));
    expect([gate.waiting, clock.timers]).toEqual([0, 0]);
    await settle();
    const code = name === 'RateLimiter' ? 'ERR_RATE_LIMITED' : 'ERR_WAIT_TIMEOUT';
    expect([answers, events]).toEqual([[code], []]);
  });

  it('is one timer, however many wait, and none once they are settled, whatever way (H084, H085)', async () => {
    const ends: Readonly<
      Record<
        string,
        (scene: Awaited<ReturnType<typeof takenGate>>, control: AbortController) => unknown
      >
    > = {
      granted: ({ free }) => free(),
      aborted: (_, control) => control.abort('gone'),
      closed: ({ gate }) => void gate.close({ waiting: 'reject' }),
      late: ({ clock }) => clock.advance(60_000),
    };
    for (const end of Object.values(ends)) {
      const scene = await takenGate(name);
      const control = new AbortController();
      const answers = Array.from({ length: 20 }, (_, i) =>
        answersOf(
          scene.gate.run(() => 'ok', { signal: control.signal, waitTimeoutMs: 50_000 - i }),
        ),
      );
      expect([scene.gate.waiting, scene.clock.timers]).toEqual([20, 1]);
      await end(scene, control);
      await settle();
      // A limiter grants one a second.
      if (scene.gate.waiting > 0) await scene.clock.advance(30_000);
      expect(answers.map((each) => each.length)).toEqual(Array(20).fill(1));
      expect([scene.gate.waiting, scene.clock.timers]).toEqual([0, 0]);
    }
  });

  it('is read before there is anything: a gate is not made with one that tells no time (H090)', async () => {
    const clock = { now: () => Number.NaN, setTimeout: () => 0, clearTimeout: () => {} };
    await expect((async () => freeGate(name, clock))()).rejects.toThrow(
      new RangeError('Expected `clock.now()` to be a finite number of milliseconds.'),
    );
  });

  it('is read before anything changes: a clock that tells no time is a rejection (H090)', async () => {
    const clock = { time: 0 as unknown, now: () => clock.time as number } as {
      time: unknown;
    } & Clock;
    Object.assign(clock, { setTimeout: () => 0, clearTimeout: () => {} });
    for (const time of [Number.NaN, undefined, Infinity, '5', null]) {
      clock.time = 0;
      const gate = await freeGate(name, clock);
      const held = Promise.withResolvers<void>();
      void gate.run(() => held.promise);
      const before = gate.stats();
      clock.time = time;
      const error = await gate
        .run(() => 'called', { waitTimeoutMs: 5000 })
        .catch((e: unknown) => e);
      expect(error).toBeInstanceOf(RangeError);
      expect([gate.waiting, gate.active]).toEqual([0, 1]);
      clock.time = 0;
      expect(gate.stats()).toEqual(before);
      held.resolve();
      await settle();
      expect(gate.active).toBe(0);
    }
  });
});

describe.each(GATE_NAMES)(
  'who is there when the clock tells no time any more, in a %s,',
  (name) => {
    it('is answered, and gives its place on (H090)', async () => {
      const clock = new WildClock();
      const gate = await freeGate(name, clock);
      const held = Promise.withResolvers<string>();
      const control = new AbortController();
      const running = answersOf(gate.run(() => held.promise));
      const next = answersOf(gate.run(() => 'next'));
      const aborted = answersOf(gate.run(() => 'aborted', { signal: control.signal }));
      const late = answersOf(gate.run(never, { waitTimeoutMs: 5000 }));
      clock.time = Number.NaN;
      control.abort('gone');
      held.resolve('done');
      await settle();
      await clock.fire();
      const served = name === 'RateLimiter' ? [] : ['next'];
      expect([running, next, aborted]).toEqual([['done'], served, ['gone']]);
      // The clock is well again: tokens come in, and times are over.
      clock.time = 1000;
      await clock.fire();
      expect([next, late, gate.waiting]).toEqual([['next'], [], name === 'RateLimiter' ? 1 : 0]);
      gate.close({ waiting: 'reject' });
      expect(gate.waiting).toBe(0);
    });
  },
);

describe.each(HOLDING_NAMES)('at one instant, a %s', (name) => {
  it('lets what was released first beat a time that is over, and ends each wait once (H081, H083)', async () => {
    const clock = new HandClock();
    const gate = await freeGate(name, clock);
    const held = Promise.withResolvers<void>();
    void gate.run(() => held.promise);
    const first = answersOf(gate.run(() => 'ok', { waitTimeoutMs: 10 }));
    const second = answersOf(gate.run(never, { waitTimeoutMs: 10 }));
    const third = answersOf(gate.run(() => 'ok', { waitTimeoutMs: 10 }));
    const order: string[] = [];
    gate.on('timedOut', ({ waiting }) => order.push(`timed out, ${String(waiting)} waiting`));
    // The timer is late: their time is over when the place comes free.
    clock.block(10);
    held.resolve();
    await settle();
    expect([first, second, third]).toEqual([['ok'], [], []]);
    clock.jump(0);
    await settle();
    expect([first, second, third]).toEqual([['ok'], [], ['ERR_WAIT_TIMEOUT']]);
    expect(order).toEqual(['timed out, 0 waiting']);
    expect([gate.active, gate.waiting]).toEqual([1, 0]);
  });
});

describe('one timer that is late for several instants', () => {
  it.each(['semaphore', 'queue'])(
    'lets a grace that was over first make room in a %s (H081)',
    async (name) => {
      const clock = new ManualClock();
      const graceMs = 0.25;
      const queue = new AdmissionQueue({ concurrency: 1, graceMs, clock });
      const semaphore = new Semaphore({ capacity: 1, clock });
      const deaf = { runTimeoutMs: 4, graceMs };
      const first =
        name === 'queue' ? queue.run(never, { runTimeoutMs: 4 }) : semaphore.run(never, deaf);
      const gate = name === 'queue' ? queue : semaphore;
      const answers = answersOf(first);
      const next = answersOf(gate.run(() => 'next', { waitTimeoutMs: 4.75 }));
      const late = answersOf(gate.run(never, { waitTimeoutMs: 4.5 }));
      await clock.advance(5);
      expect([answers, next, late]).toEqual([['ERR_RUN_TIMEOUT'], ['next'], ['ERR_WAIT_TIMEOUT']]);
    },
  );
});

describe('a RateLimiter', () => {
  it('grants at the instant at which the time of the waiter is over as well (H081, H083)', async () => {
    const { gate, clock } = await takenGate('RateLimiter');
    const answers = answersOf(gate.run(() => 'ok', { waitTimeoutMs: 1000 }));
    await clock.advance(1000);
    expect([answers, gate.waiting, clock.timers]).toEqual([['ok'], 0, 0]);
  });

  it('grants after 30 days of odd moments what it should have, to the token (H091)', () => {
    for (const [limit, intervalMs] of [
      [7, 1000],
      [10, 999],
      [1, 77_777],
    ] as const) {
      const clock = new WildClock();
      const limiter = new RateLimiter({ limit, intervalMs, burst: 1_000_000, clock });
      let granted = 0;
      const take = (): void => {
        for (let cost = limiter.available(); cost > 0; cost = limiter.available()) {
          limiter.tryAcquire(cost);
          granted += cost;
        }
      };
      take();
      expect(granted).toBe(1_000_000);
      const end = 30 * 86_400_000;
      while (clock.time < end) {
        clock.time = Math.min(end, clock.time + 12_345.678);
        take();
      }
      expect(granted).toBe(1_000_000 + Math.floor((end * limit) / intervalMs));
    }
  });

  it('holds no more than its burst after any jump of the clock (H078)', () => {
    const clock = new WildClock();
    const limiter = new RateLimiter({ limit: 5, clock });
    for (const time of [1e3, 1e9, 1e12, 0, 1e12 + 1]) {
      clock.time = time;
      expect(limiter.available()).toBe(5);
    }
  });
});

describe('a clock whose timers fire within the call that sets them', () => {
  /** As some fakes do for 0 ms. */
  class HastyClock extends ManualClock {
    override setTimeout(callback: () => void, ms: number): unknown {
      if (ms > 0) return super.setTimeout(callback, ms);
      callback();
      return undefined;
    }
  }

  it.each(Object.entries(DEADLINES))('upsets nothing: %s (H089)', async (_, begin) => {
    const clock = new HastyClock();
    const answers = await begin(clock, 5);
    await clock.advance(5);
    expect(answers.length).toBe(1);
    expect(clock.timers).toBe(0);
  });

  it('has the clean-up of a Keyed go on in turns (H089)', async () => {
    const clock = new HastyClock();
    const keyed = new Keyed(() => ({ active: 0, waiting: 0 }), {
      maxKeys: 1000,
      idleMs: 10,
      clock,
    });
    for (let i = 0; i < 1000; i++) keyed.get(String(i));
    await clock.advance(20);
    expect([keyed.size, clock.timers]).toEqual([0, 0]);
  });
});
