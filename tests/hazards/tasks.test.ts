import { AsyncLocalStorage } from 'node:async_hooks';
import { runInNewContext } from 'node:vm';

import {
  AdmissionQueue,
  compose,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
  TokenStreamer,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { microtasks } from '../support/promises.ts';
import {
  freeGate,
  GATE_NAMES,
  type GateName,
  type LinedGate,
  takenGate,
} from '../support/scenes.ts';
import { catchUncaught } from '../support/uncaught.ts';

/** What a task can be given to, with room for one; a limiter has tokens for all that is tried here. */
type Runner = Pick<LinedGate, 'run'> & { readonly active: number };

const RUNNERS: Readonly<Record<string, () => Runner | Promise<Runner>>> = {
  Semaphore: () => freeGate('Semaphore'),
  AdmissionQueue: () => freeGate('AdmissionQueue'),
  RateLimiter: () => new RateLimiter({ limit: 1000, clock: new ManualClock() }),
  SharedResource: () => freeGate('SharedResource'),
  SessionManager: () => new SessionManager({ clock: new ManualClock() }),
  'three gates in one': () => {
    const clock = new ManualClock();
    const sessions = new SessionManager({ clock });
    const gate = compose(
      sessions,
      new AdmissionQueue({ concurrency: 1, clock }),
      new Semaphore({ capacity: 1, clock }),
    );
    return {
      run: (task, options) => gate.run(task, options),
      get active() {
        return sessions.active;
      },
    };
  },
};

const failure = new Error('task');

/** What becomes of a promise, with whatever it settles with as it is. */
async function outcomeOf(
  promise: Promise<unknown>,
): Promise<readonly [ok: boolean, value: unknown]> {
  try {
    return [true, await promise];
  } catch (error) {
    return [false, error];
  }
}

const hostile = new Proxy(
  {},
  {
    get: (_, name) => {
      if (name === 'then') return undefined;
      throw new Error('read');
    },
  },
);

const VALUES: readonly unknown[] = [
  undefined,
  null,
  0,
  '',
  Symbol('value'),
  Object.freeze({ frozen: true }),
  hostile,
  new Error('as a value'),
];

type Then = (resolve: (value: unknown) => void, reject: (reason: unknown) => void) => void;

/** What a `then` may do, and what a call comes to by it. */
const THENS: readonly (readonly [what: string, then: Then, ok: boolean, value: unknown])[] = [
  ['resolves twice', (resolve) => [1, 2].map(resolve), true, 1],
  ['resolves, then rejects', (resolve, reject) => [resolve(1), reject(failure)], true, 1],
  ['rejects, then resolves', (resolve, reject) => [reject(failure), resolve(1)], false, failure],
  [
    'resolves, then throws',
    (resolve) => {
      resolve(1);
      throw new Error('afterwards');
    },
    true,
    1,
  ],
  [
    'throws',
    () => {
      throw failure;
    },
    false,
    failure,
  ],
];

describe.each(Object.entries(RUNNERS))('a task of %s', (_name, make) => {
  /** Everything is back, and the next one is served. */
  const expectFree = async (runner: Runner): Promise<void> => {
    await settle();
    expect(runner.active).toBe(0);
    expect(await runner.run(() => 'next')).toBe('next');
  };

  it('that throws at once is one that rejects (H096)', async () => {
    const runner = await make();
    const task = (): never => {
      throw failure;
    };
    expect(await outcomeOf(runner.run(task))).toEqual([false, failure]);
    await expectFree(runner);
  });

  it('has its value, or its reason, handed on as it is (H097, H103, H104)', async () => {
    const runner = await make();
    for (const value of VALUES) {
      const tasks = [() => value, async () => value];
      for (const task of tasks) {
        const [ok, result] = await outcomeOf(runner.run(task));
        expect([ok, Object.is(result, value)]).toEqual([true, true]);
      }
      const failing = [
        (): never => {
          throw value;
        },
        () => Promise.reject(value),
      ];
      for (const task of failing) {
        const [ok, result] = await outcomeOf(runner.run(task));
        expect([ok, Object.is(result, value)]).toEqual([false, true]);
      }
    }
    await expectFree(runner);
  });

  it.each(THENS)(
    'whose thenable %s has its first answer heard, its `then` read and called once (H098)',
    async (_what, then, ok, value) => {
      using uncaught = catchUncaught();
      for (const signal of [undefined, new AbortController().signal]) {
        const runner = await make();
        let [reads, calls] = [0, 0];
        let onStack = true;
        const thenable = {
          get then() {
            reads++;
            return (...args: Parameters<Then>): void => {
              calls++;
              expect(onStack).toBe(false);
              then(...args);
            };
          },
        };
        const answer = runner.run(
          () => {
            queueMicrotask(() => (onStack = false));
            return thenable;
          },
          { signal },
        );
        expect(await outcomeOf(answer)).toEqual([ok, value]);
        expect([reads, calls]).toEqual([1, 1]);
        await expectFree(runner);
      }
      expect([uncaught.exceptions, uncaught.rejections]).toEqual([[], []]);
    },
  );

  it('whose `then` cannot be read is one that rejects (H099)', async () => {
    const runner = await make();
    const thenable = {
      get then(): never {
        throw failure;
      },
    };
    expect(await outcomeOf(runner.run(() => thenable))).toEqual([false, failure]);
    await expectFree(runner);
  });

  it('may return a promise of a subclass, of another realm, or with a `then` of its own (H106)', async () => {
    class Lazy<T> extends Promise<T> {}
    const liar = Object.assign(Promise.resolve('true'), {
      then: (resolve: (value: string) => void) => {
        resolve('a lie');
        resolve('another');
      },
    });
    for (const signal of [undefined, new AbortController().signal]) {
      const runner = await make();
      expect(await runner.run(() => Lazy.resolve('lazy'), { signal })).toBe('lazy');
      const foreign = runInNewContext("Promise.resolve('foreign')") as Promise<string>;
      expect(await runner.run(() => foreign, { signal })).toBe('foreign');
      const failed = runInNewContext("Promise.reject('foreign')") as Promise<string>;
      expect(await outcomeOf(runner.run(() => failed, { signal }))).toEqual([false, 'foreign']);
      const answer = runner.run(() => liar as Promise<string>, { signal });
      expect(answer.constructor).toBe(Promise);
      expect(await outcomeOf(answer)).toEqual([true, expect.any(String)]);
      await expectFree(runner);
    }
  });

  it('may return what can be iterated, which is not touched (H113)', async () => {
    const runner = await make();
    let pulled = 0;
    const generate = function* (): Generator<number> {
      pulled++;
      yield 1;
    };
    const generator = generate();
    const stream = new ReadableStream({ pull: () => void pulled++ }, { highWaterMark: 0 });
    expect(await runner.run(() => generator)).toBe(generator);
    expect(await runner.run(() => stream)).toBe(stream);
    await settle();
    expect([pulled, stream.locked]).toEqual([0, false]);
    expect([...generator]).toEqual([1]);
  });

  it('has a signal that works, whatever else its context has (H114)', async () => {
    const runner = await make();
    const control = new AbortController();
    const seen: unknown[] = [];
    const answer = runner.run(
      async (context) => {
        const { signal } = context;
        seen.push(signal instanceof AbortSignal, signal === context.signal, signal.aborted);
        signal.addEventListener('abort', () => seen.push(signal.reason));
        await settle();
      },
      { signal: control.signal },
    );
    await microtasks(20);
    control.abort('gone');
    expect(await outcomeOf(answer)).toEqual([false, 'gone']);
    await settle();
    expect(seen).toEqual([true, true, false, 'gone']);
    await expectFree(runner);
    // Where nothing can interrupt it, there is one that never aborts.
    const idle = await runner.run(({ signal }) => signal.aborted);
    expect(idle).toBe(false);
  });
});

const BOUNDED: Readonly<
  Record<string, (clock: ManualClock) => { readonly gate: object; readonly options: object }>
> = {
  Semaphore: (clock: ManualClock) => {
    const semaphore = new Semaphore({ capacity: 1, clock });
    return { gate: semaphore, options: { runTimeoutMs: 10, graceMs: 20 } };
  },
  AdmissionQueue: (clock: ManualClock) => {
    const gate = new AdmissionQueue({ concurrency: 1, graceMs: 20, clock });
    return { gate, options: { runTimeoutMs: 10 } };
  },
  SharedResource: (clock: ManualClock) => {
    const gate = new SharedResource({ load: () => 1, maxUsers: 1, clock });
    return { gate, options: { runTimeoutMs: 10, graceMs: 20 } };
  },
  SessionManager: (clock: ManualClock) => {
    const gate = new SessionManager({ maxActive: 1, timeoutMs: 10, graceMs: 20, clock });
    return { gate, options: {} };
  },
};

describe('a task that never settles', () => {
  it.each(Object.entries(BOUNDED))(
    'keeps its place in a %s though its caller has been answered, until `graceMs`, which is told (H100)',
    async (_, make) => {
      const clock = new ManualClock();
      const { gate: made, options } = make(clock);
      const gate = made as unknown as LinedGate;
      const overruns: unknown[] = [];
      gate.on('overrun', ({ ranMs }) => overruns.push(ranMs));
      let aborted = false;
      const answer = outcomeOf(
        gate.run(({ signal }) => {
          signal.addEventListener('abort', () => (aborted = true));
          return new Promise(() => {});
        }, options),
      );
      await clock.advance(10);
      const [ok, error] = await answer;
      expect([ok, aborted, gate.active]).toEqual([false, true, 1]);
      expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(?:RUN|SESSION)_TIMEOUT$/) });
      await clock.advance(19);
      expect([gate.active, overruns]).toEqual([1, []]);
      await clock.advance(1);
      expect([gate.active, overruns, gate.stats()['overrun']]).toEqual([0, [30], 1]);
    },
  );

  it.each(['Semaphore', 'AdmissionQueue', 'SharedResource'] as const)(
    'keeps its place in a %s for ever where no grace is given (H100)',
    async (name) => {
      const clock = new ManualClock();
      const gate = await freeGate(name, clock);
      const control = new AbortController();
      const answer = outcomeOf(gate.run(() => new Promise(() => {}), { signal: control.signal }));
      control.abort('gone');
      expect(await answer).toEqual([false, 'gone']);
      const next = outcomeOf(gate.run(() => 'never', { waitTimeoutMs: 1e9 }));
      await clock.advance(1e9);
      expect(await next).toMatchObject([false, { code: 'ERR_WAIT_TIMEOUT' }]);
      expect(gate.active).toBe(1);
    },
  );
});

