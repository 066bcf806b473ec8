import { fc, test } from '@fast-check/vitest';
import { type Lease, RateLimiter } from 'sluice/rate-limiter';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect } from 'vitest';

import { type ModelCaller, type ModelLimit, RateLimiterModel } from './models/rate-limiter.ts';
import { codeOf } from './support/promises.ts';

const SIGNALS = 3;
const PRIORITIES = 3;
const TICK_MS = 1 / 1024;

/** A grant, or what was given back, in the order in which it happened. */
interface Entry {
  readonly at: number;
  /** In parts of a token, of which `intervalMs` are one. */
  readonly parts: readonly number[];
}

interface Call extends ModelCaller {
  readonly signal: AbortSignal | undefined;
  answer?: unknown;
  answeredAt?: number;
  error?: Told;
}

/** What a refusal says of the time to come. */
interface Told {
  readonly retryAfterMs?: number;
  readonly estimatedWaitMs?: number;
}

interface Held {
  readonly demand: readonly number[];
  readonly lease: Lease<string>;
}

/** A limiter and its model, side by side. */
class System {
  readonly clock = new ManualClock();
  readonly limiter: RateLimiter<string>;
  readonly model: RateLimiterModel;
  readonly limits: readonly ModelLimit[];
  readonly controllers = Array.from({ length: SIGNALS }, () => new AbortController());
  readonly calls: Call[] = [];
  readonly leases: Held[] = [];
  readonly log: Entry[] = [];

  constructor(limits: readonly ModelLimit[], maxWaiting: number, maxPauseMs: number) {
    const { clock } = this;
    this.limits = limits;
    const [only] = limits;
    const rest = { maxWaiting, maxPauseMs, priorities: PRIORITIES, clock };
    this.limiter = new RateLimiter<string>(
      limits.length === 1
        ? { ...only!, ...rest }
        : { limits: Object.fromEntries(limits.map((each, i) => [`l${i}`, each])), ...rest },
    );
    this.model = new RateLimiterModel(limits, maxWaiting, maxPauseMs);
    this.limiter.on('granted', ({ cost }) => {
      const amounts = typeof cost === 'number' ? [cost] : Object.values(cost);
      const parts = amounts.map((amount, i) => amount * limits[i]!.intervalMs);
      this.log.push({ at: clock.now(), parts });
    });
  }

  /** The way in which counts are written for this limiter. */
  costOf(amounts: readonly number[]): number | Record<string, number> {
    return amounts.length === 1
      ? amounts[0]!
      : Object.fromEntries(amounts.map((amount, i) => [`l${i}`, amount]));
  }

  /** Tokens of each, below 0 where there is debt. */
  tokens(): number[] {
    return this.limiter.stats().limits.map(({ available, debt }) => available - debt);
  }

  /** What is common to all commands: they are of any number of limits, cut to those there are. */
  demand(amounts: readonly number[]): number[] {
    const demand = amounts.slice(0, this.limits.length);
    return demand.every((amount) => amount === 0) ? demand.map(() => 1) : demand;
  }

  async advance(ms: number): Promise<void> {
    for (let i = 0; i < ms; i++) this.model.tick();
    await this.clock.advance(ms);
  }

  try(amounts: readonly number[]): void {
    const demand = this.demand(amounts);
    const cost = this.costOf(demand);
    expect(this.limiter.retryAfterMs(cost)).toBe(this.model.retryAfterMs(demand, PRIORITIES));
    const lease = this.limiter.tryAcquire(cost);
    expect(lease !== undefined).toBe(this.model.try(demand));
    if (lease !== undefined) this.leases.push({ demand, lease });
  }

