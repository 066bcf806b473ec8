import { AsyncLocalStorage } from 'node:async_hooks';
import { getEventListeners } from 'node:events';
import vm from 'node:vm';

import {
  ClosedError,
  ExceedsCapacityError,
  QueueFullError,
  RunTimeoutError,
  WaitTimeoutError,
} from 'sluice';
import { type AcquireOptions, type Permit, Semaphore } from 'sluice/semaphore';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { codeOf, microtasks } from './support/promises.ts';
import { catchUncaught } from './support/uncaught.ts';
import { SEMAPHORE_EVENTS, record } from './support/events.ts';

const NO_POSITIVE_INTEGERS = [0, -1, 1.5, Number.NaN, Infinity, 2 ** 53, '2', 2n, true, null, {}];
const NO_SPANS = [-1, Number.NaN, -Infinity, '5', 5n, null, true, new Date(0), {}];
const NO_SIGNALS = [null, 0, '', false, 'signal', {}, { aborted: false }, new EventTarget()];

/** Everything that can be seen of a semaphore, to find out that nothing has changed. */
function seen(semaphore: Semaphore): unknown {
  const { capacity, available, active, waiting } = semaphore;
  return { capacity, available, active, waiting, stats: semaphore.stats() };
}

function names(log: readonly [string, unknown][]): string {
  return log.map(([name]) => name).join(' ');
}

const never = (): Promise<never> => new Promise(() => undefined);

