import { AsyncLocalStorage } from 'node:async_hooks';
import vm from 'node:vm';

import { describe, expect, it, vi } from 'vitest';

import { Execution, uninterrupted } from '../../src/internal/execution.ts';
import { settle } from '../../src/testing.ts';
import { catchUncaught } from '../support/uncaught.ts';

class Recorded extends Execution {
  readonly outcomes: { ok: boolean; value: unknown }[] = [];

  protected override settled(ok: boolean, value: unknown): void {
    this.outcomes.push({ ok, value });
  }
}

async function outcomesOf(task: () => unknown): Promise<Recorded['outcomes']> {
  const execution = new Recorded();
  execution.perform(task, undefined);
  await settle();
  return execution.outcomes;
}

describe('uninterrupted()', () => {
  /** What is told in which order when `task` is called. */
  async function story(task: (context: string) => unknown): Promise<unknown[]> {
    const told: unknown[] = [];
    const over = (hold: string): void => void told.push(`over ${hold}`);
    const call = uninterrupted(task, 'context', over, 'hold');
    told.push('called');
    await call.then(
      (value) => told.push('resolved', value),
      (error: unknown) => told.push('rejected', error),
    );
    return told;
  }

  it('gives back what it holds when the task has settled, then answers', async () => {
    const failure = new Error('broken');
    expect(await story((context) => context)).toEqual([
      'called',
      'over hold',
      'resolved',
      'context',
    ]);
    expect(await story(async () => 7)).toEqual(['called', 'over hold', 'resolved', 7]);
    expect(await story(() => Promise.reject(failure))).toEqual([
      'called',
      'over hold',
      'rejected',
      failure,
    ]);
  });

  it('does so at once where the task throws, and rejects', async () => {
    const failure = new Error('broken');
    const throwing = (): never => {
      throw failure;
    };
    expect(await story(throwing)).toEqual(['over hold', 'called', 'rejected', failure]);
  });
});