  acquire(
    amounts: readonly number[],
    priority: number,
    waitTimeoutMs: number | undefined,
    signal: number | undefined,
  ): void {
    const demand = this.demand(amounts);
    const call: Call = {
      demand,
      priority,
      deadline: this.clock.now() + (waitTimeoutMs ?? Infinity),
      signal: signal === undefined ? undefined : this.controllers[signal]!.signal,
    };
    this.calls.push(call);
    if (call.signal?.aborted === true && !this.model.closed) this.model.leave([call], 'aborted');
    else this.model.arrive(call);
    this.limiter
      .acquire({ cost: this.costOf(demand), priority, waitTimeoutMs, signal: call.signal })
      .then(
        (lease) => {
          this.leases.push({ demand, lease });
          call.answer = 'granted';
          call.answeredAt = this.clock.now();
        },
        (error: unknown) => {
          call.answer = codeOf(error);
          call.answeredAt = this.clock.now();
          call.error = error as Told;
        },
      );
  }

  abort(signal: number, renew: boolean): void {
    const controller = this.controllers[signal]!;
    const leaving = (this.model.line as Call[]).filter((call) => call.signal === controller.signal);
    this.model.leave(leaving, 'aborted');
    controller.abort('aborted');
    if (renew) this.controllers[signal] = new AbortController();
  }

  settle(which: number, used: readonly number[], cancel: boolean): void {
    if (this.leases.length === 0) return;
    const [held] = this.leases.splice(which % this.leases.length, 1);
    const { demand, lease } = held!;
    const actual = cancel ? demand.map(() => 0) : used.slice(0, demand.length);
    // The grants that follow from it come after it.
    const back = this.model.settle(demand, actual);
    this.log.push({ at: this.clock.now(), parts: back.map((parts) => -parts) });
    expect(cancel ? lease.cancel() : lease.settle(this.costOf(actual))).toBe(true);
    expect(lease.settle(this.costOf(actual))).toBe(false);
  }

  pause(ms: number): void {
    this.model.pause(ms);
    this.limiter.pause(ms);
  }

  sync(which: number, remaining: number, resetMs: number | undefined): void {
    const index = which % this.limits.length;
    this.model.sync(index, remaining, resetMs ?? Infinity, false);
    const count = { remaining, resetMs };
    this.limiter.sync((this.limits.length === 1 ? count : { [`l${index}`]: count }) as never);
  }

  close(reject: boolean): void {
    this.model.close(reject);
    this.limiter.close({ waiting: reject ? 'reject' : 'finish' });
  }

  /** Everything that can be seen of both is the same. */
  async compare(): Promise<void> {
    await settle();
    expect(this.limiter.waiting).toBe(this.model.line.length);
    expect(this.tokens()).toEqual(this.limits.map((_, i) => this.model.tokens(i)));
    for (const call of this.calls) {
      expect([call.answer, call.answeredAt]).toEqual([call.outcome, call.at]);
      if (call.retryAfterMs !== undefined) {
        const { retryAfterMs, estimatedWaitMs } = call;
        expect(call.error).toMatchObject({ retryAfterMs, estimatedWaitMs });
      }
    }
    expect(this.clock.timers).toBe(this.model.line.length === 0 ? 0 : 1);
    this.checkBounds();
  }

  /** R1, except that a debt is what the model says it is. */
  checkBounds(): void {
    for (const [i, tokens] of this.tokens().entries()) {
      expect(tokens).toBeLessThanOrEqual(this.limits[i]!.burst);
    }
  }

  /** R2, over every window of the log. */
  checkWindows(): void {
    for (const [i, { limit, intervalMs, burst }] of this.limits.entries()) {
      for (const [start, { at }] of this.log.entries()) {
        let sum = 0;
        for (const entry of this.log.slice(start)) {
          sum += entry.parts[i]!;
          const most = burst * intervalMs + limit * (entry.at - at);
          expect(sum).toBeLessThanOrEqual(most);
        }
      }
    }
  }
}

/** Rates of which a token takes whole ms, since that is what timers have. */
const limits = fc.array(
  fc
    .record({
      limit: fc.integer({ min: 1, max: 3 }),
      perToken: fc.integer({ min: 1, max: 7 }),
      burst: fc.integer({ min: 1, max: 6 }),
    })
    .map(({ limit, perToken, burst }) => ({ limit, intervalMs: limit * perToken, burst })),
  { minLength: 1, maxLength: 3 },
);

