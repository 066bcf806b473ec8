import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { ClosedError } from 'sluice';
import {
  AdmissionQueue,
  type AdmissionQueueOptions,
  type QueueContext,
  type Ticket,
} from 'sluice/admission-queue';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

function setUp(options?: Partial<AdmissionQueueOptions>): {
  clock: ManualClock;
  queue: AdmissionQueue;
} {
  const clock = new ManualClock();
  return { clock, queue: new AdmissionQueue({ concurrency: 1, clock, ...options }) };
}

const never = (): Promise<never> => new Promise(() => {});
const failure = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error) => error);

describe('AdmissionQueue', () => {
  it('names what is wrong with a number or a text', async () => {
    const { queue } = setUp();
    const ticket = queue.enqueue(never, { id: 'a' });
    expect(queue.concurrency).toBe(1);
    expect(() => queue.resize(0)).toThrow(
      new RangeError('Expected `concurrency` to be a positive integer, got 0.'),
    );
    expect(() => queue.estimateWaitMs(-3)).toThrow(/`position` .* from -2 to \d+, got -3/);
    expect(() => queue.setPriority('a', 6)).toThrow(/`priority` .* from 1 to 5, got 6/);
    expect(() => ticket.setPriority(0)).toThrow(/`priority` .* got 0/);
    for (const options of [{ priority: 0 }, { priority: 0, id: 'b' }]) {
      await expect(queue.run(never, options)).rejects.toThrow(/`priority` .* got 0/);
    }
    const { queue: nameless } = setUp({ generateId: () => 5 as never });
    await expect(nameless.run(never)).rejects.toThrow(/`generateId\(\)` .* got 5/);
  });

  it('tells tickets how long a wait is, once it knows', async () => {
    const { clock, queue } = setUp({ concurrency: 2 });
    const task = (): Promise<void> => new Promise((resolve) => clock.setTimeout(resolve, 10));
    for (let i = 0; i < 5; i++) void queue.run(task);
    await clock.advance(100);
    expect(queue.estimateWaitMs()).toBe(0);
    const tickets = [1, 2, 3, 4, 5].map(() => queue.enqueue(task));
    expect(tickets.map(({ estimatedWaitMs }) => estimatedWaitMs)).toEqual([0, 0, 5, 10, 15]);
    expect(queue.estimateWaitMs()).toBe(20);
    expect([-2, -1, 0, 1].map((position) => queue.estimateWaitMs(position))).toEqual([0, 0, 0, 5]);
    queue.resize(4);
    expect(queue.estimateWaitMs(1)).toBe(2.5);
    queue.pause();
    expect([0, 1].map((position) => queue.estimateWaitMs(position))).toEqual([0, undefined]);
    await clock.advance(10);
    queue.resume();
    expect([2, 3, 4].map((position) => queue.estimateWaitMs(position))).toEqual([0, 0, 10]);
  });

  it('tells who is refused how long its own wait would have been, as urgent as it is', async () => {
    const { clock, queue } = setUp({ maxWaiting: 3 });
    for (let i = 0; i < 5; i++) {
      void queue.run(() => new Promise<void>((resolve) => clock.setTimeout(resolve, 10)));
      await clock.advance(10);
    }
    for (const priority of [5, 4, 4, 2]) void queue.run(never, { priority });
    const told = [1, 2, 3, 4, 5].map(async (priority) => failure(queue.run(never, { priority })));
    expect(await Promise.all(told)).toMatchObject(
      [10, 20, 20, 40, 40].map((estimatedWaitMs) => ({ code: 'ERR_QUEUE_FULL', estimatedWaitMs })),
    );
    expect(queue.estimateWaitMs()).toBe(40);
  });

  it('does not say when a place comes free while it is paused', async () => {
    const { clock, queue } = setUp({ maxWaiting: 1, overflow: 'shed' });
    for (let i = 0; i < 5; i++) {
      void queue.run(() => new Promise<void>((resolve) => clock.setTimeout(resolve, 10)));
      await clock.advance(10);
    }
    queue.pause();
    const shed = failure(queue.run(never));
    void queue.run(never, { priority: 1 });
    const full = failure(queue.run(never));
    expect([await shed, await full]).toMatchObject([
      { code: 'ERR_SHED', retryAfterMs: 1000 },
      { code: 'ERR_QUEUE_FULL', estimatedWaitMs: undefined, retryAfterMs: 1000 },
    ]);
    queue.resume();
    void queue.run(never);
    expect(await failure(queue.run(never))).toMatchObject({ retryAfterMs: 10 });
  });

  it('leaves those who are more urgent and still to come their share of the places', async () => {
    const { clock, queue } = setUp({ priorities: 2, maxWaiting: 300 });
    const task = (): Promise<void> => new Promise((resolve) => clock.setTimeout(resolve, 10));
    // One in 20 ms, half of what can be served.
    for (let i = 0; i < 256; i++) {
      void queue.run(task, { priority: 1 });
      await clock.advance(20);
    }
    void queue.run(never);
    const waits = queue.enqueue(task, { priority: 2 });
    expect([waits.position, waits.estimatedWaitMs]).toEqual([1, expect.closeTo(20, 0)]);
  });

  it('takes those who are enqueued again for none of those to come', async () => {
    const { clock, queue } = setUp({ concurrency: 5 });
    await clock.advance(3_600_000);
    const task = (): Promise<void> => new Promise((resolve) => clock.setTimeout(resolve, 1000));
    // 300 that came within the hour before a restart, one every 12 s.
    const tickets = Array.from({ length: 300 }, (_, i) =>
      queue.enqueue(task, { priority: 1 + (i % 5), enqueuedAt: 12_000 * i }),
    );
    await clock.advance(1000);
    const last = tickets.at(-1)!;
    expect([last.position, last.estimatedWaitMs]).toEqual([290, 58_000]);
    await clock.advance(58_000);
    expect(last.position).toBe(0);
  });

  it('comes back after the mean time of a place, at least 1 ms', async () => {
    for (const [ms, retryAfterMs] of [
      [20, 20],
      [0, 1],
    ] as const) {
      const { clock, queue } = setUp({ maxWaiting: 0 });
      const first = await failure(Promise.all([queue.run(never), queue.run(never)]));
      expect(first).toMatchObject({ code: 'ERR_QUEUE_FULL', retryAfterMs: 1000 });
      const { queue: other } = setUp({ maxWaiting: 0, clock });
      for (let i = 0; i < 5; i++) {
        void other.run(() => new Promise<void>((resolve) => clock.setTimeout(resolve, ms)));
        await clock.advance(ms);
      }
      void other.run(never);
      expect(await failure(other.run(never))).toMatchObject({ retryAfterMs });
    }
  });

  it('tells whoever is answered how long that took', async () => {
    const { clock, queue } = setUp({ maxWaiting: 1, overflow: 'shed' });
    await clock.advance(100);
    const running = failure(queue.run(never, { runTimeoutMs: 30 }));
    await clock.advance(10);
    const shed = failure(queue.run(never, { priority: 5 }));
    await clock.advance(5);
    const late = failure(queue.run(never, { priority: 1, waitTimeoutMs: 7 }));
    expect(await shed).toMatchObject({ code: 'ERR_SHED', waitedMs: 5 });
    await clock.advance(50);
    expect(await late).toMatchObject({ code: 'ERR_WAIT_TIMEOUT', waitedMs: 7 });
    expect(await running).toMatchObject({ code: 'ERR_RUN_TIMEOUT', ranMs: 30 });
    const cancelled: object[] = [];
    queue.on('cancelled', (event) => cancelled.push(event));
    const other = new AdmissionQueue({ concurrency: 1, clock });
    other.on('cancelled', (event) => cancelled.push(event));
    const ticket = other.enqueue(never, { id: 'x' });
    await clock.advance(3);
    ticket.cancel();
    expect(cancelled).toMatchObject([{ id: 'x', waitedMs: 0, ranMs: 3 }]);
  });

  it('sheds nobody where it is to reject', async () => {
    const { queue } = setUp({ maxWaiting: 1 });
    void queue.run(never);
    const ticket = queue.enqueue(never, { priority: 5 });
    expect(await failure(queue.run(never, { priority: 1 }))).toMatchObject({
      code: 'ERR_QUEUE_FULL',
    });
    expect(ticket.status).toBe('waiting');
    const shedding = setUp({ maxWaiting: 2, overflow: 'shed' }).queue;
    void shedding.run(never);
    const spared = shedding.enqueue(never, { priority: 5 });
    shedding.enqueue(never, { priority: 1 });
    expect(spared.status).toBe('waiting');
  });

  it('counts who was refused, started and outlived its grace', async () => {
    const { clock, queue } = setUp({ graceMs: 1 });
    const events: object[] = [];
    queue.on('refused', (event) => events.push(event));
    await failure(queue.run(never, { signal: AbortSignal.abort() }));
    void failure(queue.run(never, { runTimeoutMs: 1 }));
    await clock.advance(5);
    expect(events).toEqual([
      { key: undefined, priority: 5, code: undefined, active: 0, waiting: 0 },
    ]);
    expect(queue.stats()).toMatchObject({
      refused: 1,
      accepted: 1,
      started: 1,
      timedOut: 1,
      overrun: 1,
    });
  });

  it('subscribes to no signal that is aborted, nor to that of a call that it refuses', async () => {
    const { queue } = setUp({ maxWaiting: 0 });
    void failure(queue.run(never));
    const controller = new AbortController();
    const { signal } = controller;
    const listen = vi.spyOn(signal, 'addEventListener');
    expect(await failure(queue.run(never, { signal }))).toMatchObject({ code: 'ERR_QUEUE_FULL' });
    expect(getEventListeners(signal, 'abort').length).toBe(0);
    controller.abort('why');
    expect(await failure(queue.run(never, { signal }))).toBe('why');
    expect(listen).not.toHaveBeenCalled();
  });

  it('refuses one whose signal aborts while it is being subscribed to, and leaves it', async () => {
    const { queue } = setUp();
    const quitter = new AbortController();
    const { signal } = quitter;
    const reason = new Error('gone');
    let left = 0;
    Object.defineProperties(signal, {
      addEventListener: { value: () => quitter.abort(reason) },
      removeEventListener: { value: () => left++ },
    });
    const call = failure(queue.run(never, { signal, id: 'a' }));
    expect(left).toBe(1);
    expect(await call).toBe(reason);
    expect(queue.stats()).toMatchObject({ refused: 1, accepted: 0, active: 0 });
    expect(queue.position('a')).toBe(-2);
  });

  it('lets go at once of one that is cancelled between its turn and its task', async () => {
    const { clock, queue } = setUp({ graceMs: 50 });
    let end!: () => void;
    const first = queue.run(() => new Promise<void>((resolve) => (end = resolve)));
    const called: string[] = [];
    const ticket = queue.enqueue(() => void called.push('b'), { id: 'b', runTimeoutMs: 9 });
    const last = queue.run(() => void called.push('c'));
    const events: string[] = [];
    for (const name of ['started', 'cancelled', 'completed', 'idle'] as const) {
      queue.on(name, () => events.push(name));
    }
    queue.once('started', ({ id }) => queue.cancel(id));
    end();
    await Promise.all([first, last]);
    expect(called).toEqual(['c']);
    expect(ticket.status).toBe('cancelled');
    expect(events).toEqual(['completed', 'started', 'cancelled', 'started', 'completed', 'idle']);
    expect([queue.active, clock.timers]).toEqual([0, 0]);
  });

  it.each(['run', 'enqueue'] as const)(
    'is idle when the last one is cancelled between its turn and its task: %s',
    async (method) => {
      const { queue } = setUp();
      let end!: () => void;
      const first = queue.run(() => new Promise<void>((resolve) => (end = resolve)));
      let called = false;
      const call = queue[method](() => void (called = true), { id: 'b' });
      const answer = failure('result' in call ? call.result : call);
      const events: string[] = [];
      queue.on('idle', () => events.push('idle'));
      queue.once('started', ({ id }) => queue.cancel(id));
      end();
      await first;
      expect(await answer).toMatchObject({ name: 'AbortError' });
      expect([called, events, queue.active]).toEqual([false, ['idle'], 0]);
      await queue.idle();
    },
  );

  it('leaves no listener and no timer behind a task that has settled', async () => {
    const { clock, queue } = setUp();
    const { signal } = new AbortController();
    await queue.run(async () => 1, { signal, runTimeoutMs: 50, waitTimeoutMs: 50 });
    expect([getEventListeners(signal, 'abort').length, clock.timers]).toEqual([0, 0]);
  });

  it('counts and tells each end as what it was', async () => {
    const { clock, queue } = setUp();
    const failed: string[] = [];
    queue.on('failed', ({ id }) => failed.push(id));
    await queue.run(async () => 1, { id: 'good' });
    await failure(queue.run(() => Promise.reject(new Error('broken')), { id: 'bad' }));
    expect(failed).toEqual(['bad']);
    void failure(queue.run(never));
    void failure(queue.run(never, { id: 'a' }));
    void failure(queue.run(never, { waitTimeoutMs: 1 }));
    queue.cancel('a');
    await clock.advance(1);
    expect(queue.stats()).toMatchObject({ completed: 1, failed: 1, cancelled: 1, timedOut: 1 });
  });

  it('counts and tells no second end of a task that settles when all is said', async () => {
    const { clock, queue } = setUp({ graceMs: 5 });
    const events: string[] = [];
    queue.on('completed', () => events.push('completed'));
    const ends: (() => void)[] = [];
    const task = (): Promise<void> => new Promise((resolve) => ends.push(resolve));
    const overrun = queue.enqueue(task, { runTimeoutMs: 5 });
    await clock.advance(10);
    expect(queue.active).toBe(0);
    const cancelled = queue.enqueue(task);
    cancelled.cancel();
    for (const end of ends) end();
    await settle();
    expect([overrun.status, cancelled.status, events]).toEqual(['timedOut', 'cancelled', []]);
    expect(queue.stats()).toMatchObject({
      completed: 0,
      cancelled: 1,
      timedOut: 1,
      overrun: 1,
      active: 0,
      runMs: { count: 2, mean: 5, max: 10 },
    });
  });

  it('moves nobody twice, and tells whom a resumption has started', async () => {
    const { queue } = setUp();
    queue.pause();
    for (const id of ['a', 'b']) queue.enqueue(never, { id });
    queue.setPriority('b', 1);
    expect([queue.waiting, queue.position('b'), queue.position('a')]).toEqual([2, 1, 2]);
    const told: [string, number][] = [];
    await settle();
    queue.on('position', ({ id, position }) => told.push([id, position]));
    queue.setPriority('a', 2);
    await settle();
    told.length = 0;
    queue.resume();
    await settle();
    expect(told).toEqual([
      ['b', 0],
      ['a', 1],
    ]);
  });

  it('answers a result that is read before, between and after', async () => {
    const { clock, queue } = setUp();
    const tickets = ['early', 'late'].map((id) =>
      queue.enqueue(() => Promise.resolve(`${id} value`), { id }),
    );
    const early = tickets[0]!.result;
    expect(tickets[0]!.result).toBe(early);
    await clock.advance(1);
    expect(await early).toBe('early value');
    expect(await tickets[1]!.result).toBe('late value');
    expect(await tickets[1]!.result).toBe('late value');
    const failed = queue.enqueue(() => Promise.reject('no'));
    await clock.advance(1);
    expect(await failure(failed.result)).toBe('no');
    queue.close();
    const refused = queue.enqueue(never);
    expect(refused.status).toBe('refused');
    expect(await failure(refused.result)).toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('writes down where a ticket stands, and how long it has waited', async () => {
    const { clock, queue } = setUp();
    await clock.advance(100);
    void queue.run(never);
    const ticket = queue.enqueue(never, { id: 'a', priority: 3 });
    await clock.advance(7);
    expect(ticket.toJSON()).toMatchObject({
      id: 'a',
      priority: 3,
      enqueuedAt: 100,
      status: 'waiting',
      position: 1,
      waitedMs: 7,
    });
  });

  it('writes down each of those in line by its place, and how those that have ended did', async () => {
    const { clock, queue } = setUp({ maxWaiting: 3 });
    await clock.advance(100);
    const running = queue.enqueue(never);
    const tickets = ['a', 'b', 'c'].map((id) => queue.enqueue(never, { id }));
    await clock.advance(7);
    queue.setPriority('c', 1);
    await clock.advance(2);
    expect(tickets.map((ticket) => ticket.toJSON())).toMatchObject([
      { id: 'a', priority: 5, enqueuedAt: 100, position: 2, waitedMs: 9 },
      { id: 'b', priority: 5, enqueuedAt: 100, position: 3, waitedMs: 9 },
      // It took its present place 7 ms later, and has waited from the start.
      { id: 'c', priority: 1, enqueuedAt: 107, position: 1, waitedMs: 9 },
    ]);
    expect(queue.enqueue(never).toJSON()).toMatchObject({ status: 'refused', position: -1 });
    tickets[0]!.cancel();
    running.cancel();
    await clock.advance(5);
    expect([tickets[0]!, running].map((ticket) => ticket.toJSON())).toMatchObject([
      { status: 'cancelled', position: -1, waitedMs: 9 },
      { status: 'cancelled', position: 0, waitedMs: 0 },
    ]);
  });

  it('gives the place of one that has moved by when it moved', async () => {
    const { clock, queue } = setUp();
    await clock.advance(100);
    void queue.run(never);
    queue.enqueue(never, { id: 'a', priority: 2 });
    queue.enqueue(never, { id: 'b', priority: 1 });
    await clock.advance(10);
    queue.setPriority('a', 1);
    queue.enqueue(never, { id: 'c', priority: 1, enqueuedAt: 105 });
    expect(['b', 'c', 'a'].map((id) => queue.position(id))).toEqual([1, 2, 3]);
    expect(queue.get('a')!.enqueuedAt).toBe(100);
  });

  it('puts those of one instant back in the order in which they come', async () => {
    const { clock, queue } = setUp();
    await clock.advance(100);
    void failure(queue.run(never));
    for (const id of ['a', 'b', 'c']) queue.enqueue(never, { id, enqueuedAt: 50 });
    expect(['a', 'b', 'c'].map((id) => queue.position(id))).toEqual([1, 2, 3]);
  });

  it('remembers those whose ids are known, and nobody else in their place', async () => {
    const { queue } = setUp({ history: 1 });
    await queue.run(async () => 1, { id: 'a' });
    await queue.run(async () => 1);
    expect(queue.position('a')).toBe(-1);
  });

  it('is idle when the last one leaves a paused line by its signal', async () => {
    const { queue } = setUp();
    queue.pause();
    const quitter = new AbortController();
    void failure(queue.run(never, { signal: quitter.signal }));
    const events: string[] = [];
    for (const name of ['cancelled', 'idle'] as const) queue.on(name, () => events.push(name));
    const idle = queue.idle();
    quitter.abort();
    await idle;
    expect(events).toEqual(['cancelled', 'idle']);
  });

  it('tells of every change of place: joining, starting, leaving, moving', async () => {
    const { queue } = setUp();
    const told: [string, number][] = [];
    queue.on('position', ({ id, position }) => told.push([id, position]));
    const after = async (act: () => unknown): Promise<[string, number][]> => {
      act();
      await settle();
      return told.splice(0);
    };
    let end!: () => void;
    const task = (): Promise<void> => new Promise((resolve) => (end = resolve));
    await after(() => queue.enqueue(task, { id: 'a' }));
    expect(await after(() => queue.enqueue(task, { id: 'b' }))).toEqual([['b', 1]]);
    expect(await after(() => queue.enqueue(task, { id: 'c' }))).toEqual([['c', 2]]);
    expect(await after(() => queue.setPriority('c', 1))).toEqual([
      ['c', 1],
      ['b', 2],
    ]);
    expect(await after(() => queue.cancel('c'))).toEqual([
      ['c', -1],
      ['b', 1],
    ]);
    expect(await after(() => end())).toEqual([['b', 0]]);
    expect(await after(() => end())).toEqual([['b', -1]]);
  });

  it('yields the places of a ticket', async () => {
    const { queue } = setUp();
    let end!: () => void;
    void queue.run(() => new Promise<void>((resolve) => (end = resolve)));
    const ticket = queue.enqueue(async () => 1);
    const places: number[] = [];
    const reading = (async () => {
      for await (const position of ticket.positions()) places.push(position);
    })();
    await settle();
    end();
    await reading;
    expect(places).toEqual([1, 0]);
  });

  it('hands the task its ticket, be it that this is asked for when all is over', async () => {
    const { queue } = setUp();
    let context!: QueueContext;
    const task = (given: QueueContext): number => {
      context = given;
      return 7;
    };
    await queue.run(task);
    expect(context.ticket.status).toBe('completed');
    expect(await context.ticket.result).toBe(7);
    const ticket = queue.enqueue((given) => given.ticket);
    expect(await ticket.result).toBe(ticket);
  });

  it('lets go of its task, its signal and who was told of it, and of nothing else', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const kinds = ['task', 'signal', 'onTicket'] as const;
    const ways = kinds.flatMap((given) => [true, false].map((refused) => ({ given, refused })));
    for (const { given, refused } of ways) {
      const { queue } = setUp();
      if (refused) queue.close();
      let kept!: WeakRef<object>;
      const enqueue = (): Ticket<number> => {
        const { signal } = new AbortController();
        const all = { task: () => 1, signal, onTicket: (): void => {} };
        kept = new WeakRef(all[given]);
        const options = given === 'task' ? {} : { [given]: all[given] };
        return queue.enqueue(all.task, { key: 'k', metadata: 'm', ...options });
      };
      const ticket = enqueue();
      expect(await failure(ticket.result)).toEqual(refused ? new ClosedError('The queue') : 1);
      await settle();
      collect();
      expect([given, refused, kept.deref()]).toEqual([given, refused, undefined]);
      const status = refused ? 'refused' : 'completed';
      expect(ticket).toMatchObject({ key: 'k', metadata: 'm', priority: 5, status });
    }
  });

  it('puts a ticket back among calls that nobody has a ticket of', async () => {
    const { clock, queue } = setUp();
    await clock.advance(100);
    void failure(queue.run(never));
    void failure(queue.run(never));
    await clock.advance(10);
    void failure(queue.run(never));
    expect(queue.enqueue(never, { enqueuedAt: 105 }).position).toBe(2);
  });

  it('tells of the end of a task that was enqueued and started at once', async () => {
    const { queue } = setUp();
    const events: string[] = [];
    queue.on('completed', ({ id }) => events.push(id));
    queue.enqueue(() => 1, { id: 'a' });
    await settle();
    expect(events).toEqual(['a']);
  });

  it('asks a running task to stop by its signal, and keeps its place until it has', async () => {
    const { clock, queue } = setUp();
    const quitter = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    let asked: unknown;
    const call = failure(
      queue.run(
        ({ signal }) => {
          signal.addEventListener('abort', () => (asked = signal.reason));
          return promise;
        },
        { signal: quitter.signal },
      ),
    );
    const events: object[] = [];
    queue.on('cancelled', (event) => events.push(event));
    await clock.advance(3);
    quitter.abort('gone');
    expect([await call, asked, queue.active]).toEqual(['gone', 'gone', 1]);
    expect(events).toMatchObject([{ waitedMs: 0, ranMs: 3, active: 1 }]);
    resolve();
    await settle();
    expect(queue.active).toBe(0);
  });

  it.each(['run', 'enqueue'] as const)(
    'cancels once who is aborted between the turn and the task: %s',
    async (method) => {
      const { queue } = setUp();
      let end!: () => void;
      void queue.run(() => new Promise<void>((resolve) => (end = resolve)));
      const quitter = new AbortController();
      let called = false;
      const call = queue[method](() => (called = true), { id: 'a', signal: quitter.signal });
      const answer = failure('result' in call ? call.result : call);
      const events: string[] = [];
      queue.on('cancelled', ({ id }) => events.push(id));
      queue.once('started', () => quitter.abort('gone'));
      end();
      expect([await answer, called]).toEqual(['gone', false]);
      await settle();
      expect([events, queue.stats().cancelled, queue.active]).toEqual([['a'], 1, 0]);
    },
  );

  it('cancels a ticket in line by its signal, once', async () => {
    const { queue } = setUp();
    void failure(queue.run(never));
    const quitter = new AbortController();
    const ticket = queue.enqueue(never, { id: 'a', signal: quitter.signal });
    const events: string[] = [];
    queue.on('cancelled', ({ id }) => events.push(id));
    quitter.abort('gone');
    await settle();
    expect([await failure(ticket.result), events]).toEqual(['gone', ['a']]);
    expect(queue.stats()).toMatchObject({ cancelled: 1, active: 1, waiting: 0 });
  });

  it('calls no task whose signal turned out to be aborted without saying so', async () => {
    const { queue } = setUp();
    let end!: () => void;
    void queue.run(() => new Promise<void>((resolve) => (end = resolve)));
    const signal = Object.assign(new EventTarget(), { aborted: false, reason: 'gone' });
    let called = false;
    const call = failure(queue.run(() => (called = true), { signal: signal as never, id: 'a' }));
    const events: string[] = [];
    queue.on('cancelled', ({ id }) => events.push(id));
    signal.aborted = true;
    end();
    expect([await call, called, events]).toEqual(['gone', false, ['a']]);
    expect(queue.stats()).toMatchObject({ cancelled: 1, active: 0 });
  });

  it('is drained at the end of a block that is `await using` it', async () => {
    const { clock, queue } = setUp();
    const log: string[] = [];
    const closing = (async () => {
      await using used = queue;
      void used.run(() => new Promise<void>((resolve) => clock.setTimeout(resolve, 5)));
      void used.run(() => void log.push('last'));
    })();
    await settle();
    expect([queue.stats().closed, log]).toEqual([true, []]);
    await clock.advance(5);
    await closing;
    expect(log).toEqual(['last']);
  });

  it('knows a ticket that is asked for its id late', async () => {
    const { queue } = setUp({ maxWaiting: 1 });
    let end!: () => void;
    const running = queue.enqueue(() => new Promise<void>((resolve) => (end = resolve)));
    const waiting = queue.enqueue(async () => 1);
    const refused = queue.enqueue(async () => 1);
    await settle();
    expect([running, waiting, refused].map(({ id }) => queue.position(id))).toEqual([0, 1, -2]);
    expect(queue.get(waiting.id)).toBe(waiting);
    end();
    await waiting.result;
    expect(queue.position(waiting.id)).toBe(-1);
    const late: Ticket<number> = queue.enqueue(async () => 1);
    await late.result;
    expect(queue.position(late.id)).toBe(-1);
  });
});