describe('Execution', () => {
  describe('.perform()', () => {
    it('calls the task at once with the context, and tells of the end later', async () => {
      const execution = new Recorded();
      const context = { id: 1 };
      const task = vi.fn<(given: unknown) => string>(() => 'done');
      execution.perform(task, context);
      expect(task).toHaveBeenCalledExactlyOnceWith(context);
      expect(execution.outcomes).toEqual([]);
      await settle();
      expect(execution.outcomes).toEqual([{ ok: true, value: 'done' }]);
    });

    it('takes a task that throws as one that rejects, and never throws itself (H096)', async () => {
      const failure = new Error('sync');
      expect(
        await outcomesOf(() => {
          throw failure;
        }),
      ).toEqual([{ ok: false, value: failure }]);
    });

    it('passes values and reasons of every kind on as they are (H097, H103)', async () => {
      const values = [undefined, null, 0, '', Object.freeze({}), new Error('e'), (): void => {}];
      for (const value of values) {
        expect(await outcomesOf(() => value)).toStrictEqual([{ ok: true, value }]);
        expect(await outcomesOf(() => Promise.reject(value as Error))).toStrictEqual([
          { ok: false, value },
        ]);
        expect(
          await outcomesOf(() => {
            throw value;
          }),
        ).toStrictEqual([{ ok: false, value }]);
      }
    });

    it('waits for what the task returns, however long that takes', async () => {
      const execution = new Recorded();
      const { promise, resolve } = Promise.withResolvers<string>();
      execution.perform(() => promise, undefined);
      await settle();
      expect(execution.outcomes).toEqual([]);
      resolve('late');
      await settle();
      expect(execution.outcomes).toEqual([{ ok: true, value: 'late' }]);
    });

    it('knows no end of a task whose thenable never settles (H100)', async () => {
      expect(await outcomesOf(() => ({ then: () => undefined }))).toEqual([]);
    });

    it.each<
      [string, (ok: (value: unknown) => void, bad: (reason: unknown) => void) => void, boolean]
    >([
      ['fulfils twice', (ok) => (ok(1), ok(2)), true],
      ['fulfils, then rejects', (ok, bad) => (ok(1), bad(2)), true],
      ['rejects, then fulfils', (ok, bad) => (bad(1), ok(2)), false],
      ['rejects twice', (_, bad) => (bad(1), bad(2)), false],
      [
        'fulfils, then throws',
        (ok) => {
          ok(1);
          throw new Error('after');
        },
        true,
      ],
    ])('hears only the first of a thenable that %s (H098)', async (_, then, ok) => {
      expect(await outcomesOf(() => ({ then }))).toEqual([{ ok, value: 1 }]);
    });

    it('reads then once and calls it once, not while the task is on the stack (H098)', async () => {
      let reads = 0;
      let calls = 0;
      const execution = new Recorded();
      const thenable = {
        get then() {
          reads++;
          return (ok: (value: number) => void) => {
            calls++;
            ok(1);
          };
        },
      };
      execution.perform(() => thenable, undefined);
      expect(calls).toBe(0);
      await settle();
      expect({ reads, calls }).toEqual({ reads: 1, calls: 1 });
      expect(execution.outcomes).toEqual([{ ok: true, value: 1 }]);
    });

    it('takes a then that cannot be read, or that throws, for a rejection (H099)', async () => {
      const failure = new Error('then');
      const thrower = (): never => {
        throw failure;
      };
      const hostile = [
        Object.defineProperty({}, 'then', { get: thrower }),
        Object.defineProperty({}, 'then', { value: thrower }),
        Object.defineProperty(Promise.resolve(1), 'constructor', { get: thrower }),
      ];
      for (const thenable of hostile) {
        expect(await outcomesOf(() => thenable)).toEqual([{ ok: false, value: failure }]);
      }
    });

    it('takes a promise that cannot be asked for its end for a rejection (H099, H106)', async () => {
      const failure = new Error('constructor');
      let reads = 0;
      const promise = Object.defineProperty(Promise.resolve(1), 'constructor', {
        get: () => {
          if (reads++ > 0) throw failure;
          return Promise;
        },
      });
      expect(await outcomesOf(() => promise)).toEqual([{ ok: false, value: failure }]);
    });

    it('follows a thenable within a thenable to its end', async () => {
      const { promise, resolve } = Promise.withResolvers<string>();
      const execution = new Recorded();
      const outer = { then: (ok: (value: unknown) => void) => ok(promise) };
      execution.perform(() => outer, undefined);
      await settle();
      expect(execution.outcomes).toEqual([]);
      resolve('inner');
      await settle();
      expect(execution.outcomes).toEqual([{ ok: true, value: 'inner' }]);
    });

    it('is not deceived by a promise whose own then lies (H106)', async () => {
      const { promise, resolve } = Promise.withResolvers<string>();
      const lying = Object.assign(promise, {
        then: (ok: (value: unknown) => void) => ok('not yet'),
      });
      const execution = new Recorded();
      execution.perform(() => lying, undefined);
      await settle();
      expect(execution.outcomes).toEqual([]);
      resolve('true end');
      await settle();
      expect(execution.outcomes).toEqual([{ ok: true, value: 'true end' }]);
    });

    it('takes promises of a subclass and of another realm (H106)', async () => {
      class Special<T> extends Promise<T> {}
      expect(await outcomesOf(() => Special.resolve(1))).toEqual([{ ok: true, value: 1 }]);
      expect(await outcomesOf(() => vm.runInNewContext('Promise.resolve(2)') as unknown)).toEqual([
        { ok: true, value: 2 },
      ]);
    });

    it('does not consume what can be iterated (H113)', async () => {
      let begun = false;
      function* tokens(): Generator<number> {
        begun = true;
        yield 1;
      }
      await outcomesOf(tokens);
      expect(begun).toBe(false);
    });

    it('runs the task and all that comes of it in the async context of the call (H110)', async () => {
      const storage = new AsyncLocalStorage<string>();
      const seen: unknown[] = [];
      class Seen extends Execution {
        protected override settled(): void {
          seen.push(storage.getStore());
        }
      }
      storage.run('caller', () =>
        new Seen().perform(async () => {
          seen.push(storage.getStore());
          await settle();
          seen.push(storage.getStore());
        }, undefined),
      );
      await settle();
      await settle();
      expect(seen).toEqual(['caller', 'caller', 'caller']);
    });

    it('raises no unhandled rejection for a task that fails (H105)', async () => {
      using uncaught = catchUncaught();
      await outcomesOf(() => Promise.reject(new Error('task')));
      expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
    });
  });

  describe('.signal', () => {
    it('is made once', () => {
      const execution = new Recorded();
      expect(execution.signal).toBe(execution.signal);
      expect(execution.signal.aborted).toBe(false);
      expect(new Recorded().signal).not.toBe(execution.signal);
    });

    it('is not made for a task that does not read it', async () => {
      const made = vi.spyOn(globalThis, 'AbortController');
      const execution = new Recorded();
      execution.perform(() => 1, undefined);
      execution.abort(new Error('stop'));
      await settle();
      expect(made).not.toHaveBeenCalled();
      made.mockRestore();
    });
  });

  describe('.abort()', () => {
    it('aborts the signal with that reason, and does not end the execution (H070)', async () => {
      const execution = new Recorded();
      const reason = new Error('stop');
      execution.perform(() => new Promise(() => undefined), undefined);
      const { signal } = execution;
      execution.abort(reason);
      expect(signal.aborted).toBe(true);
      expect(signal.reason).toBe(reason);
      await settle();
      expect(execution.outcomes).toEqual([]);
    });

    it('counts for a signal that is read later', () => {
      const execution = new Recorded();
      const reason = { why: 'early' };
      execution.abort(reason);
      expect(execution.signal.aborted).toBe(true);
      expect(execution.signal.reason).toBe(reason);
    });

    it('keeps the first reason, read before or after', () => {
      for (const readFirst of [true, false]) {
        const execution = new Recorded();
        if (readFirst) void execution.signal;
        execution.abort('first');
        execution.abort('second');
        expect(execution.signal.reason).toBe('first');
      }
    });

    it('has the reason of the platform where none is given, read before or after', () => {
      for (const readFirst of [true, false]) {
        const execution = new Recorded();
        if (readFirst) void execution.signal;
        execution.abort(undefined);
        expect(execution.signal.reason).toMatchObject({ name: 'AbortError' });
      }
    });
  });
});