describe('Semaphore', () => {
  describe('new', () => {
    it('takes a capacity, or options', () => {
      expect(new Semaphore(3).capacity).toBe(3);
      const clock = new ManualClock();
      const options = { capacity: 4, maxWaiting: 0, maxHoldMs: 0.5, clock };
      expect(new Semaphore(options).capacity).toBe(4);
      expect(new Semaphore(Object.freeze({ __proto__: null, capacity: 1 })).available).toBe(1);
    });

    it.each(NO_POSITIVE_INTEGERS)('names a bad capacity: %s', (capacity) => {
      for (const options of [capacity, { capacity }]) {
        if (typeof options === 'object' && options !== null && !('capacity' in options)) continue;
        expect(() => new Semaphore(options as never)).toThrow(
          options === null || typeof capacity === 'number' || typeof options === 'object'
            ? /Expected `(capacity|options of Semaphore)`/
            : /Expected `options of Semaphore`/,
        );
      }
      expect(() => new Semaphore({ capacity } as never)).toThrow(
        typeof capacity === 'number' ? RangeError : TypeError,
      );
    });

    it('shows the bad value', () => {
      expect(() => new Semaphore(0)).toThrow(
        new RangeError('Expected `capacity` to be a positive integer, got 0.'),
      );
      expect(() => new Semaphore({ capacity: 1, maxWaiting: '5' as never })).toThrow(
        new TypeError('Expected `maxWaiting` to be a non-negative integer or Infinity, got "5".'),
      );
    });

    it.each([-1, 1.5, Number.NaN, -Infinity, '5', null, true])(
      'names a bad maxWaiting: %s',
      (maxWaiting) => {
        expect(() => new Semaphore({ capacity: 1, maxWaiting } as never)).toThrow(/`maxWaiting`/);
      },
    );

    it.each([0, -1, Number.NaN, Infinity, '5', null])('names a bad maxHoldMs: %s', (maxHoldMs) => {
      expect(() => new Semaphore({ capacity: 1, maxHoldMs } as never)).toThrow(/`maxHoldMs`/);
    });

    it.each([null, 5, {}, { now: () => 0 }])('names a bad clock: %s', (clock) => {
      expect(() => new Semaphore({ capacity: 1, clock } as never)).toThrow(/`clock`/);
    });

    it('names an option that it does not know (H010)', () => {
      expect(() => new Semaphore({ capacity: 1, maxWating: 5 } as never)).toThrow(
        /Unknown option "maxWating" of Semaphore/,
      );
      for (const options of [undefined, null, 'x', true]) {
        expect(() => new Semaphore(options as never)).toThrow(TypeError);
      }
    });

    it('takes an explicit undefined for absent (H009), and reads own properties only (H013)', () => {
      const semaphore = new Semaphore({ capacity: 1, maxWaiting: undefined, clock: undefined });
      expect(semaphore.capacity).toBe(1);
      expect(() => new Semaphore(Object.create({ capacity: 1 }) as never)).toThrow(/`capacity`/);
    });

    it('reads each option once, and is not changed by them afterwards (H011, H012)', async () => {
      const reads: string[] = [];
      const spy = (given: Record<string, unknown>): Record<string, unknown> =>
        new Proxy(given, {
          get: (target, name) => {
            reads.push(String(name));
            return target[String(name)];
          },
        });
      const options = { capacity: 1, maxWaiting: 1 };
      const semaphore = new Semaphore(spy(options) as never);
      options.capacity = 5;
      expect(semaphore.capacity).toBe(1);
      expect(reads).toEqual(['capacity', 'maxWaiting']);
      reads.length = 0;
      await semaphore.run(() => undefined, spy({ weight: 1, waitTimeoutMs: 5 }));
      expect(reads).toEqual(['weight', 'waitTimeoutMs']);
    });

    it('does nothing to the process: no timer, no event (H050, H132)', () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, maxHoldMs: 5, clock });
      expect(clock.timers).toBe(0);
      expect(semaphore.stats()).toEqual({
        capacity: 1,
        available: 1,
        active: 0,
        waiting: 0,
        closed: false,
        acquired: 0,
        queued: 0,
        released: 0,
        refused: 0,
        cancelled: 0,
        timedOut: 0,
        overrun: 0,
        overheld: 0,
        waitMs: { count: 0, mean: undefined, max: undefined },
      });
    });
  });

  describe('.tryAcquire()', () => {
    it('takes what is free, and no more', () => {
      const semaphore = new Semaphore(3);
      const permit = semaphore.tryAcquire(2)!;
      expect({ ...seen(semaphore)!, stats: undefined }).toEqual({
        capacity: 3,
        available: 1,
        active: 2,
        waiting: 0,
        stats: undefined,
      });
      expect(permit.weight).toBe(2);
      expect(permit.released).toBe(false);
      expect(semaphore.tryAcquire(2)).toBeUndefined();
      expect(semaphore.tryAcquire()?.weight).toBe(1);
      expect(semaphore.tryAcquire()).toBeUndefined();
    });

    it('refuses more than the capacity without an error', () => {
      expect(new Semaphore(2).tryAcquire(3)).toBeUndefined();
    });

    it('refuses while somebody waits, even if permits are free (S3, H182)', async () => {
      const semaphore = new Semaphore(2);
      const permit = semaphore.tryAcquire()!;
      const heavy = semaphore.acquire({ weight: 2 });
      expect(semaphore.available).toBe(1);
      expect(semaphore.tryAcquire()).toBeUndefined();
      permit.release();
      expect((await heavy).weight).toBe(2);
    });

    it('refuses when closed', () => {
      const semaphore = new Semaphore(1);
      semaphore.close();
      expect(semaphore.tryAcquire()).toBeUndefined();
    });

    it.each(NO_POSITIVE_INTEGERS)(
      'throws for a bad weight, and changes nothing: %s (H195)',
      (weight) => {
        const semaphore = new Semaphore(3);
        const before = seen(semaphore);
        expect(() => semaphore.tryAcquire(weight as never)).toThrow(/`weight`/);
        expect(seen(semaphore)).toEqual(before);
      },
    );
  });

  describe('.acquire()', () => {
    it('takes a permit at once where that is possible', async () => {
      const semaphore = new Semaphore(2);
      const acquired = semaphore.acquire();
      expect(semaphore.active).toBe(1);
      expect((await acquired).weight).toBe(1);
      const other = await semaphore.acquire({ weight: 1, waitTimeoutMs: 0 });
      expect(other.released).toBe(false);
    });

    it('goes on one microtask after the release that it waited for (H107)', async () => {
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      let at: number | undefined;
      let ticks = 0;
      void semaphore.acquire().then(() => {
        at = ticks;
      });
      permit.release();
      for (; ticks < 5; ticks++) await Promise.resolve();
      expect(at).toBe(0);
    });

    it('is served in the order of arrival, the heavy before the light behind it (H183)', async () => {
      const semaphore = new Semaphore(3);
      const permits = [1, 1, 1].map(() => semaphore.tryAcquire()!);
      const order: number[] = [];
      const waits = [1, 3, 1, 2].map(async (weight, index) => {
        const permit = await semaphore.acquire({ weight });
        order.push(index);
        return permit;
      });
      permits[0]!.release();
      permits[1]!.release();
      await settle();
      expect(order).toEqual([0]);
      expect(semaphore.available).toBe(1);
      permits[2]!.release();
      (await waits[0]!).release();
      await settle();
      expect(order).toEqual([0, 1]);
      (await waits[1]!).release();
      await settle();
      expect(order).toEqual([0, 1, 2, 3]);
    });

    it('hands as many permits on as fit, in one release (H180)', async () => {
      const semaphore = new Semaphore(4);
      const heavy = semaphore.tryAcquire(4)!;
      const waits = [1, 2, 1, 1].map((weight) => semaphore.acquire({ weight }));
      heavy.release();
      expect(semaphore.active).toBe(4);
      expect(semaphore.waiting).toBe(1);
      await Promise.all(waits.slice(0, 3));
    });

    it.each([
      ['weight', NO_POSITIVE_INTEGERS],
      ['waitTimeoutMs', NO_SPANS],
      ['signal', NO_SIGNALS],
    ] as const)('rejects a bad `%s` by name, and changes nothing', async (name, values) => {
      for (const taken of [0, 1]) {
        const semaphore = new Semaphore(1);
        if (taken === 1) semaphore.tryAcquire();
        const before = seen(semaphore);
        for (const value of values) {
          for (const how of ['acquire', 'run'] as const) {
            const options = { [name]: value } as never;
            const answer =
              how === 'run' ? semaphore.run(() => 1, options) : semaphore.acquire(options);
            const error: unknown = await answer.then(
              () => undefined,
              (reason: unknown) => reason,
            );
            expect(error).toBeInstanceOf(
              typeof value === 'number' && name !== 'signal' ? RangeError : TypeError,
            );
            expect((error as Error).message).toContain(`\`${name}\``);
          }
        }
        expect(seen(semaphore)).toEqual(before);
      }
    });

    it('rejects options that are none, and names of options that it does not know', async () => {
      const semaphore = new Semaphore(1);
      for (const options of [null, 5, 'x', { weigth: 2 }, { runTimeoutMs: 5 }]) {
        await expect(semaphore.acquire(options as never)).rejects.toThrow(TypeError);
      }
      await expect(semaphore.acquire({ weigth: 2 } as never)).rejects.toThrow(
        /Unknown option "weigth" of acquire/,
      );
      expect(semaphore.available).toBe(1);
    });

    it('rejects with the error of a getter of its options, and changes nothing', async () => {
      const semaphore = new Semaphore(1);
      const failure = new Error('getter');
      const options = {
        get weight(): number {
          throw failure;
        },
      };
      await expect(semaphore.acquire(options)).rejects.toBe(failure);
      expect(semaphore.available).toBe(1);
    });
  });

  describe('the order of checks (H198)', () => {
    /** Each line adds what the one before it lets through; the first check that fails answers. */
    const cases: [string, AcquireOptions | undefined, (semaphore: Semaphore) => void, unknown][] = [
      ['bad arguments', { weight: 0 }, (s) => s.close(), 'RangeError'],
      ['closed', { weight: 9, signal: AbortSignal.abort('why') }, (s) => s.close(), 'ERR_CLOSED'],
      ['aborted', { weight: 9, signal: AbortSignal.abort('why') }, () => undefined, 'why'],
      ['over the capacity', { weight: 9 }, () => undefined, 'ERR_EXCEEDS_CAPACITY'],
      ['free', { waitTimeoutMs: 0 }, () => undefined, 'ok'],
      ['full', { waitTimeoutMs: 0 }, (s) => fill(s, 1), 'ERR_QUEUE_FULL'],
      ['no time', { waitTimeoutMs: 0 }, (s) => fill(s, 0), 'ERR_WAIT_TIMEOUT'],
      ['wait', undefined, (s) => fill(s, 0), 'waits'],
    ];
    function fill(semaphore: Semaphore, waiting: number): void {
      semaphore.tryAcquire(semaphore.capacity);
      for (let i = 0; i < waiting; i++) void semaphore.acquire();
    }

    it.each(cases)('%s', async (_, options, prepare, expected) => {
      for (const how of ['acquire', 'run'] as const) {
        const semaphore = new Semaphore({ capacity: 2, maxWaiting: 1 });
        prepare(semaphore);
        const task = vi.fn<() => void>();
        const answer = how === 'run' ? semaphore.run(task, options) : semaphore.acquire(options);
        const outcome = await Promise.race([
          answer.then(
            () => 'ok',
            (error: unknown) => (error instanceof RangeError ? error.name : codeOf(error)),
          ),
          settle().then(() => 'waits'),
        ]);
        expect(outcome).toBe(expected);
        expect(task).toHaveBeenCalledTimes(how === 'run' && expected === 'ok' ? 1 : 0);
      }
    });
  });

  describe('errors', () => {
    it('say what was wrong, in data, a new one for each', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, maxWaiting: 1, clock });
      semaphore.tryAcquire(2);
      const reasonOf = (promise: Promise<unknown>): Promise<unknown> =>
        promise.then(
          () => undefined,
          (error: unknown) => error,
        );
      const wait = reasonOf(semaphore.acquire({ waitTimeoutMs: 10 }));
      const full = [reasonOf(semaphore.acquire()), reasonOf(semaphore.acquire())];
      const exceeds = (await reasonOf(semaphore.acquire({ weight: 3 }))) as ExceedsCapacityError;
      await clock.advance(10);
      expect(await full[0]).not.toBe(await full[1]);
      expect(await full[0]).toBeInstanceOf(QueueFullError);
      expect(await full[0]).toMatchObject({
        code: 'ERR_QUEUE_FULL',
        waiting: 1,
        maxWaiting: 1,
        estimatedWaitMs: undefined,
        retryAfterMs: 1000,
      });
      expect(await wait).toBeInstanceOf(WaitTimeoutError);
      expect(await wait).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 10 });
      expect(exceeds).toBeInstanceOf(ExceedsCapacityError);
      expect(exceeds).toMatchObject({ code: 'ERR_EXCEEDS_CAPACITY', requested: 3, capacity: 2 });
      semaphore.close();
      const closed = await reasonOf(semaphore.acquire());
      expect(closed).toBeInstanceOf(ClosedError);
      expect(closed).toMatchObject({ code: 'ERR_CLOSED' });
    });
  });

  describe('signal', () => {
    it('that is aborted already takes nothing, though a permit is free (H051)', async () => {
      const semaphore = new Semaphore(1);
      const task = vi.fn<() => void>();
      for (const reason of [new Error('why'), 'text', undefined, 0]) {
        const controller = new AbortController();
        controller.abort(reason);
        const { signal } = controller;
        await expect(semaphore.acquire({ signal })).rejects.toBe(signal.reason);
        await expect(semaphore.run(task, { signal })).rejects.toBe(signal.reason);
      }
      expect(task).not.toHaveBeenCalled();
      expect(semaphore.available).toBe(1);
    });

    it('ends the wait at once with its own reason, and lets the next in line through', async () => {
      const semaphore = new Semaphore(2);
      semaphore.tryAcquire();
      const { signal, abort } = controlled();
      const heavy = semaphore.acquire({ weight: 2, signal });
      const light = semaphore.acquire();
      const reason = Object.freeze({ why: 'gone' });
      abort(reason);
      expect(semaphore.waiting).toBe(0);
      await expect(heavy).rejects.toBe(reason);
      expect((await light).weight).toBe(1);
      expect(getEventListeners(signal, 'abort')).toEqual([]);
    });

    it('shared by many has one listener, and lets all of them go before anybody gets in (H060, H061)', async () => {
      const semaphore = new Semaphore(2);
      const permit = semaphore.tryAcquire()!;
      const { signal, abort } = controlled();
      const log: string[] = [];
      semaphore.on('acquired', () => log.push('acquired'));
      semaphore.on('cancelled', ({ waiting }) => log.push(`cancelled, ${waiting} left`));
      const waits = [2, 1, 1].map((weight) => semaphore.acquire({ weight, signal }));
      const other = semaphore.acquire();
      expect(getEventListeners(signal, 'abort').length).toBe(1);
      abort('all');
      await expect(Promise.allSettled(waits)).resolves.toEqual(
        waits.map(() => ({ status: 'rejected', reason: 'all' })),
      );
      expect(log).toEqual([
        'cancelled, 3 left',
        'cancelled, 2 left',
        'cancelled, 1 left',
        'acquired',
      ]);
      (await other).release();
      permit.release();
    });

    it('that cannot be listened to takes no place, free or not (H057)', async () => {
      const failure = new Error('no listeners');
      const hostile = {
        aborted: false,
        addEventListener: () => {
          throw failure;
        },
        removeEventListener: () => undefined,
      } as never;
      const semaphore = new Semaphore(1);
      const task = vi.fn<() => void>();
      await expect(semaphore.run(task, { signal: hostile })).rejects.toBe(failure);
      expect(semaphore.active).toBe(0);
      const permit = semaphore.tryAcquire()!;
      await expect(semaphore.run(task, { signal: hostile })).rejects.toBe(failure);
      await expect(semaphore.acquire({ signal: hostile })).rejects.toBe(failure);
      expect(semaphore.waiting).toBe(0);
      permit.release();
      expect(semaphore.available).toBe(1);
      expect(task).not.toHaveBeenCalled();
    });

    it('that can be listened to once only loses its place when it starts, and nothing else', async () => {
      const failure = new Error('once');
      let calls = 0;
      const hostile = {
        aborted: false,
        addEventListener: () => {
          if (++calls === 2) throw failure;
        },
        removeEventListener: () => undefined,
      } as never;
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const task = vi.fn<() => void>();
      const answer = semaphore.run(task, { signal: hostile });
      permit.release();
      await expect(answer).rejects.toBe(failure);
      expect(semaphore.available).toBe(1);
      expect(task).not.toHaveBeenCalled();
    });

    it('that aborts while it is listened to leaves nothing behind (H057)', async () => {
      const reason = new Error('at once');
      const treacherous = (): AbortSignal => {
        const signal = {
          aborted: false,
          reason: undefined as unknown,
          addEventListener: (_: string, listener: () => void) => {
            signal.aborted = true;
            signal.reason = reason;
            listener();
          },
          removeEventListener: () => undefined,
        };
        return signal as never;
      };
      const semaphore = new Semaphore(1);
      await expect(semaphore.run(never, { signal: treacherous(), graceMs: 0 })).rejects.toBe(
        reason,
      );
      await vi.waitFor(() => expect(semaphore.active).toBe(0));
      semaphore.tryAcquire();
      await expect(semaphore.acquire({ signal: treacherous() })).rejects.toBe(reason);
      expect(semaphore.waiting).toBe(0);
    });

    it('of another realm is as good (H064)', async () => {
      const foreign = vm.runInNewContext('({ controller: new AbortController() })', {
        AbortController,
      }) as { controller: AbortController };
      const semaphore = new Semaphore(1);
      semaphore.tryAcquire();
      const wait = semaphore.acquire({ signal: foreign.controller.signal });
      foreign.controller.abort('foreign');
      await expect(wait).rejects.toBe('foreign');
    });

    it('aborted after a grant changes nothing for an acquire (H055)', async () => {
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const { signal, abort } = controlled();
      const wait = semaphore.acquire({ signal });
      permit.release();
      abort('too late');
      expect((await wait).released).toBe(false);
      expect(semaphore.active).toBe(1);
    });

    it('aborted between the grant and the call of the task keeps the task from being called (H055)', async () => {
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const { signal, abort } = controlled();
      const task = vi.fn<() => void>();
      const answer = semaphore.run(task, { signal });
      const next = semaphore.acquire();
      permit.release();
      abort('just in time');
      await expect(answer).rejects.toBe('just in time');
      expect(task).not.toHaveBeenCalled();
      expect((await next).released).toBe(false);
    });
  });

  describe('waitTimeoutMs', () => {
    it('ends the wait at its instant, not before', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      semaphore.tryAcquire();
      const wait = semaphore.acquire({ waitTimeoutMs: 10.5 });
      wait.catch(() => undefined);
      await clock.advance(10);
      expect(semaphore.waiting).toBe(1);
      await clock.advance(1);
      expect(semaphore.waiting).toBe(0);
      await expect(wait).rejects.toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 11 });
      expect(clock.timers).toBe(0);
    });

    it('lets the next in line through when the head runs out of time (H223)', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, clock });
      semaphore.tryAcquire();
      const heavy = semaphore.acquire({ weight: 2, waitTimeoutMs: 10 });
      const light = semaphore.acquire({ waitTimeoutMs: 10.001 });
      const outcome = codeAfter(heavy);
      await clock.advance(10);
      expect(await outcome).toBe('ERR_WAIT_TIMEOUT');
      expect((await light).weight).toBe(1);
      expect(clock.timers).toBe(0);
    });

    it('loses against a release of the same instant that comes first (H081)', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      const permit = semaphore.tryAcquire()!;
      clock.setTimeout(() => permit.release(), 10);
      const wait = semaphore.acquire({ waitTimeoutMs: 10 });
      await clock.advance(10);
      expect((await wait).released).toBe(false);
    });

    it('is one timer for all (H085), of any length (H017), and none without end', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      semaphore.tryAcquire();
      const waits = [5000, 2 ** 40, 300].map((waitTimeoutMs) =>
        codeAfter(semaphore.acquire({ waitTimeoutMs })),
      );
      void semaphore.acquire({ waitTimeoutMs: Infinity });
      expect(clock.timers).toBe(1);
      await clock.advance(5000);
      expect(await Promise.all([waits[0], waits[2]])).toEqual([
        'ERR_WAIT_TIMEOUT',
        'ERR_WAIT_TIMEOUT',
      ]);
      await clock.advance(2 ** 40 - 5001);
      expect(semaphore.waiting).toBe(2);
      await clock.advance(1);
      expect(await waits[1]).toBe('ERR_WAIT_TIMEOUT');
      expect(clock.timers).toBe(0);
    });
  });

  describe('.run()', () => {
    it('calls the task at once where a permit is free, and settles as it does', async () => {
      const semaphore = new Semaphore(1);
      const task = vi.fn<(context: { permit: Permit; signal: AbortSignal }) => string>(
        () => 'done',
      );
      const answer = semaphore.run(task);
      expect(task).toHaveBeenCalledOnce();
      expect(semaphore.active).toBe(1);
      expect(await answer).toBe('done');
      expect(semaphore.active).toBe(0);
      const [{ permit, signal }] = task.mock.calls[0]!;
      expect(permit).toMatchObject({ weight: 1, released: true });
      expect(signal.aborted).toBe(false);
    });

    it.each([
      ['with nothing to interrupt it', {}],
      ['with a signal', { signal: new AbortController().signal }],
      ['with a limit', { runTimeoutMs: 1e6 }],
    ])(
      'passes values and reasons of every kind on as they are, %s (H096, H097, H103)',
      async (_, options) => {
        const clock = new ManualClock();
        const semaphore = new Semaphore({ capacity: 1, clock });
        for (const value of [
          undefined,
          null,
          0,
          Object.freeze({}),
          new Error('e'),
          (): void => {},
        ]) {
          expect(await semaphore.run(() => value, options)).toBe(value);
          expect(await semaphore.run(() => Promise.resolve(value), options)).toBe(value);
          await expect(semaphore.run(() => Promise.reject(value as Error), options)).rejects.toBe(
            value,
          );
          const throwing = semaphore.run(() => {
            throw value;
          }, options);
          await expect(throwing).rejects.toBe(value);
          expect(semaphore.active).toBe(0);
        }
        expect(clock.timers).toBe(0);
      },
    );

    it.each([undefined, null, 5, {}, 'task'])('rejects what is no task: %s', async (task) => {
      const semaphore = new Semaphore(1);
      await expect(semaphore.run(task as never)).rejects.toThrow(
        /Expected `task` to be a function/,
      );
      expect(semaphore.stats()).toMatchObject({ acquired: 0, refused: 0, active: 0 });
    });

    it.each([
      ['runTimeoutMs', NO_SPANS],
      ['graceMs', NO_SPANS],
    ] as const)('rejects a bad `%s` by name', async (name, values) => {
      const semaphore = new Semaphore(1);
      for (const value of values) {
        const answer = semaphore.run(() => 1, { [name]: value });
        await expect(answer).rejects.toThrow(new RegExp(`\`${name}\``));
      }
      expect(semaphore.stats()).toMatchObject({ acquired: 0, active: 0 });
    });

    it('holds the permit until the task has settled, and hands it on then', async () => {
      const semaphore = new Semaphore(1);
      const { promise, resolve } = Promise.withResolvers<void>();
      const first = semaphore.run(() => promise);
      const second = vi.fn<() => void>();
      void semaphore.run(second);
      await settle();
      expect(second).not.toHaveBeenCalled();
      resolve();
      await first;
      await settle();
      expect(second).toHaveBeenCalledOnce();
    });

    it('leaves a permit that the task has given back itself alone (H102)', async () => {
      const semaphore = new Semaphore(1);
      const { promise, resolve } = Promise.withResolvers<void>();
      const answer = semaphore.run(({ permit }) => {
        expect(permit.release()).toBe(true);
        return promise;
      });
      const other = semaphore.tryAcquire()!;
      resolve();
      await answer;
      expect(semaphore.active).toBe(1);
      other.release();
      expect(semaphore.stats()).toMatchObject({ acquired: 2, released: 2, active: 0 });
    });

    it('gives its permit back once, however the task ends (H202)', async () => {
      const failure = new Error('task');
      const endless = async function* (): AsyncGenerator<number> {
        for (;;) yield 1;
      };
      const tasks: Record<string, (permit: Permit) => unknown> = {
        returns: () => 1,
        throws: () => {
          throw failure;
        },
        rejects: () => Promise.reject(failure),
        'resolves twice': () => ({ then: (ok: (v: unknown) => void) => [ok(1), ok(2)] }),
        'rejects as a thenable': () => ({
          then: (_ok: unknown, no: (e: unknown) => void) => no(failure),
        }),
        'leaves a generator': async () => {
          for await (const one of endless()) return one;
          return undefined;
        },
        'aborts a generator': async () => {
          const generator = endless();
          await generator.next();
          await generator.throw(failure);
        },
        'gives it back itself': (permit) => permit.release(),
      };
      for (const options of [{}, { signal: new AbortController().signal }, { runTimeoutMs: 1e6 }]) {
        for (const [name, task] of Object.entries(tasks)) {
          const semaphore = new Semaphore({ capacity: 2, clock: new ManualClock() });
          const answer = semaphore.run(({ permit }) => task(permit), options);
          await codeAfter(answer);
          const { active, acquired, released } = semaphore.stats();
          expect({ name, active, acquired, released }).toEqual({
            name,
            active: 0,
            acquired: 1,
            released: 1,
          });
        }
      }
    });

    it('does not call the own `then` of a promise (H098)', async () => {
      const semaphore = new Semaphore(1);
      const own = vi.fn<() => unknown>(() => 'no promise');
      const answer = semaphore.run(() =>
        Object.assign(Promise.resolve('value'), { then: own as Promise<string>['then'] }),
      );
      expect(answer).toBeInstanceOf(Promise);
      expect(await answer).toBe('value');
      expect(own).not.toHaveBeenCalled();
      expect(semaphore.active).toBe(0);
    });

    it.each([
      ['with nothing to interrupt it', {}],
      ['with a signal', { signal: new AbortController().signal }],
    ])('follows hostile thenables once, %s (H098, H099)', async (_, options) => {
      const semaphore = new Semaphore(1);
      const failure = new Error('then');
      const thenables: [object, unknown][] = [
        [{ then: (ok: (v: unknown) => void) => [ok(1), ok(2)] }, 1],
        [{ then: (ok: (v: unknown) => void, no: (e: unknown) => void) => [ok(1), no(failure)] }, 1],
        [{ then: (_ok: unknown, no: (e: unknown) => void) => [no(failure), no(1)] }, failure],
        [
          {
            then: (ok: (v: unknown) => void) => {
              ok(1);
              throw failure;
            },
          },
          1,
        ],
        [
          {
            then: () => {
              throw failure;
            },
          },
          failure,
        ],
        [
          {
            get then(): never {
              throw failure;
            },
          },
          failure,
        ],
      ];
      for (const [thenable, outcome] of thenables) {
        const answer = semaphore.run(() => thenable as PromiseLike<unknown>, options);
        expect(answer).toBeInstanceOf(Promise);
        expect(await answer.catch((error: unknown) => error)).toBe(outcome);
        expect(semaphore.stats()).toMatchObject({ active: 0 });
      }
      const { acquired, released } = semaphore.stats();
      expect([acquired, released]).toEqual([thenables.length, thenables.length]);
    });

    it('hands out a plain promise for one of a subclass (H106)', async () => {
      class Odd<T> extends Promise<T> {
        override then(): never {
          return 'odd' as never;
        }
      }
      const semaphore = new Semaphore(2);
      expect(semaphore.run(() => new Odd<number>(() => undefined))).toBeInstanceOf(Promise);
      await settle();
    });

    it('keeps the place of a task that never settles (H100)', async () => {
      const semaphore = new Semaphore(1);
      void semaphore.run(never);
      await settle();
      expect(semaphore.active).toBe(1);
    });

    it('aborts the signal of the task with the reason of the caller, who is answered at once', async () => {
      const semaphore = new Semaphore(1);
      const { signal, abort } = controlled();
      const { promise, resolve } = Promise.withResolvers<void>();
      let inner: AbortSignal | undefined;
      const answer = semaphore.run(
        (context) => {
          inner = context.signal;
          return promise;
        },
        { signal },
      );
      expect(inner).not.toBe(signal);
      abort('changed my mind');
      expect(inner!.reason).toBe('changed my mind');
      await expect(answer).rejects.toBe('changed my mind');
      expect(semaphore.active).toBe(1);
      expect(getEventListeners(signal, 'abort')).toEqual([]);
      resolve();
      await settle();
      expect(semaphore.active).toBe(0);
    });

    it('makes the signal when it is first read, aborted where it is too late', async () => {
      const semaphore = new Semaphore(1);
      const { signal, abort } = controlled();
      const { promise, resolve } = Promise.withResolvers<void>();
      let inner: AbortSignal | undefined;
      const answer = semaphore.run(
        async (context) => {
          await promise;
          inner = context.signal;
        },
        { signal },
      );
      answer.catch(() => undefined);
      abort('early');
      resolve();
      await settle();
      expect(inner!.aborted).toBe(true);
      expect(inner!.reason).toBe('early');
    });

    it('answers at `runTimeoutMs`, keeping the permit until the task has settled (H100)', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      const { promise, resolve } = Promise.withResolvers<void>();
      let inner: AbortSignal | undefined;
      const answer = semaphore.run(
        (context) => {
          inner = context.signal;
          return promise;
        },
        { runTimeoutMs: 50 },
      );
      answer.catch(() => undefined);
      await clock.advance(50);
      await expect(answer).rejects.toBeInstanceOf(RunTimeoutError);
      expect(inner!.reason).toMatchObject({ code: 'ERR_RUN_TIMEOUT', ranMs: 50 });
      expect(semaphore.active).toBe(1);
      expect(clock.timers).toBe(0);
      resolve();
      await settle();
      expect(semaphore.active).toBe(0);
    });

    it('counts the run from the start of the task, not from its arrival', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      const permit = semaphore.tryAcquire()!;
      const answer = codeAfter(semaphore.run(never, { runTimeoutMs: 50, graceMs: 0 }));
      await clock.advance(40);
      permit.release();
      await clock.advance(49);
      expect(semaphore.active).toBe(1);
      await clock.advance(1);
      expect(await answer).toBe('ERR_RUN_TIMEOUT');
    });

    it('gives up on a task `graceMs` after its interruption: `overrun`', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      const overrun = vi.fn<(event: unknown) => void>();
      semaphore.on('overrun', overrun);
      const { promise, resolve } = Promise.withResolvers<void>();
      const answer = codeAfter(semaphore.run(() => promise, { runTimeoutMs: 50, graceMs: 20 }));
      const next = semaphore.acquire();
      await clock.advance(69);
      expect(await answer).toBe('ERR_RUN_TIMEOUT');
      expect(semaphore.waiting).toBe(1);
      await clock.advance(1);
      expect((await next).released).toBe(false);
      expect(overrun).toHaveBeenCalledExactlyOnceWith({
        id: 1,
        weight: 1,
        ranMs: 70,
        active: expect.any(Number) as number,
        available: expect.any(Number) as number,
        waiting: 1,
      });
      resolve();
      await settle();
      expect(semaphore.stats()).toMatchObject({ active: 1, released: 1, overrun: 1 });
      expect(clock.timers).toBe(0);
    });

    it('has no grace to wait for when the task settles in time', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      const { signal, abort } = controlled();
      const { promise, resolve } = Promise.withResolvers<void>();
      const answer = semaphore.run(() => promise, { signal, graceMs: 20 });
      abort('why');
      await expect(answer).rejects.toBe('why');
      expect(clock.timers).toBe(1);
      resolve();
      await settle();
      expect(clock.timers).toBe(0);
      await clock.advance(100);
      expect(semaphore.stats()).toMatchObject({ overrun: 0, released: 1 });
    });

    it('calls the task in the async context of its caller, not of who releases (H110)', async () => {
      const storage = new AsyncLocalStorage<string>();
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const seenBy: (string | undefined)[] = [];
      const read = (): void => void seenBy.push(storage.getStore());
      const answers = ['a', 'b'].flatMap((name) =>
        storage.run(name, () => [
          semaphore.run(read, { signal: new AbortController().signal }),
          semaphore.run(read).then(read),
          semaphore.acquire().then((other) => {
            read();
            other.release();
          }),
        ]),
      );
      storage.run('releaser', () => permit.release());
      await Promise.all(answers);
      expect(seenBy.map(String).toSorted()).toEqual([...Array(4).fill('a'), ...Array(4).fill('b')]);
    });
  });

  describe('Permit', () => {
    it('comes back once: true, then false for ever (H190)', () => {
      const semaphore = new Semaphore(2);
      const permit = semaphore.tryAcquire(2)!;
      expect(permit.release()).toBe(true);
      expect(permit.released).toBe(true);
      const other = semaphore.tryAcquire(1)!;
      expect([permit.release(), permit.release()]).toEqual([false, false]);
      permit[Symbol.dispose]();
      expect(semaphore.active).toBe(1);
      expect(other.released).toBe(false);
    });

    it('comes back at the end of a `using` block, also when it throws (H112)', async () => {
      const semaphore = new Semaphore(1);
      {
        using permit = await semaphore.acquire();
        expect(permit.released).toBe(false);
        expect(semaphore.active).toBe(1);
      }
      expect(semaphore.active).toBe(0);
      const throwing = async (): Promise<never> => {
        using _ = await semaphore.acquire();
        throw new Error('body');
      };
      await expect(throwing()).rejects.toThrow('body');
      expect(semaphore.active).toBe(0);
    });

    it('may be given back in any order, by anybody (H194, H203)', () => {
      const semaphore = new Semaphore(3);
      const permits = [1, 1, 1].map(() => semaphore.tryAcquire()!);
      for (const index of [1, 2, 0]) permits[index]!.release();
      expect(semaphore.stats()).toMatchObject({ active: 0, released: 3 });
    });

    it('may be given back wherever it is: the next in line has it in the same call (H193)', async () => {
      const places: Record<string, (release: () => void) => unknown> = {
        'at once': (release) => release(),
        'a microtask': (release) => queueMicrotask(release),
        'a continuation': (release) => Promise.resolve().then(release),
        finally: (release) =>
          Promise.reject(0)
            .finally(release)
            .catch(() => undefined),
        'another turn': (release) => setImmediate(release),
        'an abort listener': (release) => {
          const { signal, abort } = controlled();
          signal.addEventListener('abort', release);
          abort();
        },
      };
      for (const [name, place] of Object.entries(places)) {
        const semaphore = new Semaphore(1);
        const permit = semaphore.tryAcquire()!;
        const next = semaphore.acquire();
        let gauges: unknown;
        place(() => {
          permit.release();
          gauges = [semaphore.active, semaphore.waiting];
        });
        await settle();
        await settle();
        expect([name, gauges]).toEqual([name, [1, 0]]);
        (await next).release();
        expect(semaphore.active).toBe(0);
      }
    });

    it('that its owner has forgotten stays taken, which `overheld` tells (H205)', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, maxHoldMs: 1000, clock });
      const log = record(semaphore, SEMAPHORE_EVENTS);
      const first = semaphore.tryAcquire()!;
      void semaphore.acquire();
      await clock.advance(500);
      first.release();
      log.length = 0;
      await clock.advance(60_000);
      expect(log).toEqual([
        ['overheld', { id: 2, weight: 1, active: 1, available: 0, waiting: 0 }],
      ]);
      expect(semaphore.stats()).toMatchObject({ active: 1, overheld: 1 });
    });

    it('has no `then`, cannot be forged and cannot be cloned (H101, H141, H191)', () => {
      const permit = new Semaphore(1).tryAcquire()!;
      expect('then' in permit).toBe(false);
      const { release } = permit;
      expect(() => release.call({ weight: 1 })).toThrow(TypeError);
      expect(() => structuredClone(permit)).not.toThrow();
      expect(JSON.parse(JSON.stringify(permit))).toMatchObject({ weight: 1 });
    });
  });

  describe('maxHoldMs', () => {
    it('tells once of each permit that is held for longer', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 3, maxHoldMs: 100, clock });
      const log = record(semaphore, SEMAPHORE_EVENTS);
      const held = semaphore.tryAcquire(2)!;
      await clock.advance(60);
      const short = await semaphore.acquire();
      await clock.advance(39);
      expect(names(log)).not.toContain('overheld');
      await clock.advance(1);
      expect(log.at(-1)).toEqual([
        'overheld',
        { id: 1, weight: 2, active: 3, available: 0, waiting: 0 },
      ]);
      short.release();
      await clock.advance(1000);
      expect(semaphore.stats().overheld).toBe(1);
      expect(clock.timers).toBe(0);
      held.release();
      expect(semaphore.active).toBe(0);
    });

    it('counts from the grant, also for tasks', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, maxHoldMs: 100, clock });
      const first = semaphore.tryAcquire()!;
      void semaphore.run(never);
      await clock.advance(90);
      first.release();
      await clock.advance(99);
      expect(semaphore.stats().overheld).toBe(0);
      await clock.advance(1);
      expect(semaphore.stats().overheld).toBe(1);
    });

    it('keeps no process alive: its timer is of no weight', () => {
      const unref = vi.fn<() => void>();
      const clock = { now: () => 0, setTimeout: () => ({ unref }), clearTimeout: () => undefined };
      const semaphore = new Semaphore({ capacity: 1, maxHoldMs: 100, clock });
      semaphore.tryAcquire();
      expect(unref).toHaveBeenCalledOnce();
      void codeAfter(semaphore.acquire({ waitTimeoutMs: 100 }));
      expect(unref).toHaveBeenCalledOnce();
    });
  });

  describe('.resize()', () => {
    it('upwards, grants as many as fit at once (H187)', () => {
      const semaphore = new Semaphore(1);
      semaphore.tryAcquire();
      for (let i = 0; i < 3; i++) void semaphore.acquire();
      semaphore.resize(3);
      expect(seenNumbers(semaphore)).toEqual({ capacity: 3, available: 0, active: 3, waiting: 1 });
    });

    it('downwards, takes nothing away and grants again when enough is back (H186, H196)', async () => {
      const semaphore = new Semaphore(3);
      const permits = [1, 1, 1].map(() => semaphore.tryAcquire()!);
      const next = semaphore.acquire();
      semaphore.resize(1);
      expect(seenNumbers(semaphore)).toEqual({ capacity: 1, available: 0, active: 3, waiting: 1 });
      permits[0]!.release();
      permits[1]!.release();
      expect(seenNumbers(semaphore)).toEqual({ capacity: 1, available: 0, active: 1, waiting: 1 });
      permits[2]!.release();
      expect(seenNumbers(semaphore)).toEqual({ capacity: 1, available: 0, active: 1, waiting: 0 });
      await next;
    });

    it('rejects those whom it makes impossible, and lets those behind them through (H185)', async () => {
      const semaphore = new Semaphore(4);
      semaphore.tryAcquire();
      const heavy = semaphore.acquire({ weight: 4 });
      const light = semaphore.acquire({ weight: 2 });
      semaphore.resize(3);
      await expect(heavy).rejects.toMatchObject({
        code: 'ERR_EXCEEDS_CAPACITY',
        requested: 4,
        capacity: 3,
      });
      expect((await light).weight).toBe(2);
    });

    it('to the same capacity does nothing (H188)', () => {
      const semaphore = new Semaphore(2);
      const log = record(semaphore, SEMAPHORE_EVENTS);
      semaphore.resize(2);
      expect(log).toEqual([]);
    });

    it.each(NO_POSITIVE_INTEGERS)(
      'throws for a bad capacity, and changes nothing: %s',
      (capacity) => {
        const semaphore = new Semaphore(2);
        const before = seen(semaphore);
        expect(() => semaphore.resize(capacity as never)).toThrow(/`capacity`/);
        expect(seen(semaphore)).toEqual(before);
      },
    );
  });

  describe('.close()', () => {
    it('refuses who comes, and serves who waits', async () => {
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const wait = semaphore.acquire();
      semaphore.close();
      await expect(semaphore.acquire()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await expect(semaphore.run(() => 1)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      permit.release();
      (await wait).release();
      expect(semaphore.stats()).toMatchObject({ closed: true, active: 0, released: 2 });
    });

    it('with `reject`, rejects who waits, in order, each with an error of its own (H199)', async () => {
      const semaphore = new Semaphore(1);
      semaphore.tryAcquire();
      const order: number[] = [];
      const reasons: unknown[] = [];
      const waits = [0, 1, 2].map((index) =>
        semaphore.acquire().catch((error: unknown) => {
          order.push(index);
          reasons.push(error);
        }),
      );
      semaphore.close({ waiting: 'reject' });
      expect(semaphore.waiting).toBe(0);
      await Promise.all(waits);
      expect(order).toEqual([0, 1, 2]);
      expect(reasons.every((reason) => reason instanceof ClosedError)).toBe(true);
      expect(new Set(reasons).size).toBe(3);
    });

    it('again does nothing, but may reject who was to be served', async () => {
      const semaphore = new Semaphore(1);
      const log = record(semaphore, SEMAPHORE_EVENTS);
      semaphore.tryAcquire();
      const wait = codeAfter(semaphore.acquire());
      semaphore.close();
      semaphore.close();
      expect(semaphore.waiting).toBe(1);
      semaphore.close({ waiting: 'reject' });
      expect(await wait).toBe('ERR_CLOSED');
      expect(names(log)).toBe('acquired saturated queued closed cancelled');
    });

    it.each([null, 5, 'reject', { waiting: 'drop' }, { waiting: null }, { wait: 'reject' }])(
      'throws for bad options, and stays open: %s',
      (options) => {
        const semaphore = new Semaphore(1);
        expect(() => semaphore.close(options as never)).toThrow(TypeError);
        expect(semaphore.stats().closed).toBe(false);
      },
    );
  });

  describe('.idle()', () => {
    it('resolves at once when nothing is out', async () => {
      expect(await new Semaphore(1).idle()).toBeUndefined();
    });

    it('resolves for everybody when the last permit is back and nobody waits', async () => {
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const next = semaphore.acquire();
      let idle = 0;
      for (let i = 0; i < 3; i++) void semaphore.idle().then(() => idle++);
      permit.release();
      await settle();
      expect(idle).toBe(0);
      (await next).release();
      await settle();
      expect(idle).toBe(3);
      const again = semaphore.tryAcquire()!;
      const other = semaphore.idle();
      again.release();
      await other;
    });

    it('resolves after the last one who waited has left (H227)', async () => {
      const semaphore = new Semaphore(2);
      const permit = semaphore.tryAcquire()!;
      const { signal, abort } = controlled();
      const wait = codeAfter(semaphore.acquire({ weight: 2, signal }));
      const idle = semaphore.idle();
      abort('gone');
      permit.release();
      await idle;
      expect(await wait).toBe('gone');
    });
  });

  describe('.drain()', () => {
    it('closes, and resolves when everybody has been served (H192)', async () => {
      const semaphore = new Semaphore(1);
      const { promise, resolve } = Promise.withResolvers<void>();
      void semaphore.run(() => promise);
      const last = vi.fn<() => void>();
      void semaphore.run(last);
      let drained = false;
      const drain = semaphore.drain().then(() => {
        drained = true;
      });
      await expect(semaphore.acquire()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      expect(drained).toBe(false);
      resolve();
      await drain;
      expect(last).toHaveBeenCalledOnce();
      await semaphore.drain();
    });

    it('is what `await using` does', async () => {
      let kept: Semaphore | undefined;
      const task = vi.fn<() => Promise<void>>(() => microtasks(20));
      {
        await using semaphore = new Semaphore(1);
        kept = semaphore;
        void semaphore.run(task);
        void semaphore.run(task);
      }
      expect(task).toHaveBeenCalledTimes(2);
      expect(kept.stats()).toMatchObject({ closed: true, active: 0 });
    });
  });

  describe('.stats()', () => {
    it('counts everything that has happened, and how long was waited', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, maxWaiting: 3, clock });
      const permit = semaphore.tryAcquire()!;
      const { signal, abort } = controlled();
      const waits = [{ signal }, { waitTimeoutMs: 5 }, {}, {}].map((options) =>
        codeAfter(semaphore.acquire(options)),
      );
      abort('gone');
      await clock.advance(5);
      await clock.advance(15);
      permit.release();
      expect(await Promise.all(waits)).toEqual([
        'gone',
        'ERR_WAIT_TIMEOUT',
        'ok',
        'ERR_QUEUE_FULL',
      ]);
      expect(semaphore.stats()).toEqual({
        capacity: 1,
        available: 0,
        active: 1,
        waiting: 0,
        closed: false,
        acquired: 2,
        queued: 3,
        released: 1,
        refused: 1,
        cancelled: 1,
        timedOut: 1,
        overrun: 0,
        overheld: 0,
        waitMs: { count: 1, mean: 20, max: 20 },
      });
    });

    it('is a snapshot', () => {
      const semaphore = new Semaphore(1);
      const before = semaphore.stats();
      semaphore.tryAcquire();
      expect(before.active).toBe(0);
    });
  });

  describe('events', () => {
    it('tell of everything in the order in which it happened, with the state at that moment', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, maxWaiting: 2, clock });
      const log = record(semaphore, SEMAPHORE_EVENTS);
      const first = semaphore.tryAcquire()!;
      const second = semaphore.acquire({ weight: 2, waitTimeoutMs: 50 });
      const third = semaphore.acquire();
      const fourth = codeAfter(semaphore.acquire({ weight: 2 }));
      second.catch(() => undefined);
      await clock.advance(50);
      const late = await third;
      semaphore.resize(1);
      first.release();
      late.release();
      semaphore.close();
      expect(await fourth).toBe('ERR_QUEUE_FULL');
      expect(log).toEqual([
        ['acquired', { id: 1, weight: 1, waitedMs: 0, active: 1, available: 1, waiting: 0 }],
        ['queued', { id: 2, weight: 2, active: 1, available: 1, waiting: 1 }],
        ['queued', { id: 3, weight: 1, active: 1, available: 1, waiting: 2 }],
        ['refused', { weight: 2, code: 'ERR_QUEUE_FULL', active: 1, available: 1, waiting: 2 }],
        ['timedOut', { id: 2, weight: 2, waitedMs: 50, active: 1, available: 1, waiting: 1 }],
        ['acquired', { id: 3, weight: 1, waitedMs: 50, active: 2, available: 0, waiting: 0 }],
        ['saturated', { active: 2, available: 0, waiting: 0 }],
        ['resized', { capacity: 1, active: 2, available: 0, waiting: 0 }],
        ['released', { id: 1, weight: 1, active: 1, available: 0, waiting: 0 }],
        ['released', { id: 3, weight: 1, active: 0, available: 1, waiting: 0 }],
        ['idle', { active: 0, available: 1, waiting: 0 }],
        ['closed', { active: 0, available: 1, waiting: 0 }],
      ]);
    });

    it('tell of a resize before what it leads to', async () => {
      const semaphore = new Semaphore({ capacity: 3, clock: new ManualClock() });
      const log = record(semaphore, SEMAPHORE_EVENTS);
      semaphore.tryAcquire(2);
      const heavy = codeAfter(semaphore.acquire({ weight: 3 }));
      semaphore.resize(2);
      expect(log.slice(2)).toEqual([
        ['resized', { capacity: 2, active: 2, available: 0, waiting: 1 }],
        ['cancelled', { id: 2, weight: 3, waitedMs: 0, active: 2, available: 0, waiting: 0 }],
      ]);
      expect(await heavy).toBe('ERR_EXCEEDS_CAPACITY');
    });

    it('tell of a signal that was aborted already as a refusal without a code', async () => {
      const semaphore = new Semaphore(1);
      const log = record(semaphore, SEMAPHORE_EVENTS);
      await codeAfter(semaphore.acquire({ signal: AbortSignal.abort('why') }));
      expect(log).toEqual([
        ['refused', { weight: 1, code: undefined, active: 0, available: 1, waiting: 0 }],
      ]);
    });

    it('`saturated` and `idle` are edges: nothing is told of a permit that goes from hand to hand', async () => {
      const semaphore = new Semaphore(1);
      const log = record(semaphore, SEMAPHORE_EVENTS);
      semaphore.resize(2);
      semaphore.resize(1);
      expect(names(log.splice(0))).toBe('resized resized');
      const first = semaphore.tryAcquire()!;
      const waits = [1, 2].map(() => semaphore.acquire());
      first.release();
      (await waits[0]!).release();
      expect(names(log.splice(0))).toBe(
        'acquired saturated queued queued released acquired released acquired',
      );
      (await waits[1]!).release();
      semaphore.resize(2);
      semaphore.tryAcquire();
      semaphore.tryAcquire();
      expect(names(log)).toBe('released idle resized acquired acquired saturated');
    });

    it('come before the call that caused them returns, and nobody outside can forge them (H041)', () => {
      const semaphore = new Semaphore(1);
      const heardOf = vi.fn<(event: unknown) => void>();
      semaphore.on('acquired', heardOf);
      semaphore.tryAcquire();
      expect(heardOf).toHaveBeenCalledOnce();
      expect('emit' in semaphore).toBe(false);
    });

    it('are payloads of their own: a listener that writes to one changes nothing else (H034)', () => {
      const semaphore = new Semaphore(2);
      const seenBy: number[] = [];
      semaphore.on('acquired', (event) => seenBy.push(event.active));
      semaphore.on('saturated', (event) => {
        expect(() => {
          (event as { active: number }).active = 99;
        }).toThrow(TypeError);
      });
      semaphore.tryAcquire();
      semaphore.tryAcquire();
      expect(seenBy).toEqual([1, 2]);
      expect(semaphore.active).toBe(2);
    });
  });

  it('raises no unhandled rejection where results are handled, and one where one is ignored (H068)', async () => {
    using uncaught = catchUncaught();
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, maxWaiting: 3, clock });
    const { signal, abort } = controlled();
    const handled = (promise: Promise<unknown>): void => void promise.catch(() => undefined);
    handled(semaphore.run(() => Promise.reject(new Error('task'))));
    handled(semaphore.run(never, { runTimeoutMs: 5, graceMs: 5 }));
    handled(semaphore.run(never, { waitTimeoutMs: 3 }));
    handled(semaphore.acquire({ signal }));
    handled(semaphore.acquire({ weight: 2 }));
    handled(semaphore.acquire());
    abort(new Error('abort'));
    await clock.advance(20);
    semaphore.close({ waiting: 'reject' });
    await settle();
    expect(uncaught.rejections).toEqual([]);
    void semaphore.acquire();
    await settle();
    expect(uncaught.rejections).toEqual([expect.any(ClosedError)]);
    expect(uncaught.exceptions).toEqual([]);
  });

  it('reads a clock that goes mad before it changes anything (H090)', async () => {
    let now = 0;
    const clock = { now: () => now, setTimeout: () => 0, clearTimeout: () => undefined };
    const semaphore = new Semaphore({ capacity: 2, clock });
    const permit = semaphore.tryAcquire()!;
    now = Number.NaN;
    const before = seenNumbers(semaphore);
    await expect(semaphore.acquire({ weight: 2 })).rejects.toThrow(RangeError);
    await expect(semaphore.run(() => 1, { weight: 2 })).rejects.toThrow(RangeError);
    const task = vi.fn<() => void>();
    await expect(semaphore.run(task, { runTimeoutMs: 5 })).rejects.toThrow(RangeError);
    expect(task).not.toHaveBeenCalled();
    expect(seenNumbers(semaphore)).toEqual(before);
    expect(permit.release()).toBe(true);
  });

  it('holds nothing where the clock goes mad between a permit and its maxHoldMs (H090)', async () => {
    let now = 0;
    const clock = { now: () => now, setTimeout: () => 0, clearTimeout: () => undefined };
    const semaphore = new Semaphore({ capacity: 1, maxHoldMs: 10, clock });
    now = Number.NaN;
    expect(() => semaphore.tryAcquire()).toThrow(RangeError);
    await expect(semaphore.acquire()).rejects.toThrow(RangeError);
    const task = vi.fn<() => void>();
    await expect(semaphore.run(task)).rejects.toThrow(RangeError);
    expect(task).not.toHaveBeenCalled();
    expect(semaphore.active).toBe(0);
    // From the reading on that comes after the one for the wait.
    now = 0;
    const held = semaphore.tryAcquire()!;
    const waiting = semaphore.acquire();
    clock.now = () => (now++ === 0 ? 0 : Number.NaN);
    held.release();
    await expect(waiting).rejects.toThrow(RangeError);
    expect(semaphore.active).toBe(0);
  });
});

function seenNumbers({ capacity, available, active, waiting }: Semaphore): unknown {
  return { capacity, available, active, waiting };
}

function controlled(): { signal: AbortSignal; abort: (reason?: unknown) => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}

/** 'ok', or the code of the error, or the reason; handles the rejection. */
function codeAfter(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}
