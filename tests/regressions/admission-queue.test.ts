import { AsyncLocalStorage } from 'node:async_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { AdmissionQueue, type Ticket } from 'sluice/admission-queue';
import { Semaphore } from 'sluice/semaphore';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { codeOf, microtasks } from '../support/promises.ts';
import { catchUncaught } from '../support/uncaught.ts';

/**
 * What has gone wrong in other queues, each reproduced on the published package or told of in the
 * thread that is named, and what this one does instead.
 */

const never = (): Promise<never> => new Promise(() => undefined);

function codeAfter(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}

describe('the limit', () => {
  it('p-queue 10: tasks whose callers time out or leave run on, and others beside them', async () => {
    const clock = new ManualClock();
    const queue = new AdmissionQueue({ concurrency: 1, runTimeoutMs: 10, clock });
    let live = 0;
    let most = 0;
    const controller = new AbortController();
    const answers = Array.from({ length: 5 }, (_, index) =>
      codeAfter(
        queue.run(
          async () => {
            most = Math.max(most, ++live);
            await new Promise<void>((resolve) => clock.setTimeout(resolve, 60));
            live--;
          },
          index === 0 ? { signal: controller.signal } : {},
        ),
      ),
    );
    controller.abort('gone');
    await clock.advance(1000);
    expect(await Promise.all(answers)).toEqual(['gone', ...Array(4).fill('ERR_RUN_TIMEOUT')]);
    expect([most, live, queue.active]).toEqual([1, 0, 0]);
  });

  it('fastq#80, dtzp555-max/ocp#149: a limit that is lowered at run time is ignored (H231)', async () => {
    const queue = new AdmissionQueue({ concurrency: 4 });
    let live = 0;
    const most: number[] = [];
    const task = async (): Promise<void> => {
      most.push(++live);
      await microtasks(10);
      live--;
    };
    const answers = Array.from({ length: 12 }, () => queue.run(task));
    queue.resize(2);
    await Promise.all(answers);
    expect(Math.max(...most.slice(4))).toBe(2);
  });

  it('fastq.promise 1.20: a worker that throws leaves the queue dead', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const throwing = (): never => {
      throw new Error('sync');
    };
    const answers = [queue.run(throwing), queue.run(throwing)].map((answer) => codeAfter(answer));
    await Promise.all(answers);
    expect(await queue.run(() => 'alive')).toBe('alive');
  });

  it('supercharge/promise-pool#23: a task that fails is not taken off, and there is no limit any more', async () => {
    const queue = new AdmissionQueue({ concurrency: 2 });
    const answers = Array.from({ length: 20 }, (_, index) =>
      codeAfter(queue.run(() => (index % 2 === 0 ? Promise.reject(new Error('task')) : index))),
    );
    await Promise.all(answers);
    expect(queue.stats()).toMatchObject({ active: 0, completed: 10, failed: 10 });
  });

  it('mcollina/fastq#107: an abort makes the count of those who run wrong', async () => {
    const queue = new AdmissionQueue({ concurrency: 2 });
    const controller = new AbortController();
    const { signal } = controller;
    const stops = ({ signal: inner }: { signal: AbortSignal }): Promise<never> =>
      new Promise((_, reject) => {
        inner.addEventListener('abort', () => reject(new Error('stopped')));
      });
    const leaving = [1, 2, 3, 4].map(() => codeAfter(queue.run(stops, { signal })));
    controller.abort('gone');
    expect(new Set(await Promise.all(leaving))).toEqual(new Set(['gone']));
    await queue.idle();
    expect([queue.active, queue.waiting]).toEqual([0, 0]);
    const tickets = [1, 2, 3].map(() => queue.enqueue(never));
    expect(tickets.map(({ position }) => position)).toEqual([0, 0, 1]);
  });

  it('reactor/reactor-pool#121: callers from within pass the bound of the line', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 2 });
    const told: number[] = [];
    let more = 10;
    const enqueue = (): void => {
      if (more-- > 0) queue.enqueue(() => microtasks(2), { onTicket: enqueue });
    };
    for (const name of ['queued', 'started', 'completed'] as const) {
      queue.on(name, ({ waiting }) => {
        told.push(waiting, queue.waiting);
        enqueue();
      });
    }
    enqueue();
    await queue.idle();
    expect(Math.max(...told)).toBe(2);
    expect(queue.stats().refused).toBeGreaterThan(0);
  });
});

