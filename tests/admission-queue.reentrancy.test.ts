import { AdmissionQueue, type AdmissionQueueEvents } from 'sluice/admission-queue';
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
      const answer = codeAfter(
        queue.run(async ({ ticket, signal }) => {
          ticket.cancel('myself');
          expect(signal.reason).toBe('myself');
          await Promise.resolve();
          expect(queue.active).toBe(1);
        }),
      );
      expect(await answer).toBe('myself');
      await queue.idle();
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
