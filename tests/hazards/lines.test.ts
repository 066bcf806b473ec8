import { AdmissionQueue, RateLimiter, Semaphore, SharedResource } from 'sluice';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { codeOf } from '../support/promises.ts';

const never = (): Promise<never> => new Promise(() => undefined);

/** One who gets in and stays, then everybody else has to wait. */
const lines = {
  Semaphore: (maxWaiting: number) => {
    const semaphore = new Semaphore({ capacity: 1, maxWaiting });
    return { gate: semaphore, call: (ms?: number) => semaphore.run(never, { waitTimeoutMs: ms }) };
  },
  AdmissionQueue: (maxWaiting: number) => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting, clock: new ManualClock() });
    return { gate: queue, call: (ms?: number) => queue.run(never, { waitTimeoutMs: ms }) };
  },
  RateLimiter: (maxWaiting: number) => {
    const limiter = new RateLimiter({ limit: 1, maxWaiting, clock: new ManualClock() });
    return { gate: limiter, call: (ms?: number) => limiter.run(never, { waitTimeoutMs: ms }) };
  },
};

describe.each(Object.entries(lines))('%s', (_, make) => {
  it.each([0, 1, 2, 3])(
    'lets exactly %d wait where that is its maxWaiting (H197)',
    async (most) => {
      const { gate, call } = make(most);
      const outcomes: unknown[] = [];
      for (let i = 0; i < most + 3; i++) {
        call().catch((error: unknown) => outcomes.push([i, codeOf(error)]));
      }
      expect([gate.active, gate.waiting]).toEqual([1, most]);
      await Promise.resolve();
      // The first one got in.
      expect(outcomes).toEqual([
        [most + 1, 'ERR_QUEUE_FULL'],
        [most + 2, 'ERR_QUEUE_FULL'],
      ]);
    },
  );

  it('lets nobody wait where maxWaiting is 0, and lets in who need not (H197)', async () => {
    const { gate, call } = make(0);
    void call(0).catch(() => undefined);
    expect([gate.active, gate.waiting]).toEqual([1, 0]);
    await expect(call(0)).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' });
    await expect(call()).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL', waiting: 0 });
  });
});

describe('a refusal', () => {
  it('tells nothing of anybody else but how many there are (H169)', async () => {
    const secret = 'somebody else';
    const clock = new ManualClock();
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 2, overflow: 'shed', clock });
    const limiter = new RateLimiter({ limit: 1, maxWaiting: 1, clock });
    const semaphore = new Semaphore({ capacity: 1, maxWaiting: 1, clock });
    const resource = new SharedResource({ load: () => secret, maxUsers: 1, clock });
    await resource.preload();
    const others = { key: secret, metadata: { secret } };
    const errors: unknown[] = [];
    const keep = (answer: Promise<unknown>): void => void answer.catch((e) => errors.push(e));
    for (const priority of [2, 3, 4]) {
      keep(queue.run(never, { ...others, id: `${secret} ${priority}`, priority }));
    }
    const mine = { waitTimeoutMs: 5 };
    keep(queue.run(never, { ...mine, id: 'mine', priority: 5 }));
    keep(queue.run(never, { priority: 1, ...mine }));
    for (const gate of [limiter, semaphore, resource]) {
      keep(gate.run(never));
      keep(gate.run(never, mine));
      keep(gate.run(never, mine));
    }
    await clock.advance(5);
    queue.close({ waiting: 'reject' });
    await clock.advance(0);
    const codes = errors.map(codeOf);
    expect(new Set(codes)).toEqual(
      new Set(['ERR_QUEUE_FULL', 'ERR_SHED', 'ERR_RATE_LIMITED', 'ERR_WAIT_TIMEOUT', 'ERR_CLOSED']),
    );
    for (const error of errors as Error[]) {
      expect(`${error.message} ${JSON.stringify(error)}`).not.toContain(secret);
      // Numbers, and the names of the error itself.
      const data = Object.entries(error).filter(([name]) => !['name', 'code'].includes(name));
      expect(data.filter(([, value]) => !['number', 'undefined'].includes(typeof value))).toEqual(
        [],
      );
    }
  });
});
