import { getEventListeners } from 'node:events';

import { type Permit, Semaphore } from 'sluice/semaphore';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { codeOf, microtasks } from '../support/promises.ts';

/**
 * What has gone wrong in other semaphores, each reproduced on the published package or told of in
 * the thread that is named, and what this one does instead.
 */

function codeAfter(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'ok',
    (error: unknown) => codeOf(error),
  );
}

function controlled(): { signal: AbortSignal; abort: (reason: unknown) => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: (reason) => controller.abort(reason) };
}

describe('permits', () => {
  it('async-sema 3.1 (vercel/async-sema#36): a permit given back twice is two', async () => {
    const semaphore = new Semaphore(1);
    const permit = await semaphore.acquire();
    permit.release();
    permit.release();
    await semaphore.acquire();
    expect(semaphore.tryAcquire()).toBeUndefined();
    expect(semaphore.active).toBe(1);
  });

  it('async-mutex 0.5: a release without an acquire makes one of one two', () => {
    const semaphore = new Semaphore(1);
    expect('release' in semaphore).toBe(false);
    expect(semaphore.available).toBe(1);
  });

  it('async-mutex 0.5: a new value while one is held adds to what there is', () => {
    const semaphore = new Semaphore(1);
    const permit = semaphore.tryAcquire()!;
    semaphore.resize(3);
    expect([semaphore.available, semaphore.active]).toEqual([2, 1]);
    permit.release();
    expect(semaphore.available).toBe(3);
  });

  it('llm-d/llm-d-batch-gateway#206: a double release that is swallowed shrinks the capacity for ever', () => {
    const semaphore = new Semaphore(2);
    for (let i = 0; i < 100; i++) {
      const permit = semaphore.tryAcquire()!;
      expect([permit.release(), permit.release()]).toEqual([true, false]);
    }
    expect(semaphore.available).toBe(2);
  });

  it('tokio#8021: a closed one opens again when the capacity changes', async () => {
    const semaphore = new Semaphore(1);
    semaphore.close();
    semaphore.resize(5);
    expect(semaphore.tryAcquire()).toBeUndefined();
    expect(await codeAfter(semaphore.acquire())).toBe('ERR_CLOSED');
  });

  it('microsoft/vs-threading#592: waiters hang for ever after a dispose', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const waits = [semaphore.acquire(), semaphore.acquire()].map(async (wait) =>
      (await wait).release(),
    );
    const disposed = semaphore[Symbol.asyncDispose]();
    held.release();
    await Promise.all([...waits, disposed]);
    expect(semaphore.active).toBe(0);
  });
});

describe('the order', () => {
  it('async-mutex 0.5: an impossible weight waits for ever, and everybody behind it (H184)', async () => {
    const semaphore = new Semaphore(2);
    expect(await codeAfter(semaphore.acquire({ weight: 3 }))).toBe('ERR_EXCEEDS_CAPACITY');
    expect((await semaphore.acquire()).weight).toBe(1);
  });

  it('async-mutex#77: light callers crowd a heavy one out', async () => {
    const semaphore = new Semaphore(2);
    let held = semaphore.tryAcquire()!;
    const heavy = vi.fn<(permit: Permit) => void>();
    void semaphore.acquire({ weight: 2 }).then(heavy);
    for (let i = 0; i < 10; i++) {
      void semaphore.acquire().then((permit) => permit.release());
      expect(semaphore.tryAcquire()).toBeUndefined();
    }
    await settle();
    expect(heavy).not.toHaveBeenCalled();
    held.release();
    await settle();
    expect(heavy).toHaveBeenCalledOnce();
    held = heavy.mock.calls[0]![0];
    held.release();
    await semaphore.idle();
  });

  it('CPython gh-90155, agronholm/anyio#1170: a newcomer takes the permit between the release and the wake-up (H181)', async () => {
    const ways: ((semaphore: Semaphore) => unknown)[] = [
      (semaphore) => semaphore.tryAcquire(),
      (semaphore) => semaphore.acquire({ waitTimeoutMs: 0 }).catch(() => undefined),
    ];
    for (const way of ways) {
      for (let depth = 0; depth <= 30; depth++) {
        const semaphore = new Semaphore(1);
        const held = semaphore.tryAcquire()!;
        const waiting = semaphore.acquire();
        const newcomer = microtasks(depth).then(() => way(semaphore));
        held.release();
        expect(await newcomer).toBeUndefined();
        expect((await waiting).released).toBe(false);
      }
    }
  });

  it('agronholm/anyio: the last to come is the first to be served', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const order: number[] = [];
    const answers = [1, 2, 3].map((name) => semaphore.run(() => order.push(name)));
    held.release();
    await Promise.all(answers);
    expect(order).toEqual([1, 2, 3]);
  });

  it('async-mutex 0.5: a burst of a hundred thousand takes seconds', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const answers = Array.from({ length: 100_000 }, () => semaphore.run(() => undefined));
    const { user: before } = process.cpuUsage();
    held.release();
    await Promise.all(answers);
    // It takes some 100 ms; the bound is for what is quadratic, on any machine.
    expect((process.cpuUsage().user - before) / 1000).toBeLessThan(2000);
    expect(semaphore.available).toBe(1);
  });

  it('embassy-rs/embassy#2766: a release of many wakes one', async () => {
    const semaphore = new Semaphore(3);
    const held = semaphore.tryAcquire(3)!;
    const waits = [1, 2, 3].map(() => semaphore.acquire());
    held.release();
    expect((await Promise.all(waits)).length).toBe(3);
  });
});

