import { getEventListeners } from 'node:events';

import { fc, test } from '@fast-check/vitest';
import { type Permit, Semaphore } from 'sluice/semaphore';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { type Caller, SemaphoreModel } from './models/semaphore.ts';
import { methodsOf } from './support/methods.ts';
import { codeOf } from './support/promises.ts';
import { awaitIdle, onceIn, show, stepsOf } from './support/steps.ts';

const SIGNALS = 3;

/** A caller, and what the test has in its hands of it. */
interface Call extends Caller {
  permit?: Permit;
  finish?: (outcome: 'ok' | 'failed') => void;
  answer?: unknown;
  answers: number;
}

interface Settings {
  readonly capacity: number;
  readonly maxWaiting: number;
  readonly maxHoldMs: number;
}

/** The events that are counted, by the same names as in `stats()`. */
const NONE = {
  queued: 0,
  acquired: 0,
  released: 0,
  cancelled: 0,
  timedOut: 0,
  refused: 0,
  overheld: 0,
  overrun: 0,
};

/** A semaphore and its model, side by side. */
class System {
  readonly clock = new ManualClock();
  readonly semaphore: Semaphore;
  readonly model: SemaphoreModel;
  readonly controllers = Array.from({ length: SIGNALS }, () => new AbortController());
  readonly signals = new Set<AbortSignal>();
  readonly calls: Call[] = [];
  readonly told = { ...NONE };
  idleAnswers = 0;
  idleCalls = 0;

  constructor(settings: Settings) {
    this.semaphore = new Semaphore({ ...settings, ...unlimited(settings), clock: this.clock });
    this.model = new SemaphoreModel(settings.capacity, settings.maxWaiting, settings.maxHoldMs);
    for (const name of Object.keys(NONE) as (keyof typeof NONE)[]) {
      this.semaphore.on(name, () => this.told[name]++);
    }
  }

  call(
    options: Omit<Caller, 'id' | 'runs' | 'signal'> & { readonly signal: number | undefined },
    runs: boolean,
  ): Call {
    const signal =
      options.signal === undefined ? undefined : this.controllers[options.signal]!.signal;
    if (signal !== undefined) this.signals.add(signal);
    const call = { ...options, signal, runs, id: this.calls.length, answers: 0 };
    this.calls.push(call);
    return call;
  }

  answered(call: Call, promise: Promise<unknown>): void {
    const answer = (value: unknown): void => {
      call.answer = value;
      call.answers++;
    };
    promise.then(
      (value) => {
        if (!call.runs) call.permit = value as Permit;
        answer('ok');
      },
      (error: unknown) => answer(codeOf(error)),
    );
  }

  heldPermits(): Call[] {
    return this.calls.filter(({ runs, permit }) => !runs && permit?.released === false);
  }

  /** The state that is to be seen at once. */
  check(): void {
    const { semaphore, model } = this;
    const { active, available, capacity, waiting } = semaphore;
    const right = [model.active, model.capacity, model.line.length];
    // S1 and S2.
    right.push(Math.max(0, capacity - active));
    expect([active, capacity, waiting, available].join()).toBe(right.join());
    // S3.
    if (waiting > 0) expect(model.line[0]!.weight).toBeGreaterThan(available);
  }

  /** What is to be seen when everything that needs no time has happened. */
  async settled(): Promise<void> {
    await settle();
    this.model.settle();
    this.check();
    // S4: answered exactly once, or in line; a run also while its task goes on.
    for (const { id, answer, answers, outcome } of this.calls) {
      if (answer === outcome && answers === (outcome === undefined ? 0 : 1)) continue;
      expect({ id, answer, answers }).toEqual({ id, answer: outcome, answers: 1 });
    }
    const { subjects, held, counts, line } = this.model;
    const limited = [...held].some(({ overheldAt }) => overheldAt! < Infinity);
    expect(this.clock.timers).toBe((subjects.length > 0 ? 1 : 0) + (limited ? 1 : 0));
    const signals = [...line, ...held]
      .filter(({ signal, outcome }) => signal !== undefined && outcome === undefined)
      .map(({ signal }) => signal);
    for (const signal of this.signals) {
      const listeners = getEventListeners(signal, 'abort').length;
      if (listeners !== (signals.includes(signal) ? 1 : 0)) expect.fail(`${listeners} listeners`);
    }
    const { waitMs, ...stats } = this.semaphore.stats();
    expect(stats).toMatchObject(counts);
    expect(waitMs.count).toBeLessThanOrEqual(counts.acquired);
    expect(this.told).toEqual(counts);
    const idle = this.model.active === 0 && line.length === 0;
    if (idle) expect(this.idleAnswers).toBe(this.idleCalls);
  }
}

