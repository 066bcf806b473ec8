import { describe, expect, it } from 'vitest';

import { healthReport } from '../../src/http/index.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { ManualClock } from '../../src/testing.ts';

describe('healthReport()', () => {
  it('has the statistics of primitives and what checks return', async () => {
    const semaphore = new Semaphore(3);
    semaphore.tryAcquire();
    const report = await healthReport({
      gpu: semaphore,
      model: () => ({ version: 7 }),
      database: async () => {},
    });
    expect(report).toMatchObject({
      status: 200,
      headers: { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' },
      body: { status: 'ok' },
    });
    expect(report.body.parts).toEqual({
      gpu: semaphore.stats(),
      model: { version: 7 },
      database: {},
    });
  });

  it('is 503 when a part is closed', async () => {
    const gpu = new Semaphore(1);
    gpu.close();
    expect(await healthReport({ gpu })).toMatchObject({ status: 503, body: { status: 'closed' } });
  });

  it('is 503 when a check fails, and tells no more of it than its code or name', async () => {
    const report = await healthReport({
      a: () => {
        throw Object.assign(new Error('secret'), { code: 'ECONNREFUSED' });
      },
      b: async () => {
        throw new TypeError('secret');
      },
      c: async () => {
        // What a check rejects with is its own affair.
        throw undefined;
      },
      d: () => 'fine',
    });
    expect(report).toMatchObject({ status: 503, body: { status: 'failing' } });
    expect(report.body.parts).toEqual({
      a: { error: 'ECONNREFUSED' },
      b: { error: 'TypeError' },
      c: { error: 'Error' },
      d: 'fine',
    });
  });

  it('takes statistics that come later, and is 503 where they do not', async () => {
    const fails = { stats: () => Promise.reject(new TypeError('secret')) };
    const { status, body } = await healthReport({
      fails,
      closed: { stats: async () => ({ closed: true }) },
    });
    expect(status).toBe(503);
    expect(body.parts).toEqual({ fails: { error: 'TypeError' }, closed: { closed: true } });
    const { body: later } = await healthReport({
      closed: { stats: async () => ({ closed: true }) },
    });
    expect(later.status).toBe('closed');
  });

  it('waits for no check longer than `timeoutMs`', async () => {
    const clock = new ManualClock();
    const asked = healthReport(
      { slow: () => new Promise(() => {}), quick: async () => 'fine' },
      { timeoutMs: 100, clock },
    );
    let isAnswered = false;
    void asked.then(() => (isAnswered = true));
    await clock.advance(99);
    expect(isAnswered).toBe(false);
    await clock.advance(1);
    expect((await asked).body).toEqual({
      status: 'failing',
      parts: { slow: { error: 'TimeoutError' }, quick: 'fine' },
    });
    expect(clock.timers).toBe(0);
  });

  it('has no timer left when all checks have answered', async () => {
    const clock = new ManualClock();
    await healthReport({ quick: async () => 'fine' }, { clock });
    expect(clock.timers).toBe(0);
  });

  it('rejects for bad options', async () => {
    await expect(healthReport({}, { timeoutMs: 0 })).rejects.toThrow(
      /^Expected `timeoutMs` to be .*, got 0/u,
    );
    await expect(healthReport({}, { timeout: 1 } as never)).rejects.toThrow(
      new TypeError('Unknown option "timeout" of healthReport; it knows `timeoutMs`, `clock`.'),
    );
  });
});
