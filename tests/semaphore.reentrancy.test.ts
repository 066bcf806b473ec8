import {
  type AcquireOptions,
  type Permit,
  Semaphore,
  type SemaphoreEvents,
} from 'sluice/semaphore';
import { ManualClock, settle } from 'sluice/testing';
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

describe('Semaphore', () => {
  describe('called by its own listeners', () => {
    it('puts an acquire in `released` behind those who wait (H028)', async () => {
      const semaphore = new Semaphore(1);
      const permit = semaphore.tryAcquire()!;
      const order: string[] = [];
      const take = (name: string): Promise<void> =>
        semaphore.acquire().then((own) => {
          order.push(name);
          own.release();
        });
      const answers = [take('first'), take('second')];
      semaphore.once('released', () => {
        expect(semaphore.active).toBe(1);
        expect(semaphore.tryAcquire()).toBeUndefined();
        answers.push(take('listener'));
      });
      permit.release();
      await settle();
      await Promise.all(answers);
      expect(order).toEqual(['first', 'second', 'listener']);
    });

    /** What a listener may do, whatever it hears. */
    const acts: Record<string, (semaphore: Semaphore, held: Permit, abort: () => void) => void> = {
      'takes a permit': (semaphore) => void semaphore.tryAcquire()?.release(),
      'runs a task': (semaphore) => void codeAfter(semaphore.run(() => 1)),
      'gives a permit back': (_, held) => void held.release(),
      'aborts who waits': (_, __, abort) => abort(),
      'makes it smaller': (semaphore) => semaphore.resize(1),
      'makes it larger': (semaphore) => semaphore.resize(4),
      'closes it': (semaphore) => semaphore.close(),
      'closes it and rejects': (semaphore) => semaphore.close({ waiting: 'reject' }),
      throws: () => {
        throw new Error('listener');
      },
    };
    const events: (keyof SemaphoreEvents)[] = [
      'queued',
      'acquired',
      'released',
      'cancelled',
      'timedOut',
      'refused',
      'saturated',
      'resized',
      'idle',
      'closed',
    ];
    const cases = events.flatMap((event) => Object.keys(acts).map((name) => ({ event, name })));

    it.each(cases)(
      'keeps its ledger when a listener of `$event` $name',
      async ({ event, name }) => {
        using uncaught = catchUncaught();
        const clock = new ManualClock();
        const semaphore = new Semaphore({ capacity: 2, maxWaiting: 3, clock });
        const controller = new AbortController();
        const { signal } = controller;
        const heardBy: string[] = [];
        const wrong: string[] = [];
        let depth = 0;
        const held = semaphore.tryAcquire()!;
        semaphore.on(event, () => {
          heardBy.push('first');
          if (++depth < 5) acts[name]!(semaphore, held, () => controller.abort('gone'));
        });
        semaphore.on(event, () => heardBy.push('second'));
        semaphore.on('acquired', ({ active }) => {
          if (active > 4) wrong.push(`${active} active`);
        });
        const answers = [
          codeAfter(semaphore.run(() => Promise.resolve(), { weight: 2, waitTimeoutMs: 10 })),
          codeAfter(semaphore.run(() => Promise.resolve(), { signal })),
          codeAfter(semaphore.run(() => Promise.resolve())),
          codeAfter(semaphore.run(() => Promise.resolve())),
          codeAfter(semaphore.run(() => Promise.resolve())),
        ];
        await clock.advance(10);
        controller.abort('gone');
        if (semaphore.capacity === 2) semaphore.resize(3);
        held.release();
        await settle();
        semaphore.close();
        await settle();
        expect(wrong).toEqual([]);
        expect((await Promise.all(answers)).length).toBe(5);
        const { active, waiting, available, capacity } = semaphore;
        expect([active, waiting, available - capacity, clock.timers]).toEqual([0, 0, 0, 0]);
        // Nobody was silenced by the other.
        expect(heardBy.filter((who) => who === 'second').length).toBe(heardBy.length / 2);
        const threw = uncaught.exceptions.length;
        expect(threw).toBe(name === 'throws' ? Math.min(heardBy.length / 2, 4) : 0);
      },
    );

    const late = (['overrun', 'overheld'] as const).flatMap((event) =>
      Object.keys(acts).map((name) => ({ event, name })),
    );

    it.each(late)('keeps its ledger when a listener of `$event` $name', async ({ event, name }) => {
      using uncaught = catchUncaught();
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, maxHoldMs: 20, clock });
      const controller = new AbortController();
      const { signal } = controller;
      const held = semaphore.tryAcquire()!;
      const stuck = codeAfter(semaphore.run(never, { runTimeoutMs: 5, graceMs: 5 }));
      const answers = [{ weight: 2 }, { signal }, {}].map((options) =>
        codeAfter(semaphore.run(() => Promise.resolve(), options)),
      );
      let told = 0;
      semaphore.on(event, () => {
        told++;
        acts[name]!(semaphore, held, () => controller.abort('gone'));
      });
      await clock.advance(100);
      held.release();
      await Promise.all(answers);
      await semaphore.drain();
      expect([await stuck, told]).toEqual(['ERR_RUN_TIMEOUT', 1]);
      const { active, available, capacity, waiting } = semaphore;
      expect([active, available - capacity, waiting, clock.timers]).toEqual([0, 0, 0, 0]);
      const { acquired, released, overrun } = semaphore.stats();
      expect([acquired - released, overrun]).toEqual([0, 1]);
      expect(uncaught.exceptions.length).toBe(name === 'throws' ? 1 : 0);
    });

    it('grants by the capacity of the moment, whoever changes it and how often (H189)', async () => {
      const semaphore = new Semaphore(1);
      const wrong: string[] = [];
      let capacity = 1;
      semaphore.on('resized', (event) => {
        ({ capacity } = event);
        if (capacity === 4) semaphore.resize(2);
      });
      semaphore.on('acquired', ({ active }) => {
        if (active > capacity) wrong.push(`${active} of ${capacity}`);
      });
      const tasks = Array.from({ length: 9 }, () => Promise.withResolvers<void>());
      const answers = tasks.map(({ promise }) => semaphore.run(() => promise));
      semaphore.resize(4);
      expect([semaphore.capacity, semaphore.active]).toEqual([2, 4]);
      for (const next of [5, 1, 3]) semaphore.resize(next);
      expect([semaphore.capacity, semaphore.active]).toEqual([3, 5]);
      for (const { resolve } of tasks) {
        const most = Math.max(semaphore.active - 1, 3);
        resolve();
        await settle();
        if (semaphore.active > most) wrong.push(`${semaphore.active} of ${most}`);
      }
      await Promise.all(answers);
      expect(wrong).toEqual([]);
    });

    it('drains though listeners go on acquiring: they are refused (H200)', async () => {
      const semaphore = new Semaphore(1);
      const codes: unknown[] = [];
      for (const event of ['acquired', 'released', 'cancelled', 'closed', 'idle'] as const) {
        semaphore.on(event, () => {
          if (!semaphore.stats().closed) return;
          expect(semaphore.tryAcquire()).toBeUndefined();
          void codeAfter(semaphore.acquire()).then((code) => codes.push(code));
        });
      }
      const controller = new AbortController();
      void codeAfter(semaphore.acquire().then((permit) => permit.release()));
      void codeAfter(semaphore.run(() => Promise.resolve()));
      void codeAfter(semaphore.acquire({ signal: controller.signal }));
      const drained = semaphore.drain();
      controller.abort('gone');
      await drained;
      await settle();
      expect(codes.length).toBeGreaterThan(5);
      expect(new Set(codes)).toEqual(new Set(['ERR_CLOSED']));
      expect(semaphore.stats()).toMatchObject({ active: 0, waiting: 0, acquired: 2, released: 2 });
    });

    it('is closed for what they bring when it sends everybody away', async () => {
      const semaphore = new Semaphore(1);
      const held = semaphore.tryAcquire()!;
      const sent = [1, 2].map(() => codeAfter(semaphore.acquire()));
      const codes: unknown[] = [];
      semaphore.on('cancelled', () => {
        void codeAfter(semaphore.acquire()).then((code) => codes.push(code));
      });
      semaphore.close({ waiting: 'reject' });
      expect(await Promise.all(sent)).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
      held.release();
      await semaphore.idle();
      expect(codes).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
    });

    it('goes on for as long as listeners want, without recursion (H032)', () => {
      const semaphore = new Semaphore(1);
      let left = 100_000;
      semaphore.on('released', () => {
        if (left-- > 0) semaphore.tryAcquire()!.release();
      });
      semaphore.tryAcquire()!.release();
      expect(left).toBe(-1);
      expect(semaphore.stats()).toMatchObject({ acquired: 100_001, released: 100_001, active: 0 });
    });
  });

  describe('called by its own tasks', () => {
    it('serves a task that runs another one when there is a permit, and drains with it', async () => {
      const semaphore = new Semaphore(2);
      const log: string[] = [];
      const answer = semaphore.run(async () => {
        await semaphore.run(() => log.push('inner'));
        semaphore.resize(1);
        semaphore.close();
        log.push('outer');
      });
      await Promise.all([answer, semaphore.idle()]);
      expect(log).toEqual(['inner', 'outer']);
      expect(semaphore.stats()).toMatchObject({ capacity: 1, active: 0, closed: true });
    });

    it('is what it was when tasks throw, or return no promise, one after the other', async () => {
      const semaphore = new Semaphore(1);
      const answers = Array.from({ length: 100 }, (_, index) =>
        codeAfter(
          semaphore.run(() => {
            if (index % 2 === 0) throw new Error('sync');
            return index;
          }),
        ),
      );
      await Promise.all(answers);
      expect(semaphore.stats()).toMatchObject({ acquired: 100, released: 100, active: 0 });
    });
  });

  describe('called by abort listeners of its tasks', () => {
    it('leaves a task that another one ends at the instant of its own end its permit', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, clock });
      const other = new AbortController();
      const overrun = vi.fn<() => void>();
      semaphore.on('overrun', overrun);
      const answers = [
        codeAfter(
          semaphore.run(
            ({ signal }) => {
              signal.addEventListener('abort', () => other.abort('by the first'));
              return never();
            },
            { runTimeoutMs: 10 },
          ),
        ),
        codeAfter(semaphore.run(never, { runTimeoutMs: 10, signal: other.signal })),
      ];
      await clock.advance(10);
      expect(await Promise.all(answers)).toEqual(['ERR_RUN_TIMEOUT', 'by the first']);
      expect(overrun).not.toHaveBeenCalled();
      expect(semaphore.active).toBe(2);
    });

    it('takes back what they release, and lets who waits in', async () => {
      const semaphore = new Semaphore(1);
      const controller = new AbortController();
      const answer = codeAfter(
        semaphore.run(
          ({ signal, permit }) => {
            signal.addEventListener('abort', () => permit.release());
            return never();
          },
          { signal: controller.signal },
        ),
      );
      const next = semaphore.run(() => 'next');
      controller.abort('gone');
      expect(await answer).toBe('gone');
      expect(await next).toBe('next');
      expect(semaphore.stats()).toMatchObject({ acquired: 2, released: 2, active: 0 });
    });

    it('serves a listener of the same signal that comes before its own (H059)', async () => {
      const semaphore = new Semaphore(1);
      const held = semaphore.tryAcquire()!;
      const controller = new AbortController();
      const { signal } = controller;
      signal.addEventListener('abort', () => held.release());
      const answer = codeAfter(semaphore.run(() => 'ran', { signal }));
      const behind = semaphore.acquire();
      controller.abort('gone');
      // The release came first: the head had its permit, and gives it up unused.
      expect(await answer).toBe('gone');
      expect((await behind).released).toBe(false);
      expect(semaphore.active).toBe(1);
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
    const methods: Record<
      string,
      (semaphore: Semaphore, options: AcquireOptions, held: Permit) => unknown
    > = {
      acquire: (semaphore, options) => semaphore.acquire(options),
      run: (semaphore, options) => semaphore.run(() => 1, options),
      release: (_, __, held) => held.release(),
      'a larger size': (semaphore) => semaphore.resize(3),
      'a smaller size': (semaphore) => semaphore.resize(1),
      close: (semaphore) => semaphore.close({ waiting: 'reject' }),
    };
    const acts: Record<string, (semaphore: Semaphore, held: Permit, abort: () => void) => unknown> =
      {
        'gives a permit back': (_, held) => held.release(),
        'takes the last place in line': (semaphore) => semaphore.acquire(),
        'aborts who waits': (_, __, abort) => abort(),
        'makes it larger': (semaphore) => semaphore.resize(4),
        'makes it smaller': (semaphore) => semaphore.resize(1),
        'closes it and rejects': (semaphore) => semaphore.close({ waiting: 'reject' }),
      };
    const cases = callers.flatMap((caller) =>
      Object.keys(methods).flatMap((method) =>
        Object.keys(acts).map((act) => ({ caller, method, act })),
      ),
    );

    it.each(cases)('is right when $caller within $method $act', async ({ caller, method, act }) => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 2, maxWaiting: 3, clock });
      const held = [semaphore.tryAcquire()!, semaphore.tryAcquire()!];
      const controllers = Array.from({ length: 3 }, () => new AbortController());
      const answers: Promise<unknown>[] = [];
      const permits = [...held];
      const ask = (promise: unknown): void => {
        if (!(promise instanceof Promise)) return;
        const own = promise.then((answer: Permit | number) => {
          if (typeof answer !== 'number') permits.push(answer);
        });
        answers.push(codeAfter(own));
      };
      const optionsOf = (index: number): AcquireOptions => ({
        signal: controllers[index]!.signal,
        waitTimeoutMs: 50 + index,
      });
      for (const weight of [1, 2]) ask(semaphore.acquire({ ...optionsOf(weight - 1), weight }));
      let calls = 0;
      for (const subject of [clock, ...controllers.map(({ signal }) => signal)] as object[]) {
        const original = Reflect.get(subject, caller) as
          | ((...all: unknown[]) => unknown)
          | undefined;
        if (original === undefined) continue;
        Object.defineProperty(subject, caller, {
          value: (...all: unknown[]) => {
            if (++calls === 1) ask(acts[act]!(semaphore, held[0]!, () => controllers[0]!.abort()));
            return original.apply(subject, all);
          },
        });
      }
      ask(methods[method]!(semaphore, optionsOf(2), held[1]!));
      calls = 1;
      await settle();
      // S1 to S3, and nobody in line beyond those that may be.
      const { active, available, waiting, capacity } = semaphore;
      const stats = semaphore.stats();
      const smaller = method === 'a smaller size' || act === 'makes it smaller';
      expect(active).toBeLessThanOrEqual(smaller ? 3 : capacity);
      expect(smaller || active + available === capacity).toBe(true);
      expect(waiting).toBeLessThanOrEqual(3);
      expect(stats.queued).toBe(stats.cancelled + stats.timedOut + waiting + stats.waitMs.count);
      expect(waiting > 0 && available >= 2).toBe(false);
      // S4: everybody is answered when their time is over and all permits are back.
      await clock.advance(100);
      for (const permit of permits) {
        permit.release();
        await settle();
      }
      expect(semaphore.waiting).toBe(0);
      expect(await Promise.race([Promise.all(answers), settle().then(() => 'waits')])).not.toBe(
        'waits',
      );
      expect(clock.timers).toBe(0);
    });

    it.each(['acquire', 'run'] as const)(
      'lets a newcomer in at once when a permit comes back while its signal is subscribed to (%s)',
      async (how) => {
        const clock = new ManualClock();
        const semaphore = new Semaphore({ capacity: 1, clock });
        const held = semaphore.tryAcquire()!;
        const { signal } = new AbortController();
        const added: unknown[] = [];
        const { addEventListener, removeEventListener } = signal;
        Object.defineProperties(signal, {
          addEventListener: {
            value: (name: string, listener: () => void) => {
              added.push(listener);
              held.release();
              addEventListener.call(signal, name, listener);
            },
          },
          removeEventListener: {
            value: (name: string, listener: () => void) => {
              added.splice(added.indexOf(listener), 1);
              removeEventListener.call(signal, name, listener);
            },
          },
        });
        const options = { signal, waitTimeoutMs: 50 };
        if (how === 'run') await semaphore.run(() => undefined, options);
        else (await semaphore.acquire(options)).release();
        expect(semaphore.stats()).toMatchObject({ acquired: 2, queued: 0, active: 0, waiting: 0 });
        expect([added.length, clock.timers]).toEqual([0, 0]);
      },
    );

    it('ends nobody twice who leaves while others of one instant or one signal are sent away', async () => {
      const clock = new ManualClock();
      const semaphore = new Semaphore({ capacity: 1, clock });
      semaphore.tryAcquire();
      const closing = (signal: AbortSignal): AbortSignal =>
        Object.defineProperty(signal, 'removeEventListener', {
          value: () => semaphore.close({ waiting: 'reject' }),
        });
      const due = [1, 2].map(() =>
        codeAfter(
          semaphore.acquire({ signal: closing(new AbortController().signal), waitTimeoutMs: 50 }),
        ),
      );
      await clock.advance(50);
      expect(await Promise.all(due)).toEqual(['ERR_WAIT_TIMEOUT', 'ERR_CLOSED']);
      expect(semaphore.stats()).toMatchObject({ waiting: 0, timedOut: 1, cancelled: 1 });

      const other = new Semaphore({ capacity: 1, clock });
      other.tryAcquire();
      const controller = new AbortController();
      const { signal } = controller;
      const sent = [1, 2].map(() => codeAfter(other.acquire({ signal, waitTimeoutMs: 50 })));
      // The time that the first one has waited is told.
      other.on('cancelled', () => undefined);
      const now = clock.now.bind(clock);
      clock.now = () => {
        other.close({ waiting: 'reject' });
        return now();
      };
      controller.abort('gone');
      expect(await Promise.all(sent)).toEqual(['gone', 'ERR_CLOSED']);
      expect(other.stats()).toMatchObject({ waiting: 0, cancelled: 2 });
    });
  });
});
