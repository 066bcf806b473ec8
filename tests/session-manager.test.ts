import { EventEmitter, getEventListeners } from 'node:events';
import { Worker } from 'node:worker_threads';

import {
  AdmissionQueue,
  compose,
  type Gate,
  Semaphore,
  type Session,
  SessionManager,
  type SessionManagerOptions,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, onTestFinished, vi } from 'vitest';

import { HandClock } from './support/hand-clock.ts';
import { catchUncaught } from './support/uncaught.ts';

function manager(options: SessionManagerOptions = {}): {
  clock: ManualClock;
  sessions: SessionManager;
} {
  const clock = new ManualClock();
  return { clock, sessions: new SessionManager({ clock, ...options }) };
}

/** A task that settles when told to. */
function held<T = void>(): {
  task: () => Promise<T>;
  finish: (value: T) => void;
  fail: (reason: unknown) => void;
} {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  return { task: () => promise, finish: resolve, fail: reject };
}

/** What becomes of a promise, as a plain value to look at. */
function outcome(promise: Promise<unknown>): { state: string; value?: unknown } {
  const seen: { state: string; value?: unknown } = { state: 'pending' };
  promise.then(
    (value) => Object.assign(seen, { state: 'resolved', value }),
    (value: unknown) => Object.assign(seen, { state: 'rejected', value }),
  );
  return seen;
}

const never = (): Promise<never> => new Promise(() => {});

