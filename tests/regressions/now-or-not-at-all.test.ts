import { RateLimiter } from 'sluice';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

// Found by the simulation, with seed 400009:
// 1. `sync` holds tokens back.
// 2. `acquire` with a `waitTimeoutMs` of 0.
// 3. As the bucket itself had the tokens, the caller got into the line, to be told by a timer that its
//    time was over.
describe('RateLimiter', () => {
  it('lets nobody into the line who does not want to wait, whatever an upstream holds back', async () => {
    const limiter = new RateLimiter({ limit: 5, clock: new ManualClock() });
    const queued: unknown[] = [];
    limiter.on('queued', (event) => queued.push(event));
    limiter.sync({ remaining: 0, resetMs: 60 });
    const refused = limiter.acquire({ waitTimeoutMs: 0 });
    expect(limiter.waiting).toBe(0);
    await expect(refused).rejects.toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfterMs: 60 });
    expect(queued).toEqual([]);
  });
});
