import { AsyncLocalStorage } from 'node:async_hooks';
import { inspect } from 'node:util';

import { SessionManager, type Session, type SessionManagerOptions } from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { catchUncaught } from '../support/uncaught.ts';

function manager(options: SessionManagerOptions = {}): {
  clock: ManualClock;
  sessions: SessionManager;
} {
  const clock = new ManualClock();
  return { clock, sessions: new SessionManager({ clock, ...options }) };
}

const never = (): Promise<never> => new Promise(() => {});

describe('Session', () => {
  it('has no `then`, so that it survives an await', async () => {
    const { sessions } = manager();
    const session = sessions.open();
    expect(await Promise.resolve(session)).toBe(session);
  });

  describe('.signal', () => {
    it('is aborted already when it is first read after the abort', async () => {
      const { clock, sessions } = manager({ timeoutMs: 10 });
      const session = sessions.open();
      await clock.advance(10);
      expect(session.signal.aborted).toBe(true);
      expect(session.signal.reason).toMatchObject({ code: 'ERR_SESSION_TIMEOUT' });
    });

    it('is not aborted by a session that ends by itself', async () => {
      const { sessions } = manager();
      const session = sessions.open();
      const { signal } = session;
      await session.end();
      expect(signal.aborted).toBe(false);
    });
  });

  describe('.mark()', () => {
    it('notes the time and goes forward only', async () => {
      const { clock, sessions } = manager();
      const session = sessions.open();
      await clock.advance(5);
      expect(session.mark('callStart')).toBe(true);
      await clock.advance(5);
      expect(session.mark('callStart')).toBe(false);
      expect(session.mark('queued')).toBe(false);
      expect(session.phases).toEqual({ received: 0, callStart: 5 });
    });

    it('notes every phase on the way', async () => {
      const { clock, sessions } = manager();
      const session = sessions.open();
      const phases = [
        'queued',
        'dequeued',
        'allocated',
        'callStart',
        'callEnd',
        'released',
      ] as const;
      for (const phase of phases) {
        await clock.advance(1);
        expect(session.mark(phase), phase).toBe(true);
      }
      expect(session.phases).toEqual({
        received: 0,
        queued: 1,
        dequeued: 2,
        allocated: 3,
        callStart: 4,
        callEnd: 5,
        released: 6,
      });
    });

    it.each(['received', 'completed', 'timeout', 'error', 'nonsense', undefined])(
      'refuses %s, which is not for callers to mark',
      (phase) => {
        const session = manager().sessions.open();
        expect(() => session.mark(phase as never)).toThrow(/`phase`/);
      },
    );
  });

  describe('.defer()', () => {
    it('calls clean-ups last first, one after the other, before the caller has the result', async () => {
      const { sessions } = manager();
      const log: string[] = [];
      const cleanup = (name: string) => async (): Promise<void> => {
        log.push(`${name} begins`);
        await settle();
        log.push(`${name} ends`);
      };
      await sessions.run(({ session }) => {
        session.defer(cleanup('first'));
        session.defer(cleanup('second'));
        log.push('task');
      });
      log.push('result');
      expect(log).toEqual([
        'task',
        'second begins',
        'second ends',
        'first begins',
        'first ends',
        'result',
      ]);
    });

    it('calls them in the context that they were deferred in, whoever ends the session (H110)', async () => {
      const { clock, sessions } = manager({ graceMs: 5, timeoutMs: 20 });
      const storage = new AsyncLocalStorage<string>();
      const caller = new AbortController();
      const seen: string[] = [];
      const deferIn = (session: Session): void =>
        session.defer(() =>
          seen.push(`${storage.getStore()} ${sessions.current()?.requestId ?? 'nobody'}`),
        );
      for (const requestId of ['a', 'b']) {
        storage.run(requestId, () => {
          deferIn(sessions.open({ requestId: `${requestId}, aborted`, signal: caller.signal }));
          deferIn(sessions.open({ requestId: `${requestId}, timed out` }));
          const run = sessions.run(
            ({ session }) => {
              deferIn(session);
              return never();
            },
            { requestId: `${requestId}, overrun` },
          );
          run.catch(() => {});
        });
      }
      storage.run('c', () => caller.abort());
      await settle();
      await storage.run('d', () => clock.advance(25));
      expect(seen).toEqual([
        'a a, aborted',
        'b b, aborted',
        'a a, timed out',
        'b b, timed out',
        'a a, overrun',
        'b b, overrun',
      ]);
    });

    it('calls them in the context of the session', async () => {
      const { sessions } = manager();
      let seen: Session | undefined;
      const session = sessions.open();
      session.defer(() => {
        seen = sessions.current();
      });
      await session.end();
      expect(seen).toBe(session);
    });

    it('goes on after one that throws, rejects or never ends, and says so', async () => {
      const { clock, sessions } = manager({ cleanupTimeoutMs: 100, generateId: () => 's' });
      const events: unknown[] = [];
      sessions.on('cleanupFailed', (event) => events.push(event));
      const [thrown, rejected] = [new Error('thrown'), new Error('rejected')];
      const last = vi.fn<() => void>();
      const session = sessions.open();
      session.defer(last);
      session.defer(() => {
        throw thrown;
      });
      session.defer(() => Promise.reject(rejected));
      session.defer(never);
      const ended = session.end();
      await clock.advance(99);
      expect(events).toEqual([]);
      await clock.advance(1);
      await expect(ended).resolves.toMatchObject({ status: 'completed', cleanupFailures: 3 });
      expect(last).toHaveBeenCalledTimes(1);
      expect(events).toEqual([
        { id: 's', error: undefined, timedOut: true },
        { id: 's', error: rejected, timedOut: false },
        { id: 's', error: thrown, timedOut: false },
      ]);
      expect(sessions.stats().cleanupFailed).toBe(3);
      expect(clock.timers).toBe(0);
    });

    it('ignores what becomes of a clean-up that was left behind', async () => {
      using uncaught = catchUncaught();
      const { clock, sessions } = manager({ cleanupTimeoutMs: 100 });
      const late = Promise.withResolvers<void>();
      const session = sessions.open();
      session.defer(() => late.promise);
      void session.end();
      await clock.advance(100);
      late.reject(new Error('late'));
      await settle();
      expect(sessions.stats()).toMatchObject({ cleanupFailed: 1, completed: 1, active: 0 });
      expect(uncaught.rejections).toEqual([]);
    });

    it('does not change the result of the task', async () => {
      const { sessions } = manager();
      const result = sessions.run(({ session }) => {
        session.defer(() => {
          throw new Error('no');
        });
        return 7;
      });
      await expect(result).resolves.toBe(7);
    });

    it('takes one that a clean-up defers, as the next', async () => {
      const { sessions } = manager();
      const log: string[] = [];
      const session = sessions.open();
      session.defer(() => log.push('first'));
      session.defer(() => {
        log.push('second');
        session.defer(() => log.push('third'));
      });
      await session.end();
      expect(log).toEqual(['second', 'third', 'first']);
    });

    it('calls it now where the session has ended, one at a time and for a bounded time', async () => {
      const { clock, sessions } = manager({ cleanupTimeoutMs: 100 });
      const session = sessions.open();
      await session.end();
      const log: string[] = [];
      session.defer(() => {
        log.push('stuck');
        return never();
      });
      expect(log).toEqual(['stuck']);
      session.defer(() => log.push('next'));
      await settle();
      expect(log).toEqual(['stuck']);
      await clock.advance(100);
      expect(log).toEqual(['stuck', 'next']);
      expect(clock.timers).toBe(0);
      expect(sessions.stats()).toMatchObject({ completed: 1, cleanupFailed: 1 });
    });

    it('is called now as well where others have run before', async () => {
      const { sessions } = manager();
      const session = sessions.open();
      session.defer(() => {});
      await session.end();
      const late = vi.fn<() => void>();
      session.defer(late);
      expect(late).toHaveBeenCalledTimes(1);
    });

    it('runs them once when the session is ended again meanwhile', async () => {
      const { sessions } = manager();
      const calls: string[] = [];
      const first = Promise.withResolvers<void>();
      const session = sessions.open();
      session.defer(() => void calls.push('last'));
      session.defer(() => {
        calls.push('first');
        return first.promise;
      });
      const ended = session.end();
      const again = session.end(new Error('again'));
      await settle();
      expect(calls).toEqual(['first']);
      first.resolve();
      await expect(ended).resolves.toMatchObject({ status: 'completed' });
      await expect(again).resolves.toMatchObject({ status: 'completed' });
      expect(calls).toEqual(['first', 'last']);
    });

    it('gives a clean-up its time where it began at the timeout of its session', async () => {
      const { clock, sessions } = manager({ timeoutMs: 100, cleanupTimeoutMs: 50 });
      const first = sessions.open();
      const second = sessions.open();
      second.defer(never);
      first.signal.addEventListener('abort', () => void second.end());
      await clock.advance(149);
      expect(second.status).toBe('completed');
      expect(sessions.active).toBe(1);
      await clock.advance(1);
      expect(sessions.active).toBe(0);
    });

    it('ends who is left at the instant at which the end of one has ended another', async () => {
      using uncaught = catchUncaught();
      const { clock, sessions } = manager({ timeoutMs: 100 });
      const [first, second, third] = [sessions.open(), sessions.open(), sessions.open()];
      first.signal.addEventListener('abort', () => void second.end());
      await clock.advance(100);
      expect([first.status, second.status, third.status]).toEqual([
        'timedOut',
        'completed',
        'timedOut',
      ]);
      expect(uncaught.exceptions).toEqual([]);
    });

    it('refuses what cannot be called', () => {
      const session = manager().sessions.open();
      expect(() => session.defer(1 as never)).toThrow(/`cleanup`/);
    });
  });

  describe('that was asked to stop', () => {
    it('is not asked again, however often there is a reason to', async () => {
      const { clock, sessions } = manager({ timeoutMs: 10 });
      const { promise, resolve } = Promise.withResolvers<void>();
      let session!: Session;
      const call = sessions.run((context) => {
        ({ session } = context);
        return promise;
      });
      const answer = call.catch((error: unknown) => error);
      await clock.advance(10);
      expect(await answer).toMatchObject({ code: 'ERR_SESSION_TIMEOUT' });
      const shutdown = sessions.shutdown({ drainMs: 0, forceMs: 10 });
      await clock.advance(5);
      resolve();
      expect(await shutdown).toMatchObject({ finished: 1, aborted: 0, stuck: [] });
      expect([session.status, session.signal.reason]).toEqual(['timedOut', await answer]);
    });

    it('has all the time of its grace, be its timeout what it may', async () => {
      const { clock, sessions } = manager({ timeoutMs: 10 });
      const controller = new AbortController();
      void sessions.run(never, { signal: controller.signal }).catch(() => {});
      await clock.advance(5);
      controller.abort();
      expect(clock.timers).toBe(0);
      await clock.advance(100);
      expect(sessions.stats()).toMatchObject({ active: 1, overrun: 0 });
    });

    it('leaves no timer when its task settles within its grace', async () => {
      const { clock, sessions } = manager({ graceMs: 50 });
      const controller = new AbortController();
      const { promise, resolve } = Promise.withResolvers<void>();
      const call = sessions.run(() => promise, { signal: controller.signal }).catch(() => {});
      await settle();
      controller.abort();
      expect(clock.timers).toBe(1);
      resolve();
      await call;
      await settle();
      expect([sessions.active, clock.timers]).toEqual([0, 0]);
    });
  });

  it('answers as its task did, though a shutdown comes while its clean-ups run', async () => {
    const { clock, sessions } = manager();
    const call = sessions.run(({ session }) => {
      session.defer(() => new Promise<void>((resolve) => void clock.setTimeout(resolve, 5)));
      return 7;
    });
    await settle();
    const shutdown = sessions.shutdown({ drainMs: 0, forceMs: 10 });
    await clock.advance(5);
    await expect(call).resolves.toBe(7);
    expect(await shutdown).toMatchObject({ finished: 1, aborted: 0 });
    expect([...sessions.records()].map(({ status }) => status)).toEqual(['completed']);
  });

  it('tells of its end before `end` returns', () => {
    const { sessions } = manager();
    const events: string[] = [];
    sessions.on('completed', () => events.push('completed'));
    void sessions.open().end();
    expect(events).toEqual(['completed']);
  });

  describe('.enter()', () => {
    it('makes it the current session of a callback from elsewhere', async () => {
      const { sessions } = manager();
      const session = sessions.open();
      expect(sessions.current()).toBeUndefined();
      expect(session.enter(() => sessions.current())).toBe(session);
      await session.enter(async () => {
        await settle();
        expect(sessions.current()).toBe(session);
      });
      expect(sessions.current()).toBeUndefined();
    });

    it('throws what the callback throws', () => {
      const session = manager().sessions.open();
      expect(() =>
        session.enter(() => {
          throw new Error('no');
        }),
      ).toThrow('no');
      expect(() => session.enter(1 as never)).toThrow(/`fn`/);
    });

    it('lets a stream that is pulled later by somebody else know its session', async () => {
      const { sessions } = manager();
      const session = sessions.open({ requestId: 'r' });
      const seen: (string | undefined)[] = [];
      const stream = new ReadableStream({
        pull: (controller) =>
          session.enter(async () => {
            await settle();
            seen.push(sessions.current()?.requestId);
            controller.enqueue('x');
            if (seen.length === 3) controller.close();
          }),
      });
      for await (const chunk of stream) expect(chunk).toBe('x');
      expect(seen).toEqual(['r', 'r', 'r']);
    });
  });

  describe('.metadata', () => {
    it('is bounded by the options of the manager', () => {
      const { sessions } = manager({ maxMetadataBytes: 8, maxValueBytes: 4 });
      const { metadata } = sessions.open();
      expect(() => metadata.set('k', 'xxxxx')).toThrow(/5 bytes of at most 4/);
      metadata.set('k', 'xxxx');
      expect(() => metadata.set('l', 'xxx')).toThrow(/9 bytes of at most 8/);
      expect(metadata.size).toBe(1);
    });

    it('of the options is checked before there is a session', async () => {
      const { sessions } = manager({ maxValueBytes: 4 });
      const task = vi.fn<() => void>();
      await expect(sessions.run(task, { metadata: { k: 'xxxxx' } })).rejects.toMatchObject({
        code: 'ERR_METADATA_TOO_LARGE',
        key: 'k',
      });
      expect(task).not.toHaveBeenCalled();
      expect(sessions.stats().started).toBe(0);
    });

    it('takes own keys only, be they as odd as __proto__', () => {
      const { sessions } = manager();
      const given = JSON.parse('{"__proto__":"a","constructor":"b"}') as Record<string, string>;
      const { metadata } = sessions.open({ metadata: given });
      expect([metadata.get('__proto__'), metadata.get('constructor')]).toEqual(['a', 'b']);
      expect(metadata.get('toString')).toBeUndefined();
      expect(metadata.size).toBe(2);
    });

    it('is gone when the session has ended', async () => {
      const { sessions } = manager();
      const session = sessions.open({ metadata: { k: 1 } });
      session.defer(() => expect(session.metadata.get('k')).toBe(1));
      await session.end();
      expect(session.toJSON().cleanupFailures).toBe(0);
      expect(session.metadata.get('k')).toBeUndefined();
      expect(() => session.metadata.set('k', 1)).toThrow(
        expect.objectContaining({ code: 'ERR_CLOSED' }) as Error,
      );
      const untouched = sessions.open();
      await untouched.end();
      expect(() => untouched.metadata.set('k', 1)).toThrow(/closed/);
    });
  });

  describe('.toJSON()', () => {
    it('shows no metadata but that of logKeys, while it lives and afterwards', async () => {
      const { sessions } = manager({ logKeys: ['tenant', 'plan', 'tenant'] });
      const session = sessions.open({ metadata: { tenant: 'a\nb', prompt: 'secret' } });
      expect(session.toJSON().metadata).toEqual({ tenant: 'a\ufffdb' });
      session.metadata.set('plan', { name: 'x' });
      await session.end();
      expect(session.toJSON().metadata).toEqual({ tenant: 'a\ufffdb', plan: { name: 'x' } });
      expect(JSON.stringify(sessions.record(session.id))).not.toContain('secret');
      expect(inspect(session, { depth: 9, showHidden: true })).not.toContain('secret');
    });

    it('shows of logKeys what there is, and nothing where there is no metadata', async () => {
      const { sessions } = manager({ logKeys: ['tenant', 'plan'] });
      expect(sessions.open().toJSON().metadata).toEqual({});
      const { metadata } = sessions.open({ metadata: { plan: 'a' } }).toJSON();
      expect(Object.keys(metadata)).toEqual(['plan']);
    });

    it('says what failed by name and code, without the message', async () => {
      const { sessions } = manager();
      const error = Object.assign(new TypeError('the prompt was: secret'), { code: 'E_MODEL' });
      const record = await sessions.open().end(error);
      expect(record).toMatchObject({
        status: 'failed',
        error: { name: 'TypeError', code: 'E_MODEL' },
      });
      expect(JSON.stringify(record)).not.toContain('secret');
      expect((await sessions.open().end('text')).error).toEqual({
        name: 'string',
        code: undefined,
      });
      expect((await sessions.open().end({ name: 5, code: 'E_ODD' })).error).toEqual({
        name: 'object',
        code: 'E_ODD',
      });
      expect((await sessions.open().end(null)).error).toEqual({ name: 'object', code: undefined });
    });

    it('is a line of JSON whatever it is made of', async () => {
      const { sessions } = manager();
      const session = sessions.open({
        requestId: '\r\n\u2028\u001b[31m"',
        model: 'm'.repeat(9999),
      });
      const record = await session.end();
      expect(record.requestId).toBe('\ufffd\ufffd\ufffd\ufffd[31m"');
      expect(record.model).toHaveLength(256);
      expect(JSON.parse(JSON.stringify(session))).toEqual(JSON.parse(JSON.stringify(record)));
    });
  });
});