describe('the line', () => {
  it('cockatiel 4: one who was accepted is refused, since a newcomer takes the place as it is handed on', async () => {
    for (let depth = 0; depth <= 30; depth++) {
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 1 });
      const { promise, resolve } = Promise.withResolvers<void>();
      const first = queue.run(() => promise);
      const accepted = queue.run(() => 'accepted');
      const newcomer = microtasks(depth).then(() => codeAfter(queue.run(() => 'newcomer')));
      resolve();
      expect(await accepted).toBe('accepted');
      expect(['ok', 'ERR_QUEUE_FULL']).toContain(await newcomer);
      await first;
    }
  });

  it('cockatiel 4, p-queue#219: one who leaves keeps the place in line until its turn', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 1 });
    void queue.run(never);
    const controller = new AbortController();
    const leaving = codeAfter(queue.run(never, { signal: controller.signal }));
    controller.abort('gone');
    expect(await leaving).toBe('gone');
    expect(queue.enqueue(never).status).toBe('waiting');
  });

  it('sindresorhus/p-queue#241, piscina#1029: who waits with a signal is not answered, or not counted', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 4 });
    void queue.run(never);
    const controller = new AbortController();
    const { signal } = controller;
    const tickets = [{ signal }, {}, { signal }, {}].map((options) =>
      queue.enqueue(never, options),
    );
    expect([queue.waiting, queue.enqueue(never).status]).toEqual([4, 'refused']);
    controller.abort('gone');
    const left = [tickets[0]!, tickets[2]!].map(({ result }) => codeAfter(result));
    expect(await Promise.all(left)).toEqual(['gone', 'gone']);
    expect(queue.waiting).toBe(2);
    expect(tickets.map(({ position }) => position)).toEqual([-1, 1, -1, 2]);
  });

  it('p-queue#168, piscina#805, cockatiel#114: one who waits and one who runs leave, and nobody starts any more', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const controller = new AbortController();
    const { signal } = controller;
    const stops = ({ signal: inner }: { signal: AbortSignal }): Promise<never> =>
      new Promise((_, reject) => {
        inner.addEventListener('abort', () => reject(new Error('stopped')));
      });
    const leaving = [queue.run(stops, { signal }), queue.run(stops, { signal })].map((answer) =>
      codeAfter(answer),
    );
    const last = queue.run(() => 'last');
    controller.abort('gone');
    expect(await Promise.all(leaving)).toEqual(['gone', 'gone']);
    expect(await last).toBe('last');
  });

  it('p-queue#217: ten thousand who leave overflow the stack', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity });
    void queue.run(never);
    const controller = new AbortController();
    const { signal } = controller;
    const answers = Array.from({ length: 10_000 }, () => codeAfter(queue.run(never, { signal })));
    controller.abort('gone');
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['gone']));
    expect(queue.waiting).toBe(0);
  });

  it('p-queue 10: fifty thousand who leave in any order, and five thousand who move, hold the loop up for seconds (H117, H118)', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity });
    void queue.run(never);
    const tickets: Ticket[] = Array.from({ length: 50_000 }, () => queue.enqueue(never));
    const { user: before } = process.cpuUsage();
    for (let i = 0; i < 5000; i++) tickets[(i * 7919) % 50_000]!.setPriority(1 + (i % 5));
    for (let i = 0; i < 50_000; i++) tickets[(i * 7919) % 50_000]!.cancel('gone');
    // It takes some 50 ms; the bound is for what is quadratic, on any machine.
    expect((process.cpuUsage().user - before) / 1000).toBeLessThan(2000);
    expect(queue.waiting).toBe(0);
  });

  it('async-mutex 0.5: a priority that is no number breaks the order', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    expect(await codeAfter(queue.run(never, { priority: Number.NaN }))).toBeInstanceOf(RangeError);
  });

  it('bottleneck 2.19: 1.5 counts as 5, and 99 as 9', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, priorities: 9 });
    for (const priority of [1.5, 99]) {
      expect(await codeAfter(queue.run(never, { priority }))).toBeInstanceOf(RangeError);
    }
  });

  it('vllm#41951: work that comes back has lost its place', async () => {
    const clock = new ManualClock();
    const before = new AdmissionQueue({ concurrency: 1, clock });
    before.pause();
    for (const id of ['a', 'b', 'c']) {
      before.enqueue(never, { id });
      await clock.advance(5);
    }
    const records = [...before.tickets()].map((ticket) => ticket.toJSON());
    const after = new AdmissionQueue({ concurrency: 1, clock });
    after.pause();
    after.enqueue(never, { id: 'newcomer' });
    for (const { id, priority, enqueuedAt } of records.toReversed()) {
      after.enqueue(never, { id, priority, enqueuedAt });
    }
    expect([...after.tickets()].map(({ id }) => id)).toEqual(['a', 'b', 'c', 'newcomer']);
  });
});

