import {
  AdmissionQueue,
  compose,
  type ObservableGate,
  RateLimiter,
  Semaphore,
  SessionManager,
  type SessionRecord,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { catchUncaught } from './support/uncaught.ts';

function setUp(): {
  clock: ManualClock;
  sessions: SessionManager;
  queue: AdmissionQueue;
  semaphore: Semaphore;
} {
  const clock = new ManualClock();
  return {
    clock,
    sessions: new SessionManager({ clock }),
    queue: new AdmissionQueue({ concurrency: 1, maxWaiting: 2, clock }),
    semaphore: new Semaphore({ capacity: 1, clock }),
  };
}

/** A task of `ms` by the clock. */
function lasting(clock: ManualClock, ms: number): () => Promise<void> {
  return () =>
    new Promise((resolve) => {
      clock.setTimeout(resolve, ms);
    });
}

/** A gate that says what it is told to. */
function played(): { gate: ObservableGate; tell: (name: string, event: object) => void } {
  const listeners = new Map<string, (event: object) => void>();
  return {
    gate: {
      on: (name, listener) => listeners.set(name, listener),
      off: (name) => listeners.delete(name),
    },
    tell: (name, event) => listeners.get(name)?.(event),
  };
}

async function recordOf(promise: Promise<{ session: SessionRecord }>): Promise<SessionRecord> {
  return (await promise).session;
}

describe('SessionManager', () => {
  describe('.observe()', () => {
    it('refuses what has no events', () => {
      const sessions = new SessionManager();
      expect(() => sessions.observe(compose(new Semaphore(1)) as never)).toThrow(
        new TypeError('Expected `gate` to have a method `on`.'),
      );
    });

    it('marks all ten phases of a session that waits in a queue', async () => {
      const { clock, sessions, queue } = setUp();
      sessions.observe(queue);
      const first = sessions.execute(() => queue.run(lasting(clock, 10)));
      const second = sessions.execute(() => queue.run(lasting(clock, 10)));
      await clock.advance(20);
      expect((await first).session.phases).toEqual({
        received: 0,
        allocated: 0,
        callStart: 0,
        callEnd: 10,
        released: 10,
        completed: 10,
      });
      expect((await second).session.phases).toEqual({
        received: 0,
        queued: 0,
        dequeued: 10,
        allocated: 10,
        callStart: 10,
        callEnd: 20,
        released: 20,
        completed: 20,
      });
    });

    it('tells the line from the permits behind it', async () => {
      const { clock, sessions, queue, semaphore } = setUp();
      sessions.observe(queue);
      sessions.observe(semaphore);
      queue.resize(2);
      const gate = compose(sessions, queue, semaphore);
      const records: Promise<SessionRecord>[] = [];
      const start = (): void => {
        let id = '';
        records.push(
          gate
            .run(({ session }) => {
              ({ id } = session);
              return lasting(clock, 10)();
            })
            .then(() => sessions.record(id)!),
        );
      };
      for (let i = 0; i < 3; i++) start();
      await clock.advance(30);
      const [, second, third] = await Promise.all(records);
      expect(second!.phases).toMatchObject({ queued: 0, dequeued: 10, callStart: 10, callEnd: 20 });
      expect(third!.phases).toEqual({
        received: 0,
        queued: 0,
        dequeued: 10,
        allocated: 20,
        callStart: 20,
        callEnd: 30,
        released: 30,
        completed: 30,
      });
    });

    it('marks the session that was let in by the release of another, not the other', async () => {
      const { clock, sessions, semaphore } = setUp();
      sessions.observe(semaphore);
      const permit = semaphore.tryAcquire()!;
      const waiting = recordOf(sessions.execute(() => semaphore.run(() => {})));
      const releasing = sessions.execute(async () => {
        await lasting(clock, 5)();
        permit.release();
        await lasting(clock, 5)();
      });
      await clock.advance(10);
      expect((await waiting).phases).toMatchObject({ queued: 0, dequeued: 5, completed: 5 });
      expect((await recordOf(releasing)).phases).toMatchObject({ callStart: 0, callEnd: 10 });
    });

    it('marks no session for a caller without one, whoever let that in', async () => {
      const { sessions, semaphore } = setUp();
      sessions.observe(semaphore);
      const permit = semaphore.tryAcquire()!;
      const acquired = semaphore.acquire();
      const session = sessions.open();
      session.enter(() => permit.release());
      (await acquired).release();
      expect(session.phases).toEqual({ received: 0 });
    });

    it('shows that a session waits while it does', async () => {
      const { clock, sessions, queue } = setUp();
      sessions.observe(queue);
      const first = queue.run(lasting(clock, 10));
      const session = sessions.open();
      const second = session.enter(() => queue.run(lasting(clock, 10)));
      await clock.advance(5);
      expect(session.phases).toEqual({ received: 0, queued: 0 });
      await clock.advance(10);
      expect(session.phases).toMatchObject({ dequeued: 10, callStart: 10 });
      await clock.advance(5);
      await Promise.all([first, second, session.end()]);
    });

    it('knows of no call where the session was refused, gave up or was shed', async () => {
      const { clock, sessions, queue } = setUp();
      sessions.observe(queue);
      const hold = Promise.withResolvers<void>();
      const running = queue.run(() => hold.promise);
      const phases = async (task: () => Promise<unknown>): Promise<unknown> => {
        let id = '';
        await sessions
          .run(({ session }) => {
            ({ id } = session);
            return task();
          })
          .catch(() => {});
        return sessions.record(id)!.phases;
      };
      const controller = new AbortController();
      const gone = phases(() => queue.run(() => {}, { signal: controller.signal }));
      const late = phases(() => queue.run(() => {}, { waitTimeoutMs: 5 }));
      const refused = phases(() => queue.run(() => {}));
      await expect(refused).resolves.toEqual({ received: 0, released: 0, error: 0 });
      controller.abort();
      await expect(gone).resolves.toEqual({ received: 0, queued: 0, released: 0, error: 0 });
      await clock.advance(5);
      await expect(late).resolves.toEqual({ received: 0, queued: 0, released: 5, error: 5 });
      hold.resolve();
      await running;
    });

    it('knows of no call where a rate limiter refused the session', async () => {
      const { clock, sessions } = setUp();
      const limiter = new RateLimiter({ limit: 1, clock });
      sessions.observe(limiter);
      limiter.tryAcquire();
      const record = await recordOf(
        sessions.execute(() => limiter.run(() => {}, { waitTimeoutMs: 0 }).catch(() => {})),
      );
      expect(record.phases).toEqual({ received: 0, released: 0, completed: 0 });
    });

    it('knows that a session that a pause turned away waits no more', async () => {
      const { clock, sessions, semaphore } = setUp();
      const limiter = new RateLimiter({ limit: 1, clock });
      sessions.observe(limiter);
      sessions.observe(semaphore);
      limiter.tryAcquire();
      const record = recordOf(
        sessions.execute(async () => {
          await limiter.acquire().catch(() => {});
          await semaphore.run(lasting(clock, 10));
          await lasting(clock, 10)();
        }),
      );
      await clock.advance(5);
      // Whoever asks for the pause is not the one who is turned away by it.
      const other = recordOf(sessions.execute(() => limiter.pause(600_000)));
      await clock.advance(20);
      expect((await record).phases).toEqual({
        received: 0,
        queued: 0,
        dequeued: 5,
        allocated: 5,
        callStart: 5,
        callEnd: 15,
        released: 15,
        completed: 25,
      });
      expect((await other).phases).toMatchObject({ callStart: 0 });
    });

    it('tells the release from the end of the session', async () => {
      const { clock, sessions, semaphore } = setUp();
      sessions.observe(semaphore);
      const first = semaphore.run(lasting(clock, 5));
      const record = recordOf(
        sessions.execute(async () => {
          await semaphore.run(lasting(clock, 10));
          await lasting(clock, 10)();
        }),
      );
      await clock.advance(25);
      await first;
      expect((await record).phases).toEqual({
        received: 0,
        queued: 0,
        dequeued: 5,
        allocated: 5,
        callStart: 5,
        callEnd: 15,
        released: 15,
        completed: 25,
      });
    });

    it.each(['completed', 'failed'])(
      'takes a queue for released when the task has %s',
      async (how) => {
        const { clock, sessions, queue } = setUp();
        sessions.observe(queue);
        const task = async (): Promise<void> => {
          await lasting(clock, 10)();
          if (how === 'failed') throw new Error('no');
        };
        const record = recordOf(
          sessions.execute(async () => {
            await queue.run(task).catch(() => {});
            await lasting(clock, 10)();
          }),
        );
        await clock.advance(20);
        expect((await record).phases).toMatchObject({ callEnd: 10, released: 10, completed: 20 });
      },
    );

    it.each(['cancelled', 'timedOut', 'shutdown'])(
      'takes a task for running, and its place for taken, until it has settled: %s',
      async (how) => {
        const { clock, sessions } = setUp();
        const queue = new AdmissionQueue({
          concurrency: 1,
          runTimeoutMs: how === 'timedOut' ? 10 : Infinity,
          clock,
        });
        sessions.observe(queue);
        const run = compose(sessions, queue).run(lasting(clock, 20), { id: 'a' });
        const answer = run.then(String, ({ name }: Error) => name);
        await clock.advance(10);
        if (how === 'cancelled') queue.cancel('a');
        if (how === 'shutdown') void sessions.shutdown({ drainMs: 0, forceMs: 0 });
        expect(await answer).toMatch(/Error$/);
        expect(queue.active).toBe(1);
        const { stuck } = await sessions.shutdown({ drainMs: 0, forceMs: 0 });
        expect(stuck.map(({ phases }) => Object.keys(phases).at(-1))).toEqual(['callStart']);
        await clock.advance(10);
        const [record] = sessions.records();
        expect(record!.phases).toEqual({
          received: 0,
          allocated: 0,
          callStart: 0,
          callEnd: 20,
          released: 20,
          error: 20,
        });
      },
    );

    it('lets nothing be waited for any more that was cancelled, came too late or was shed', async () => {
      for (const ending of ['cancelled', 'timedOut', 'shed'] as const) {
        const { clock, sessions, semaphore } = setUp();
        const queue = new AdmissionQueue({
          concurrency: 1,
          maxWaiting: 1,
          overflow: 'shed',
          clock,
        });
        sessions.observe(queue);
        sessions.observe(semaphore);
        const { promise: held, resolve: finish } = Promise.withResolvers<void>();
        const running = queue.run(() => held);
        const controller = new AbortController();
        const record = recordOf(
          sessions.execute(async () => {
            await queue
              .run(() => {}, { priority: 2, waitTimeoutMs: 5, signal: controller.signal })
              .catch(() => {});
            await semaphore.run(lasting(clock, 10));
            await lasting(clock, 10)();
          }),
        );
        let other: Promise<void> | undefined;
        if (ending === 'cancelled') controller.abort();
        else if (ending === 'shed') other = queue.run(() => {}, { priority: 1 });
        await clock.advance(ending === 'timedOut' ? 5 : 0);
        const since = clock.now();
        await clock.advance(20);
        expect([ending, (await record).phases]).toMatchObject([
          ending,
          { callEnd: since + 10, released: since + 10, completed: since + 20 },
        ]);
        finish();
        await Promise.all([running, other]);
      }
    });

    it('marks the wait for a rate limiter, which has nothing to be released', async () => {
      const { clock, sessions } = setUp();
      const limiter = new RateLimiter({ limit: 1, intervalMs: 10, clock });
      sessions.observe(limiter);
      await limiter.acquire();
      const record = recordOf(sessions.execute(() => limiter.run(lasting(clock, 5))));
      await clock.advance(15);
      expect((await record).phases).toEqual({
        received: 0,
        queued: 0,
        dequeued: 10,
        allocated: 10,
        callStart: 10,
        callEnd: 15,
        released: 15,
        completed: 15,
      });
    });

    it('takes what was granted, not acquired, for nothing to give back', async () => {
      const { clock, sessions } = setUp();
      const { gate, tell } = played();
      sessions.observe(gate);
      const record = recordOf(
        sessions.execute(async () => {
          tell('granted', { id: 1 });
          await lasting(clock, 5)();
          tell('released', { id: 1 });
          await lasting(clock, 5)();
        }),
      );
      await clock.advance(10);
      expect((await record).phases).toMatchObject({ callEnd: 10, released: 10 });
    });

    it('does not mistake whoever takes the id of a call that is over for that call', async () => {
      const { clock, sessions, queue } = setUp();
      sessions.observe(queue);
      const running = queue.run(lasting(clock, 5));
      const record = recordOf(
        sessions.execute(async () => {
          await queue.run(() => {}, { id: 'a', waitTimeoutMs: 1 }).catch(() => {});
          await running;
          await queue.run(lasting(clock, 5), { id: 'a' });
          await lasting(clock, 5)();
        }),
      );
      await clock.advance(15);
      expect((await record).phases).toMatchObject({ callEnd: 10, released: 10, completed: 15 });
    });

    it.each(['released', 'cancelled'])(
      'takes what a gate has told the end of (%s) for over, whatever it tells of it later',
      async (end) => {
        const { clock, sessions } = setUp();
        const { gate, tell } = played();
        sessions.observe(gate);
        const record = recordOf(
          sessions.execute(async () => {
            for (const id of [1, 2, 3]) tell('acquired', { id, waitedMs: 0 });
            for (const name of [end, 'released', 'released']) tell(name, { id: 1 });
            await lasting(clock, 5)();
            tell('released', { id: 2 });
            await lasting(clock, 5)();
            tell('released', { id: 3 });
            await lasting(clock, 5)();
          }),
        );
        await clock.advance(15);
        expect((await record).phases).toMatchObject({
          callEnd: end === 'released' ? 0 : 5,
          released: end === 'released' ? 10 : 15,
        });
      },
    );

    it('does not release again what it had, where a call of the same id gives up', async () => {
      const { clock, sessions, queue, semaphore } = setUp();
      sessions.observe(queue);
      sessions.observe(semaphore);
      const record = recordOf(
        sessions.execute(async () => {
          const permit = await semaphore.acquire();
          await queue.run(lasting(clock, 5), { id: 'a' });
          const running = queue.run(lasting(clock, 10), { id: 'b' });
          await queue.run(() => {}, { id: 'a', waitTimeoutMs: 1 }).catch(() => {});
          await running;
          await lasting(clock, 5)();
          permit.release();
          await lasting(clock, 5)();
        }),
      );
      await clock.advance(25);
      expect((await record).phases).toMatchObject({ callEnd: 5, released: 20, completed: 25 });
    });

    it('marks no session for who had begun to wait before it observed', async () => {
      const { clock, sessions, semaphore } = setUp();
      const permit = semaphore.tryAcquire()!;
      const acquired = semaphore.acquire();
      sessions.observe(semaphore);
      await clock.advance(5);
      const session = sessions.open();
      session.enter(() => permit.release());
      (await acquired).release();
      expect(session.phases).toEqual({ received: 0 });
    });

    it('leaves callers without a session alone, however they fare', async () => {
      using uncaught = catchUncaught();
      const { clock, sessions, queue } = setUp();
      const stop = sessions.observe(queue);
      const running = queue.run(lasting(clock, 10));
      const late = queue.run(() => {}, { waitTimeoutMs: 5 }).catch(() => 'late');
      const next = queue.run(lasting(clock, 10));
      await expect(queue.run(() => {})).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' });
      await clock.advance(5);
      await expect(late).resolves.toBe('late');
      await clock.advance(5);
      const waiting = queue.run(() => {});
      stop();
      await clock.advance(10);
      await Promise.all([running, next, waiting]);
      await settle();
      expect(uncaught.exceptions).toEqual([]);
    });

    it('finds the call of a session that gave up waiting and came again', async () => {
      const { clock, sessions, semaphore } = setUp();
      sessions.observe(semaphore);
      const first = semaphore.run(lasting(clock, 10));
      const record = recordOf(
        sessions.execute(async () => {
          await semaphore.run(() => {}, { waitTimeoutMs: 5 }).catch(() => {});
          await semaphore.run(lasting(clock, 10));
        }),
      );
      await clock.advance(20);
      await first;
      expect((await record).phases).toMatchObject({ queued: 0, dequeued: 10, callStart: 10 });
    });

    it('stops when told to, and unsubscribes from everything', async () => {
      const { clock, sessions, semaphore } = setUp();
      const stop = sessions.observe(semaphore);
      const permit = semaphore.tryAcquire()!;
      const session = sessions.open();
      const acquired = session.enter(() => semaphore.acquire());
      stop();
      await clock.advance(5);
      permit.release();
      (await acquired).release();
      session.mark('allocated');
      expect((await session.end()).phases).toEqual({
        received: 0,
        queued: 0,
        allocated: 5,
        callStart: 5,
        callEnd: 5,
        released: 5,
        completed: 5,
      });
    });

    it('stops once, however often it is told to', async () => {
      const { clock, sessions, queue, semaphore } = setUp();
      const stop = sessions.observe(queue);
      sessions.observe(semaphore);
      const running = queue.run(lasting(clock, 5));
      const record = recordOf(
        sessions.execute(async () => {
          const waited = queue.run(() => {});
          stop();
          stop();
          await waited;
          await semaphore.run(lasting(clock, 5));
          await lasting(clock, 5)();
        }),
      );
      await clock.advance(15);
      await running;
      expect((await record).phases).toMatchObject({ callEnd: 10, released: 10, completed: 15 });
    });

    it('takes anything with the events, and subscribes to each once', () => {
      const { sessions } = setUp();
      const names = { on: [] as string[], off: [] as string[] };
      const stop = sessions.observe({
        on: (name) => names.on.push(name),
        off: (name) => names.off.push(name),
      });
      stop();
      expect(names.off).toEqual(names.on);
      expect(new Set(names.on).size).toBe(names.on.length);
    });
  });
});