describe('what is handed out', () => {
  it('is not taken for a promise, and can be disposed of (H101)', async () => {
    const semaphore = new Semaphore(3);
    const limiter = new RateLimiter({ limit: 3 });
    const resource = new SharedResource({ load: () => 1 });
    const queue = new AdmissionQueue({ concurrency: 1 });
    const sessions = new SessionManager();
    const streamer = new TokenStreamer();
    const stream = streamer.stream(['a']);
    const contexts: object[] = [];
    for (const gate of [semaphore, limiter, resource, queue, sessions] as unknown as LinedGate[]) {
      await gate.run((context) => void contexts.push(context));
    }
    const session = sessions.open();
    const holds = [semaphore.tryAcquire()!, limiter.tryAcquire()!, await resource.acquire()];
    const closing: readonly unknown[] = [
      session,
      sessions,
      semaphore,
      limiter,
      resource,
      queue,
      stream.tokens(),
    ];
    const others = [queue.enqueue(() => 1), streamer, stream, ...contexts];
    for (const thing of [...holds, ...closing, ...others]) {
      expect('then' in (thing as object)).toBe(false);
    }
    for (const hold of holds) expect(hold[Symbol.dispose]).toBeTypeOf('function');
    for (const thing of closing as AsyncDisposable[]) {
      expect(thing[Symbol.asyncDispose]).toBeTypeOf('function');
    }
    for (const hold of holds) hold[Symbol.dispose]();
    for (const thing of closing as AsyncDisposable[]) await thing[Symbol.asyncDispose]();
    expect([semaphore.active, resource.active, sessions.active]).toEqual([0, 0, 0]);
  });

  it('is given back once at the end of its block, also when that throws (H112)', async () => {
    const semaphore = new Semaphore(1);
    const resource = new SharedResource({ load: () => 1, maxUsers: 1 });
    const limiter = new RateLimiter({ limit: 1, clock: new ManualClock() });
    const sessions = new SessionManager();
    const released: string[] = [];
    semaphore.on('released', () => released.push('permit'));
    resource.on('released', () => released.push('use'));
    sessions.on('completed', () => released.push('session'));
    for (const fails of [false, true]) {
      const block = async (): Promise<void> => {
        await using session = sessions.open();
        using permit = await semaphore.acquire();
        using use = await resource.acquire();
        using lease = limiter.tryAcquire();
        expect([session.status, permit.released, use.released]).toEqual(['active', false, false]);
        expect([semaphore.active, resource.active, lease === undefined]).toEqual([1, 1, fails]);
        if (fails) throw failure;
      };
      expect(await outcomeOf(block())).toEqual(fails ? [false, failure] : [true, undefined]);
      expect(released.splice(0)).toEqual(['use', 'permit', 'session']);
    }
    // What a lease has taken stays taken: it was an estimate that nobody put right.
    expect(limiter.available()).toBe(0);
  });

  it('may be given back by the task already: once is enough (H102)', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 2, clock });
    await semaphore.run(({ permit }) => permit.release());
    await semaphore.run(({ permit }) => permit.release(), { weight: 2, runTimeoutMs: 5 });
    expect(semaphore.stats()).toMatchObject({ active: 0, available: 2, released: 2 });
    const limiter = new RateLimiter({ limit: 2, clock });
    limiter.tryAcquire();
    await limiter.run(({ lease }) => lease.cancel());
    expect([limiter.available(), limiter.active]).toEqual([1, 0]);
    const sessions = new SessionManager({ clock });
    const session = sessions.open();
    await Promise.all([session.end(), session.end(), session[Symbol.asyncDispose]()]);
    expect(sessions.stats()).toMatchObject({ active: 0, completed: 1 });
  });
});