describe('promises', () => {
  it('p-limit 7 (sindresorhus/p-limit#25): those who are cleared wait for ever', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    void queue.run(never);
    const cleared = [1, 2].map(() => codeAfter(queue.run(never)));
    queue.close({ waiting: 'reject' });
    expect(await Promise.all(cleared)).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
  });

  it('p-limit 7, fastq.promise 1.20: a result that nobody reads is an unhandled rejection', async () => {
    using uncaught = catchUncaught();
    const queue = new AdmissionQueue({ concurrency: 1 });
    queue.enqueue(() => Promise.reject(new Error('task')));
    queue.enqueue(never);
    queue.enqueue(never);
    queue.close({ waiting: 'reject' });
    await settle();
    expect(uncaught.rejections).toEqual([]);
  });

  it('p-queue 9, fastq, cockatiel, bottleneck (langchainjs#11657): queued work runs in the context of another request', async () => {
    const storage = new AsyncLocalStorage<number>();
    const queue = new AdmissionQueue({ concurrency: 2 });
    const answers = Array.from({ length: 50 }, (_, request) =>
      storage.run(request, () =>
        queue.run(async () => {
          await microtasks(3);
          return storage.getStore();
        }),
      ),
    );
    expect(await Promise.all(answers)).toEqual(Array.from({ length: 50 }, (_, request) => request));
  });

  it('bottleneck 2.19: `constructor` and `__proto__` are what every object has', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    for (const id of ['constructor', '__proto__', 'hasOwnProperty']) {
      expect([queue.get(id), queue.position(id)]).toEqual([undefined, -2]);
      expect(await queue.run(() => id, { id, key: id })).toBe(id);
      expect(queue.position(id)).toBe(-1);
    }
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
  });

  it('bottleneck#77: the end of a run is counted from the enqueuing', async () => {
    const clock = new ManualClock();
    const queue = new AdmissionQueue({ concurrency: 1, runTimeoutMs: 50, clock });
    queue.pause();
    const answer = queue.run(() => new Promise<void>((resolve) => clock.setTimeout(resolve, 40)));
    await clock.advance(100);
    queue.resume();
    await clock.advance(40);
    expect(await codeAfter(answer)).toBe('ok');
    expect(clock.timers).toBe(0);
  });

  it('fastq#86, p-queue#27: many who wait for the end overflow the stack', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const { promise, resolve } = Promise.withResolvers<void>();
    void queue.run(() => promise);
    const idles = Array.from({ length: 100_000 }, () => queue.idle());
    resolve();
    expect((await Promise.all(idles)).length).toBe(100_000);
  });

  it('mcollina/fastq#63, #82, #88: the end of all is told never, too early, or not after a pause', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const { promise, resolve } = Promise.withResolvers<void>();
    let ends = 0;
    queue.on('idle', () => ends++);
    void queue.run(() => promise);
    const last = queue.run(() => 'last');
    queue.pause();
    const idle = queue.idle().then(() => ends);
    resolve();
    await settle();
    expect([ends, queue.active, queue.waiting]).toEqual([0, 0, 1]);
    queue.resume();
    expect([await last, await idle]).toEqual(['last', 1]);
  });

  it('bottleneck 2.19: a job goes through several timers', async () => {
    const clock = new ManualClock();
    const queue = new AdmissionQueue({ concurrency: 1, clock });
    const answers = Array.from({ length: 1000 }, (_, index) => queue.run(() => index));
    expect((await Promise.all(answers)).length).toBe(1000);
    expect([clock.now(), clock.timers]).toEqual([0, 0]);
  });

  it('supercharge/promise-pool 3: each short task leaves something on a long one', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const queue = new AdmissionQueue({ concurrency: 2 });
    const semaphore = new Semaphore(2);
    const { signal } = new AbortController();
    void queue.run(never, { signal });
    void semaphore.run(never, { signal });
    const left: WeakRef<object>[] = [];
    for (const gate of [queue, semaphore]) {
      for (let i = 0; i < 200; i++) {
        await gate.run(
          () => {
            const value = {};
            left.push(new WeakRef(value));
            return Promise.resolve(value);
          },
          i % 2 === 0 ? { signal } : {},
        );
      }
    }
    await settle();
    collect();
    expect(left.filter((value) => value.deref() !== undefined)).toEqual([]);
  });

  it('Shishir435/ollama-client#368: who leaves while running frees the place before the work has stopped', async () => {
    const queue = new AdmissionQueue({ concurrency: 1 });
    const { promise, resolve } = Promise.withResolvers<void>();
    const controller = new AbortController();
    const leaving = codeAfter(queue.run(() => promise, { signal: controller.signal }));
    const next = queue.enqueue(() => 'next');
    controller.abort('gone');
    expect(await leaving).toBe('gone');
    await settle();
    expect([next.status, queue.active]).toEqual(['waiting', 1]);
    resolve();
    expect(await next.result).toBe('next');
  });
});