const amounts = fc.array(fc.nat({ max: 6 }), { minLength: 3, maxLength: 3 });
const few = fc.array(fc.nat({ max: 2 }), { minLength: 3, maxLength: 3 });
const signal = fc.nat({ max: SIGNALS - 1 });

type Command = (system: System) => void | Promise<void>;

function named<Args extends unknown[]>(
  name: keyof System,
  args: fc.Arbitrary<Args>,
): fc.Arbitrary<Command> {
  return args.map((values) =>
    Object.assign(
      (system: System) =>
        (system[name] as (...all: Args) => void | Promise<void>).apply(system, values),
      { toString: () => `${name}(${fc.stringify(values).slice(1, -1)})` },
    ),
  );
}

const advance = named('advance', fc.tuple(fc.integer({ min: 1, max: 25 })));
const trying = named('try', fc.tuple(fc.oneof(few, amounts)));
const acquiring = named(
  'acquire',
  fc.tuple(
    fc.oneof(few, amounts),
    fc.integer({ min: 1, max: PRIORITIES }),
    fc.option(fc.nat({ max: 40 }), { nil: undefined }),
    fc.option(signal, { nil: undefined, freq: 2 }),
  ),
);
const settling = named('settle', fc.tuple(fc.nat(), amounts, fc.boolean()));
const commands = fc.array(
  fc.oneof(
    { arbitrary: advance, weight: 12 },
    { arbitrary: trying, weight: 9 },
    { arbitrary: acquiring, weight: 18 },
    { arbitrary: settling, weight: 9 },
    { arbitrary: named('abort', fc.tuple(signal, fc.boolean())), weight: 3 },
    { arbitrary: named('pause', fc.tuple(fc.nat({ max: 40 }))), weight: 3 },
    {
      arbitrary: named(
        'sync',
        fc.tuple(fc.nat(), fc.nat({ max: 6 }), fc.option(fc.nat({ max: 40 }), { nil: undefined })),
      ),
      weight: 3,
    },
    { arbitrary: named('close', fc.tuple(fc.boolean())), weight: 1 },
  ),
  { maxLength: 40, size: 'max' },
);

/** A clock that a test sets, forwards and back, and whose timers never fire. */
class SetClock {
  reading = 0;
  now(): number {
    return this.reading;
  }
  setTimeout(): undefined {}
  clearTimeout(): void {}
}

/** Any rate: nothing comes in at whole ms, or whole ticks. */
const anyLimit = fc.record({
  limit: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 2 ** 40 })),
  intervalMs: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 2 ** 36 })),
  burst: fc.integer({ min: 1, max: 20 }),
});

/** Of which several can be taken one after the other before a timer is a tick late for it. */
const roomyLimit = fc.record({
  limit: fc.integer({ min: 1, max: 1000 }),
  intervalMs: fc.integer({ min: 1000, max: 2 ** 36 }),
  burst: fc.integer({ min: 2, max: 20 }),
});

/** Times at any tick, over years. */
const ticks = fc.oneof(fc.nat({ max: 3000 }), fc.nat({ max: 2 ** 42 }));

const steps = fc.array(fc.record({ ticks, cost: fc.integer({ min: 1, max: 20 }) }), {
  maxLength: 12,
});

