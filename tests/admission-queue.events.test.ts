import { AdmissionQueue, type Ticket } from 'sluice/admission-queue';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { optionNames } from '../src/internal/options.ts';
import { QUEUE_EVENTS, record } from './support/events.ts';

const never = (): Promise<never> => new Promise(() => {});
const ignore = (promise: Promise<unknown>): void => void promise.catch(() => undefined);

describe('AdmissionQueue', () => {
  describe('events', () => {
    it('are told before the call that brings them about returns', () => {
      const queue = new AdmissionQueue({
        concurrency: 1,
        maxWaiting: 2,
        overflow: 'shed',
        clock: new ManualClock(),
      });
      const events = record(queue, QUEUE_EVENTS);
      const told = (call: () => unknown): string => {
        call();
        return events
          .splice(0)
          .map(([name]) => name)
          .join(' ');
      };
      const quitter = new AbortController();
      let ticket!: Ticket;
      expect(told(() => ignore(queue.run(never, { signal: quitter.signal })))).toBe(
        'started saturated',
      );
      expect(told(() => queue.enqueue(never, { id: 'a' }))).toBe('queued');
      expect(told(() => ignore(queue.run(never)))).toBe('queued');
      expect(told(() => queue.enqueue(never))).toBe('refused');
      expect(told(() => ignore(queue.run(never)))).toBe('refused');
      expect(told(() => queue.enqueue(never, { priority: 1 }))).toBe('shed queued');
      expect(told(() => queue.cancel('a'))).toBe('cancelled');
      expect(told(() => quitter.abort())).toBe('cancelled');
      expect(told(() => queue.pause())).toBe('paused');
      expect(told(() => queue.pause())).toBe('');
      expect(told(() => queue.resize(2))).toBe('resized');
      expect(told(() => queue.resize(2))).toBe('');
      expect(told(() => (ticket = queue.enqueue(never)))).toBe('queued');
      expect(told(() => queue.resume())).toBe('resumed started saturated');
      expect(told(() => queue.resume())).toBe('');
      expect(told(() => ticket.cancel())).toBe('cancelled');
      expect(told(() => queue.close())).toBe('closed');
      expect(told(() => queue.close())).toBe('');
      expect(told(() => queue.enqueue(never))).toBe('refused');
    });

    it('tell each story with ids, spans and the gauges after the change', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({
        concurrency: 1,
        maxWaiting: 2,
        overflow: 'shed',
        graceMs: 5,
        clock,
      });
      const events: [number, string, object][] = [];
      for (const name of QUEUE_EVENTS) {
        queue.on(name, (payload) => events.push([clock.now(), name, payload]));
      }
      const after = (ms: number) => (): Promise<void> =>
        new Promise((resolve) => clock.setTimeout(resolve, ms));
      queue.enqueue(never, { id: 'a', key: 'k', runTimeoutMs: 10 });
      await clock.advance(1);
      queue.enqueue(never, { id: 'b', priority: 2, waitTimeoutMs: 3 });
      await clock.advance(1);
      queue.enqueue(never, { id: 'c', key: 'l', priority: 4 });
      queue.enqueue(never, { id: 'd', key: 'm', priority: 4 });
      await clock.advance(1);
      queue.enqueue(never, { id: 'e', priority: 1 });
      await clock.advance(2);
      queue.cancel('e');
      queue.enqueue(after(2), { id: 'f' });
      await clock.advance(13);
      queue.pause();
      queue.enqueue(() => Promise.reject('broken'), { id: 'g' });
      queue.resize(2);
      queue.resume();
      await clock.advance(1);
      queue.close();
      const key = undefined;
      const a = { id: 'a', key: 'k', priority: 5, waitedMs: 0 };
      const b = { id: 'b', key, priority: 2 };
      const c = { id: 'c', key: 'l', priority: 4 };
      const e = { id: 'e', key, priority: 1 };
      const f = { id: 'f', key, priority: 5 };
      const g = { id: 'g', key, priority: 5, waitedMs: 0 };
      const left = { ranMs: undefined, active: 1 };
      expect(events).toEqual([
        [0, 'started', { ...a, active: 1, waiting: 0 }],
        [0, 'saturated', { active: 1, waiting: 0 }],
        [1, 'queued', { ...b, active: 1, waiting: 1 }],
        [2, 'queued', { ...c, active: 1, waiting: 2 }],
        [2, 'refused', { key: 'm', priority: 4, code: 'ERR_QUEUE_FULL', active: 1, waiting: 2 }],
        [3, 'shed', { ...c, waitedMs: 1, ...left, waiting: 1 }],
        [3, 'queued', { ...e, active: 1, waiting: 2 }],
        [4, 'timedOut', { ...b, waitedMs: 3, ...left, waiting: 1 }],
        [5, 'cancelled', { ...e, waitedMs: 2, ...left, waiting: 0 }],
        [5, 'queued', { ...f, active: 1, waiting: 1 }],
        [10, 'timedOut', { ...a, ranMs: 10, active: 1, waiting: 1 }],
        [15, 'overrun', { ...a, ranMs: 15, active: 0, waiting: 1 }],
        [15, 'started', { ...f, waitedMs: 10, active: 1, waiting: 0 }],
        [17, 'completed', { ...f, waitedMs: 10, ranMs: 2, active: 0, waiting: 0 }],
        [17, 'idle', { active: 0, waiting: 0 }],
        [18, 'paused', { active: 0, waiting: 0 }],
        [18, 'queued', { id: 'g', key, priority: 5, active: 0, waiting: 1 }],
        [18, 'resized', { concurrency: 2, active: 0, waiting: 1 }],
        [18, 'resumed', { active: 0, waiting: 1 }],
        [18, 'started', { ...g, active: 1, waiting: 0 }],
        [18, 'failed', { ...g, ranMs: 0, error: 'broken', active: 0, waiting: 0 }],
        [18, 'idle', { active: 0, waiting: 0 }],
        [19, 'closed', { active: 0, waiting: 0 }],
      ]);
    });

    it('tell the priority that a ticket has by then', async () => {
      const queue = new AdmissionQueue({ concurrency: 1, clock: new ManualClock() });
      queue.pause();
      const events = record(queue, QUEUE_EVENTS);
      for (const id of ['a', 'b']) ignore(queue.run(() => id, { id, priority: 4 }));
      queue.setPriority('a', 2);
      queue.setPriority('b', 3);
      queue.cancel('b');
      queue.resume();
      await queue.idle();
      const told = events.flatMap(([name, event]) => {
        const { id, priority } = event as { id?: string; priority?: number };
        return id === undefined ? [] : [`${name} ${id} ${priority}`];
      });
      expect(told).toEqual([
        'queued a 4',
        'queued b 4',
        'cancelled b 3',
        'started a 2',
        'completed a 2',
      ]);
    });

    it('tell that the queue is idle when the last one is rejected by its closing', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      queue.pause();
      ignore(queue.run(never));
      const events = record(queue, QUEUE_EVENTS);
      const idle = queue.idle();
      queue.close({ waiting: 'reject' });
      expect(events.map(([name]) => name)).toEqual(['cancelled', 'idle', 'closed']);
      await idle;
    });
  });

  it('says who is closed, to who waits and to who comes', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    ignore(queue.run(never));
    const call = queue.run(never);
    queue.close({ waiting: 'reject' });
    await expect(call).rejects.toThrow('The queue is closed.');
    await expect(queue.run(never)).rejects.toThrow('The queue is closed.');
    await expect(queue.enqueue(never).result).rejects.toThrow('The queue is closed.');
    expect(() => queue.close({ waiting: 'drop' as never })).toThrow(
      new TypeError('Expected `waiting` to be one of "finish", "reject", got "drop".'),
    );
  });

  it('names the call that was given an option it does not know', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const options = { concurrency: 1, proirity: 1 } as never;
    expect(() => new AdmissionQueue(options)).toThrow(/"proirity" of AdmissionQueue;/);
    await expect(queue.run(never, options)).rejects.toThrow(/"concurrency" of run;/);
    await expect(queue.enqueue(never, options).result).rejects.toThrow(/"concurrency" of enqueue;/);
    expect(() => queue.close(options)).toThrow(/"concurrency" of close;/);
    expect(queue.stats()).toMatchObject({ active: 0, closed: false });
  });

  it('tells `compose` which options it knows', () => {
    expect([...new AdmissionQueue({ concurrency: 1 })[optionNames]].toSorted()).toEqual([
      'enqueuedAt',
      'id',
      'key',
      'metadata',
      'onTicket',
      'priority',
      'runTimeoutMs',
      'signal',
      'waitTimeoutMs',
    ]);
  });
});