describe('SessionManager', () => {
  describe('constructor', () => {
    it.each([
      ['maxActive', 0],
      ['maxActive', Number.NaN],
      ['maxActive', '5'],
      ['timeoutMs', -1],
      ['timeoutMs', Number.NaN],
      ['timeoutFor', 30],
      ['graceMs', -1],
      ['cleanupTimeoutMs', 0],
      ['cleanupTimeoutMs', Infinity],
      ['maxMetadataBytes', 0],
      ['maxValueBytes', 1.5],
      ['logKeys', [1]],
      ['history', -1],
      ['history', Infinity],
      ['generateId', 'x'],
      ['clock', {}],
    ])('refuses %s = %s by name', (name, value) => {
      expect(() => new SessionManager({ [name]: value })).toThrow(new RegExp(`\`${name}`));
    });

    it('refuses an option that it does not know', () => {
      expect(() => new SessionManager({ timeout: 5 } as SessionManagerOptions)).toThrow(
        /Unknown option "timeout"/,
      );
    });
  });

  describe('.run()', () => {
    it('calls the task at once and settles as it does', async () => {
      const { sessions } = manager();
      const task = vi.fn<() => number>(() => 7);
      const result = sessions.run(task);
      expect(task).toHaveBeenCalledTimes(1);
      await expect(result).resolves.toBe(7);
      const reason = new Error('no');
      await expect(sessions.run(() => Promise.reject(reason))).rejects.toBe(reason);
      await expect(
        sessions.run(() => {
          throw reason;
        }),
      ).rejects.toBe(reason);
    });

    it('hands the task its session and the signal of it', async () => {
      const { sessions } = manager();
      await sessions.run(
        ({ session, signal }) => {
          expect(session).toMatchObject({
            id: expect.stringMatching(/^[\w-]{21}$/) as string,
            requestId: 'r-1',
            provider: 'acme',
            model: 'large',
            status: 'active',
          });
          expect(signal).toBe(session.signal);
          expect(signal.aborted).toBe(false);
          expect(session.metadata.get('user')).toBe('ada');
        },
        { requestId: 'r-1', provider: 'acme', model: 'large', metadata: { user: 'ada' } },
      );
    });

    it('counts a session as active until its task has settled', async () => {
      const { sessions } = manager();
      const { task, finish } = held();
      const result = sessions.run(task);
      expect(sessions.active).toBe(1);
      finish();
      await result;
      expect(sessions.active).toBe(0);
    });

    it('rejects, and never throws, on bad arguments', async () => {
      const { sessions } = manager();
      const bad: [unknown, unknown][] = [
        [undefined, undefined],
        [never, { timeoutMs: -1 }],
        [never, { timeoutMs: Number.NaN }],
        [never, { provider: 0 }],
        [never, { model: {} }],
        [never, { requestId: 7 }],
        [never, { metadata: 'x' }],
        [never, { metadata: { call: () => {} } }],
        [never, { signal: {} }],
        [never, { timeout: 5 }],
      ];
      for (const [task, options] of bad) {
        await expect(sessions.run(task as never, options as never)).rejects.toThrow(
          /Expected|Unknown/,
        );
      }
      expect(sessions.stats()).toMatchObject({ active: 0, started: 0, refused: 0 });
    });

    it('looks for no option of a call in `Object.prototype`, where none are given', async () => {
      const prototype = Object.prototype as { model?: string };
      prototype.model = 'mine';
      onTestFinished(() => void delete prototype.model);
      const { sessions } = manager();
      await sessions.run(({ session }) => expect(session.model).toBeUndefined());
      expect(sessions.open().model).toBeUndefined();
    });

    it('refuses one session more than maxActive, at once (H273)', async () => {
      const { sessions } = manager({ maxActive: 2 });
      const { task, finish } = held();
      const both = [sessions.run(task), sessions.run(task)];
      const third = vi.fn<() => void>();
      await expect(sessions.run(third)).rejects.toMatchObject({
        code: 'ERR_SESSIONS_FULL',
        active: 2,
        maxActive: 2,
      });
      expect(third).not.toHaveBeenCalled();
      finish();
      await Promise.all(both);
      await sessions.run(third);
      expect(third).toHaveBeenCalledTimes(1);
    });

    it('refuses an id that an active session has, and takes that of an ended one (H271)', async () => {
      const { sessions } = manager({ generateId: () => 'same' });
      const { task, finish } = held();
      const first = sessions.run(task);
      await expect(sessions.run(never)).rejects.toMatchObject({
        code: 'ERR_DUPLICATE_ID',
        id: 'same',
      });
      finish();
      await first;
      await expect(sessions.run(() => 1)).resolves.toBe(1);
    });

    it.each(['__proto__', 'constructor', '', '0', '-0', '\u0000', '\uD800'])(
      'takes any generated id for a plain one: %j (H272)',
      async (id) => {
        const { sessions } = manager({ generateId: () => id });
        expect([sessions.get(id), sessions.record(id)]).toEqual([undefined, undefined]);
        await sessions.run(({ session }) => {
          expect(sessions.get(id)).toBe(session);
          expect(session.id).toBe(id);
        });
        expect(sessions.get(id)).toBeUndefined();
        expect(sessions.record(id)).toMatchObject({ status: 'completed' });
      },
    );

    it('passes results and reasons through untouched, whatever they are', async () => {
      const { sessions } = manager();
      const values = [undefined, null, 0, Object.freeze({}), Symbol('s'), () => {}];
      for (const value of values) {
        await expect(sessions.run(() => value)).resolves.toBe(value);
        await expect(sessions.run(() => Promise.reject(value))).rejects.toBe(value);
      }
      await expect(
        sessions.run(() => {
          throw {
            get name(): string {
              throw new Error('hostile');
            },
          };
        }),
      ).rejects.toBeTypeOf('object');
      expect(sessions.stats().failed).toBe(values.length + 1);
    });

    describe('with a timeout', () => {
      it('rejects at the timeout, not before, and aborts the signal with the same error', async () => {
        const { clock, sessions } = manager({ timeoutMs: 100 });
        let signal: AbortSignal | undefined;
        const result = outcome(
          sessions.run((context) => {
            ({ signal } = context);
            return never();
          }),
        );
        await clock.advance(99);
        expect(result.state).toBe('pending');
        await clock.advance(1);
        expect(result).toMatchObject({
          state: 'rejected',
          value: { code: 'ERR_SESSION_TIMEOUT', name: 'SessionTimeoutError', timeoutMs: 100 },
        });
        expect(signal?.reason).toBe(result.value);
      });

      it('ends at its time by the clock, be that beyond 2^31 ms, jumped over or gone back on (H277)', async () => {
        const long = 2 ** 31 + 1000;
        const { clock, sessions } = manager({ timeoutMs: long });
        const setTimeout = vi.spyOn(clock, 'setTimeout');
        const patient = sessions.open();
        await clock.advance(long - 1);
        expect(patient.status).toBe('active');
        await clock.advance(1);
        expect(patient.status).toBe('timedOut');
        for (const [, ms] of setTimeout.mock.calls) expect(ms).toBeLessThan(2 ** 31);

        let reading = 0;
        const jumping = new HandClock();
        jumping.now = () => reading;
        const others = new SessionManager({ clock: jumping, timeoutMs: 1000 });
        const first = others.open();
        // Nobody has heard of the time that has passed before the timer fires.
        reading = 86_400_000;
        expect(others.get(first.id)).toBe(first);
        jumping.jump(1000);
        expect([first.status, others.get(first.id)]).toEqual(['timedOut', undefined]);
        reading = 10;
        expect([first.status, others.get(first.id)]).toEqual(['timedOut', undefined]);
        expect(others.record(first.id)).toMatchObject({ status: 'timedOut' });
        const second = others.open();
        reading = 86_400_000 + 999;
        jumping.jump(1000);
        expect(second.status).toBe('active');
        reading++;
        jumping.jump(1000);
        expect(second.status).toBe('timedOut');
        expect(jumping.timers).toBe(0);
      });

      it('sets no timer for a task that settles before anything else can happen', async () => {
        const { clock, sessions } = manager();
        const set = vi.spyOn(clock, 'setTimeout');
        await sessions.run(() => 1);
        await expect(sessions.run(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
        await settle();
        expect(set).not.toHaveBeenCalled();
        const { task, finish } = held();
        const running = sessions.run(task);
        await settle();
        expect(set).toHaveBeenCalledTimes(1);
        finish();
        await running;
        expect(clock.timers).toBe(0);
      });

      it('counts the time from the call, be the turn as long as it may', async () => {
        const { clock, sessions } = manager({ timeoutMs: 100 });
        let now = 0;
        vi.spyOn(clock, 'now').mockImplementation(() => now);
        const set = vi.spyOn(clock, 'setTimeout');
        const result = outcome(sessions.run(never));
        now = 70;
        await settle();
        expect(set.mock.calls[0]?.[1]).toBe(30);
        now = 100;
        set.mock.calls[0]?.[0]();
        await settle();
        expect(result.value).toMatchObject({ code: 'ERR_SESSION_TIMEOUT', timeoutMs: 100 });
      });

      it('takes the option before timeoutFor, and timeoutFor before the default', async () => {
        const { clock, sessions } = manager({
          timeoutMs: 300,
          timeoutFor: ({ provider, model }) =>
            provider === 'acme' && model === 'large' ? 200 : undefined,
        });
        const byOption = outcome(
          sessions.run(never, { provider: 'acme', model: 'large', timeoutMs: 100 }),
        );
        const byModel = outcome(sessions.run(never, { provider: 'acme', model: 'large' }));
        const byDefault = outcome(sessions.run(never, { provider: 'acme' }));
        const states = (): string[] => [byOption.state, byModel.state, byDefault.state];
        await clock.advance(100);
        expect(states()).toEqual(['rejected', 'pending', 'pending']);
        await clock.advance(100);
        expect(states()).toEqual(['rejected', 'rejected', 'pending']);
        await clock.advance(100);
        expect(states()).toEqual(['rejected', 'rejected', 'rejected']);
      });

      it('rejects with what timeoutFor throws, and keeps nothing', async () => {
        const reason = new Error('no table');
        const { sessions } = manager({
          timeoutFor: () => {
            throw reason;
          },
        });
        await expect(sessions.run(never)).rejects.toBe(reason);
        expect(sessions.active).toBe(0);
      });

      it('refuses a bad timeout from timeoutFor by name', async () => {
        const { sessions } = manager({ timeoutFor: () => Number.NaN });
        await expect(sessions.run(never)).rejects.toThrow(/`timeoutMs`/);
      });

      it('waits for ever where the timeout is Infinity', async () => {
        const { clock, sessions } = manager({ timeoutMs: Infinity });
        const { task, finish } = held();
        const result = sessions.run(task);
        expect(clock.timers).toBe(0);
        await clock.advance(2 ** 40);
        finish();
        await result;
      });

      it('keeps a session active until a task that was asked to stop has settled', async () => {
        const { clock, sessions } = manager({ timeoutMs: 100 });
        const { task, finish } = held();
        const cleanup = vi.fn<() => void>();
        const result = outcome(
          sessions.run(({ session }) => {
            session.defer(cleanup);
            return task();
          }),
        );
        await clock.advance(100);
        expect(result.state).toBe('rejected');
        expect(sessions.active).toBe(1);
        expect(cleanup).not.toHaveBeenCalled();
        finish();
        await settle();
        expect(cleanup).toHaveBeenCalledTimes(1);
        expect(sessions.active).toBe(0);
        expect(sessions.stats()).toMatchObject({ timedOut: 1, completed: 0 });
      });

      it('does not wait for it longer than graceMs', async () => {
        const { clock, sessions } = manager({ timeoutMs: 100, graceMs: 50 });
        const events: unknown[] = [];
        sessions.on('overrun', (event) => events.push(event));
        const { task, finish } = held<string>();
        const cleanup = vi.fn<() => void>();
        const result = outcome(
          sessions.run(({ session }) => {
            session.defer(cleanup);
            return task();
          }),
        );
        await clock.advance(149);
        expect(sessions.active).toBe(1);
        await clock.advance(1);
        expect(sessions.active).toBe(0);
        expect(cleanup).toHaveBeenCalledTimes(1);
        expect(events).toEqual([{ id: expect.any(String) as string, ranMs: 150 }]);
        finish('late');
        await settle();
        expect(result).toMatchObject({ state: 'rejected', value: { code: 'ERR_SESSION_TIMEOUT' } });
        expect(sessions.stats()).toMatchObject({ overrun: 1, timedOut: 1, completed: 0 });
        expect(clock.timers).toBe(0);
      });
    });

    describe('with a signal', () => {
      it('rejects with its reason when it is aborted, and aborts the own signal with it', async () => {
        const { sessions } = manager();
        const controller = new AbortController();
        let signal: AbortSignal | undefined;
        const result = outcome(
          sessions.run(
            (context) => {
              ({ signal } = context);
              return never();
            },
            { signal: controller.signal },
          ),
        );
        const reason = { gone: true };
        controller.abort(reason);
        await settle();
        expect(result).toEqual({ state: 'rejected', value: reason });
        expect(signal?.reason).toBe(reason);
      });

      it('does not begin where it is aborted already', async () => {
        const { sessions } = manager();
        const task = vi.fn<() => void>();
        await expect(sessions.run(task, { signal: AbortSignal.abort('gone') })).rejects.toBe(
          'gone',
        );
        expect(task).not.toHaveBeenCalled();
        expect(sessions.stats()).toMatchObject({ started: 0, refused: 1 });
      });

      it('looks at closed first, then at the signal, then at the room', async () => {
        const { sessions } = manager({ maxActive: 1 });
        const signal = AbortSignal.abort('gone');
        const { task, finish } = held();
        const first = sessions.run(task);
        await expect(sessions.run(never, { signal })).rejects.toBe('gone');
        await expect(sessions.run(never)).rejects.toMatchObject({ code: 'ERR_SESSIONS_FULL' });
        const over = sessions.shutdown();
        await expect(sessions.run(never, { signal })).rejects.toMatchObject({ code: 'ERR_CLOSED' });
        finish();
        await Promise.all([first, over]);
      });

      it.each(['abort', 'timeout', 'shutdown'])(
        'aborts the own signal once, before the clean-ups: %s (H291)',
        async (how) => {
          const { clock, sessions } = manager({ timeoutMs: 1000, graceMs: 10 });
          const controller = new AbortController();
          const { signal } = controller;
          const log: string[] = [];
          const begin = (session: Session): void => {
            session.signal.addEventListener('abort', () => log.push('abort'));
            session.defer(() => void log.push(`clean-up, aborted: ${session.signal.aborted}`));
          };
          begin(sessions.open({ signal }));
          const answer = outcome(
            sessions.run(({ session }) => (begin(session), never()), { signal }),
          );
          await settle();
          if (how === 'abort') controller.abort();
          else if (how === 'timeout') await clock.advance(1000);
          else void sessions.shutdown({ drainMs: 0 });
          await settle();
          expect(getEventListeners(signal, 'abort')).toEqual([]);
          await clock.advance(5000);
          controller.abort();
          expect(answer.state).toBe('rejected');
          expect(log.filter((entry) => entry === 'abort').length).toBe(2);
          expect(log.filter((entry) => entry === 'clean-up, aborted: true').length).toBe(2);
          expect([log.length, sessions.active, clock.timers]).toEqual([4, 0, 0]);
        },
      );

      it('leaves nothing on the signal', async () => {
        const { sessions } = manager();
        const { signal } = new AbortController();
        const add = vi.spyOn(signal, 'addEventListener');
        const remove = vi.spyOn(signal, 'removeEventListener');
        const { task, finish } = held();
        const all = Array.from({ length: 100 }, () => sessions.run(task, { signal }));
        expect(add).toHaveBeenCalledTimes(1);
        finish();
        await Promise.all(all);
        expect(remove).toHaveBeenCalledTimes(1);
      });

      it('keeps nothing where subscribing to it throws', async () => {
        const { clock, sessions } = manager();
        const reason = new Error('hostile');
        const signal = Object.assign(new EventTarget(), {
          aborted: false,
          addEventListener: () => {
            throw reason;
          },
        }) as unknown as AbortSignal;
        await expect(sessions.run(never, { signal })).rejects.toBe(reason);
        expect(sessions.active).toBe(0);
        expect(clock.timers).toBe(0);
      });
    });
  });

  describe('.execute()', () => {
    it('names itself when it refuses an option', async () => {
      const { sessions } = manager();
      const wrong = { timeout: 5 } as object;
      await expect(sessions.execute(() => 1, wrong)).rejects.toThrow('option "timeout" of execute');
      await expect(sessions.run(() => 1, wrong)).rejects.toThrow('option "timeout" of run');
    });

    it('resolves to the result and the record of the ended session', async () => {
      const { clock, sessions } = manager();
      const { task, finish } = held<number>();
      const executed = sessions.execute(task, { provider: 'acme', model: 'large', requestId: 'r' });
      await clock.advance(25);
      finish(42);
      const { result, session } = await executed;
      expect(result).toBe(42);
      expect(session).toEqual({
        id: expect.any(String) as string,
        requestId: 'r',
        provider: 'acme',
        model: 'large',
        status: 'completed',
        receivedAt: 0,
        elapsedMs: 25,
        phases: { received: 0, callStart: 0, callEnd: 25, released: 25, completed: 25 },
        error: undefined,
        cleanupFailures: 0,
        metadata: {},
      });
    });

    it('rejects as run does', async () => {
      const { sessions } = manager();
      await expect(sessions.execute(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
      await expect(sessions.execute(undefined as never)).rejects.toThrow(TypeError);
    });
  });

  describe('.open()', () => {
    it('ends as completed at the end of an `await using` block, clean-ups first', async () => {
      const { sessions } = manager();
      const cleanup = vi.fn<() => void>();
      {
        await using session = sessions.open({ model: 'large' });
        session.defer(cleanup);
        expect(sessions.active).toBe(1);
        expect(session.status).toBe('active');
      }
      expect(cleanup).toHaveBeenCalledTimes(1);
      expect(sessions.active).toBe(0);
      expect(sessions.stats().completed).toBe(1);
    });

    it('is ended by end() as completed, or as failed with an error', async () => {
      const { sessions } = manager();
      await expect(sessions.open().end()).resolves.toMatchObject({ status: 'completed' });
      await expect(sessions.open().end(new TypeError('no'))).resolves.toMatchObject({
        status: 'failed',
        error: { name: 'TypeError', code: undefined },
        phases: { error: 0 },
      });
    });

    it('ends once, whatever comes later', async () => {
      const { clock, sessions } = manager({ timeoutMs: 10 });
      const session = sessions.open();
      await session.end();
      await expect(session.end(new Error('late'))).resolves.toMatchObject({ status: 'completed' });
      await clock.advance(10);
      expect(sessions.stats()).toMatchObject({ completed: 1, failed: 0, timedOut: 0 });
    });

    it('is found by its timeout when nobody ends it', async () => {
      const { clock, sessions } = manager({ timeoutMs: 1000 });
      const cleanup = vi.fn<() => void>();
      const session = sessions.open();
      session.defer(cleanup);
      const { signal } = session;
      await clock.advance(1000);
      expect(session.status).toBe('timedOut');
      expect(session.phases).toEqual({ received: 0, released: 1000, timeout: 1000 });
      expect(signal.reason).toMatchObject({ code: 'ERR_SESSION_TIMEOUT' });
      expect(cleanup).toHaveBeenCalledTimes(1);
      expect(sessions.active).toBe(0);
      expect(clock.timers).toBe(0);
    });

    it('ends as cancelled when its signal is aborted', async () => {
      const { sessions } = manager();
      const controller = new AbortController();
      const session = sessions.open({ signal: controller.signal });
      controller.abort();
      expect(session.status).toBe('cancelled');
      expect(session.toJSON().error).toEqual({ name: 'AbortError', code: undefined });
      expect(sessions.active).toBe(0);
    });

    it('throws what run rejects with', () => {
      const { sessions } = manager({ maxActive: 1 });
      sessions.open();
      expect(() => sessions.open()).toThrow(/sessions are open/);
      expect(() => sessions.open({ signal: AbortSignal.abort(new Error('gone')) })).toThrow('gone');
      expect(() => sessions.open({ timeoutMs: -1 })).toThrow(RangeError);
    });
  });

  describe('.current()', () => {
    it('is undefined outside', () => {
      expect(manager().sessions.current()).toBeUndefined();
    });

    it('is the own session behind awaits, timers, microtasks and emitters', async () => {
      const { sessions } = manager();
      const one = async (name: string): Promise<void> => {
        const check = (): void => expect(sessions.current()?.metadata.get('name')).toBe(name);
        check();
        await Promise.resolve();
        check();
        await new Promise((resolve) => {
          setTimeout(resolve, 1);
        });
        check();
        await new Promise<void>((resolve) => {
          queueMicrotask(() => {
            check();
            resolve();
          });
        });
        await new Promise<void>((resolve) => {
          setImmediate(() => {
            check();
            resolve();
          });
        });
        const emitter = new EventEmitter();
        emitter.on('x', check);
        emitter.emit('x');
      };
      await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          sessions.run(() => one(`n${i}`), { metadata: { name: `n${i}` } }),
        ),
      );
      expect(sessions.current()).toBeUndefined();
    });

    it('is the own session behind the answer of a shared worker, and in its callbacks by enter', async () => {
      const { sessions } = manager();
      // It belongs to no session, and answers both in the reverse order.
      const worker = new Worker(
        `const { parentPort } = require('node:worker_threads');
         const asked = [];
         parentPort.on('message', (id) => {
           if (asked.push(id) === 2) for (const each of asked.toReversed()) parentPort.postMessage(each);
         });`,
        { eval: true },
      );
      onTestFinished(async () => void (await worker.terminate()));
      const callbacks = new Map<string, () => void>();
      worker.on('message', (id: string) => callbacks.get(id)!());
      const seen: (string | undefined)[] = [];
      const ask = (requestId: string): Promise<void> =>
        sessions.run(
          async ({ session }) => {
            await new Promise<void>((resolve) => {
              callbacks.set(requestId, () => {
                seen.push(sessions.current()?.requestId);
                session.enter(() => seen.push(sessions.current()?.requestId));
                resolve();
              });
              // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker has none
              worker.postMessage(requestId);
            });
            expect(sessions.current()).toBe(session);
          },
          { requestId },
        );
      await Promise.all([ask('a'), ask('b')]);
      expect(seen).toEqual([undefined, 'b', undefined, 'a']);
    });

    it('is the session of the task in a task that waited for a permit', async () => {
      const { sessions } = manager();
      const semaphore = new Semaphore(1);
      const seen: (string | undefined)[] = [];
      await Promise.all(
        ['a', 'b', 'c'].map((requestId) =>
          sessions.run(
            () =>
              semaphore.run(async () => {
                await settle();
                seen.push(sessions.current()?.requestId);
              }),
            { requestId },
          ),
        ),
      );
      expect(seen).toEqual(['a', 'b', 'c']);
    });

    it.each(['a timeout', 'its caller', 'a shutdown'])(
      'is the own session of what hears of its abort by %s, wherever that comes from',
      async (what) => {
        const { clock, sessions } = manager({ timeoutMs: Infinity });
        const gone = new AbortController();
        const seen: (string | undefined)[] = [];
        await sessions
          .run(
            async () => {
              const options = what === 'a timeout' ? { timeoutMs: 5 } : { signal: gone.signal };
              const running = sessions.run(
                ({ signal }) => {
                  signal.addEventListener('abort', () => {
                    seen.push(sessions.current()?.requestId);
                  });
                  return never();
                },
                { requestId: 'inner', ...options },
              );
              void outcome(running);
              await clock.advance(5);
              if (what === 'its caller') gone.abort();
              if (what === 'a shutdown') void sessions.shutdown({ drainMs: 0, forceMs: 0 });
            },
            { requestId: 'outer' },
          )
          .catch(() => {});
        expect(seen).toEqual(['inner']);
      },
    );

    it('is the inner one of two nested sessions, and the outer one again after it', async () => {
      const { sessions } = manager();
      await sessions.run(async ({ session: outer }) => {
        await sessions.run(async ({ session: inner }) => {
          await settle();
          expect(sessions.current()).toBe(inner);
        });
        expect(sessions.current()).toBe(outer);
      });
    });

    it('knows nothing of the sessions of another manager', async () => {
      const one = manager().sessions;
      const two = manager().sessions;
      await one.run(() => expect(two.current()).toBeUndefined());
    });

    it('is undefined in code that outlives its session', async () => {
      const { sessions } = manager();
      let later: Promise<Session | undefined> | undefined;
      await sessions.run(() => {
        later = settle().then(() => sessions.current());
      });
      await expect(later).resolves.toBeUndefined();
    });
  });

  describe('.get(), .record() and .records()', () => {
    it('finds a session while it is active, and its record afterwards', async () => {
      const { sessions } = manager();
      const { task, finish } = held();
      let id = '';
      const result = sessions.run(({ session }) => {
        ({ id } = session);
        expect(sessions.get(id)).toBe(session);
        return task();
      });
      expect(sessions.record(id)?.status).toBe('active');
      finish();
      await result;
      expect(sessions.get(id)).toBeUndefined();
      expect(sessions.record(id)?.status).toBe('completed');
      expect(sessions.record('other')).toBeUndefined();
    });

    it('changes nothing for who goes through the records (H286)', async () => {
      const { sessions } = manager({ history: 3 });
      for (const model of ['a', 'b', 'c']) await sessions.run(() => 1, { model });
      const shown: unknown[] = [];
      for (const { model } of sessions.records()) {
        shown.push(model);
        await sessions.run(() => 1, { model: `${model} again` });
      }
      expect(shown).toEqual(['c', 'b', 'a']);
      expect([...sessions.records()].map(({ model }) => model)).toEqual([
        'a again',
        'b again',
        'c again',
      ]);
    });

    it('remembers no more than the last `history` records', async () => {
      let count = 0;
      const { sessions } = manager({ history: 3, generateId: () => `s${count++}` });
      for (let i = 0; i < 5; i++) await sessions.run(() => i);
      expect([...sessions.records()].map(({ id }) => id)).toEqual(['s4', 's3', 's2']);
      expect(sessions.record('s2')?.id).toBe('s2');
      expect(sessions.record('s1')).toBeUndefined();
    });

    it('finds the latest of several that had the same id', async () => {
      const { sessions } = manager({ history: 3, generateId: () => 'same' });
      for (let i = 0; i < 4; i++) await sessions.run(() => i, { requestId: `r${i}` });
      expect(sessions.record('same')?.requestId).toBe('r3');
    });

    it('remembers nothing with a history of 0', async () => {
      const { sessions } = manager({ history: 0 });
      await sessions.run(() => 1);
      expect([...sessions.records()]).toEqual([]);
    });
  });

  describe('.stats()', () => {
    it('counts by outcome and measures how long sessions took', async () => {
      const { clock, sessions } = manager({ timeoutMs: 100 });
      const { task, finish } = held();
      const results = [
        sessions.run(task),
        sessions.run(() => Promise.reject(new Error('no'))),
        sessions.run(({ signal }) => {
          const { promise, reject } = Promise.withResolvers<never>();
          signal.addEventListener('abort', () => reject(signal.reason as Error));
          return promise;
        }),
      ];
      void Promise.allSettled(results);
      await clock.advance(40);
      finish();
      await clock.advance(60);
      expect(sessions.stats()).toEqual({
        active: 0,
        closed: false,
        started: 3,
        completed: 1,
        failed: 1,
        cancelled: 0,
        timedOut: 1,
        refused: 0,
        overrun: 0,
        cleanupFailed: 0,
        elapsedMs: { count: 3, mean: 140 / 3, max: 100 },
      });
    });
  });

  describe('events', () => {
    it('says what began and how it ended, once, when it is over', async () => {
      const { sessions } = manager({ generateId: () => 's' });
      const events: unknown[] = [];
      sessions.on('started', (event) => events.push(['started', event]));
      for (const name of ['completed', 'failed', 'cancelled', 'timedOut'] as const) {
        sessions.on(name, ({ session, active }) => events.push([name, session.status, active]));
      }
      sessions.on('idle', (event) => events.push(['idle', event]));
      await sessions.run(() => 1, { model: 'large' });
      expect(events).toEqual([
        [
          'started',
          { id: 's', requestId: undefined, provider: undefined, model: 'large', active: 1 },
        ],
        ['completed', 'completed', 0],
        ['idle', { active: 0 }],
      ]);
    });

    it('says what was refused and why', async () => {
      const { sessions } = manager({ maxActive: 1 });
      const codes: (string | undefined)[] = [];
      sessions.on('refused', ({ code }) => codes.push(code));
      sessions.open();
      expect(() => sessions.open()).toThrow(/sessions are open/);
      await expect(sessions.run(never, { signal: AbortSignal.abort('gone') })).rejects.toBe('gone');
      expect(codes).toEqual(['ERR_SESSIONS_FULL', undefined]);
    });

    it('goes on when a listener throws, which surfaces as an uncaught exception', async () => {
      using uncaught = catchUncaught();
      const { sessions } = manager();
      const reason = new Error('listener');
      const second = vi.fn<() => void>();
      sessions.on('completed', () => {
        throw reason;
      });
      sessions.on('completed', second);
      await expect(sessions.run(() => 1)).resolves.toBe(1);
      await settle();
      expect(second).toHaveBeenCalledTimes(1);
      expect(sessions.active).toBe(0);
      expect(uncaught.exceptions).toEqual([reason]);
    });

    it('and clean-ups may begin, end and mark sessions, and defer more (H280)', async () => {
      const { clock, sessions } = manager({ maxActive: 4 });
      const log: string[] = [];
      const other = sessions.open({ model: 'other' });
      other.defer(() => void log.push('other'));
      sessions.on('started', ({ model }) => {
        log.push(`started ${model}`);
        if (model === 'nested') void other.end();
      });
      sessions.on('completed', ({ session: { model } }) => {
        log.push(`completed ${model}`);
        if (model !== 'first') return;
        expect(sessions.open({ model: 'listener' }).mark('queued')).toBe(true);
      });
      await sessions.run(
        ({ session }) => {
          session.defer(() => void log.push('last'));
          session.defer(async () => {
            log.push('clean-up');
            expect(sessions.current()).toBe(session);
            expect(session.mark('callStart')).toBe(false);
            session.defer(() => void log.push('deferred'));
            await sessions.run(() => log.push('nested'), { model: 'nested' });
          });
        },
        { model: 'first' },
      );
      await settle();
      expect(log).toEqual([
        'started first',
        'clean-up',
        'nested',
        'started nested',
        'other',
        'completed nested',
        'completed other',
        'deferred',
        'last',
        'completed first',
        'started listener',
      ]);
      expect([sessions.active, sessions.stats().completed]).toEqual([1, 3]);
      await sessions.shutdown({ drainMs: 0 });
      expect([sessions.active, clock.timers]).toEqual([0, 0]);
    });

    it('lets a listener begin the next session', async () => {
      const { sessions } = manager({ maxActive: 1 });
      let left = 1000;
      sessions.on('completed', () => {
        if (left-- > 0) void sessions.run(() => {});
      });
      await sessions.run(() => {});
      await vi.waitFor(() => expect(sessions.stats().completed).toBe(1001));
    });
  });

  describe('.shutdown()', () => {
    it('resolves at once where nothing is active', async () => {
      const { clock, sessions } = manager();
      await expect(sessions.shutdown()).resolves.toEqual({
        finished: 0,
        aborted: 0,
        stuck: [],
        elapsedMs: 0,
      });
      expect(clock.timers).toBe(0);
    });

    it('cancels whose time is over only after drainMs, though one timer tells of both', async () => {
      const { clock, sessions } = manager();
      const running = outcome(sessions.run(never, { timeoutMs: 5 }));
      await clock.advance(4);
      void sessions.shutdown({ drainMs: 0.5, forceMs: 0 });
      await clock.advance(1);
      expect(running.value).toMatchObject({ code: 'ERR_CLOSED' });
    });

    it('refuses new sessions and lets active ones finish (H135)', async () => {
      const { clock, sessions } = manager();
      const { task, finish } = held<number>();
      const running = sessions.run(task);
      const over = outcome(sessions.shutdown());
      await expect(sessions.run(never)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await clock.advance(20);
      expect(over.state).toBe('pending');
      finish(1);
      await expect(running).resolves.toBe(1);
      await settle();
      expect(over.value).toEqual({ finished: 1, aborted: 0, stuck: [], elapsedMs: 20 });
      expect(clock.timers).toBe(0);
    });

    it('aborts what is left after drainMs and reports what is left after forceMs (H136)', async () => {
      const { clock, sessions } = manager({ generateId: (): string => `s${++count}` });
      let count = 0;
      const { task, finish } = held();
      const quick = outcome(sessions.run(task));
      const willing = outcome(
        sessions.run(({ signal }) => {
          const { promise, reject } = Promise.withResolvers<never>();
          signal.addEventListener('abort', () => reject(new Error('stopped')));
          return promise;
        }),
      );
      const deaf = outcome(sessions.run(never));
      const over = outcome(sessions.shutdown({ drainMs: 100, forceMs: 50 }));
      await clock.advance(50);
      finish();
      await clock.advance(49);
      expect([quick.state, willing.state, deaf.state]).toEqual(['resolved', 'pending', 'pending']);
      await clock.advance(1);
      expect(willing.value).toMatchObject({ code: 'ERR_CLOSED' });
      expect(deaf.value).toMatchObject({ code: 'ERR_CLOSED' });
      expect(deaf.value).not.toBe(willing.value);
      expect(over.state).toBe('pending');
      await clock.advance(50);
      expect(over.value).toMatchObject({
        finished: 1,
        aborted: 1,
        stuck: [{ id: 's3', status: 'cancelled', phases: { received: 0, callStart: 0 } }],
        elapsedMs: 150,
      });
    });

    it('aborts at once with drainMs 0 and reports at once with forceMs 0', async () => {
      const { sessions } = manager();
      const deaf = outcome(sessions.run(never));
      const report = await sessions.shutdown({ drainMs: 0, forceMs: 0 });
      expect(report).toMatchObject({ finished: 0, aborted: 0, stuck: [{ status: 'cancelled' }] });
      expect(deaf.value).toMatchObject({ code: 'ERR_CLOSED' });
    });

    it('gives every call the same report (H295)', async () => {
      const { sessions } = manager();
      const [one, two] = await Promise.all([
        sessions.shutdown(),
        sessions.shutdown({ drainMs: 0 }),
      ]);
      expect(one).toBe(two);
    });

    it('is one shutdown, also where the abort of a session asks for another (H139)', async () => {
      const { sessions } = manager();
      let inner: Promise<unknown> | undefined;
      const session = sessions.open();
      session.signal.addEventListener('abort', () => {
        inner = sessions.shutdown();
      });
      let closed = 0;
      sessions.on('closed', () => closed++);
      const report = await sessions.shutdown({ drainMs: 0 });
      expect(await inner).toBe(report);
      expect([report.aborted, closed]).toEqual([1, 1]);
    });

    it('refuses what a session begins while it is being aborted', async () => {
      const { sessions } = manager();
      let inner: { state: string; value?: unknown } | undefined;
      const session = sessions.open();
      session.signal.addEventListener('abort', () => {
        inner = outcome(sessions.run(never));
      });
      await sessions.shutdown({ drainMs: 0 });
      expect(inner?.value).toMatchObject({ code: 'ERR_CLOSED' });
    });

    it('rejects bad options and stays open', async () => {
      const { sessions } = manager();
      await expect(sessions.shutdown({ drainMs: -1 })).rejects.toThrow(/`drainMs`/);
      await expect(sessions.shutdown({ forceMs: Number.NaN })).rejects.toThrow(/`forceMs`/);
      await expect(sessions.run(() => 1)).resolves.toBe(1);
    });

    it('emits `closed` last, with the report', async () => {
      const { sessions } = manager();
      const events: string[] = [];
      for (const name of ['started', 'cancelled', 'idle', 'closed'] as const) {
        sessions.on(name, () => events.push(name));
      }
      sessions.open();
      const report = await sessions.shutdown({ drainMs: 0 });
      expect(events).toEqual(['started', 'cancelled', 'idle', 'closed']);
      // What listeners were given is theirs.
      expect(Object.isFrozen(report)).toBe(false);
    });

    it('is what `await using` does to a manager (H295)', async () => {
      const { clock } = manager();
      {
        await using sessions = new SessionManager({ clock });
        onTestFinished(() => expect(sessions.stats().closed).toBe(true));
      }
    });
  });

  describe('as a gate', () => {
    it('hands its signal on to the gates inside (H292)', async () => {
      const { clock, sessions } = manager({ timeoutMs: 100 });
      const semaphore = new Semaphore({ capacity: 1, clock });
      const gate = compose(sessions, semaphore);
      using permit = semaphore.tryAcquire()!;
      expect(permit.released).toBe(false);
      const result = outcome(gate.run(never, { model: 'large', weight: 1 }));
      expect(semaphore.waiting).toBe(1);
      await clock.advance(100);
      expect(result.value).toMatchObject({ code: 'ERR_SESSION_TIMEOUT' });
      expect(semaphore.waiting).toBe(0);
      expect(sessions.active).toBe(0);
    });

    it.each(['flat', 'nested'])(
      'is answered once: by a gate inside, also where its caller leaves before the task has settled (%s)',
      async (how) => {
        const { clock, sessions } = manager({ timeoutMs: 20 });
        const { sessions: others } = manager({ clock });
        const queue = new AdmissionQueue({ concurrency: 2, runTimeoutMs: 10, clock });
        const gate =
          how === 'flat'
            ? compose(others, sessions, queue)
            : compose(compose(others, sessions), queue);
        const caller = new AbortController();
        const { task, finish } = held();
        const left = outcome(gate.run(task, { signal: caller.signal }));
        const late = outcome(gate.run(task));
        await clock.advance(10);
        for (const { value } of [left, late])
          expect(value).toMatchObject({ code: 'ERR_RUN_TIMEOUT' });
        caller.abort('hung up');
        await clock.advance(10);
        expect(sessions.active).toBe(2);
        finish();
        await settle();
        const end = { status: 'failed', error: { code: 'ERR_RUN_TIMEOUT' }, phases: { error: 20 } };
        for (const of of [sessions, others]) {
          expect([...of.records()]).toMatchObject([end, end]);
          expect(of.stats()).toMatchObject({ active: 0, failed: 2, cancelled: 0, timedOut: 0 });
        }
      },
    );

    it('is completed where a gate that is not of ours has answered with a value before', async () => {
      const { clock, sessions } = manager({ timeoutMs: 20 });
      const { task, finish } = held();
      const cached: Gate = {
        run: (refresh) => {
          void refresh({ signal: new AbortController().signal });
          return Promise.resolve('cached' as never);
        },
      };
      expect(await compose(sessions, cached).run(task)).toBe('cached');
      await clock.advance(20);
      expect(sessions.active).toBe(1);
      finish();
      await settle();
      expect([...sessions.records()].map(({ status }) => status)).toEqual(['completed']);
    });
  });
});
