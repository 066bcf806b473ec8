import { SessionManager, type SessionEvents } from 'sluice/session-manager';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { optionNames } from '../src/internal/options.ts';

const NAMES = [
  'started',
  'completed',
  'failed',
  'cancelled',
  'timedOut',
  'refused',
  'overrun',
  'cleanupFailed',
  'idle',
  'closed',
] as const satisfies (keyof SessionEvents)[];

const never = (): Promise<never> => new Promise(() => {});
const ignore = (promise: Promise<unknown>): void => void promise.catch(() => undefined);

describe('SessionManager', () => {
  describe('events', () => {
    it('are told before the call that brings them about returns', () => {
      const sessions = new SessionManager({ maxActive: 2, clock: new ManualClock() });
      const events: string[] = [];
      for (const name of NAMES) sessions.on(name, () => events.push(name));
      const told = (call: () => unknown): string => {
        call();
        return events.splice(0).join(' ');
      };
      expect(told(() => ignore(sessions.run(never)))).toBe('started');
      expect(told(() => sessions.open())).toBe('started');
      expect(told(() => ignore(sessions.run(never)))).toBe('refused');
      expect(told(() => ignore(sessions.execute(never)))).toBe('refused');
      expect(told(() => expect(() => sessions.open()).toThrow('2 sessions are open'))).toBe(
        'refused',
      );
    });
  });

  it('counts and tells a session that is refused for its metadata, as any other refusal', async () => {
    const sessions = new SessionManager({ maxValueBytes: 8 });
    const told: unknown[] = [];
    for (const name of NAMES) sessions.on(name, (payload) => told.push([name, payload]));
    await expect(sessions.run(never, { metadata: { note: 'too long!' } })).rejects.toMatchObject({
      code: 'ERR_METADATA_TOO_LARGE',
    });
    // A mistake of the caller's is no refusal.
    await expect(sessions.run(never, { metadata: { note: 1n } as never })).rejects.toThrow(
      TypeError,
    );
    expect(told).toEqual([['refused', { code: 'ERR_METADATA_TOO_LARGE', active: 0 }]]);
    expect(sessions.stats()).toMatchObject({ refused: 1, started: 0 });
  });

  it('tells of a timeout and of an abort when they come, not with the next call', async () => {
    const clock = new ManualClock();
    const sessions = new SessionManager({ clock, timeoutMs: 5 });
    const events: string[] = [];
    for (const name of NAMES) sessions.on(name, () => events.push(name));
    sessions.open();
    await clock.advance(5);
    expect(events.splice(0)).toEqual(['started', 'timedOut', 'idle']);
    const controller = new AbortController();
    sessions.open({ signal: controller.signal });
    controller.abort();
    expect(events.splice(0)).toEqual(['started', 'cancelled', 'idle']);
  });

  it('tells what a shutdown has aborted before it waits for what is left', async () => {
    const clock = new ManualClock();
    const sessions = new SessionManager({ clock });
    const events: string[] = [];
    sessions.open();
    ignore(sessions.run(never));
    for (const name of NAMES) sessions.on(name, () => events.push(name));
    const shutdown = sessions.shutdown({ drainMs: 0, forceMs: 5 });
    await settle();
    expect(events).toEqual(['cancelled']);
    await clock.advance(5);
    await shutdown;
    expect(events).toEqual(['cancelled', 'closed']);
  });

  it('tells which clean-up failed, of what or of taking too long', async () => {
    const clock = new ManualClock();
    const sessions = new SessionManager({ clock, generateId: () => 's', cleanupTimeoutMs: 5 });
    const events: unknown[] = [];
    const run = (): Promise<void> =>
      sessions.run(({ session }) => {
        session.defer(never);
        session.defer(() => Promise.reject(new Error('no')));
      });
    const unheard = run();
    await clock.advance(5);
    await unheard;
    sessions.on('cleanupFailed', (event) => events.push(event));
    const heard = run();
    await clock.advance(5);
    await heard;
    expect(events).toEqual([
      { id: 's', error: new Error('no'), timedOut: false },
      { id: 's', error: undefined, timedOut: true },
    ]);
    expect(sessions.stats().cleanupFailed).toBe(4);
  });

  it('tells of a clean-up that failed before the next one is through', async () => {
    const clock = new ManualClock();
    const sessions = new SessionManager({ clock });
    const events: unknown[] = [];
    sessions.on('cleanupFailed', ({ error }) => events.push(error));
    const session = sessions.open();
    session.defer(never);
    session.defer(() => Promise.reject('no'));
    void session.end();
    await settle();
    expect(events).toEqual(['no']);
  });

  it('tells all listeners the same: none of them changes what the others see (H034)', async () => {
    const sessions = new SessionManager({ logKeys: ['tags'], clock: new ManualClock() });
    const heard: object[] = [];
    sessions.on('failed', ({ session }) => {
      const { phases, error, metadata } = session;
      heard.push(session, phases, error!, metadata, metadata['tags'] as object);
    });
    sessions.on('closed', ({ stuck }) => heard.push(stuck));
    await sessions.open({ metadata: { tags: ['a'] } }).end(new Error('no'));
    const report = await sessions.shutdown();
    expect(heard).toHaveLength(6);
    expect(heard.every((part) => Object.isFrozen(part))).toBe(true);
    expect(heard[5]).not.toBe(report.stuck);
  });

  it('says who is closed', async () => {
    const sessions = new SessionManager();
    await sessions.shutdown();
    await expect(sessions.run(never)).rejects.toThrow('The session manager is closed.');
    expect(() => sessions.open()).toThrow('The session manager is closed.');
  });

  it('names the call that was given an option it does not know', async () => {
    const sessions = new SessionManager();
    const options = { maxActive: 1, timoutMs: 1 } as never;
    expect(() => new SessionManager(options)).toThrow(/"timoutMs" of SessionManager;/);
    await expect(sessions.run(never, options)).rejects.toThrow(/"maxActive" of run;/);
    expect(() => sessions.open(options)).toThrow(/"maxActive" of open;/);
    await expect(sessions.shutdown(options)).rejects.toThrow(/"maxActive" of shutdown;/);
  });

  it('names what is wrong with a task, a text, a signal or metadata', async () => {
    const sessions = new SessionManager();
    for (const [name, value] of [
      ['requestId', 1],
      ['provider', 1],
      ['model', 1],
      ['signal', {}],
      ['timeoutMs', -1],
    ] as const) {
      await expect(sessions.run(never, { [name]: value })).rejects.toThrow(`\`${name}\``);
    }
    await expect(sessions.run(never, { metadata: 1 } as never)).rejects.toThrow(
      '`options of metadata`',
    );
    await expect(sessions.run(1 as never)).rejects.toThrow('`task`');
    await expect(sessions.execute(1 as never)).rejects.toThrow('`task`');
    expect(() => new SessionManager({ logKeys: [1] as never })).toThrow('`logKeys`');
    expect(() => new SessionManager({ logKeys: 1 as never })).toThrow('`logKeys`');
    const nameless = new SessionManager({ generateId: () => 1 as never });
    await expect(nameless.run(never)).rejects.toThrow('`generateId()`');
    expect(sessions.stats()).toMatchObject({ active: 0, refused: 0 });
  });

  it('tells the report of its shutdown, which disposal waits for', async () => {
    const clock = new ManualClock();
    await clock.advance(100);
    const sessions = new SessionManager({ clock });
    const reports: object[] = [];
    sessions.on('closed', (report) => reports.push(report));
    const call = sessions.run(never).catch((error: unknown) => error);
    const shutdown = sessions.shutdown({ drainMs: 5, forceMs: 7 });
    await clock.advance(20);
    expect(await call).toMatchObject({ message: 'The session manager is closed.' });
    expect(await shutdown).toMatchObject({ elapsedMs: 12 });
    expect(reports).toEqual([await shutdown]);
    await sessions[Symbol.asyncDispose]();
    const other = new SessionManager({ clock });
    await other[Symbol.asyncDispose]();
    expect(other.stats().closed).toBe(true);
  });

  it('tells `compose` which options it knows', () => {
    expect([...new SessionManager()[optionNames]].toSorted()).toEqual([
      'metadata',
      'model',
      'provider',
      'requestId',
      'signal',
      'timeoutMs',
    ]);
  });
});
