import { AdmissionQueue, type AdmissionQueueEvents, type Ticket } from 'sluice/admission-queue';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { codeOf } from './support/promises.ts';
import { catchUncaught } from './support/uncaught.ts';

const never = (): Promise<never> => new Promise(() => undefined);

function codeAfter(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}

describe('AdmissionQueue', () => {
  describe('called by its own listeners', () => {
    /** What a listener may do, whatever it hears. */
    const acts: Record<string, (queue: AdmissionQueue, abort: () => void) => void> = {
      'runs a task': (queue) => void codeAfter(queue.run(() => 1, { priority: 1 })),
      'cancels the last': (queue) => void [...queue.tickets()].at(-1)?.cancel('listener'),
      'cancels everybody': (queue) => {
        for (const ticket of queue.tickets()) ticket.cancel('listener');
      },
      'moves the last ahead': (queue) => void [...queue.tickets()].at(-1)?.setPriority(1),
      'aborts who waits': (_, abort) => abort(),
      'makes it smaller': (queue) => queue.resize(1),
      'makes it larger': (queue) => queue.resize(4),
      'pauses and resumes it': (queue) => {
        queue.pause();
        queue.resume();
      },
      'closes it': (queue) => queue.close(),
      'closes it and rejects': (queue) => queue.close({ waiting: 'reject' }),
      throws: () => {
        throw new Error('listener');
      },
    };
    const events: (keyof AdmissionQueueEvents)[] = [
      'queued',
      'started',
      'completed',
      'failed',
      'cancelled',
      'timedOut',
      'shed',
      'refused',
      'position',
      'saturated',
      'idle',
      'paused',
      'resumed',
      'resized',
      'closed',
    ];
    const cases = events.flatMap((event) => Object.keys(acts).map((name) => ({ event, name })));

    it.each(cases)('keeps its limit when a listener of `$event` $name', async ({ event, name }) => {
      using uncaught = catchUncaught();
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 2, maxWaiting: 4, overflow: 'shed', clock });
      const controller = new AbortController();
      const heardBy: string[] = [];
      const wrong: string[] = [];
      let inside = 0;
      let depth = 0;
      queue.on(event, () => {
        heardBy.push('first');
        if (++depth < 5) acts[name]!(queue, () => controller.abort('gone'));
      });
      queue.on(event, () => heardBy.push('second'));
      const task = async (fails = false): Promise<void> => {
        inside++;
        if (inside > queue.active) wrong.push(`${inside} of ${queue.active}`);
        await new Promise<void>((resolve) => clock.setTimeout(resolve, 5));
        inside--;
        if (fails) throw new Error('task');
      };
      const answers = [
        {},
        {},
        { signal: controller.signal },
        { waitTimeoutMs: 1 },
        { priority: 3 },
        {},
        { priority: 1 },
        {},
      ].map((options, index) => codeAfter(queue.run(() => task(index % 3 === 1), options)));
      await clock.advance(2);
      queue.pause();
      controller.abort('gone');
      queue.resize(3);
      queue.resume();
      await clock.advance(100);
      queue.close();
      await clock.advance(100);
      expect(wrong).toEqual([]);
      expect((await Promise.all(answers)).length).toBe(8);
      expect([queue.active, queue.waiting, inside, clock.timers]).toEqual([0, 0, 0, 0]);
      expect([...queue.tickets()]).toEqual([]);
      expect(heardBy.filter((who) => who === 'second').length).toBe(heardBy.length / 2);
      const threw = uncaught.exceptions.length;
      expect(threw).toBe(name === 'throws' ? Math.min(heardBy.length / 2, 4) : 0);
      const { accepted, refused, ...stats } = queue.stats();
      const { completed, failed, cancelled, timedOut, shed } = stats;
      expect(completed + failed + cancelled + timedOut + shed).toBe(accepted);
      expect(refused).toBeGreaterThanOrEqual(0);
    });

    it('is closed for what they bring when it sends everybody away', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const { promise, resolve } = Promise.withResolvers<void>();
      void queue.run(() => promise);
      const sent = [1, 2].map(() => codeAfter(queue.run(never)));
      const codes: unknown[] = [];
      queue.on('cancelled', () => {
        void codeAfter(queue.run(never)).then((code) => codes.push(code));
      });
      queue.close({ waiting: 'reject' });
      expect(await Promise.all(sent)).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
      resolve();
      await queue.idle();
      expect(codes).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
    });

    it.each(Object.keys(acts))('keeps its limit when a listener of `overrun` %s', async (name) => {
      using uncaught = catchUncaught();
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 1, graceMs: 5, clock });
      const controller = new AbortController();
      const { signal } = controller;
      const stuck = codeAfter(queue.run(never, { runTimeoutMs: 5 }));
      let inside = 0;
      let most = 0;
      const task = async (): Promise<void> => {
        most = Math.max(most, ++inside - queue.active);
        await new Promise<void>((resolve) => clock.setTimeout(resolve, 5));
        inside--;
      };
      const answers = [{ signal }, {}, {}].map((options) => codeAfter(queue.run(task, options)));
      const told: number[] = [];
      queue.on('overrun', ({ active }) => {
        // The place has gone to the next by now, and the event says how it was before that.
        told.push(active, queue.active);
        acts[name]!(queue, () => controller.abort('gone'));
      });
      await clock.advance(100);
      expect(told).toEqual([0, 1]);
      expect(await stuck).toBe('ERR_RUN_TIMEOUT');
      await Promise.all(answers);
      await queue.drain();
      expect([most, inside, queue.active, queue.waiting, clock.timers]).toEqual([0, 0, 0, 0, 0]);
      expect(uncaught.exceptions.length).toBe(name === 'throws' ? 1 : 0);
      const { accepted, completed, cancelled, overrun } = queue.stats();
      expect([completed + cancelled + 1, overrun]).toEqual([accepted, 1]);
    });

    it('starts by the concurrency of the moment, whoever changes it', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const ends: (() => void)[] = [];
      const task = (): Promise<void> => new Promise((resolve) => ends.push(resolve));
      for (let i = 0; i < 6; i++) void queue.run(task);
      queue.on('resized', ({ concurrency }) => {
        if (concurrency === 4) queue.resize(2);
      });
      queue.resize(4);
      expect([queue.concurrency, queue.active, queue.waiting]).toEqual([2, 4, 2]);
      await Promise.resolve();
      ends.splice(0, 3).forEach((end) => end());
      await vi.waitFor(() => expect([queue.active, queue.waiting]).toEqual([2, 1]));
      while (queue.active > 0) {
        ends.splice(0).forEach((end) => end());
        await Promise.resolve();
      }
      expect(queue.stats().completed).toBe(6);
    });

    it('puts a newcomer of `started` behind its class (H217)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const order: string[] = [];
      const run = (id: string): Promise<unknown> => queue.run(() => order.push(id), { id });
      queue.once('completed', () => void run('listener'));
      await Promise.all(['a', 'b', 'c'].map((id) => run(id)));
      await queue.idle();
      expect(order).toEqual(['a', 'b', 'c', 'listener']);
    });
  });

  describe('called by its own tasks', () => {
    it('takes whatever they do to it', async () => {
      const queue = new AdmissionQueue({ concurrency: 2 });
      const log: string[] = [];
      await queue.run(async ({ ticket }) => {
        await queue.run(() => log.push('inner'));
        queue.resize(1);
        queue.pause();
        expect(ticket.setPriority(1)).toBe(false);
        queue.resume();
        expect(ticket.position).toBe(0);
        queue.close();
        log.push('outer');
      });
      await queue.idle();
      expect(log).toEqual(['inner', 'outer']);
      expect(queue.stats()).toMatchObject({ concurrency: 1, active: 0, closed: true });
    });

    it('answers who cancels itself, and holds the place until it is done', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const seen: unknown[] = [];
      const answer = codeAfter(
        queue.run(async ({ ticket, signal }) => {
          ticket.cancel('myself');
          await Promise.resolve();
          seen.push(signal.reason, queue.active);
        }),
      );
      expect(await answer).toBe('myself');
      await queue.idle();
      expect(seen).toEqual(['myself', 1]);
      expect(queue.stats()).toMatchObject({ cancelled: 1, completed: 0, active: 0 });
    });

    it.each([
      [
        'throws',
        (): never => {
          throw new Error('task');
        },
        'failed',
      ],
      ['returns no promise', (): number => 1, 'completed'],
      [
        'returns a thenable that fails twice',
        (): object => ({ then: (_: unknown, no: (e: string) => void) => [no('a'), no('b')] }),
        'failed',
      ],
      [
        'returns a thenable that throws',
        (): object => ({
          then: () => {
            throw new Error('then');
          },
        }),
        'failed',
      ],
    ] as const)('frees the place of one that %s', async (_, task, status) => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const tickets = [1, 2, 3].map(() => queue.enqueue<unknown>(task));
      await queue.idle();
      expect(tickets.map((ticket) => ticket.status)).toEqual([status, status, status]);
    });
  });

  describe('called by a clock or a signal in the middle of something', () => {
    /** Who calls back, once: a method of the clock or of a signal. */
    const callers = [
      'now',
      'setTimeout',
      'clearTimeout',
      'addEventListener',
      'removeEventListener',
    ];
    const options = (signal: AbortSignal): object => ({ id: 'new', signal, waitTimeoutMs: 9 });
    /** What it is in the middle of. */
    const methods: Record<string, (queue: AdmissionQueue, signal: AbortSignal) => unknown> = {
      run: (queue, signal) => codeAfter(queue.run(never, options(signal))),
      'run ahead of others': (queue, signal) =>
        codeAfter(queue.run(never, { ...options(signal), priority: 1 })),
      enqueue: (queue, signal) => void queue.enqueue(never, options(signal)),
      cancel: (queue) => queue.cancel('b'),
      'cancel who runs': (queue) => queue.cancel('a'),
      setPriority: (queue) => queue.setPriority('b', 2),
      close: (queue) => queue.close({ waiting: 'reject' }),
      resize: (queue) => queue.resize(2),
    };
    const acts: Record<string, (queue: AdmissionQueue) => unknown> = {
      'looks at all positions': () => undefined,
      'cancels the same': (queue) => queue.cancel('b'),
      'cancels who runs': (queue) => queue.cancel('a'),
      'cancels the last': (queue) => queue.cancel('d'),
      'moves the same': (queue) => queue.setPriority('b', 1),
      'enqueues one': (queue) => queue.enqueue(never, { id: 'other' }),
      'enqueues one with the same id': (queue) => queue.enqueue(never, { id: 'new' }),
      'enqueues an urgent one': (queue) => queue.enqueue(never, { priority: 1 }),
      'makes it larger': (queue) => queue.resize(3),
      'closes it': (queue) => queue.close(),
    };
    const cases = callers.flatMap((caller) =>
      Object.keys(methods).flatMap((method) =>
        Object.keys(acts).flatMap((act) =>
          // Room for one more, and none.
          [4, 3].map((maxWaiting) => ({ caller, method, act, maxWaiting })),
        ),
      ),
    );

    it.each(cases)(
      'is right when $caller within $method $act, with $maxWaiting in line at most',
      (given) => {
        const { caller, method, act, maxWaiting } = given;
        const clock = new ManualClock();
        const queue = new AdmissionQueue({
          concurrency: 1,
          maxWaiting,
          overflow: 'shed',
          runTimeoutMs: 99,
          graceMs: 99,
          clock,
        });
        const signals = Array.from({ length: 5 }, () => new AbortController().signal);
        for (const [index, id] of ['a', 'b', 'c', 'd'].entries()) {
          const waits = { signal: signals[index], waitTimeoutMs: 50 };
          queue.enqueue(never, { id, priority: Math.min(index + 2, 5), ...waits });
        }
        const inLine = (): Ticket[] =>
          [...queue.tickets()].filter(({ status }) => status === 'waiting');
        const wrong: number[][] = [];
        /** Whether each position is that of the line. */
        const look = (): void => {
          const positions = inLine().map(({ position }) => position);
          if (positions.some((position, index) => position !== index + 1)) wrong.push(positions);
        };
        let calls = 0;
        for (const subject of [clock, ...signals] as object[]) {
          const original = Reflect.get(subject, caller) as
            | ((...all: unknown[]) => unknown)
            | undefined;
          if (original === undefined) continue;
          Object.defineProperty(subject, caller, {
            value: (...all: unknown[]) => {
              if (++calls === 1) {
                look();
                acts[act]!(queue);
                look();
              }
              return original.apply(subject, all);
            },
          });
        }
        methods[method]!(queue, signals[4]!);
        calls = 1;
        const { accepted, waitingByPriority, refused: _, ...stats } = queue.stats();
        const { active, waiting, completed, failed, cancelled, timedOut, shed } = stats;
        const line = inLine();
        look();
        expect(wrong).toEqual([]);
        expect(new Set([...queue.tickets()].map(({ id }) => id)).size).toBe(active + waiting);
        // Q1, Q2, Q3 and Q6.
        expect(active).toBeLessThanOrEqual(queue.concurrency);
        expect(waiting).toBeLessThanOrEqual(maxWaiting);
        expect(waiting === 0 || active === queue.concurrency).toBe(true);
        const lengths = [1, 2, 3, 4, 5].map(
          (one) => line.filter(({ priority }) => priority === one).length,
        );
        expect(waitingByPriority).toEqual(lengths);
        const unanswered = [...queue.tickets()].filter(({ status }) =>
          /waiting|active/.test(status),
        );
        expect(completed + failed + cancelled + timedOut + shed + unanswered.length).toBe(accepted);
      },
    );
  });

  describe('called by onTicket', () => {
    it.each([
      ['free', 0],
      ['taken', 1],
    ])('lets the caller leave before it has begun, the place being %s', async (_, taken) => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      if (taken === 1) queue.enqueue(never);
      const task = vi.fn<() => void>();
      const answer = queue.run(task, { onTicket: (ticket) => void ticket.cancel('at once') });
      expect(await codeAfter(answer)).toBe('at once');
      expect(task).not.toHaveBeenCalled();
      expect([queue.active, queue.waiting]).toEqual([taken, 0]);
    });

    it('lets it close, resize and pause', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const answers = [
        queue.run(() => 'a', { onTicket: () => queue.pause() }),
        queue.run(() => 'b', { onTicket: () => queue.resume() }),
        queue.run(() => 'c', { onTicket: () => queue.close() }),
      ];
      expect(await Promise.all(answers)).toEqual(['a', 'b', 'c']);
    });
  });

  describe('called by abort listeners of its tasks', () => {
    it('ends each of those whose time ends at one instant once, whoever ends whom', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 2, clock });
      const overrun = vi.fn<() => void>();
      queue.on('overrun', overrun);
      const answers = ['a', 'b'].map((id, index) =>
        codeAfter(
          queue.run(
            ({ signal }) => {
              signal.addEventListener('abort', () =>
                queue.cancel(index === 0 ? 'b' : 'a', 'other'),
              );
              return never();
            },
            { id, runTimeoutMs: 10 },
          ),
        ),
      );
      await clock.advance(10);
      expect(await Promise.all(answers)).toEqual(['ERR_RUN_TIMEOUT', 'other']);
      expect(overrun).not.toHaveBeenCalled();
      expect(queue.stats()).toMatchObject({ active: 2, cancelled: 1, timedOut: 1 });
      expect(queue.get('b')!.status).toBe('cancelled');
      expect(clock.timers).toBe(0);
    });
  });
});