describe('the turn of one who waits', () => {
  it('comes a fixed number of microtasks after what brought it (H107)', async () => {
    const hops = async (act: () => void, begun: (tell: () => void) => void): Promise<number> => {
      let passed = 0;
      let at: number | undefined;
      begun(() => (at ??= passed + 1));
      await settle();
      act();
      for (; passed < 30; passed++) await Promise.resolve();
      return at!;
    };
    const seen: Record<string, number> = {};
    const semaphore = new Semaphore(1);
    let held = semaphore.tryAcquire()!;
    seen['acquire of a Semaphore'] = await hops(
      () => held.release(),
      (tell) => void semaphore.acquire().then((permit) => [(held = permit), tell()]),
    );
    seen['run of a Semaphore'] = await hops(
      () => held.release(),
      (tell) => void semaphore.run(tell),
    );
    const queue = new AdmissionQueue({ concurrency: 1 });
    queue.pause();
    seen['run of an AdmissionQueue'] = await hops(
      () => queue.resume(),
      (tell) => void queue.run(tell),
    );
    queue.pause();
    seen['enqueue of an AdmissionQueue'] = await hops(
      () => queue.resume(),
      (tell) => void queue.enqueue(tell),
    );
    const limiter = new RateLimiter({ limit: 1, burst: 3, intervalMs: 1e9 });
    const lease = limiter.tryAcquire(3)!;
    seen['acquire of a RateLimiter'] = await hops(
      () => lease.settle(2),
      (tell) => void limiter.acquire().then(tell),
    );
    const other = new RateLimiter({ limit: 1, burst: 3, intervalMs: 1e9 });
    const taken = other.tryAcquire(3)!;
    seen['run of a RateLimiter'] = await hops(
      () => taken.cancel(),
      (tell) => void other.run(tell),
    );
    const resource = new SharedResource({ load: () => 1, maxUsers: 1 });
    let use = await resource.acquire();
    seen['acquire of a SharedResource'] = await hops(
      () => use.release(),
      (tell) => void resource.acquire().then((next) => [(use = next), tell()]),
    );
    seen['run of a SharedResource'] = await hops(
      () => use.release(),
      (tell) => void resource.run(tell),
    );
    expect(Object.keys(seen).length).toBe(8);
    expect(new Set(Object.values(seen))).toEqual(new Set([1]));
  });
});

