import { SessionManager, type SessionEvents } from 'sluice/session-manager';
import { ManualClock } from 'sluice/testing';
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
