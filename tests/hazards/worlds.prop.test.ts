import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { fc, test } from '@fast-check/vitest';
import {
  AdmissionQueue,
  type Clock,
  compose,
  Keyed,
  RateLimiter,
  Semaphore,
  SessionManager,
} from 'sluice';
import { settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { codeOf } from '../support/promises.ts';

const CAPACITY = 3;
const LIMIT = 4;
const INTERVAL_MS = 20;

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/** A clock that need not be right: its timers go by one time, its readings by another. */
class FaultyClock implements Clock {
  /** By how much readings are off. */
  offsetMs = 0;
  /** How much longer timers take than they should. */
  stretch = 1;
  /** The time for which it stands, or undefined. */
  stoppedAt: number | undefined;
  latest = 0;
  #time = 0;
  readonly #timers = new Set<Timer>();

  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    const reading = this.stoppedAt ?? this.#time + this.offsetMs;
    this.latest = Math.max(this.latest, reading);
    return reading;
  }

  setTimeout(callback: () => void, ms: number): unknown {
    const timer = { at: this.#time + Math.max(ms, 0) * this.stretch, callback };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as Timer);
  }

  /** Moves on, from timer to timer. */
  async advance(ms: number): Promise<void> {
    const end = this.#time + ms;
    for (let fired = 0; fired < 10_000; fired++) {
      await settle();
      const [next] = [...this.#timers].toSorted((a, b) => a.at - b.at);
      if (next === undefined || next.at > end) break;
      this.#time = Math.max(this.#time, next.at);
      this.#timers.delete(next);
      next.callback();
    }
    this.#time = end;
    await settle();
  }
}

const call = fc.record({
  does: fc.constant('call' as const),
  through: fc.constantFrom('queue', 'limiter', 'semaphore', 'sessions', 'all', 'key'),
  takesMs: fc.nat(30),
  fails: fc.boolean(),
  priority: fc.integer({ min: 1, max: 5 }),
  waitTimeoutMs: fc.constantFrom(0, 5, 25, Infinity, Infinity),
  abortable: fc.boolean(),
});
const act = fc.record({
  does: fc.constantFrom('abort', 'resize', 'pause', 'resume', 'configure'),
  to: fc.integer({ min: 1, max: CAPACITY }),
});
const pass = fc.record({ does: fc.constant('pass' as const), ms: fc.nat(40) });
const fault = fc.record({
  does: fc.constant('fault' as const),
  offsetMs: fc.constantFrom(0, -1e6, -7, 3, 1e4),
  stretch: fc.constantFrom(1, 0.25, 0.5, 3),
  stops: fc.boolean(),
});

type Of<A> = A extends fc.Arbitrary<infer Value> ? Value : never;
type Call = Of<typeof call>;
type Step = Call | Of<typeof act> | Of<typeof pass> | Of<typeof fault>;
const calls = { weight: 6, arbitrary: call };
const acts = { weight: 2, arbitrary: act };
const passes = { weight: 3, arbitrary: pass };
const faults = { weight: 2, arbitrary: fault };
const script = fc.array(fc.oneof(calls, acts, passes), { maxLength: 40, size: 'max' });
const faultyScript = fc.array(fc.oneof(calls, acts, passes, faults), {
  maxLength: 40,
  size: 'max',
});

/** One of each on one clock, what it was told to do, and what came of that. */
class World {
  readonly clock = new FaultyClock();
  readonly trace: string[] = [];
  readonly wrong: string[] = [];
  readonly #queue: AdmissionQueue;
  readonly #limiter: RateLimiter;
  readonly #semaphore: Semaphore;
  readonly #sessions: SessionManager;
  readonly #keyed: Keyed<Semaphore>;
  #controller = new AbortController();
  #count = 0;
  #answered = 0;
  #inside = 0;
  #granted = 0;

  constructor() {
    const { clock } = this;
    this.#queue = new AdmissionQueue({ concurrency: CAPACITY, maxWaiting: 8, clock });
    this.#limiter = new RateLimiter({ limit: LIMIT, intervalMs: INTERVAL_MS, clock });
    this.#semaphore = new Semaphore({ capacity: CAPACITY, clock });
    this.#sessions = new SessionManager({ clock, timeoutMs: 60, graceMs: 10 });
    this.#keyed = new Keyed(() => new Semaphore({ capacity: 1, clock }), {
      maxKeys: 4,
      idleMs: 15,
      clock,
    });
    this.#limiter.on('granted', () => this.#granted++);
    // Of who gave up after the grant.
    this.#limiter.on('settled', () => this.#granted--);
  }

  async step(step: Step): Promise<void> {
    switch (step.does) {
      case 'call': {
        this.#call(step);
        break;
      }
      case 'abort': {
        this.#controller.abort('aborted');
        this.#controller = new AbortController();
        break;
      }
      case 'resize': {
        this.#queue.resize(step.to);
        this.#semaphore.resize(step.to);
        break;
      }
      case 'pause': {
        this.#queue.pause();
        this.#limiter.pause(step.to * 10);
        break;
      }
      case 'resume': {
        this.#queue.resume();
        break;
      }
      case 'configure': {
        this.#limiter.configure({ burst: step.to });
        break;
      }
      case 'fault': {
        this.clock.offsetMs = step.offsetMs;
        this.clock.stretch = step.stretch;
        this.clock.stoppedAt = step.stops ? this.clock.now() : undefined;
        break;
      }
      case 'pass': {
        await this.clock.advance(step.ms);
        break;
      }
    }
    await settle();
    this.#look();
  }

  /** The clock is right again, and everything comes to its end. */
  async end(): Promise<void> {
    Object.assign(this.clock, { stretch: 1, stoppedAt: undefined });
    this.clock.offsetMs += this.clock.latest - this.clock.now();
    this.#queue.resume();
    await this.clock.advance(100_000);
    await Promise.all([this.#queue.drain(), this.#limiter.drain(), this.#semaphore.drain()]);
    const report = await this.#sessions.shutdown();
    await this.clock.advance(1000);
    this.#look();
    if (this.#answered !== this.#count) {
      this.wrong.push(`${this.#answered} of ${this.#count} answered`);
    }
    const gates = [this.#queue, this.#limiter, this.#semaphore];
    const left = gates.map(({ active, waiting }) => active + waiting);
    left.push(report.stuck.length, this.#sessions.active, this.#keyed.size, this.clock.timers);
    if (left.some((one) => one !== 0) || this.#inside !== 0) this.wrong.push(left.join());
  }

  #call(options: Call): void {
    const n = this.#count++;
    const { through, takesMs, fails, priority, waitTimeoutMs, abortable } = options;
    const all = compose(this.#sessions, this.#queue, this.#limiter, this.#semaphore);
    const task = async (): Promise<void> => {
      this.#inside++;
      await new Promise<void>((resolve) => this.clock.setTimeout(resolve, takesMs));
      this.#inside--;
      if (fails) throw new Error('failed');
    };
    const { signal } = this.#controller;
    const common = abortable ? { signal } : {};
    const answer =
      through === 'queue'
        ? this.#queue.run(task, { ...common, priority, waitTimeoutMs })
        : through === 'limiter'
          ? this.#limiter.run(task, { ...common, priority, waitTimeoutMs })
          : through === 'semaphore'
            ? this.#semaphore.run(task, { ...common, waitTimeoutMs })
            : through === 'sessions'
              ? this.#sessions.run(task, common)
              : through === 'all'
                ? all.run(task, { ...common, priority, waitTimeoutMs })
                : this.#ofKey(`${n % 6}`, task);
    let answers = 0;
    const answered = (how: unknown): void => {
      this.#answered++;
      if (++answers > 1) this.wrong.push(`${n} answered again`);
      const told = codeOf(how);
      this.trace.push(`${n} ${String(told instanceof Error ? told.message : told)}`);
    };
    answer.then(() => answered('ok'), answered);
  }

  async #ofKey(key: string, task: () => Promise<void>): Promise<void> {
    return this.#keyed.get(key).run(task);
  }

  #look(): void {
    const queue = this.#queue.stats();
    const semaphore = this.#semaphore.stats();
    const { limits, active, waiting } = this.#limiter.stats();
    if (queue.active > CAPACITY) this.wrong.push(`${queue.active} active in the queue`);
    if (semaphore.active > CAPACITY) this.wrong.push(`${semaphore.active} permits`);
    const [{ available, debt, burst }] = limits as [(typeof limits)[0]];
    if (available > burst || debt > 0) this.wrong.push(`${available - debt} of ${burst} tokens`);
    const most = LIMIT + (LIMIT * this.clock.latest) / INTERVAL_MS;
    if (this.#granted > most) this.wrong.push(`${this.#granted} granted`);
    const { elapsedMs, ...sessions } = this.#sessions.stats();
    if (
      [queue.waitMs, queue.runMs, elapsedMs].some(({ max = 0, mean = 0 }) => max < 0 || mean < 0)
    ) {
      this.wrong.push('time below 0');
    }
    this.trace.push(
      JSON.stringify([queue, semaphore, limits, active, waiting, sessions, this.#inside]),
    );
  }
}

async function play(steps: readonly Step[], between: () => unknown = () => {}): Promise<World> {
  const world = new World();
  for (const step of steps) {
    await world.step(step);
    await between();
  }
  await world.end();
  return world;
}

describe('every primitive', () => {
  test.prop([faultyScript], { numRuns: 150 })(
    'keeps its limits, answers once and leaves nothing, whatever the clock does (H344)',
    async (steps) => {
      expect((await play(steps)).wrong).toEqual([]);
    },
  );

  test.prop([script, script], { numRuns: 60 })(
    'does beside another one what it does alone (H345)',
    async (one, other) => {
      const alone = [await play(one), await play(other)];
      const together = [new World(), new World()] as const;
      for (let i = 0; i < Math.max(one.length, other.length); i++) {
        for (const [which, steps] of [one, other].entries()) {
          if (i < steps.length) await together[which]!.step(steps[i]!);
        }
      }
      for (const world of together) await world.end();
      expect(together.map(({ trace }) => trace)).toEqual(alone.map(({ trace }) => trace));
    },
  );

  it('does the same where garbage is collected after every step (H343)', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const ways = ['queue', 'limiter', 'semaphore', 'sessions', 'all', 'limiter', 'key'] as const;
    const steps = Array.from({ length: 28 }, (_, n): Step[] => [
      {
        does: 'call',
        through: ways[n % ways.length]!,
        takesMs: n % 2 === 0 ? 0 : 7,
        fails: n % 5 === 0,
        priority: 1 + (n % 5),
        waitTimeoutMs: n % 3 === 2 ? 0 : 30,
        abortable: n % 4 === 0,
      },
      ...(n % 9 === 8 ? [{ does: 'abort', to: 1 } as const, { does: 'pass', ms: 3 } as const] : []),
    ]).flat();
    let turn = 0;
    const between = async (): Promise<void> => {
      if (++turn % 4 === 0) collect();
      // What is called when something was collected is called in a turn of its own.
      await settle();
    };
    const [quiet, collected] = [await play(steps), await play(steps, between)];
    expect(collected.trace).toEqual(quiet.trace);
  });
});
