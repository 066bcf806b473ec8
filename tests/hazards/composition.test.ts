import { getEventListeners } from 'node:events';

import {
  AdmissionQueue,
  compose,
  RateLimiter,
  Semaphore,
  SessionManager,
  type TokenStream,
  TokenStreamer,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { codeOf } from '../support/promises.ts';

const never = (): Promise<never> => new Promise(() => undefined);

/** 'ok', or the code of the error, or the reason; handles the rejection. */
function codeAfter(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}

/** The types of all events of a stream. */
async function read(stream: TokenStream<unknown>): Promise<string[]> {
  const types: string[] = [];
  for await (const { type } of stream) types.push(type);
  return types;
}

/** One of each, on one clock. */
function setUp(places = 2): {
  clock: ManualClock;
  sessions: SessionManager;
  queue: AdmissionQueue;
  limiter: RateLimiter;
  semaphore: Semaphore;
  streamer: TokenStreamer;
} {
  const clock = new ManualClock();
  return {
    clock,
    sessions: new SessionManager({ clock, timeoutMs: 1000 }),
    queue: new AdmissionQueue({ concurrency: places, maxWaiting: Infinity, clock }),
    limiter: new RateLimiter({ limit: 10, clock }),
    semaphore: new Semaphore({ capacity: places, clock }),
    streamer: new TokenStreamer({ clock }),
  };
}

describe('a limiter outside of a queue', () => {
  it('lets nobody take a place who waits for the rate, nor give one back (H234)', async () => {
    const { clock, queue, limiter } = setUp(1);
    const gate = compose(limiter, queue);
    limiter.tryAcquire(10);
    const controller = new AbortController();
    const waiting = codeAfter(gate.run(never, { signal: controller.signal }));
    await settle();
    expect([limiter.waiting, queue.active, queue.waiting]).toEqual([1, 0, 0]);
    expect(await queue.run(() => 'free')).toBe('free');
    controller.abort('gone');
    expect(await waiting).toBe('gone');
    expect([limiter.available(), queue.active]).toEqual([0, 0]);
    await clock.advance(100);
    expect([limiter.available(), clock.timers]).toEqual([1, 0]);
  });
});

describe('a limiter inside of several queues', () => {
  it('grants in the order in which callers come to it, whatever queue they come from (H266)', async () => {
    const { clock, limiter } = setUp();
    const queues = [3, 1, 2].map((concurrency) => new AdmissionQueue({ concurrency, clock }));
    limiter.tryAcquire(10);
    const came: string[] = [];
    const went: string[] = [];
    limiter.on('queued', ({ id }) => came.push(`${id}`));
    limiter.on('granted', ({ id }) => went.push(`${id}`));
    const answers = Array.from({ length: 30 }, (_, n) =>
      compose(queues[n % 3]!, limiter).run(() => n),
    );
    while (came.length > went.length || went.length < 30) await clock.advance(50);
    await Promise.all(answers);
    expect(went).toEqual(came);
  });
});

describe('sessions, a queue, a limiter and a semaphore around a stream', () => {
  it('end with the session: the ticket that waits and the stream that flows, once each (H292)', async () => {
    const { clock, sessions, queue, semaphore, streamer } = setUp(1);
    const gate = compose(sessions, queue, semaphore);
    const log: string[] = [];
    queue.on('cancelled', ({ ranMs }) => log.push(ranMs === undefined ? 'ticket' : 'task'));
    const source = ({ signal }: { signal: AbortSignal }): AsyncIterable<string> => {
      signal.addEventListener('abort', () => log.push('source'));
      return { [Symbol.asyncIterator]: () => ({ next: never, return: never }) };
    };
    const flowing = streamer.stream(source, { gate });
    const inLine = streamer.stream(source, { gate });
    const readings = [flowing, inLine].map((stream) => read(stream));
    await settle();
    expect([sessions.active, queue.active, queue.waiting]).toEqual([2, 1, 1]);
    await clock.advance(1000);
    expect(await Promise.all(readings)).toEqual([
      ['start', 'error'],
      ['position', 'error'],
    ]);
    await clock.advance(1000);
    expect(log.toSorted()).toEqual(['source', 'task', 'ticket']);
    for (const stream of [flowing, inLine]) {
      expect(await stream.finished).toMatchObject({ outcome: 'timeout' });
    }
    expect(sessions.stats()).toMatchObject({ active: 0, timedOut: 2 });
    expect([queue.active, queue.waiting, semaphore.active, clock.timers]).toEqual([0, 0, 0, 0]);
  });

  it('have nothing left of ten thousand clients that leave at once (H337)', async () => {
    const { clock, sessions, queue, limiter, semaphore } = setUp(50);
    const gate = compose(sessions, queue, limiter, semaphore);
    const controllers = Array.from({ length: 10_000 }, () => new AbortController());
    const all = new AbortController();
    let called = 0;
    const answers = controllers.map(({ signal }, n) =>
      codeAfter(
        gate.run(
          (context) => {
            called++;
            return new Promise((_, reject) => {
              context.signal.addEventListener('abort', () => reject(new Error('stopped')));
            });
          },
          { signal: n % 2 === 0 ? signal : all.signal },
        ),
      ),
    );
    await settle();
    expect([queue.active, queue.waiting, semaphore.active]).toEqual([50, 9950, 10]);
    const started = queue.stats().started;
    for (const controller of [...controllers, all]) controller.abort('gone');
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['gone']));
    await settle();
    // Nobody was let in on the way only to be sent away.
    expect([called, queue.stats().started - started]).toEqual([10, 0]);
    expect([sessions.active, queue.active, queue.waiting]).toEqual([0, 0, 0]);
    expect([limiter.active, limiter.waiting, semaphore.active]).toEqual([0, 0, 0]);
    expect(semaphore.waiting + clock.timers).toBe(0);
    for (const { signal } of [all, ...controllers]) {
      expect(getEventListeners(signal, 'abort')).toEqual([]);
    }
  });

  it('are shut down: nobody new, the signal to streams that still flow, and a report (H338)', async () => {
    const { clock, sessions, queue, semaphore, streamer } = setUp(5);
    const gate = compose(sessions, queue, semaphore);
    const sources = [0, 1, 2].map(() => Promise.withResolvers<IteratorResult<string>>());
    const signals: AbortSignal[] = [];
    const streams = sources.map(({ promise }, n) =>
      streamer.stream(
        ({ signal }) => {
          signals[n] = signal;
          const next = (): Promise<IteratorResult<string>> =>
            n === 1
              ? new Promise((_, reject) => {
                  signal.addEventListener('abort', () => reject(new Error('stopped')));
                })
              : promise;
          return { [Symbol.asyncIterator]: () => ({ next }) };
        },
        { gate },
      ),
    );
    const readings = streams.map((stream) => read(stream));
    await settle();
    const report = sessions.shutdown({ drainMs: 100, forceMs: 5000 });
    const late = streamer.stream(['a'], { gate });
    expect(await read(late)).toEqual(['error']);
    expect((await late.finished).error).toMatchObject({ code: 'ERR_CLOSED' });
    await clock.advance(99);
    sources[0]!.resolve({ done: true, value: undefined });
    expect(await readings[0]).toEqual(['start', 'done']);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false, false]);
    await clock.advance(1);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, true, true]);
    await clock.advance(1000);
    // The last one never lets go: it is given up after the grace, and its place is free.
    expect(await report).toMatchObject({ finished: 1, aborted: 2, stuck: [] });
    expect(await streams[2]!.finished).toMatchObject({ outcome: 'cancelled', abandoned: true });
    expect([sessions.active, queue.active, semaphore.active, clock.timers]).toEqual([0, 0, 0, 0]);
  });
});

