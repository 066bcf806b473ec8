import { AsyncLocalStorage } from 'node:async_hooks';
import { getEventListeners } from 'node:events';
import { inspect } from 'node:util';

import {
  ClosedError,
  DuplicateIdError,
  QueueFullError,
  RunTimeoutError,
  ShedError,
  WaitTimeoutError,
} from 'sluice';
import {
  AdmissionQueue,
  type AdmissionQueueOptions,
  type EnqueueOptions,
  type Ticket,
} from 'sluice/admission-queue';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { codeOf } from './support/promises.ts';
import { catchUncaught } from './support/uncaught.ts';
import { QUEUE_EVENTS, record } from './support/events.ts';

const NO_POSITIVE_INTEGERS = [0, -1, 1.5, Number.NaN, Infinity, 2 ** 53, '2', 2n, true, null, {}];
const NO_SPANS = [-1, Number.NaN, -Infinity, '5', 5n, null, true, new Date(0), {}];
const NO_TEXTS = [null, 0, false, 5, {}, Symbol('id')];
const NO_FUNCTIONS = [null, 0, '', false, {}, 'task'];
const never = (): Promise<never> => new Promise(() => undefined);

function names(log: readonly [string, unknown][]): string {
  return log.map(([name]) => name).join(' ');
}

/** 'ok', or the code of the error, or the reason; handles the rejection. */
function codeAfter(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}

function controlled(): { signal: AbortSignal; abort: (reason?: unknown) => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}

/** A queue with one place, taken for as long as the test wants. */
function busy(options: Partial<AdmissionQueueOptions> = {}): {
  clock: ManualClock;
  queue: AdmissionQueue;
  finish: () => void;
} {
  const clock = new ManualClock();
  const queue = new AdmissionQueue({ concurrency: 1, clock, ...options });
  const { promise, resolve } = Promise.withResolvers<void>();
  void queue.run(() => promise, { id: 'busy' });
  return { clock, queue, finish: resolve };
}

