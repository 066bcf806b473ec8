import { type Permit, Semaphore, type SemaphoreContext } from 'sluice/semaphore';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { optionNames } from '../src/internal/options.ts';
import { SEMAPHORE_EVENTS, record } from './support/events.ts';

const never = (): Promise<never> => new Promise(() => {});
const ignore = (promise: Promise<unknown>): void => void promise.catch(() => undefined);

describe('Semaphore', () => {
  describe('events', () => {
    it('are told before the call that brings them about returns', () => {
      const semaphore = new Semaphore({ capacity: 2, maxWaiting: 3, clock: new ManualClock() });
      const events = record(semaphore, SEMAPHORE_EVENTS);
      const told = (call: () => unknown): string => {
        call();
        return events
          .splice(0)
          .map(([name]) => name)
          .join(' ');
      };
      let permit!: Permit;
      const quitter = new AbortController();
      expect(told(() => (permit = semaphore.tryAcquire(1)!))).toBe('acquired');
      expect(told(() => permit.release())).toBe('released idle');
      expect(told(() => semaphore.acquire())).toBe('acquired');
      expect(told(() => semaphore.run(never))).toBe('acquired saturated');
      expect(told(() => ignore(semaphore.acquire({ weight: 2 })))).toBe('queued');
      expect(told(() => semaphore.run(never))).toBe('queued');
      expect(told(() => ignore(semaphore.acquire({ signal: quitter.signal })))).toBe('queued');
      expect(told(() => ignore(semaphore.acquire()))).toBe('refused');
      expect(told(() => ignore(semaphore.run(never)))).toBe('refused');
      expect(told(() => quitter.abort())).toBe('cancelled');
      expect(told(() => semaphore.resize(1))).toBe('resized cancelled');
      expect(told(() => semaphore.resize(1))).toBe('');
      expect(told(() => semaphore.resize(3))).toBe('resized acquired');
      expect(told(() => semaphore.close())).toBe('closed');
      expect(told(() => semaphore.close())).toBe('');
      expect(told(() => ignore(semaphore.run(never)))).toBe('refused');
    });
  });

  it('tells how long somebody had waited, from when it came', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    const first = semaphore.tryAcquire()!;
    await clock.advance(2);
    const events = record(semaphore, SEMAPHORE_EVENTS);
    const quitter = new AbortController();
    const late = semaphore.run(never, { waitTimeoutMs: 4 }).catch((error: unknown) => error);
    ignore(semaphore.acquire({ signal: quitter.signal }));
    await clock.advance(3);
    quitter.abort();
    await clock.advance(1);
    const gauges = { weight: 1, active: 1, available: 0 };
    expect(events.slice(2)).toEqual([
      ['cancelled', { id: 3, waitedMs: 3, ...gauges, waiting: 1 }],
      ['timedOut', { id: 2, waitedMs: 4, ...gauges, waiting: 0 }],
    ]);
    expect(await late).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 4 });
    events.length = 0;
    ignore(semaphore.acquire());
    await clock.advance(5);
    first.release();
    expect(events[2]).toEqual(['acquired', { id: 4, waitedMs: 5, ...gauges, waiting: 0 }]);
    expect(semaphore.stats().waitMs).toEqual({ count: 1, mean: 5, max: 5 });
  });

  it('counts no overrun of a task that has given its permit back by hand', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    const events = record(semaphore, SEMAPHORE_EVENTS);
    const task = ({ permit }: SemaphoreContext): Promise<never> => {
      permit.release();
      return never();
    };
    ignore(semaphore.run(task, { runTimeoutMs: 1, graceMs: 1 }));
    await clock.advance(10);
    expect(semaphore.stats()).toMatchObject({ overrun: 0, released: 1, active: 0 });
    expect(events.map(([name]) => name)).toEqual(['acquired', 'saturated', 'released', 'idle']);
  });

  it('refuses one whose signal aborts while it is being subscribed to, and leaves it', async () => {
    const semaphore = new Semaphore(1);
    semaphore.tryAcquire();
    const quitter = new AbortController();
    const { signal } = quitter;
    const reason = new Error('gone');
    Object.defineProperty(signal, 'addEventListener', {
      value(...args: Parameters<EventTarget['addEventListener']>) {
        EventTarget.prototype.addEventListener.apply(signal, args);
        quitter.abort(reason);
      },
    });
    const left = vi.spyOn(signal, 'removeEventListener');
    const events = record(semaphore, SEMAPHORE_EVENTS);
    const call = semaphore.acquire({ signal });
    expect(left).toHaveBeenCalledOnce();
    await expect(call).rejects.toBe(reason);
    expect(events.map(([name]) => name)).toEqual(['refused']);
    expect(semaphore.stats()).toMatchObject({ waiting: 0, queued: 0, cancelled: 0, refused: 1 });
  });

  it.each([5, undefined])(
    'ends no run twice at one instant, with a grace of %s',
    async (graceMs) => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, clock });
      const quitter = new AbortController();
      const reason = new Error('gone');
      ignore(
        semaphore.run(
          ({ signal }) => {
            signal.addEventListener('abort', () => quitter.abort(reason));
            return never();
          },
          { runTimeoutMs: 10 },
        ),
      );
      const options = { signal: quitter.signal, runTimeoutMs: 10, graceMs };
      const answer = semaphore.run(never, options).catch((error: unknown) => error);
      await clock.advance(10);
      expect(await answer).toBe(reason);
      expect(semaphore.stats()).toMatchObject({ overrun: 0, active: 2 });
      await clock.advance(10);
      expect(semaphore.stats().overrun).toBe(graceMs === undefined ? 0 : 1);
    },
  );

  it('says who is closed, to who waits and to who comes', async () => {
    const semaphore = new Semaphore(1);
    semaphore.tryAcquire();
    const call = semaphore.acquire();
    semaphore.close({ waiting: 'reject' });
    await expect(call).rejects.toThrow('The semaphore is closed.');
    await expect(semaphore.acquire()).rejects.toThrow('The semaphore is closed.');
    expect(() => semaphore.close({ waiting: 'drop' as never })).toThrow(
      new TypeError('Expected `waiting` to be one of "finish", "reject", got "drop".'),
    );
  });

  it('names the call that was given an option it does not know', async () => {
    const semaphore = new Semaphore(1);
    const options = { capacity: 1, wieght: 1 } as never;
    expect(() => new Semaphore(options)).toThrow(/"wieght" of Semaphore;/);
    await expect(semaphore.acquire(options)).rejects.toThrow(/"capacity" of acquire;/);
    await expect(semaphore.run(never, options)).rejects.toThrow(/"capacity" of run;/);
    expect(() => semaphore.close(options)).toThrow(/"capacity" of close;/);
    await expect(semaphore.acquire({ graceMs: 1 } as never)).rejects.toThrow(/"graceMs"/);
    expect(semaphore.stats()).toMatchObject({ active: 0, refused: 0, closed: false });
  });

  it('tells `compose` which options it knows', () => {
    expect([...new Semaphore(1)[optionNames]].toSorted()).toEqual([
      'graceMs',
      'runTimeoutMs',
      'signal',
      'waitTimeoutMs',
      'weight',
    ]);
  });
});