function unlimited({ maxHoldMs }: Settings): { maxHoldMs: number | undefined } {
  return { maxHoldMs: maxHoldMs === Infinity ? undefined : maxHoldMs };
}

/**
 * Even, where `maxHoldMs` is odd: whether a permit that comes back at the instant at which it would
 * be overheld counts as that is nobody's business.
 */
const span = fc.nat(12).map((half) => 2 * half);
const { act, turn, abort, finish, advance } = stepsOf<Call, System>(SIGNALS, span);
const ms = fc.oneof(
  { weight: 2, arbitrary: fc.constant(Infinity) },
  { weight: 1, arbitrary: span },
);
const callOptions = fc.record({
  weight: fc.oneof(
    { weight: 3, arbitrary: fc.constant(1) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 5 }) },
  ),
  signal: onceIn(3, fc.nat(SIGNALS - 1)),
  waitTimeoutMs: ms,
  runTimeoutMs: ms,
  graceMs: ms,
});
const ends = fc.constantFrom(undefined, undefined, 'ok' as const, 'failed' as const);

/** Every public method, under its name. */
const methods = {
  acquire: callOptions.map((options) =>
    act(`acquire(${show(options)})`, (system) => {
      const call = system.call({ ...options, ends: undefined }, false);
      const { weight, signal, waitTimeoutMs } = call;
      system.model.arrive(call);
      system.answered(call, system.semaphore.acquire({ weight, signal, waitTimeoutMs }));
    }),
  ),
  tryAcquire: fc.integer({ min: 1, max: 5 }).map((weight) =>
    act(`tryAcquire(${weight})`, ({ calls, model, semaphore }) => {
      const { active, capacity, closed, line } = model;
      const fits = !closed && line.length === 0 && weight <= capacity - active;
      const permit = semaphore.tryAcquire(weight);
      expect(permit !== undefined).toBe(fits);
      if (permit === undefined) return;
      const call: Call = { ...anybody, id: calls.length, weight, permit, answer: 'ok', answers: 1 };
      calls.push(call);
      model.arrive(call);
    }),
  ),
  run: fc.tuple(callOptions, ends).map(([options, end]) =>
    act(`run(${show({ ...options, ends: end })})`, (system) => {
      const call = system.call({ ...options, ends: end }, true);
      const { weight, signal, waitTimeoutMs, runTimeoutMs, graceMs } = call;
      system.model.arrive(call);
      const task = ({ permit }: { permit: Permit }): unknown => {
        expect(permit.weight).toBe(weight);
        if (end === 'ok') return 'ok';
        if (end === 'failed') return Promise.reject('failed');
        return new Promise((resolve, reject) => {
          call.finish = (outcome) => (outcome === 'ok' ? resolve : reject)(outcome);
        });
      };
      const limits = { weight, signal, waitTimeoutMs, runTimeoutMs, graceMs };
      system.answered(call, system.semaphore.run(task, limits));
    }),
  ),
  resize: fc.integer({ min: 1, max: 5 }).map((capacity) =>
    act(`resize(${capacity})`, ({ model, semaphore }) => {
      model.resize(capacity);
      semaphore.resize(capacity);
    }),
  ),
  close: fc.constantFrom('finish' as const, 'reject' as const).map((waiting) =>
    act(`close(${waiting})`, ({ model, semaphore }) => {
      model.close(waiting);
      semaphore.close({ waiting });
    }),
  ),
  drain: fc.constant(
    act('drain()', (system) => {
      system.model.close('finish');
      awaitIdle(system, system.semaphore.drain());
    }),
  ),
  'Symbol(Symbol.asyncDispose)': fc.constant(
    act('[Symbol.asyncDispose]()', (system) => {
      system.model.close('finish');
      awaitIdle(system, system.semaphore[Symbol.asyncDispose]());
    }),
  ),
  idle: fc.constant(act('idle()', (system) => awaitIdle(system, system.semaphore.idle()))),
  stats: fc.constant(
    act('stats()', ({ model, semaphore }) => {
      const { closed, capacity } = model;
      expect(semaphore.stats()).toMatchObject({ closed, capacity, waiting: model.line.length });
    }),
  ),
};

/** What else happens within a turn. */
const release = fc.nat().map((which) =>
  act(`release(${which})`, (system) => {
    const held = system.heldPermits();
    const call = held[which % held.length];
    if (call === undefined) return;
    system.model.release(call);
    expect(call.permit!.release()).toBe(true);
    expect(call.permit!.release()).toBe(false);
  }),
);
const anybody = {
  runs: false,
  signal: undefined,
  waitTimeoutMs: Infinity,
  runTimeoutMs: Infinity,
  graceMs: Infinity,
  ends: undefined,
};