describe('two semaphores', () => {
  it('taken by one composed gate never make callers wait for each other for ever (H339)', async () => {
    const [one, other] = [new Semaphore(1), new Semaphore(1)];
    const gate = compose(one, other);
    const answers = Array.from({ length: 50 }, (_, n) =>
      n % 3 === 0 ? other.run(() => settle()) : gate.run(() => settle()),
    );
    await Promise.all(answers);
    expect([one.active, other.active]).toEqual([0, 0]);
    // By hand, in opposite orders, they may: a limit on the wait is the way out.
    const clock = new ManualClock();
    const pair = [1, 2].map(() => new Semaphore({ capacity: 1, clock }));
    const both = [pair, pair.toReversed()].map(([first, second]) =>
      codeAfter(
        first!.run(() => settle().then(() => second!.run(() => 1, { waitTimeoutMs: 100 }))),
      ),
    );
    await clock.advance(100);
    expect(await Promise.all(both)).toContain('ERR_WAIT_TIMEOUT');
    expect(pair.map(({ active, waiting }) => active + waiting)).toEqual([0, 0]);
  });
});

describe('a listener of one that calls another', () => {
  interface All extends Omit<ReturnType<typeof setUp>, 'clock' | 'streamer'> {}
  const acts: Record<string, (all: All) => void> = {
    'runs a task in each': ({ queue, limiter, semaphore, sessions }) => {
      for (const gate of [queue, limiter, semaphore, sessions]) {
        void codeAfter(gate.run(() => Promise.resolve()));
      }
    },
    'runs a task through all of them': ({ queue, limiter, semaphore, sessions }) => {
      void codeAfter(compose(semaphore, limiter, queue, sessions).run(() => Promise.resolve()));
    },
    'changes all limits': ({ queue, limiter, semaphore }) => {
      queue.resize(1 + (queue.concurrency % 3));
      semaphore.resize(1 + (semaphore.capacity % 3));
      limiter.configure({ limit: 5 + (limiter.stats().granted % 7) });
    },
    'pauses and resumes': ({ queue, limiter }) => {
      queue.pause();
      limiter.pause(1);
      queue.resume();
    },
    'cancels who waits': ({ queue }) => {
      for (const ticket of queue.tickets()) ticket.cancel('listener');
    },
    'closes the others': ({ queue, semaphore, limiter }) => {
      semaphore.close();
      limiter.close();
      queue.close({ waiting: 'reject' });
    },
  };
  const events: Record<keyof All, readonly string[]> = {
    sessions: ['started', 'completed', 'failed', 'cancelled', 'idle'],
    queue: ['queued', 'started', 'completed', 'failed', 'cancelled', 'timedOut', 'idle'],
    limiter: ['queued', 'granted', 'limited', 'cancelled', 'idle'],
    semaphore: ['queued', 'acquired', 'released', 'cancelled', 'saturated', 'idle'],
  };
  const cases = Object.entries(events).flatMap(([of, names]) =>
    names.flatMap((event) => Object.keys(acts).map((act) => ({ of: of as keyof All, event, act }))),
  );

  it.each(cases)('upsets neither: `$event` of the $of, which $act (H341)', async (one) => {
    const { clock, ...all } = setUp(2);
    const { sessions, queue, limiter, semaphore } = all;
    const wrong: string[] = [];
    let inside = 0;
    let depth = 0;
    (all[one.of] as { on(name: string, listener: () => void): unknown }).on(one.event, () => {
      if (depth++ < 6) acts[one.act]!(all);
    });
    semaphore.on('acquired', ({ active }) => {
      if (active > 3) wrong.push(`${active} permits`);
    });
    const gate = compose(sessions, queue, limiter, semaphore);
    const controller = new AbortController();
    const answers = Array.from({ length: 12 }, (_, n) =>
      codeAfter(
        gate.run(
          async () => {
            inside++;
            if (inside > Math.min(queue.active, semaphore.active)) wrong.push(`${inside} inside`);
            await new Promise<void>((resolve) => clock.setTimeout(resolve, n % 5));
            inside--;
            if (n % 4 === 1) throw new Error('task');
          },
          { signal: controller.signal, waitTimeoutMs: n % 3 === 0 ? 3 : Infinity },
        ),
      ),
    );
    limiter.tryAcquire(50);
    await clock.advance(8);
    controller.abort('gone');
    await clock.advance(60_000);
    expect(wrong).toEqual([]);
    expect((await Promise.all(answers)).length).toBe(12);
    const gates = [sessions, queue, limiter, semaphore];
    expect(gates.map(({ active }) => active)).toEqual([0, 0, 0, 0]);
    expect([queue.waiting, limiter.waiting, semaphore.waiting, inside]).toEqual([0, 0, 0, 0]);
    expect([semaphore.available, clock.timers]).toEqual([semaphore.capacity, 0]);
    const { accepted, completed, failed, cancelled, timedOut } = queue.stats();
    expect(completed + failed + cancelled + timedOut).toBe(accepted);
  });
});
