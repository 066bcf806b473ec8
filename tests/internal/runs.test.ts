import { getEventListeners } from 'node:events';

import { describe, expect, it } from 'vitest';

import { AbortWatch } from '../../src/internal/abort.ts';
import { Deadlines } from '../../src/internal/deadlines.ts';
import { type Run, type RunLimits, Runs } from '../../src/internal/runs.ts';
import { Time } from '../../src/internal/time.ts';
import { ManualClock, settle } from '../../src/testing.ts';

const LIMITS: RunLimits = { signal: undefined, runTimeoutMs: Infinity, graceMs: Infinity };
const never = (): Promise<never> => new Promise(() => undefined);

function setUp(): {
  clock: ManualClock;
  log: string[];
  run: (task: () => unknown, limits?: Partial<RunLimits>) => Promise<unknown>;
} {
  const clock = new ManualClock();
  const time = new Time(clock);
  const log: string[] = [];
  const signals = new AbortWatch<Run<string>>((batch, reason) => {
    for (const one of batch) runs.interrupt(one, reason);
  });
  const deadlines = new Deadlines<Run<string>>(time, (due, now) => {
    for (const one of due) runs.expire(one, now);
  });
  const runs: Runs<string> = new Runs(
    time,
    signals,
    deadlines,
    (hold) => log.push(`release ${hold}`),
    (hold, ranMs) => log.push(`overrun ${hold} after ${ranMs}`),
  );
  const run = (task: () => unknown, limits: Partial<RunLimits> = {}): Promise<unknown> =>
    runs.perform(task, () => undefined, 'hold', { ...LIMITS, ...limits });
  return { clock, log, run };
}

describe('Runs', () => {
  it('gives back what is held before it answers', async () => {
    const { log, run } = setUp();
    await run(() => 1).then(() => log.push('answer'));
    const failing = run(() => Promise.reject(new Error('task')));
    await failing.catch(() => log.push('failure'));
    expect(log).toEqual(['release hold', 'answer', 'release hold', 'failure']);
  });

  it('answers at the abort, and gives back when the task has settled', async () => {
    const { clock, log, run } = setUp();
    const controller = new AbortController();
    const { signal } = controller;
    const { promise, resolve } = Promise.withResolvers<void>();
    const answer = run(() => promise, { signal, graceMs: 100 });
    controller.abort('gone');
    await expect(answer).rejects.toBe('gone');
    expect([log, clock.timers]).toEqual([[], 1]);
    resolve();
    await settle();
    expect([log, clock.timers]).toEqual([['release hold'], 0]);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('tells of one that outlives its grace, once', async () => {
    const { clock, log, run } = setUp();
    const answer = run(never, { runTimeoutMs: 10, graceMs: 5 });
    answer.catch(() => undefined);
    await clock.advance(14);
    await expect(answer).rejects.toMatchObject({ code: 'ERR_RUN_TIMEOUT', ranMs: 10 });
    expect(log).toEqual([]);
    await clock.advance(1000);
    expect([log, clock.timers]).toEqual([['overrun hold after 15'], 0]);
  });

  it('leaves a signal as soon as the task has settled, or the caller is answered', async () => {
    const { clock, log, run } = setUp();
    await clock.advance(1000);
    const { signal } = new AbortController();
    await run(() => 1, { signal });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    const answer = run(never, { signal, runTimeoutMs: 10 }).catch((error: unknown) => error);
    await clock.advance(10);
    expect(await answer).toMatchObject({ ranMs: 10 });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    expect(log).toEqual(['release hold']);
  });

  it('gives back at once, and calls nothing, where the signal cannot be listened to', async () => {
    const { log, run } = setUp();
    const failure = new Error('no listeners');
    const hostile = {
      aborted: false,
      addEventListener: () => {
        throw failure;
      },
      removeEventListener: () => undefined,
    } as never;
    await expect(run(() => log.push('called'), { signal: hostile })).rejects.toBe(failure);
    expect(log).toEqual(['release hold']);
  });
});