const settings = fc.record({
  capacity: fc.integer({ min: 1, max: 4 }),
  maxWaiting: fc.constantFrom(0, 2, 4, Infinity, Infinity),
  maxHoldMs: fc.oneof(
    fc.constant(Infinity),
    span.map((even) => even + 1),
  ),
});
const { acquire, run, tryAcquire, close, drain, ...others } = methods;
const acts = fc.oneof(
  { weight: 4, arbitrary: acquire },
  { weight: 4, arbitrary: run },
  { weight: 4, arbitrary: release },
  { weight: 2, arbitrary: abort },
  { weight: 1, arbitrary: tryAcquire },
  { weight: 1, arbitrary: fc.oneof(others.resize, others.idle, others.stats) },
);
const endings = fc.oneof(close, drain, others['Symbol(Symbol.asyncDispose)']);

const racer = fc.record({
  weight: fc.constantFrom(1, 1, 2),
  fails: fc.boolean(),
  aborts: fc.constantFrom('never', 'never', 'some time', 'at its turn'),
  resizesTo: fc.constantFrom(0, 0, 0, 1, 2, 4),
  tries: fc.boolean(),
});
type Racer = typeof racer extends fc.Arbitrary<infer One> ? One : never;

/** Two permits and who wants them, small enough to try everything that can happen. */
class SmallScope {
  readonly semaphore = new Semaphore(2);
  readonly model = new SemaphoreModel(2, Infinity, Infinity);
  readonly calls: (Call & { readonly controller: AbortController })[] = [];
  readonly granted: number[] = [];

  acquire(weight: number): void {
    const controller = new AbortController();
    const { signal } = controller;
    const id = this.calls.length;
    const call: SmallScope['calls'][number] = {
      ...anybody,
      id,
      weight,
      signal,
      controller,
      answers: 0,
    };
    this.calls.push(call);
    this.model.arrive(call);
    this.semaphore.acquire({ weight, signal }).then(
      (permit) => {
        call.permit = permit;
        this.granted.push(id);
      },
      () => undefined,
    );
  }

  abort(call: Caller | undefined): void {
    if (call === undefined) return;
    this.calls[call.id]!.controller.abort();
    this.model.abort(call.signal!);
  }

  state(): string {
    const { active, waiting } = this.semaphore;
    return `${active} ${waiting} ${this.granted.join()}`;
  }

  right(): string {
    const granted = [...this.order].map(({ id }) => id);
    return `${this.model.active} ${this.model.line.length} ${granted.join()}`;
  }

  /** Those who have had permits, in order. */
  get order(): Set<Caller> {
    for (const caller of this.model.held) this.#order.add(caller);
    return this.#order;
  }

  readonly #order = new Set<Caller>();
}

const SMALL_STEPS: readonly ((small: SmallScope) => void)[] = [
  (small) => small.acquire(1),
  (small) => small.acquire(2),
  (small) => {
    const call = [...small.model.held][0] as Call | undefined;
    if (call === undefined) return;
    small.model.release(call);
    call.permit!.release();
  },
  (small) => small.abort(small.model.line[0]),
  (small) => small.abort(small.model.line.at(-1)),
  ...[1, 3].map((capacity) => (small: SmallScope) => {
    small.model.resize(capacity);
    small.semaphore.resize(capacity);
  }),
];