describe('AdmissionQueue', () => {
  describe('new', () => {
    it.each([
      ['concurrency', NO_POSITIVE_INTEGERS],
      ['maxWaiting', [-1, 1.5, Number.NaN, -Infinity, '5', null]],
      ['priorities', [0, 33, 1.5, Number.NaN, Infinity, '5', null]],
      ['defaultPriority', [0, 6, 1.5, Number.NaN, '5', null]],
      ['waitTimeoutMs', NO_SPANS],
      ['runTimeoutMs', NO_SPANS],
      ['graceMs', NO_SPANS],
      ['overflow', ['drop', '', 0, null]],
      ['history', [-1, 1.5, Number.NaN, Infinity, '5', null]],
      ['generateId', NO_FUNCTIONS],
      ['clock', [null, 5, {}, { now: () => 0 }]],
    ])('names a bad `%s`', (name, values) => {
      for (const value of values) {
        const options = { concurrency: 1, [name]: value };
        expect(() => new AdmissionQueue(options as never)).toThrow(new RegExp(`\`${name}\``));
        const kind = typeof value === 'number' ? Error : TypeError;
        expect(() => new AdmissionQueue(options as never)).toThrow(kind);
      }
    });

    it('names an option that it does not know, and options that are none (H010)', () => {
      expect(() => new AdmissionQueue({ concurency: 1 } as never)).toThrow(
        /Unknown option "concurency" of AdmissionQueue/,
      );
      for (const options of [undefined, null, 5, 'x']) {
        expect(() => new AdmissionQueue(options as never)).toThrow(TypeError);
      }
    });

    it('starts empty, with the defaults of its documentation', () => {
      const queue = new AdmissionQueue({ concurrency: 2, maxWaiting: undefined });
      expect(queue.stats()).toEqual({
        concurrency: 2,
        active: 0,
        waiting: 0,
        waitingByPriority: [0, 0, 0, 0, 0],
        maxWaiting: 1000,
        paused: false,
        closed: false,
        accepted: 0,
        started: 0,
        completed: 0,
        failed: 0,
        cancelled: 0,
        timedOut: 0,
        shed: 0,
        refused: 0,
        overrun: 0,
        waitMs: { count: 0, mean: undefined, max: undefined },
        runMs: { count: 0, mean: undefined, max: undefined },
        throughputPerSecond: 0,
      });
    });

    it('shows the bound of its line', () => {
      for (const maxWaiting of [0, 7, Infinity]) {
        const queue = new AdmissionQueue({ concurrency: 1, maxWaiting });
        expect(queue.stats().maxWaiting).toBe(maxWaiting);
      }
    });
  });

  describe('the options of a call', () => {
    it.each([
      ['id', NO_TEXTS],
      ['key', NO_TEXTS],
      ['priority', [0, 6, 1.5, Number.NaN, Infinity, '1', null]],
      ['signal', [null, 0, '', false, {}, 'signal']],
      ['waitTimeoutMs', NO_SPANS],
      ['runTimeoutMs', NO_SPANS],
      ['enqueuedAt', [Number.NaN, Infinity, -Infinity, '5', null]],
      ['onTicket', NO_FUNCTIONS],
    ])('are rejected by name where `%s` is bad, and nothing changes', async (name, values) => {
      for (const { queue } of [{ queue: new AdmissionQueue({ concurrency: 1 }) }, busy()]) {
        const before = queue.stats();
        for (const value of values) {
          const options = { [name]: value } as EnqueueOptions;
          const ticket = queue.enqueue(() => 1, options);
          expect(ticket.status).toBe('refused');
          for (const answer of [queue.run(() => 1, options), ticket.result]) {
            const error: unknown = await answer.catch((reason: unknown) => reason);
            expect(error).toBeInstanceOf(Error);
            expect((error as Error).message).toContain(`\`${name}\``);
            const numeric = typeof value === 'number' && name !== 'signal';
            expect(['TypeError', numeric ? 'RangeError' : 'TypeError']).toContain(
              (error as Error).name,
            );
          }
        }
        expect({ ...queue.stats(), throughputPerSecond: 0 }).toEqual({
          ...before,
          throughputPerSecond: 0,
        });
      }
    });

    it('are rejected where they are none, or unknown, or the task is none', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      for (const options of [null, 5, 'x', { prority: 1 }]) {
        await expect(queue.run(() => 1, options as never)).rejects.toThrow(/`?options|Unknown/);
        await expect(queue.enqueue(() => 1, options as never).result).rejects.toThrow(TypeError);
      }
      for (const task of NO_FUNCTIONS) {
        await expect(queue.run(task as never)).rejects.toThrow(/`task`/);
        await expect(queue.enqueue(task as never).result).rejects.toThrow(/`task`/);
      }
      expect(queue.active).toBe(0);
    });

    it.each([undefined, {}, { priority: undefined }, { priority: 3 }, { key: 'k' }])(
      'are those of the queue where they name none: %o',
      async (options) => {
        const defaults = { defaultPriority: 2, waitTimeoutMs: 5, runTimeoutMs: 9 };
        const clock = new ManualClock();
        const queue = new AdmissionQueue({ concurrency: 1, clock, ...defaults });
        queue.pause();
        const ticket = queue.enqueue(never, options);
        expect(ticket.priority).toBe(options?.priority ?? 2);
        const late = codeAfter(ticket.result);
        await clock.advance(4);
        expect(ticket.status).toBe('waiting');
        await clock.advance(1);
        expect(await late).toBe('ERR_WAIT_TIMEOUT');
        queue.resume();
        const ran = codeAfter(queue.run(never, options));
        await clock.advance(8);
        expect(queue.stats().timedOut).toBe(1);
        await clock.advance(1);
        expect(await ran).toBe('ERR_RUN_TIMEOUT');
      },
    );

    it('are read once each (H011)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      for (const given of [{ priority: 2 }, { priority: 2, key: 'a' }]) {
        const reads: string[] = [];
        const spy = new Proxy(given, {
          get: (target, name): unknown => {
            reads.push(String(name));
            return Reflect.get(target, name);
          },
        });
        await queue.run(() => 1, spy);
        expect(reads).toEqual(Object.keys(given));
      }
    });
  });

  describe('the order of checks (H198)', () => {
    const gone = AbortSignal.abort('why');
    const cases: [string, EnqueueOptions, number, boolean, unknown][] = [
      ['bad arguments', { priority: 9 }, 0, true, 'RangeError'],
      ['closed', { signal: gone, id: 'busy' }, 0, true, 'ERR_CLOSED'],
      ['aborted', { signal: gone, id: 'busy' }, 0, false, 'why'],
      ['duplicate', { id: 'busy', waitTimeoutMs: 0 }, 1, false, 'ERR_DUPLICATE_ID'],
      ['full', { waitTimeoutMs: 0 }, 1, false, 'ERR_QUEUE_FULL'],
      ['no time', { waitTimeoutMs: 0 }, 0, false, 'ERR_WAIT_TIMEOUT'],
    ];
    it.each(cases)('%s', async (_, options, waiting, closed, expected) => {
      const { queue } = busy({ maxWaiting: 1 });
      for (let i = 0; i < waiting; i++) void codeAfter(queue.run(never));
      if (closed) queue.close();
      for (const answer of [queue.run(never, options), queue.enqueue(never, options).result]) {
        const error: unknown = await answer.catch((reason: unknown) => reason);
        expect(error instanceof RangeError ? error.name : codeOf(error)).toBe(expected);
      }
    });

    it('lets who needs not wait through, whatever it would wait', async () => {
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 0 });
      expect(await queue.run(() => 'ran', { waitTimeoutMs: 0 })).toBe('ran');
    });
  });

  describe('.enqueue()', () => {
    it('hands out the ticket of a task that runs, then of one that waits (H236)', async () => {
      const { clock, queue, finish } = busy();
      const metadata = { question: '?' };
      const ticket = queue.enqueue(() => 'done', { id: 'a', key: 'k', priority: 2, metadata });
      expect(ticket).toMatchObject({ id: 'a', key: 'k', priority: 2, status: 'waiting' });
      expect(ticket.metadata).toBe(metadata);
      expect([ticket.position, ticket.enqueuedAt]).toEqual([1, 0]);
      await clock.advance(40);
      expect(ticket.toJSON()).toEqual({
        id: 'a',
        key: 'k',
        priority: 2,
        metadata,
        enqueuedAt: 0,
        status: 'waiting',
        position: 1,
        waitedMs: 40,
      });
      finish();
      expect(await ticket.result).toBe('done');
      expect([ticket.status, ticket.position]).toEqual(['completed', -1]);
      expect(ticket.cancel()).toBe(false);
      expect(ticket.setPriority(1)).toBe(false);
    });

    it('never raises an unhandled rejection for a result that nobody reads (Q6, H068)', async () => {
      using uncaught = catchUncaught();
      const { clock, queue } = busy({ maxWaiting: 3, overflow: 'shed' });
      const { signal, abort } = controlled();
      queue.enqueue(never, { signal });
      queue.enqueue(never, { waitTimeoutMs: 5 });
      queue.enqueue(never, { priority: 5 });
      queue.enqueue(never, { priority: 1 });
      queue.enqueue(never, { priority: 5 });
      queue.enqueue(never, { id: 'busy' });
      queue.enqueue(never, { priority: 9 });
      abort(new Error('gone'));
      await clock.advance(5);
      queue.close({ waiting: 'reject' });
      await settle();
      expect(uncaught.rejections).toEqual([]);
      expect(uncaught.exceptions).toEqual([]);
    });

    it('takes a thousand into the line unless told otherwise (H168)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      queue.pause();
      const tickets = Array.from({ length: 1001 }, () => queue.enqueue(never));
      expect([queue.waiting, tickets[999]!.status]).toEqual([1000, 'waiting']);
      expect(await codeAfter(tickets[1000]!.result)).toBe('ERR_QUEUE_FULL');
    });

    it('refuses an id that is in use, and leaves who has it alone (H218)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const { promise, resolve } = Promise.withResolvers<void>();
      const running = codeAfter(queue.run(() => promise, { id: 'busy' }));
      const first = queue.enqueue(never, { id: 'a' });
      const end = codeAfter(first.result);
      for (const id of ['a', 'busy']) {
        const holder = queue.get(id)!;
        const before = [holder.status, holder.position];
        const second = queue.enqueue(never, { id });
        expect(await codeAfter(second.result)).toBe('ERR_DUPLICATE_ID');
        expect([second.status, second.position, second.cancel()]).toEqual(['refused', -1, false]);
        expect([holder.status, holder.position]).toEqual(before);
        expect([queue.get(id), queue.position(id)]).toEqual([holder, before[1]]);
      }
      // Who was answered still runs, and has its id.
      queue.cancel('busy', 'why');
      expect(await codeAfter(queue.run(never, { id: 'busy' }))).toBe('ERR_DUPLICATE_ID');
      first.cancel('why');
      expect(await end).toBe('why');
      expect(await running).toBe('why');
      resolve();
      await queue.idle();
      for (const id of ['a', 'busy']) expect(await queue.run(() => id, { id })).toBe(id);
    });

    it('changes nothing for who goes through the tickets (H286)', () => {
      const { queue } = busy();
      for (const id of ['a', 'b', 'c']) queue.enqueue(never, { id }).result.catch(() => undefined);
      const shown: string[] = [];
      for (const { id } of queue.tickets()) {
        shown.push(id);
        queue.enqueue(never, { priority: 1 }).result.catch(() => undefined);
        for (const ticket of queue.tickets()) if (ticket.status === 'waiting') ticket.cancel();
      }
      expect([shown, queue.waiting]).toEqual([['busy', 'a', 'b', 'c'], 0]);
    });

    it('gives each ticket that has no id one of its own (H220)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity });
      const ids = Array.from({ length: 2000 }, () => queue.enqueue(() => 1).id);
      expect(new Set(ids).size).toBe(2000);
      expect(ids.every((id) => queue.get(id)?.id === id)).toBe(true);
      // One that makes the same one again is found out.
      const careless = new AdmissionQueue({ concurrency: 1, generateId: () => 'same' });
      void careless.run(never);
      expect(await codeAfter(careless.run(never))).toBe('ERR_DUPLICATE_ID');
    });

    it('gives a ticket that is refused the id that was made for it', () => {
      let ids = 0;
      const generateId = (): string => `r${++ids}`;
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 0, generateId });
      const take = (options?: EnqueueOptions): string => {
        const { id, status } = queue.enqueue(never, options);
        return `${id} ${status}`;
      };
      expect([take(), take(), take({ signal: AbortSignal.abort() }), take({ id: 'a' })]).toEqual([
        'r1 active',
        'r2 refused',
        'r3 refused',
        'a refused',
      ]);
      queue.close();
      expect(take()).toBe('r4 refused');
      expect(ids).toBe(4);
    });

    it('settles a result that is read long after the end', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const ok = queue.enqueue(() => 'value');
      const failure = new Error('task');
      const failed = queue.enqueue(() => Promise.reject(failure));
      await queue.idle();
      await settle();
      expect(await ok.result).toBe('value');
      await expect(failed.result).rejects.toBe(failure);
    });
  });

  describe('.cancel()', () => {
    it('takes who waits out of the line with the reason, whatever that is (H063, H069)', async () => {
      const { queue } = busy();
      for (const reason of [new Error('why'), 'text', 0, false, null]) {
        const ticket = queue.enqueue(never);
        const answer = ticket.result.catch((error: unknown) => error);
        expect(ticket.cancel(reason)).toBe(true);
        expect(ticket.cancel(reason)).toBe(false);
        expect(await answer).toBe(reason);
        expect(ticket.status).toBe('cancelled');
      }
      const ticket = queue.enqueue(never, { id: 'plain' });
      const answer = ticket.result.catch((error: unknown) => error);
      expect(queue.cancel('plain')).toBe(true);
      expect(await answer).toMatchObject({
        name: 'AbortError',
        message: 'The ticket was cancelled.',
      });
      expect([queue.cancel('plain'), queue.cancel('nobody')]).toEqual([false, false]);
    });

    it('of everybody answers all in order, leaves nothing and takes the next (H222)', async () => {
      const { queue, finish, clock } = busy({ maxWaiting: 3 });
      const { signal } = controlled();
      const order: unknown[] = [];
      for (const priority of [5, 1, 5]) {
        const ticket = queue.enqueue(never, { priority, signal, waitTimeoutMs: 1000 });
        void codeAfter(ticket.result).then((code) => order.push(code));
      }
      [...queue.tickets()].slice(1).forEach((ticket, index) => ticket.cancel(`number ${index}`));
      await settle();
      expect(order).toEqual(['number 0', 'number 1', 'number 2']);
      expect([queue.active, queue.waiting, clock.timers]).toEqual([1, 0, 0]);
      expect(getEventListeners(signal, 'abort')).toEqual([]);
      const next = queue.run(() => 'next', { signal });
      finish();
      expect(await next).toBe('next');
    });

    it('aborts a running task, which keeps its place until it settles (H100, H221)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const { promise, resolve } = Promise.withResolvers<void>();
      let inner: AbortSignal | undefined;
      const ticket = queue.enqueue(({ signal }) => {
        inner = signal;
        return promise;
      });
      const answer = codeAfter(ticket.result);
      expect(ticket.cancel('stop')).toBe(true);
      expect([await answer, inner!.reason]).toEqual(['stop', 'stop']);
      expect([ticket.status, ticket.position, queue.active]).toEqual(['cancelled', 0, 1]);
      resolve();
      await settle();
      expect([ticket.status, ticket.position, queue.active]).toEqual(['cancelled', -1, 0]);
    });
  });

  describe('.setPriority()', () => {
    it('moves to the end of the new one, and nowhere within the same (H208)', () => {
      const { queue } = busy();
      for (const id of ['a', 'b']) queue.enqueue(never, { id, priority: 2 });
      for (const id of ['c', 'd']) queue.enqueue(never, { id, priority: 3 });
      const order = (): string => [...queue.tickets()].map(({ id }) => id).join(' ');
      expect(queue.setPriority('a', 2)).toBe(true);
      expect(order()).toBe('busy a b c d');
      expect(queue.setPriority('a', 3)).toBe(true);
      expect(order()).toBe('busy b c d a');
      expect(queue.setPriority('d', 1)).toBe(true);
      expect(order()).toBe('busy d b c a');
      expect([queue.setPriority('busy', 1), queue.setPriority('nobody', 1)]).toEqual([
        false,
        false,
      ]);
      for (const bad of [0, 6, 1.5, Number.NaN, '1', null]) {
        for (const id of ['a', 'nobody']) {
          expect(() => queue.setPriority(id, bad as never)).toThrow(/`priority`/);
        }
      }
      expect(order()).toBe('busy d b c a');
    });
  });

  describe('.resize()', () => {
    it.each(NO_POSITIVE_INTEGERS)(
      'throws for a bad concurrency, and changes nothing: %s',
      async (concurrency) => {
        const { queue } = busy();
        queue.enqueue(never);
        const log = record(queue, QUEUE_EVENTS);
        expect(() => queue.resize(concurrency as never)).toThrow(/`concurrency`/);
        await settle();
        expect([queue.concurrency, queue.active, queue.waiting, log]).toEqual([1, 1, 1, []]);
      },
    );
  });

  describe('restoring', () => {
    it('puts a record back into its old place', async () => {
      const { clock, queue } = busy();
      for (const id of ['a', 'b', 'c']) {
        queue.enqueue(never, { id });
        await clock.advance(10);
      }
      const { id, priority, enqueuedAt } = queue.get('b')!.toJSON();
      queue.cancel('b');
      queue.enqueue(never, { id, priority, enqueuedAt });
      expect(['a', 'b', 'c'].map((one) => queue.position(one))).toEqual([1, 2, 3]);
      expect(queue.get('b')!.enqueuedAt).toBe(10);
    });

    it('takes a time that is still to come for now', () => {
      const { queue } = busy();
      queue.enqueue(never, { id: 'future', enqueuedAt: 1e9 });
      queue.enqueue(never, { id: 'next' });
      expect([queue.position('future'), queue.position('next')]).toEqual([1, 2]);
    });

    it('puts one of now behind one whose time is still to come', async () => {
      const { clock, queue } = busy();
      await clock.advance(50);
      const future = queue.enqueue(never, { enqueuedAt: 1e9 });
      const next = queue.enqueue(never, { enqueuedAt: 50 });
      expect([future.enqueuedAt, future.toJSON().enqueuedAt]).toEqual([50, 50]);
      const last = queue.enqueue(never, { enqueuedAt: 51 });
      expect([future, next, last].map(({ position }) => position)).toEqual([1, 2, 3]);
      await clock.advance(5);
      expect(future.toJSON().waitedMs).toBe(5);
    });
  });

  describe("overflow: 'shed'", () => {
    it('sheds the newest of the least urgent below the newcomer (H224, H225)', async () => {
      const { clock, queue } = busy({ maxWaiting: 3, overflow: 'shed' });
      const tickets = [3, 5, 5].map((priority, i) =>
        queue.enqueue(never, { id: `${i}`, priority }),
      );
      const victim = tickets[2]!.result.catch((error: unknown) => error);
      await clock.advance(7);
      queue.enqueue(never, { id: 'urgent', priority: 4 });
      expect(await victim).toBeInstanceOf(ShedError);
      expect(await victim).toMatchObject({ code: 'ERR_SHED', waitedMs: 7, retryAfterMs: 1000 });
      expect(tickets.map(({ status }) => status)).toEqual(['waiting', 'waiting', 'shed']);
      expect(await codeAfter(queue.run(never, { priority: 5 }))).toBe('ERR_QUEUE_FULL');
    });

    it('is idle at no time between the one that goes and the one that comes', async () => {
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 1, overflow: 'shed' });
      queue.pause();
      queue.enqueue(never, { priority: 5 });
      const log = record(queue, QUEUE_EVENTS);
      let idle = false;
      void queue.idle().then(() => {
        idle = true;
      });
      queue.enqueue(never, { priority: 1 });
      await settle();
      expect(idle).toBe(false);
      expect(names(log)).toBe('shed queued');
    });
  });

  describe('errors', () => {
    it('say what was wrong, in data', async () => {
      const { clock, queue } = busy({ maxWaiting: 1 });
      const errorOf = (promise: Promise<unknown>): Promise<unknown> =>
        promise.catch((error: unknown) => error);
      const late = errorOf(queue.run(never, { waitTimeoutMs: 5 }));
      const full = await errorOf(queue.run(never));
      const twice = await errorOf(queue.run(never, { id: 'busy' }));
      await clock.advance(5);
      queue.close();
      expect(full).toBeInstanceOf(QueueFullError);
      expect(full).toMatchObject({ waiting: 1, maxWaiting: 1, retryAfterMs: 1000 });
      expect(twice).toBeInstanceOf(DuplicateIdError);
      expect(twice).toMatchObject({ id: 'busy' });
      expect(await late).toBeInstanceOf(WaitTimeoutError);
      expect(await late).toMatchObject({ waitedMs: 5 });
      expect(await errorOf(queue.run(never))).toBeInstanceOf(ClosedError);
    });
  });

  describe('runTimeoutMs and graceMs', () => {
    it('answer the caller, then give up on the task: `overrun`', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 1, runTimeoutMs: 50, graceMs: 20, clock });
      const log = record(queue, QUEUE_EVENTS);
      const ticket = queue.enqueue(never, { id: 'slow' });
      const answer = ticket.result.catch((error: unknown) => error);
      await clock.advance(50);
      expect(await answer).toBeInstanceOf(RunTimeoutError);
      expect([ticket.status, ticket.position, queue.active]).toEqual(['timedOut', 0, 1]);
      await clock.advance(20);
      expect([ticket.position, queue.active, clock.timers]).toEqual([-1, 0, 0]);
      const common = { id: 'slow', key: undefined, priority: 5, waitedMs: 0 };
      expect(log).toEqual([
        ['started', { ...common, active: 1, waiting: 0 }],
        ['saturated', { active: 1, waiting: 0 }],
        ['timedOut', { ...common, ranMs: 50, active: 1, waiting: 0 }],
        ['overrun', { ...common, ranMs: 70, active: 0, waiting: 0 }],
        ['idle', { active: 0, waiting: 0 }],
      ]);
    });
  });

  describe('.close(), .drain(), .pause()', () => {
    it('serve who waits, or reject them in order (H230)', async () => {
      const { queue, finish } = busy();
      const served = queue.run(() => 'served');
      const drained = queue.drain();
      expect(await codeAfter(queue.run(never))).toBe('ERR_CLOSED');
      finish();
      expect(await served).toBe('served');
      await drained;
      const other = busy();
      const order: number[] = [];
      const waits = [0, 1, 2].map((i) =>
        other.queue.run(never).catch((error: unknown) => [order.push(i), error]),
      );
      other.queue.close({ waiting: 'reject' });
      await Promise.all(waits);
      expect([order, other.queue.waiting]).toEqual([[0, 1, 2], 0]);
      for (const bad of [null, 'reject', { waiting: 'drop' }, { waiting: null }]) {
        expect(() => other.queue.close(bad as never)).toThrow(TypeError);
      }
    });

    it.each<[string, (play: ReturnType<typeof busy>, abort: () => void) => unknown]>([
      ['cancelled', ({ queue }) => queue.cancel('last')],
      ['aborted', (_, abort) => abort()],
      ['out of time', ({ clock }) => clock.advance(5)],
      ['rejected by a close', ({ queue }) => queue.close({ waiting: 'reject' })],
    ])('resolve once nothing runs, and the last who waited is %s (H227)', async (_, leaves) => {
      const play = busy();
      const { queue, finish } = play;
      const { signal, abort } = controlled();
      void codeAfter(queue.run(never, { id: 'last', signal, waitTimeoutMs: 5 }));
      queue.pause();
      let idle = 0;
      for (let i = 0; i < 2; i++) void queue.idle().then(() => idle++);
      finish();
      await settle();
      expect([idle, queue.active, queue.waiting]).toEqual([0, 0, 1]);
      await leaves(play, () => abort('gone'));
      await settle();
      expect([idle, queue.waiting]).toEqual([2, 0]);
      await queue.idle();
    });

    it('hold everybody back until `resume` (H216)', async () => {
      const queue = new AdmissionQueue({ concurrency: 2 });
      queue.pause();
      const task = vi.fn<() => void>();
      const answers = [queue.run(task), queue.run(task)];
      await settle();
      expect([task.mock.calls.length, queue.waiting]).toEqual([0, 2]);
      expect(queue.estimateWaitMs()).toBeUndefined();
      queue.resume();
      await Promise.all(answers);
      expect(task).toHaveBeenCalledTimes(2);
    });
  });

  describe('events', () => {
    it('come after the state and the answer, before who awaits it, and `idle` last (H228, H229)', async () => {
      const paths: Record<string, (play: ReturnType<typeof busy>, ticket: Ticket) => unknown> = {
        completed: ({ queue, finish }) => (queue.resume(), finish()),
        failed: ({ queue, finish }) => (queue.resume(), finish()),
        cancelled: (_, ticket) => ticket.cancel('why'),
        timedOut: ({ clock }) => clock.advance(5),
      };
      for (const [path, happens] of Object.entries(paths)) {
        const play = busy();
        const { queue, finish } = play;
        const task = (): unknown => (path === 'failed' ? Promise.reject('why') : path);
        const ticket = queue.enqueue(task, { waitTimeoutMs: 5 });
        if (path === 'cancelled' || path === 'timedOut') {
          queue.pause();
          finish();
          await settle();
        }
        const { result } = ticket;
        const log: unknown[] = [];
        void codeAfter(result).then(() => log.push('awaited'));
        for (const name of ['completed', 'failed', 'cancelled', 'timedOut', 'idle'] as const) {
          queue.on(name, ({ active, waiting }) => {
            const settled = !inspect(result).includes('pending');
            log.push([name, ticket.status, settled, active, waiting, queue.active, queue.waiting]);
          });
        }
        await happens(play, ticket);
        await settle();
        const seen = log.slice(log.findIndex((entry) => Array.isArray(entry) && entry[1] === path));
        expect(seen).toEqual([
          [path, path, true, 0, 0, 0, 0],
          ['idle', path, true, 0, 0, 0, 0],
          'awaited',
        ]);
      }
    });

    it('find no more active than there are places, whatever is done when they are heard (H206)', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 3, maxWaiting: 20, overflow: 'shed', clock });
      const wrong: unknown[] = [];
      let inside = 0;
      let looks = 0;
      let calls = 0;
      const look = (where: string, active: number): void => {
        looks++;
        if (active > 3 || queue.active > 3 || inside > queue.active || inside > 3) {
          wrong.push([where, active, queue.active, inside]);
        }
      };
      const call = (): void => {
        const n = calls++;
        const { signal, abort } = controlled();
        const task = async (): Promise<void> => {
          inside++;
          look('first line', queue.active);
          await new Promise<void>((resolve) => clock.setTimeout(resolve, n % 4));
          look('last line', queue.active);
          inside--;
          if (n % 3 === 0) throw new Error('task');
        };
        const options = { signal, priority: 1 + (n % 5), waitTimeoutMs: 5 + (n % 9) };
        void codeAfter(queue.run(task, { ...options, runTimeoutMs: 1 + (n % 5) }));
        if (n % 7 === 0) clock.setTimeout(() => abort('gone'), n % 5);
      };
      for (const name of QUEUE_EVENTS) {
        queue.on(name, ({ active }) => {
          look(name, active);
          if (calls < 800 && name !== 'refused' && name !== 'shed') call();
          if (calls % 11 === 0) [...queue.tickets()].at(-1)?.cancel('listener');
        });
      }
      for (let i = 0; i < 8; i++) call();
      while (queue.active + queue.waiting > 0) await clock.advance(1);
      expect(wrong).toEqual([]);
      expect([calls >= 800, looks > 1000, inside]).toEqual([true, true, 0]);
    });

    it('`idle` and `saturated` are edges', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 1, clock });
      const log = record(queue, QUEUE_EVENTS);
      queue.resize(2);
      queue.resize(1);
      queue.pause();
      queue.resume();
      expect(names(log.splice(0))).toBe('resized resized paused resumed');
      await Promise.all([1, 2, 3].map(() => queue.run(() => undefined)));
      expect(names(log.splice(0))).toBe(
        'started saturated queued queued completed started completed started completed idle',
      );
      queue.pause();
      void codeAfter(queue.run(never, { waitTimeoutMs: 5 }));
      await clock.advance(5);
      expect(names(log)).toBe('paused queued timedOut idle');
    });
  });

  describe('.estimateWaitMs()', () => {
    it('is unknown before five have been served, and never negative or no number (H226)', async () => {
      for (const takesMs of [0, 0.25, 7, 1e9]) {
        const clock = new ManualClock();
        const queue = new AdmissionQueue({ concurrency: 2, maxWaiting: Infinity, clock });
        const task = (): Promise<void> =>
          new Promise((resolve) => clock.setTimeout(resolve, takesMs));
        for (let i = 0; i < 400; i++) void queue.run(task, { priority: 1 + (i % 5) });
        expect(queue.estimateWaitMs(1)).toBeUndefined();
        for (let served = 0; served < 400; served = queue.stats().completed) {
          const told = [-1, 0, 1, 2, 100, 1e6].map((position) => queue.estimateWaitMs(position));
          for (const { estimatedWaitMs } of queue.tickets()) told.push(estimatedWaitMs);
          const bad = told.filter((ms) => ms !== undefined && !(ms >= 0 && ms < Infinity));
          expect([takesMs, served, bad]).toEqual([takesMs, served, []]);
          expect(told.slice(0, 2)).toEqual([0, 0]);
          const isUnknown = queue.waiting > 0 && served < 5;
          expect(told[2] === undefined).toBe(isUnknown);
          await clock.advance(takesMs);
        }
      }
    });
  });

  describe('history', () => {
    it('remembers so many finished ids, and forgets one that is in use again', async () => {
      const queue = new AdmissionQueue({ concurrency: 1, history: 2 });
      for (const id of ['a', 'b', 'c']) await queue.run(() => 1, { id });
      expect(['a', 'b', 'c', 'd'].map((id) => queue.position(id))).toEqual([-2, -1, -1, -2]);
      queue.enqueue(never, { id: 'c' });
      expect(queue.position('c')).toBe(0);
    });

    it('remembers a thousand of them unless told otherwise', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      for (let i = 0; i <= 1000; i++) await queue.run(() => i, { id: `${i}` });
      expect(['0', '1', '1000'].map((id) => queue.position(id))).toEqual([-2, -1, -1]);
    });

    it.each(['__proto__', 'constructor', '', '0', '-0', '\u0000', '\uD800'])(
      'takes any id for a plain one: %j (H150, H219)',
      async (id) => {
        const queue = new AdmissionQueue({ concurrency: 1 });
        expect(queue.position(id)).toBe(-2);
        expect(queue.get(id)).toBeUndefined();
        const ticket = queue.enqueue(() => 1, { id });
        expect(queue.get(id)).toBe(ticket);
        await ticket.result;
        expect(queue.position(id)).toBe(-1);
      },
    );
  });

  it('calls tasks in the async context of their callers (H110)', async () => {
    const storage = new AsyncLocalStorage<string>();
    const { queue, finish } = busy();
    const read = (): string | undefined => storage.getStore();
    const answers = ['a', 'b'].flatMap((name) =>
      storage.run(name, () => [queue.run(read), queue.enqueue(read).result]),
    );
    storage.run('finisher', finish);
    expect(await Promise.all(answers)).toEqual(['a', 'a', 'b', 'b']);
  });

  it.each(['run', 'enqueue'] as const)(
    'calls a task in the async context of its caller, not of the one before it: %s',
    async (method) => {
      const storage = new AsyncLocalStorage<string>();
      const { queue, finish } = busy();
      const read = (): string | undefined => storage.getStore();
      const callers = ['a', 'b', 'a', 'c'];
      const answers = callers.map((name) =>
        storage.run(name, () => {
          const call = queue[method](read);
          return 'result' in call ? call.result : call;
        }),
      );
      storage.run('finisher', finish);
      expect(await Promise.all(answers)).toEqual(callers);
    },
  );

  it('hands the ticket over before the task starts, and survives a handler that throws', async () => {
    using uncaught = catchUncaught();
    const queue = new AdmissionQueue({ concurrency: 1 });
    const log: string[] = [];
    const failure = new Error('onTicket');
    await queue.run(() => log.push('task'), {
      onTicket: (ticket: Ticket) => {
        log.push(`ticket at ${ticket.position}`);
        throw failure;
      },
    });
    await settle();
    expect(log).toEqual(['ticket at 0', 'task']);
    expect(uncaught.exceptions).toEqual([failure]);
  });

  it('does not start a task whose abort another listener has kept from it (H057)', async () => {
    const { signal, abort } = controlled();
    signal.addEventListener('abort', (event) => event.stopImmediatePropagation());
    const queue = new AdmissionQueue({ concurrency: 1 });
    const first = Promise.withResolvers<void>();
    void queue.run(() => first.promise);
    const task = vi.fn<() => void>();
    const answer = queue.run(task, { signal });
    abort(new Error('why'));
    first.resolve();
    await expect(answer).rejects.toThrow('why');
    expect(task).not.toHaveBeenCalled();
    expect([queue.active, queue.waiting]).toEqual([0, 0]);
  });

  it('leaves no listener on a signal that cannot be listened to, and no place (H057)', async () => {
    const failure = new Error('no listeners');
    const hostile = {
      aborted: false,
      addEventListener: () => {
        throw failure;
      },
      removeEventListener: () => undefined,
    } as never;
    for (const { queue } of [{ queue: new AdmissionQueue({ concurrency: 1 }) }, busy()]) {
      const { active } = queue;
      await expect(queue.run(never, { signal: hostile })).rejects.toBe(failure);
      expect([queue.active, queue.waiting]).toEqual([active, 0]);
    }
    const { queue } = busy();
    const { signal, abort } = controlled();
    const answers = [1, 2, 3].map(() => codeAfter(queue.run(never, { signal })));
    expect(getEventListeners(signal, 'abort').length).toBe(1);
    abort('all');
    expect(await Promise.all(answers)).toEqual(['all', 'all', 'all']);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});
