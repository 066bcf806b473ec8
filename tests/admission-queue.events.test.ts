import { AdmissionQueue, type AdmissionQueueEvents, type Ticket } from 'sluice/admission-queue';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { optionNames } from '../src/internal/options.ts';

const NAMES = [
  'queued',
  'started',
  'completed',
  'failed',
  'cancelled',
  'timedOut',
  'shed',
  'refused',
  'overrun',
  'saturated',
  'idle',
  'paused',
  'resumed',
  'resized',
  'closed',
] as const satisfies (keyof AdmissionQueueEvents)[];

/** Everything that a queue says but for positions, in order. */
function record(queue: AdmissionQueue): [string, object][] {
  const events: [string, object][] = [];
  for (const name of NAMES) queue.on(name, (payload) => events.push([name, payload]));
  return events;
}

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
      const events = record(queue);
      const told = (call: () => unknown): string => {
        call();
        return events
          .splice(0)
          .map(([name]) => name)
          .join(' ');
      };
      const quitter = new AbortController();
      let ticket!: Ticket<unknown>;
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

    it('tell that the queue is idle when the last one is rejected by its closing', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      queue.pause();
      ignore(queue.run(never));
      const events = record(queue);
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