describe('Semaphore', () => {
  it('has no public method that the model leaves out', () => {
    expect(Object.keys(methods).toSorted()).toEqual(methodsOf(Semaphore.prototype));
  });

  test.prop(
    [
      settings,
      fc.commands([turn(acts, 5), turn(acts, 5), finish, advance], {
        maxCommands: 40,
        size: 'max',
      }),
      fc.commands([turn(endings, 1), turn(acts, 3), finish, advance], { maxCommands: 10 }),
    ],
    { numRuns: 120 },
  )(
    'S1 S2 S3 S4 does what an array of waiters does, whatever happens in whatever order',
    async (given, life, end) => {
      const system = new System(given);
      const setUp = (): { model: System; real: System } => ({ model: system, real: system });
      await fc.asyncModelRun(setUp, life);
      await fc.asyncModelRun(setUp, end);
      await rest(system);
    },
  );

  test.prop([
    fc.scheduler(),
    fc.integer({ min: 1, max: 3 }),
    fc.array(racer, { maxLength: 10, size: 'max' }),
  ])(
    'S2 S3 S4 holds wherever ends, aborts, new capacities and callers come between its microtasks',
    async (s, capacity, racers) => {
      const semaphore = new Semaphore(capacity);
      const turnOf = (name: string): Promise<void> => s.schedule(Promise.resolve(), name);
      const wrong: string[] = [];
      let inside = 0;
      let answers = 0;
      let arrivals = 0;
      let latest = 0;
      /** The weights of those in line, as the events tell. */
      const line = new Map<number, number>();
      const atTheirTurn = new Map<number, () => void>();
      let comes: (() => void) | undefined;
      semaphore.on('queued', ({ id, weight }) => {
        line.set(id, weight);
        if (comes !== undefined) atTheirTurn.set(id, comes);
      });
      semaphore.on('cancelled', ({ id }) => line.delete(id));
      semaphore.on('acquired', ({ id, active }) => {
        if (active > semaphore.capacity) wrong.push(`${active} of ${semaphore.capacity}`);
        const [next = id] = line.keys();
        if (next < id) wrong.push(`${id} before ${next}`);
        line.delete(id);
        atTheirTurn.get(id)?.();
      });
      const inOrder = (): void => {
        const [head = Infinity] = line.values();
        if (line.size !== semaphore.waiting || head <= semaphore.available) wrong.push('forgotten');
      };
      const task = async (arrival: number, { weight, fails }: Racer): Promise<void> => {
        if (arrival < latest) wrong.push(`${arrival} after ${latest}`);
        latest = arrival;
        inside += weight;
        if (inside > semaphore.active) wrong.push(`${inside} inside`);
        await turnOf(`${arrival} ends`);
        inside -= weight;
        if (fails) throw new Error('failed');
      };
      racers.forEach((one, index) => {
        const { weight, aborts, resizesTo, tries } = one;
        const controller = new AbortController();
        void turnOf(`caller ${index}`).then(() => {
          inOrder();
          const arrival = ++arrivals;
          const { signal } = controller;
          const answered = (): number => answers++;
          comes = aborts === 'at its turn' ? () => controller.abort() : undefined;
          semaphore.run(() => task(arrival, one), { weight, signal }).then(answered, answered);
          comes = undefined;
          inOrder();
        });
        if (aborts === 'some time') {
          void turnOf(`abort ${index}`).then(() => {
            controller.abort();
            inOrder();
          });
        }
        if (resizesTo > 0)
          void turnOf(`resize ${resizesTo}`).then(() => semaphore.resize(resizesTo));
        if (!tries) return;
        void turnOf(`try ${index}`).then(() => {
          const fits = semaphore.waiting === 0 && semaphore.available > 0;
          const permit = semaphore.tryAcquire();
          if ((permit !== undefined) !== fits) wrong.push(`${index} barged or was kept out`);
          void turnOf(`release ${index}`).then(() => permit?.release());
        });
      });
      await s.waitIdle();
      expect(wrong).toEqual([]);
      const { active, waiting, available } = semaphore;
      expect({ active, waiting, available: available / semaphore.capacity }).toEqual({
        active: 0,
        waiting: 0,
        available: 1,
      });
      expect({ inside, answers }).toEqual({ inside: 0, answers: racers.length });
    },
  );

  it('S2 S3 S4 grants what the model grants after every step of every sequence of five', async () => {
    const wrong: unknown[] = [];
    // A sequence is a number, whose digits are its steps.
    for (let code = 0; code < SMALL_STEPS.length ** 5; code++) {
      const small = new SmallScope();
      for (let digits = code, i = 0; i < 5; digits = Math.floor(digits / SMALL_STEPS.length), i++) {
        SMALL_STEPS[digits % SMALL_STEPS.length]!(small);
        // What is granted can be released by the next step.
        await Promise.resolve();
        if (small.state() !== small.right()) wrong.push([code, small.state(), small.right()]);
      }
    }
    expect(wrong).toEqual([]);
  });
});

/** Everybody goes away: then nothing is left. */
async function rest(system: System): Promise<void> {
  const { semaphore, model, calls, clock } = system;
  for (let i = 0; i < calls.length; i++) {
    for (const call of system.heldPermits()) {
      call.permit!.release();
      model.release(call);
    }
    await system.settled();
    for (const call of calls.filter((one) => one.finish !== undefined)) {
      call.finish!('ok');
      delete call.finish;
      await settle();
      model.finish(call, 'ok');
    }
    await system.settled();
  }
  const { active, waiting, available, capacity } = semaphore;
  expect({ active, waiting, available }).toEqual({ active: 0, waiting: 0, available: capacity });
  expect(clock.timers).toBe(0);
  expect(calls.filter(({ answers }) => answers !== 1)).toEqual([]);
}