describe('RateLimiter', () => {
  test.prop(
    [limits, fc.oneof(fc.constant(Infinity), fc.nat({ max: 4 })), fc.nat({ max: 60 }), commands],
    { numRuns: 400 },
  )(
    'R1 R2 R3 R4 R5 R6 R7 does what its model does, in every window no more than it may',
    async (all, maxWaiting, maxPauseMs, sequence) => {
      const system = new System(all, maxWaiting, maxPauseMs);
      for (const command of sequence) {
        await command(system);
        await system.compare();
      }
      system.checkWindows();
      system.limiter.close({ waiting: 'reject' });
      await system.limiter.idle();
      expect(system.clock.timers).toBe(0);
    },
  );

  test.prop([anyLimit, steps], { numRuns: 2000 })(
    'R2 grants in every window at most burst + limit * w / intervalMs, at any rate (H241)',
    ({ limit, intervalMs, burst }, sequence) => {
      const clock = new SetClock();
      const limiter = new RateLimiter({ limit, intervalMs, burst, clock });
      const log: { tick: bigint; cost: bigint }[] = [];
      let tick = 0;
      for (const step of sequence) {
        tick += step.ticks;
        clock.reading = tick * TICK_MS;
        const cost = Math.min(step.cost, burst);
        if (limiter.tryAcquire(cost) !== undefined) {
          log.push({ tick: BigInt(tick), cost: BigInt(cost) });
        }
      }
      const [tokens, rate] = [BigInt(burst), BigInt(limit)];
      const interval = BigInt(intervalMs) * 1024n;
      for (const [start, first] of log.entries()) {
        let sum = 0n;
        for (const { tick: end, cost } of log.slice(start)) {
          sum += cost;
          const most = tokens * interval + rate * (end - first.tick);
          expect(sum * interval <= most).toBe(true);
        }
      }
    },
  );

  test.prop(
    [
      fc.array(roomyLimit, { minLength: 1, maxLength: 3 }),
      steps,
      fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 5 }),
      fc.option(fc.nat({ max: 10_000 }), { nil: 0 }),
      fc.integer({ min: 1, max: 20 }),
    ],
    { numRuns: 2000 },
  )(
    'R3 refuses one tick before the instant that it promised and grants at it, whoever waits before',
    (all, sequence, waiting, pauseMs, wanted) => {
      const clock = new SetClock();
      const limiter = new RateLimiter<string>({
        limits: Object.fromEntries(all.map((limit, i) => [`l${i}`, limit])),
        clock,
      });
      const most = Math.min(...all.map(({ burst }) => burst));
      let tick = 0;
      for (const step of sequence) {
        tick += step.ticks;
        clock.reading = tick * TICK_MS;
        limiter.tryAcquire(Math.min(step.cost, most));
      }
      limiter.pause(pauseMs);
      const turns: number[] = [];
      for (const each of waiting) {
        // A bucket that is full when its timer fires would lose what is less than a tick.
        const cost = Math.min(each, most - 1);
        turns.push(clock.reading + limiter.retryAfterMs(cost));
        void limiter.acquire({ cost });
      }
      const cost = Math.min(wanted, most);
      const promised = clock.reading + limiter.retryAfterMs(cost);
      fc.pre(promised < 2 ** 43);
      const refused = promised > clock.reading;
      // Timers that are on time.
      for (const turn of turns.filter((each) => each < promised)) {
        clock.reading = turn;
        limiter.pause(0);
      }
      if (refused) {
        clock.reading = promised - TICK_MS;
        expect(limiter.tryAcquire(cost)).toBeUndefined();
      }
      clock.reading = promised;
      expect(limiter.retryAfterMs(cost)).toBe(0);
      expect(limiter.tryAcquire(cost)).toBeDefined();
    },
  );

  test.prop(
    [
      fc.array(
        fc.record({
          limit: fc.integer({ min: 1, max: 40 }),
          intervalMs: fc.integer({ min: 1, max: 3 }),
          burst: fc.integer({ min: 2, max: 8 }),
        }),
        { minLength: 1, maxLength: 3 },
      ),
      fc.array(fc.tuple(amounts, fc.integer({ min: 1, max: PRIORITIES })), { maxLength: 12 }),
      fc.nat({ max: 5 }),
      amounts,
      fc.integer({ min: 1, max: PRIORITIES }),
    ],
    { numRuns: 1000 },
  )(
    'R3 keeps its promise to one who comes back, however urgent, among those who wait',
    async (all, waiting, pauseMs, wanted, priority) => {
      const clock = new SetClock();
      const limiter = new RateLimiter<string>({
        limits: Object.fromEntries(all.map((limit, i) => [`l${i}`, limit])),
        priorities: PRIORITIES,
        clock,
      });
      /** At least one of the first limit, and less than fills one: what is less than a tick would be lost. */
      const costOf = ([one, ...others]: readonly number[]): Record<string, number> => {
        const demand = [one! + 1, ...others];
        return Object.fromEntries(
          all.map(({ burst }, i) => [`l${i}`, Math.min(burst - 1, demand[i]!)]),
        );
      };
      limiter.tryAcquire(Object.fromEntries(all.map(({ burst }, i) => [`l${i}`, burst])));
      limiter.pause(pauseMs);
      for (const [demand, urgency] of waiting) {
        void limiter.acquire({ cost: costOf(demand), priority: urgency });
      }
      const ask = (): Promise<unknown> =>
        limiter.acquire({ cost: costOf(wanted), priority, waitTimeoutMs: 0 }).then(
          () => 'granted',
          (error: Told) => error.retryAfterMs!,
        );
      const promised = await ask();
      // Every tick up to it, as timers that are on time would have it.
      for (let tick = 1; tick < Number(promised) / TICK_MS; tick++) {
        clock.reading = tick * TICK_MS;
        limiter.pause(0);
      }
      expect(await ask()).toBe(TICK_MS);
      clock.reading = Number(promised);
      expect(await ask()).toBe('granted');
    },
  );

  test.prop([anyLimit, steps], { numRuns: 1000 })(
    'R4 is the same whether refused, cancelled and timed-out calls were made or not',
    async ({ limit, intervalMs, burst }, sequence) => {
      const clock = new SetClock();
      const busy = new RateLimiter({ limit, intervalMs, burst, clock });
      const calm = new RateLimiter({ limit, intervalMs, burst, clock });
      let tick = 0;
      for (const step of sequence) {
        tick += step.ticks;
        clock.reading = tick * TICK_MS;
        const cost = Math.min(step.cost, burst);
        const quitter = new AbortController();
        void busy.acquire({ cost, waitTimeoutMs: 0 }).catch(() => {});
        void busy.acquire({ cost: burst + 1 }).catch(() => {});
        void busy.acquire({ cost, signal: AbortSignal.abort() }).catch(() => {});
        const before = busy.stats().granted;
        void busy.acquire({ cost, signal: quitter.signal }).catch(() => {});
        quitter.abort();
        // What was free was granted, and is taken of the other one too.
        const granted = busy.stats().granted - before + before - calm.stats().granted;
        for (let i = 0; i < granted; i++) expect(calm.tryAcquire(cost)).toBeDefined();
        expect(busy.stats().limits).toEqual(calm.stats().limits);
        expect(busy.retryAfterMs(burst)).toBe(calm.retryAfterMs(burst));
      }
    },
  );

  test.prop([anyLimit, fc.integer({ min: 1, max: 10 }), fc.integer({ min: 1, max: 10 }), ticks])(
    'R6 waits for a, then b, as long as for a + b',
    (rate, a, b, idle) => {
      fc.pre(a + b <= rate.burst);
      const clock = new SetClock();
      const parts = new RateLimiter({ ...rate, clock });
      const whole = new RateLimiter({ ...rate, clock });
      for (const limiter of [parts, whole]) limiter.tryAcquire(rate.burst);
      clock.reading += Math.min(idle, 1000) * TICK_MS;
      const together = whole.retryAfterMs(a + b);
      void parts.acquire({ cost: a });
      expect(parts.retryAfterMs(b)).toBe(together);
      clock.reading += parts.retryAfterMs(b);
      fc.pre(clock.reading < 2 ** 43);
      expect(parts.tryAcquire(b)).toBeDefined();
      expect(whole.tryAcquire(a + b)).toBeDefined();
      expect(parts.stats().limits).toEqual(whole.stats().limits);
    },
  );

  test.prop(
    [
      anyLimit,
      fc.array(
        fc.record({
          to: fc.integer({ min: -5000, max: 5000 }),
          cost: fc.integer({ min: 1, max: 5 }),
          settled: fc.option(fc.nat({ max: 6 }), { nil: undefined }),
          limit: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined, freq: 10 }),
        }),
        { maxLength: 30 },
      ),
    ],
    { numRuns: 1000 },
  )(
    'R2 a clock that stalls or goes back is one that stood: no call of any kind makes tokens of it',
    (rate, sequence) => {
      const jumping = new SetClock();
      const standing = new SetClock();
      const limiters = [jumping, standing].map((clock) => new RateLimiter({ ...rate, clock }));
      for (const { to, cost, settled, limit } of sequence) {
        jumping.reading = to;
        standing.reading = Math.max(standing.reading, to);
        const outcomes = limiters.map((limiter) => {
          const lease = limiter.tryAcquire(cost);
          if (settled !== undefined) lease?.settle(settled);
          if (limit !== undefined) limiter.configure({ limit });
          return [lease !== undefined, limiter.retryAfterMs(), limiter.stats()];
        });
        expect(outcomes[0]).toEqual(outcomes[1]);
      }
    },
  );

  test.prop([anyLimit, steps], { numRuns: 300 })(
    'is the same whether it is asked how things stand or not (H262)',
    async ({ limit, intervalMs, burst }, sequence) => {
      const seen = await Promise.all(
        [false, true].map(async (asked) => {
          const clock = new ManualClock();
          const limiter = new RateLimiter({ limit, intervalMs, burst, clock });
          const log: unknown[] = [];
          const ask = (): void => {
            if (!asked) return;
            limiter.available();
            limiter.stats();
            limiter.retryAfterMs(burst);
            expect(limiter.full && limiter.waiting > 0).toBe(false);
          };
          for (const [index, step] of sequence.entries()) {
            const cost = Math.min(step.cost, burst);
            void limiter.acquire({ cost }).then(() => log.push([index, clock.now()]));
            ask();
            const lease = limiter.tryAcquire();
            ask();
            await clock.advance(step.ticks % 50);
            ask();
            log.push([lease !== undefined, clock.timers, limiter.waiting]);
          }
          return log;
        }),
      );
      expect(seen[1]).toEqual(seen[0]);
    },
  );

  test.prop([anyLimit, fc.array(fc.tuple(anyLimit, steps), { maxLength: 5 })], { numRuns: 500 })(
    'R2 holds across new limits: each counts for its own time, and none makes a present',
    (initial, phases) => {
      const clock = new SetClock();
      const limiter = new RateLimiter({ ...initial, clock });
      let current = initial;
      let tick = 0;
      /** For each moment: how much had come in till then if nothing had been full. */
      let gained = { tokens: 0n, over: 1n };
      const log: { cost: bigint; burst: bigint; gained: typeof gained }[] = [];
      const run = (sequence: readonly { ticks: number; cost: number }[]): void => {
        for (const step of sequence) {
          tick += step.ticks;
          clock.reading = tick * TICK_MS;
          // tokens / over + limit * ticks / interval, as one fraction.
          const interval = BigInt(current.intervalMs) * 1024n;
          gained = {
            tokens:
              gained.tokens * interval + BigInt(current.limit) * BigInt(step.ticks) * gained.over,
            over: gained.over * interval,
          };
          const cost = Math.min(step.cost, current.burst);
          if (limiter.tryAcquire(cost) !== undefined) {
            log.push({ cost: BigInt(cost), burst: BigInt(current.burst), gained });
          }
        }
      };
      for (const [next, sequence] of phases) {
        run(sequence);
        limiter.configure(next);
        current = next;
      }
      run([{ ticks: 1000, cost: 5 }]);
      for (const [start, first] of log.entries()) {
        let sum = 0n;
        for (const { cost, gained: till } of log.slice(start)) {
          sum += cost;
          const { over } = till;
          const most =
            first.burst * over * first.gained.over +
            till.tokens * first.gained.over -
            first.gained.tokens * over;
          expect(sum * over * first.gained.over <= most).toBe(true);
        }
      }
    },
  );
});