describe('leaving the line', () => {
  it('golang/go#37852, embassy-rs/embassy#6964: when the first in line leaves, those who fit now are not woken (H053)', async () => {
    const clock = new ManualClock();
    for (const how of ['abort', 'timeout'] as const) {
      const semaphore = new Semaphore({ capacity: 2, clock });
      semaphore.tryAcquire();
      const controller = new AbortController();
      const { signal } = controller;
      const heavy = codeAfter(semaphore.acquire({ weight: 2, signal, waitTimeoutMs: 10 }));
      const light = semaphore.acquire();
      if (how === 'abort') controller.abort('gone');
      else await clock.advance(10);
      expect(await heavy).toBe(how === 'abort' ? 'gone' : 'ERR_WAIT_TIMEOUT');
      expect((await light).weight).toBe(1);
    }
  });

  it('golang/go#63615: who has given up already gets a permit if one is free', async () => {
    const semaphore = new Semaphore(1);
    const signal = AbortSignal.abort('gone');
    expect(await codeAfter(semaphore.acquire({ signal }))).toBe('gone');
    expect(semaphore.available).toBe(1);
  });

  it('failsafe-lib/failsafe#393, natesilva/p-ratelimit#25: the permit goes to one who has timed out, and is lost', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    const held = semaphore.tryAcquire()!;
    const late = codeAfter(semaphore.acquire({ waitTimeoutMs: 10 }));
    await clock.advance(10);
    held.release();
    expect(await late).toBe('ERR_WAIT_TIMEOUT');
    expect(semaphore.available).toBe(1);
  });

  it('opossum 10: the timer of one who was served throws somebody else out', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    const held = semaphore.tryAcquire()!;
    const served = semaphore.acquire({ waitTimeoutMs: 10 });
    const other = semaphore.acquire();
    held.release();
    const permit = await served;
    expect(clock.timers).toBe(0);
    await clock.advance(100);
    expect(semaphore.waiting).toBe(1);
    permit.release();
    expect((await other).released).toBe(false);
  });

  it('async-mutex 0.5: those who time out stay in line until the next release', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    semaphore.tryAcquire();
    const waits = Array.from({ length: 1000 }, () =>
      codeAfter(semaphore.acquire({ waitTimeoutMs: 10 })),
    );
    await clock.advance(10);
    await Promise.all(waits);
    expect([semaphore.waiting, clock.timers]).toEqual([0, 0]);
  });

  it('agronholm/anyio#387, #398: one who leaves while being granted loses the permit', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const controller = new AbortController();
    const task = vi.fn<() => void>();
    const leaving = codeAfter(semaphore.run(task, { signal: controller.signal }));
    held.release();
    controller.abort('gone');
    expect(await leaving).toBe('gone');
    expect(task).not.toHaveBeenCalled();
    expect(semaphore.available).toBe(1);
  });

  it('w3c/web-locks#34, Effect-TS/effect#6081, #6910, #8391: who is granted and leaves takes the permit along', async () => {
    for (const how of ['run', 'acquire'] as const) {
      for (let depth = 0; depth <= 30; depth++) {
        const semaphore = new Semaphore(1);
        const held = semaphore.tryAcquire()!;
        const { signal, abort } = controlled();
        const answer =
          how === 'run'
            ? semaphore.run(() => microtasks(5), { signal })
            : semaphore.acquire({ signal }).then((permit) => permit.release());
        const left = microtasks(depth).then(() => abort('gone'));
        held.release();
        expect(['ok', 'gone']).toContain(await codeAfter(answer));
        await left;
        await settle();
        expect([how, depth, semaphore.available]).toEqual([how, depth, 1]);
      }
    }
  });

  it('repoprompt-ce#492, agenc-core#1321, e2b-dev/infra#3629: who was cancelled enters, or nobody does', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const { signal, abort } = controlled();
    const task = vi.fn<() => void>();
    const leaving = codeAfter(semaphore.run(task, { signal }));
    const next = semaphore.run(() => 'next');
    abort('gone');
    expect([await leaving, semaphore.waiting]).toEqual(['gone', 1]);
    held.release();
    expect(await next).toBe('next');
    expect(task).not.toHaveBeenCalled();
  });

  it('async-mutex 0.5: who waits for the end waits for ever when the line is sent away', async () => {
    const semaphore = new Semaphore(1);
    const held = semaphore.tryAcquire()!;
    const sent = [1, 2].map(() => codeAfter(semaphore.acquire()));
    const idle = Promise.all([semaphore.idle(), semaphore.idle()]);
    semaphore.close({ waiting: 'reject' });
    expect(await Promise.all(sent)).toEqual(['ERR_CLOSED', 'ERR_CLOSED']);
    held.release();
    await idle;
  });

  it('nodejs/node#47449: many who share a signal are a warning', async () => {
    const warned = vi.spyOn(process, 'emitWarning');
    const semaphore = new Semaphore(1);
    semaphore.tryAcquire();
    const { signal, abort } = controlled();
    const answers = Array.from({ length: 100 }, () => codeAfter(semaphore.acquire({ signal })));
    expect(getEventListeners(signal, 'abort').length).toBe(1);
    abort('gone');
    await Promise.all(answers);
    expect(warned).not.toHaveBeenCalled();
    warned.mockRestore();
  });

  it('Effect-TS/effect#6638: of a heavy one who leaves a part of the permits is lost (H075)', async () => {
    const semaphore = new Semaphore(4);
    const held = [1, 1, 1].map(() => semaphore.tryAcquire()!);
    const controller = new AbortController();
    const heavy = codeAfter(semaphore.acquire({ weight: 4, signal: controller.signal }));
    held[0]!.release();
    controller.abort('gone');
    expect(await heavy).toBe('gone');
    for (const permit of held) permit.release();
    expect(semaphore.available).toBe(4);
  });

  it('sindresorhus/p-queue#235, cockatiel#69: a long-lived signal gathers listeners (H204)', async () => {
    const semaphore = new Semaphore(1);
    const { signal } = new AbortController();
    for (let i = 0; i < 100; i++) {
      await Promise.all([semaphore.run(() => i, { signal }), semaphore.run(() => i, { signal })]);
    }
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});

describe('tasks', () => {
  it('p-queue 10, opossum 10: a task that times out frees its place while it runs, and five run at once', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, clock });
    let live = 0;
    let most = 0;
    const answers = Array.from({ length: 5 }, () =>
      codeAfter(
        semaphore.run(
          async () => {
            most = Math.max(most, ++live);
            await new Promise<void>((resolve) => clock.setTimeout(resolve, 60));
            live--;
          },
          { runTimeoutMs: 10 },
        ),
      ),
    );
    await clock.advance(1000);
    expect(await Promise.all(answers)).toEqual(Array(5).fill('ERR_RUN_TIMEOUT'));
    expect([most, live, semaphore.active]).toEqual([1, 0, 0]);
  });

  it('fastq.promise 1.20: a task that throws or returns no promise keeps its place for ever', async () => {
    const semaphore = new Semaphore(1);
    const throwing = (): never => {
      throw new Error('sync');
    };
    await codeAfter(semaphore.run(throwing));
    expect(await semaphore.run(() => 5)).toBe(5);
    const waiting = [semaphore.run(() => 1), codeAfter(semaphore.run(throwing))];
    await Promise.all(waiting);
    expect(semaphore.active).toBe(0);
  });
});
