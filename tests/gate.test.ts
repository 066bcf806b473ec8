import { AsyncLocalStorage } from 'node:async_hooks';
import { getEventListeners } from 'node:events';

import { type ClosedError, compose, type Gate, type TaskContext, wrap } from 'sluice';
import { Semaphore } from 'sluice/semaphore';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { answered } from '../src/internal/answered.ts';
import { optionNames } from '../src/internal/options.ts';

type Options = Record<string, unknown>;

/** A gate that lets everybody through and writes down who came and with what. */
class Recorder implements Gate<TaskContext, Options> {
  readonly given: Options[] = [];
  readonly [optionNames]?: ReadonlySet<string>;
  readonly #name: string;
  readonly #log: string[];
  readonly #extra: object;

  constructor(name: string, log: string[] = [], names?: readonly string[], extra: object = {}) {
    this.#name = name;
    this.#log = log;
    this.#extra = extra;
    if (names !== undefined) this[optionNames] = new Set(names);
  }

  async run<T>(
    task: (context: TaskContext) => T | PromiseLike<T>,
    options: Options = {},
  ): Promise<T> {
    this.given.push(options);
    this.#log.push(`> ${this.#name}`);
    try {
      return await task({ signal: new AbortController().signal, ...this.#extra });
    } finally {
      this.#log.push(`< ${this.#name}`);
    }
  }
}

function refusing(how: (() => never) | Error): Gate<TaskContext, Options> {
  return { run: () => (how instanceof Error ? Promise.reject(how) : how()) };
}

describe('compose()', () => {
  it('refuses no gates at all, and what is no gate', () => {
    expect(() => compose(...([] as never as [Recorder]))).toThrow(
      new TypeError('Expected at least one gate to compose.'),
    );
    for (const bad of [undefined, null, 5, {}, { run: true }, () => undefined]) {
      expect(() => compose(new Recorder('a'), bad as never)).toThrow(
        new TypeError('Expected `gate` to have a method `run`.'),
      );
    }
  });

  it('names a task that is none', async () => {
    await expect(compose(new Recorder('a')).run(5 as never)).rejects.toThrow(
      new TypeError('Expected `task` to be a function, got 5.'),
    );
    expect(() => wrap(new Recorder('a'), 5 as never)).toThrow(
      new TypeError('Expected `fn` to be a function, got 5.'),
    );
    expect(() => wrap({} as never, () => 1)).toThrow(
      new TypeError('Expected `gate` to have a method `run`.'),
    );
  });

  it('enters from the outermost to the innermost and leaves the other way', async () => {
    const log: string[] = [];
    const gate = compose(
      ...((['a', 'b', 'c'] as const).map((name) => new Recorder(name, log)) as [Recorder]),
    );
    const result = await gate.run(() => {
      log.push('task');
      return 'result';
    });
    expect(result).toBe('result');
    expect(log).toEqual(['> a', '> b', '> c', 'task', '< c', '< b', '< a']);
  });

  it('calls `run` on the gate, and only the gates that it was given', async () => {
    const gates = [new Recorder('a'), new Recorder('b')] as const;
    const list: Recorder[] = [...gates];
    const gate = compose(...(list as [Recorder]));
    list.length = 0;
    expect(await gate.run(() => 1)).toBe(1);
    expect(gates.map(({ given }) => given.length)).toEqual([1, 1]);
  });

  it('passes results and reasons on as they are', async () => {
    const gate = compose(new Recorder('a'), new Recorder('b'));
    for (const value of [undefined, null, 0, Object.freeze({}), new Error('e')]) {
      expect(await gate.run(() => value)).toBe(value);
      await expect(gate.run(() => Promise.reject(value as Error))).rejects.toBe(value);
      await expect(
        gate.run(() => {
          throw value;
        }),
      ).rejects.toBe(value);
    }
  });

  it('never throws synchronously: what is no task is a rejection, and no gate is entered', async () => {
    const inner = new Recorder('a');
    for (const task of [undefined, null, 5, {}]) {
      await expect(compose(inner).run(task as never)).rejects.toThrow(TypeError);
    }
    expect(inner.given).toEqual([]);
    const throwing = refusing(() => {
      throw new Error('sync');
    });
    await expect(compose(throwing).run(() => 1)).rejects.toThrow('sync');
  });

  describe('the context', () => {
    it('has what every gate hands out', async () => {
      const gate = compose(
        new Recorder('a', [], undefined, { ticket: 1 }),
        new Recorder('b', [], undefined, { lease: 2 }),
      );
      const context = await gate.run((given) => given as TaskContext & Options);
      expect({ ticket: context['ticket'], lease: context['lease'] }).toEqual({
        ticket: 1,
        lease: 2,
      });
      expect(context.signal).toBeInstanceOf(AbortSignal);
      expect(Object.keys(context).toSorted()).toEqual(['lease', 'signal', 'ticket']);
    });

    it('has of two things of one name the one of the inner gate', async () => {
      const [outer, inner] = [{ id: 'outer' }, { id: 'inner' }];
      const gate = compose(
        new Recorder('a', [], undefined, { place: outer }),
        new Recorder('b', [], undefined, { place: inner }),
      );
      expect(await gate.run((context) => (context as unknown as Options)['place'])).toBe(inner);
    });

    it('has the getters of a class, which are called when they are read, each time', async () => {
      let reads = 0;
      class Context {
        readonly signal = new AbortController().signal;
        get costly(): number {
          return ++reads;
        }
      }
      const outer: Gate = { run: async (task) => task(new Context()) };
      const gate = compose(outer, new Recorder('b'));
      await gate.run((context) => {
        expect(reads).toBe(0);
        expect((context as never as Context).costly).toBe(1);
        expect((context as never as Context).costly).toBe(2);
      });
    });

    it('can be taken apart and asked, and cannot be written to', async () => {
      const gate = compose(new Semaphore(1), new Recorder('b', [], undefined, { lease: 2 }));
      await gate.run((context) => {
        const loose = context as unknown as Options;
        expect(Object.keys({ ...loose }).toSorted()).toEqual(['lease', 'permit', 'signal']);
        expect(['lease', 'ticket', 'toString'].map((name) => name in loose)).toEqual([
          true,
          false,
          true,
        ]);
        expect(loose['ticket']).toBeUndefined();
        expect(() => {
          loose['lease'] = 3;
        }).toThrow(TypeError);
        expect(() => Object.defineProperty(loose, 'extra', { value: 3 })).toThrow(TypeError);
        expect(loose['lease']).toBe(2);
      });
    });

    it('is the one of the gate itself where there is only one', async () => {
      const context = { signal: new AbortController().signal };
      const gate: Gate = { run: async (task) => task(context) };
      expect(await compose(gate).run((given) => given)).toBe(context);
    });
  });

  describe('options', () => {
    it('go to the gates that understand them', async () => {
      const a = new Recorder('a', [], ['signal', 'priority', 'waitTimeoutMs']);
      const b = new Recorder('b', [], ['signal', 'cost', 'waitTimeoutMs']);
      const { signal } = new AbortController();
      await (compose(a, b) as Gate<TaskContext, Options>).run(() => 1, {
        signal,
        priority: 2,
        cost: 3,
        waitTimeoutMs: 50,
      });
      expect(a.given).toEqual([{ signal, priority: 2, waitTimeoutMs: 50 }]);
      expect(b.given).toEqual([{ signal: expect.any(AbortSignal), cost: 3, waitTimeoutMs: 50 }]);
    });

    it('that no gate understands are refused by name, before any gate is entered (H010)', async () => {
      const a = new Recorder('a', [], ['signal', 'priority']);
      const b = new Recorder('b', [], ['signal', 'cost']);
      const gate = compose(a, b) as Gate<TaskContext, Options>;
      await expect(gate.run(() => 1, { prioritty: 1 })).rejects.toThrow(
        new TypeError(
          'Unknown option "prioritty" of the composed gate; it knows `signal`, `priority`, `cost`.',
        ),
      );
      expect([...a.given, ...b.given]).toEqual([]);
    });

    it('go all to a gate that is not of ours, and those it knows to one of ours', async () => {
      const ours = new Recorder('ours', [], ['signal', 'priority']);
      const foreign = new Recorder('foreign');
      const gate = compose(ours, foreign) as Gate<TaskContext, Options>;
      await gate.run(() => 1, { priority: 1, colour: 'red', ['__proto__']: 5 });
      expect(ours.given).toEqual([{ priority: 1 }]);
      expect(Object.entries(foreign.given[0]!)).toEqual([
        ['priority', 1],
        ['colour', 'red'],
        ['__proto__', 5],
        ['signal', expect.any(AbortSignal)],
      ]);
    });

    it('are read once each, whatever the number of gates (H011)', async () => {
      const priority = vi.fn<() => number>(() => 3);
      const gates = [1, 2, 3].map(() => new Recorder('a', [], ['signal', 'priority']));
      const options = Object.defineProperty({}, 'priority', { get: priority, enumerable: true });
      await (compose(...(gates as [Recorder])) as Gate<TaskContext, Options>).run(() => 1, options);
      expect(priority).toHaveBeenCalledOnce();
      expect(gates.map(({ given }) => given[0]!['priority'])).toEqual([3, 3, 3]);
    });

    it('that are no object are a rejection', async () => {
      for (const options of [null, 5, 'priority']) {
        await expect(compose(new Recorder('a')).run(() => 1, options as never)).rejects.toThrow(
          TypeError,
        );
      }
    });
  });

  describe('of composed gates', () => {
    it('is as good as one flat composition', async () => {
      const log: string[] = [];
      const a = new Recorder('a', log, ['signal', 'priority'], { ticket: 1 });
      const b = new Recorder('b', log, ['signal', 'cost'], { lease: 2 });
      const c = new Recorder('c', log, ['signal', 'weight'], { permit: 3 });
      for (const gate of [
        compose(compose(a, b), c),
        compose(a, compose(b, c)),
        compose(compose(a, b, c)),
      ]) {
        const loose = gate as unknown as Gate<TaskContext, Options>;
        const context = await loose.run((given) => given, { priority: 1, cost: 2, weight: 3 });
        expect(context).toMatchObject({ ticket: 1, lease: 2, permit: 3 });
        expect(log.splice(0)).toEqual(['> a', '> b', '> c', '< c', '< b', '< a']);
        expect(a.given.pop()).toMatchObject({ priority: 1 });
        expect(b.given.pop()).toMatchObject({ cost: 2 });
        expect(c.given.pop()).toMatchObject({ weight: 3 });
        await expect(loose.run(() => 1, { prioritty: 1 })).rejects.toThrow('"prioritty"');
      }
    });
  });

  describe('gives everything back', () => {
    const setUp = (): {
      clock: ManualClock;
      outer: Semaphore;
      inner: Semaphore;
      gate: Gate<TaskContext, Options>;
    } => {
      const clock = new ManualClock();
      const outer = new Semaphore({ capacity: 2, clock });
      const inner = new Semaphore({ capacity: 1, maxWaiting: 1, clock });
      return { clock, outer, inner, gate: compose(outer, inner) };
    };
    const never = (): Promise<never> => new Promise(() => undefined);

    it('when an inner gate refuses', async () => {
      const { outer, inner, gate } = setUp();
      const task = vi.fn<() => void>();
      inner.close();
      await expect(gate.run(task)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await expect(compose(outer, refusing(new Error('no'))).run(task)).rejects.toThrow('no');
      expect(task).not.toHaveBeenCalled();
      expect([outer.active, inner.active]).toEqual([0, 0]);
    });

    it('when an inner gate throws', async () => {
      const { outer } = setUp();
      const throwing = refusing(() => {
        throw new Error('sync');
      });
      await expect(compose(outer, throwing).run(() => 1)).rejects.toThrow('sync');
      expect(outer.active).toBe(0);
    });

    it('when the task throws, rejects or returns', async () => {
      const { outer, inner, gate } = setUp();
      for (const task of [
        () => Promise.reject(new Error('task')),
        () => {
          throw new Error('task');
        },
        () => 1,
      ]) {
        await gate.run<unknown>(task).catch(() => undefined);
        expect([outer.active, inner.active]).toEqual([0, 0]);
      }
    });

    it('when the caller gives up between two gates', async () => {
      const { outer, inner, gate } = setUp();
      const permit = inner.tryAcquire()!;
      const controller = new AbortController();
      const reason = new Error('left');
      const task = vi.fn<() => void>();
      const run = gate.run(task, { signal: controller.signal });
      await settle();
      expect([outer.active, inner.waiting]).toEqual([1, 1]);
      controller.abort(reason);
      await expect(run).rejects.toBe(reason);
      await settle();
      expect([outer.active, inner.waiting, inner.active]).toEqual([0, 0, 1]);
      permit.release();
      expect(inner.active).toBe(0);
      expect(task).not.toHaveBeenCalled();
      expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
    });

    it('when the caller gives up while the task runs, once that has settled', async () => {
      const { outer, inner, gate } = setUp();
      const controller = new AbortController();
      const { promise, resolve } = Promise.withResolvers<void>();
      let signal: AbortSignal | undefined;
      const run = gate.run(
        (context) => {
          signal = context.signal;
          return promise;
        },
        { signal: controller.signal },
      );
      await settle();
      controller.abort('left');
      await expect(run).rejects.toBe('left');
      expect(signal!.aborted).toBe(true);
      expect(signal!.reason).toBe('left');
      await settle();
      expect([outer.active, inner.active]).toEqual([1, 1]);
      resolve();
      await settle();
      expect([outer.active, inner.active]).toEqual([0, 0]);
    });

    it('when the time of an outer gate runs out while an inner one is waited for', async () => {
      const { clock, outer, inner, gate } = setUp();
      inner.tryAcquire();
      const run = gate.run(never, { runTimeoutMs: 100 });
      const code = run.catch((error: unknown) => (error as ClosedError).code);
      await clock.advance(100);
      expect(await code).toBe('ERR_RUN_TIMEOUT');
      expect([outer.active, inner.waiting]).toEqual([0, 0]);
      expect(clock.timers).toBe(0);
    });

    it('when only an inner gate runs out of time: the caller at once, the places at the end', async () => {
      const { clock, outer, inner } = setUp();
      const untimed: Gate = { run: (task) => outer.run(task) };
      const { promise, resolve } = Promise.withResolvers<void>();
      const run = (compose(untimed, inner) as Gate<TaskContext, Options>).run(() => promise, {
        runTimeoutMs: 100,
      });
      const code = run.catch((error: unknown) => (error as ClosedError).code);
      await clock.advance(100);
      expect(await code).toBe('ERR_RUN_TIMEOUT');
      expect([outer.active, inner.active]).toEqual([1, 1]);
      resolve();
      await settle();
      expect([outer.active, inner.active]).toEqual([0, 0]);
    });

    it.each([true, false])(
      'when a gate that is not of ours calls the task twice and answers before: the places at the end',
      async (ok) => {
        const places = new Semaphore(1);
        const first = Promise.withResolvers<void>();
        const hedge: Gate = {
          run: async (task) => {
            const context = { signal: new AbortController().signal };
            const tries = [task(context), task(context)];
            const fastest = await Promise.race(tries);
            if (ok) return fastest;
            throw new Error('too slow');
          },
        };
        const second = Promise.withResolvers<void>();
        const tasks = [first.promise, second.promise];
        const told: unknown[] = [];
        const answer = compose(places, hedge).run(() => tasks.shift());
        void answer.then(
          () => told.push('answered'),
          (error: Error) => told.push(error.message),
        );
        first.resolve();
        await settle();
        expect(told).toEqual([ok ? 'answered' : 'too slow']);
        expect(places.active).toBe(1);
        second.reject(new Error('nobody waits for that'));
        await settle();
        expect(places.active).toBe(0);
      },
    );

    it('when a gate that is not of ours has answered and calls the task once more: the places at the end', async () => {
      const places = new Semaphore(1);
      const again: Gate = {
        run: (task) => {
          const context = { signal: new AbortController().signal };
          void Promise.resolve(task(context)).then(() => task(context));
          return Promise.resolve('answered' as never);
        },
      };
      const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const tasks = [first.promise, second.promise];
      expect(await compose(places, again).run(() => tasks.shift())).toBe('answered');
      first.resolve();
      await settle();
      expect(tasks).toEqual([]);
      expect(places.active).toBe(1);
      second.resolve();
      await settle();
      expect(places.active).toBe(0);
    });

    it.each([true, false])(
      'and the contexts around are told when a gate has answered before the end (nested: %s)',
      async (nested) => {
        const told: unknown[] = [];
        const around = (name: string): Recorder =>
          new Recorder(name, [], [], {
            [answered]: (ok: boolean, value: unknown) => told.push([name, ok, value]),
          });
        const early: Gate = {
          run: (task) => {
            void task({ signal: new AbortController().signal });
            return Promise.resolve('early' as never);
          },
        };
        const [a, b] = [around('a'), around('b')];
        const gate = nested ? compose(compose(a, b), early) : compose(a, b, early);
        const { promise, resolve } = Promise.withResolvers<void>();
        expect(await gate.run(() => promise)).toBe('early');
        expect(told).toEqual([
          ['a', true, 'early'],
          ['b', true, 'early'],
        ]);
        resolve();
        await settle();
        await compose(a, b).run(() => 'in time');
        expect(told).toHaveLength(2);
      },
    );

    it('innermost first (H336)', async () => {
      const gates = [1, 2, 3].map(() => new Semaphore(1));
      const order: number[] = [];
      for (const [i, gate] of gates.entries()) gate.on('released', () => order.push(i));
      const composed = compose(...(gates as [Semaphore]));
      await composed.run(() => 1);
      expect(order.splice(0)).toEqual([2, 1, 0]);

      const { promise, reject } = Promise.withResolvers<void>();
      const controller = new AbortController();
      const run = composed.run(() => promise, { signal: controller.signal });
      controller.abort('left');
      await expect(run).rejects.toBe('left');
      reject(new Error('task'));
      await settle();
      expect(order).toEqual([2, 1, 0]);
    });
  });

  it('calls the task in the async context of its caller (H110)', async () => {
    const storage = new AsyncLocalStorage<string>();
    const inner = new Semaphore(1);
    const gate = compose(new Semaphore(2), inner);
    const permit = inner.tryAcquire()!;
    const seen = storage.run('caller', () => gate.run(() => storage.getStore()));
    await settle();
    storage.run('releaser', () => permit.release());
    expect(await seen).toBe('caller');
  });
});

describe('wrap()', () => {
  it('passes the parameters, `this` and the result', async () => {
    const gate = new Recorder('a');
    const object = {
      base: 10,
      add: wrap(gate, function (this: { base: number }, a: number, b: string) {
        return `${this.base + a}${b}`;
      }),
    };
    expect(await object.add(5, '!')).toBe('15!');
    expect(gate.given).toHaveLength(1);
  });

  it('gates each call', async () => {
    const gate = new Semaphore(1);
    let running = 0;
    const wrapped = wrap(gate, async () => {
      expect(++running).toBe(1);
      await settle();
      running--;
    });
    await Promise.all([wrapped(), wrapped(), wrapped()]);
    expect(gate.stats().acquired).toBe(3);
  });

  it('passes the options of the gate', async () => {
    const gate = new Recorder('a');
    const options = { priority: 1 };
    const wrapped = wrap(gate, () => 1, options);
    await wrapped();
    await wrapped();
    expect(gate.given).toEqual([options, options]);
  });

  it('makes the options from the arguments of each call', async () => {
    const gate = new Recorder('a');
    const wrapped = wrap(
      gate,
      (text: string) => text,
      (text) => (text === '' ? undefined : { cost: text.length }),
    );
    await wrapped('four');
    await wrapped('');
    expect(gate.given).toEqual([{ cost: 4 }, {}]);
  });

  it('rejects, and never throws, when the function, the gate or the options fail', async () => {
    const failure = new Error('failed');
    const fail = (): never => {
      throw failure;
    };
    const fn = vi.fn<() => void>();
    await expect(wrap(new Recorder('a'), fail)()).rejects.toBe(failure);
    await expect(wrap(new Recorder('a'), () => Promise.reject(failure))()).rejects.toBe(failure);
    await expect(wrap(refusing(fail), fn)()).rejects.toBe(failure);
    await expect(wrap(refusing(failure), fn)()).rejects.toBe(failure);
    await expect(wrap(new Recorder('a'), fn, fail)()).rejects.toBe(failure);
    expect(fn).not.toHaveBeenCalled();
  });

  it('refuses what is no gate, and what is no function', () => {
    expect(() => wrap(undefined as never, () => 1)).toThrow(
      new TypeError('Expected `gate` to have a method `run`.'),
    );
    expect(() => wrap(new Recorder('a'), 'fn' as never)).toThrow(
      new TypeError('Expected `fn` to be a function, got "fn".'),
    );
  });
});