describe.each(GATE_NAMES)('many tasks of a %s', (name: GateName) => {
  it('that settle at once overflow no stack (H108)', async () => {
    const { gate, clock, free } = await takenGate(name);
    const count = 20_000;
    let called = 0;
    const all = Promise.all(Array.from({ length: count }, () => gate.run(() => called++)));
    expect([gate.waiting, called]).toEqual([count, 0]);
    if (name === 'RateLimiter') {
      const limiter = gate as unknown as RateLimiter;
      limiter.configure({ limit: count, burst: count });
      await clock.advance(2000);
    }
    await free();
    await all;
    expect([gate.active, gate.waiting, called]).toEqual([0, 0, count]);
  });

  it('each run in the async context of their caller, as does what comes after (H110)', async () => {
    const storage = new AsyncLocalStorage<string>();
    const { gate, clock, free } = await takenGate(name);
    const seen: string[] = [];
    const look = (): void => void seen.push(String(storage.getStore()));
    const visit = (who: string): Promise<void> =>
      storage.run(who, async () => {
        await gate.run(async () => {
          look();
          await Promise.resolve();
          look();
        });
        look();
      });
    const visits = [visit('a'), visit('b'), visit('c')];
    await storage.run('who frees', free);
    await storage.run('who waits', () => clock.advance(3000));
    await Promise.all(visits);
    expect(seen.toSorted((a, b) => (a < b ? -1 : 1)).join('')).toBe('aaabbbccc');
  });

  it('may not wait for themselves without end where they say how long to wait (H109)', async () => {
    const clock = new ManualClock();
    const gate = await freeGate(name, clock);
    const answer = outcomeOf(gate.run(() => gate.run(() => 'inside', { waitTimeoutMs: 100 })));
    await clock.advance(100);
    expect(await answer).toMatchObject([false, { code: expect.any(String) }]);
    expect([gate.active, gate.waiting]).toEqual([0, 0]);
  });
});
