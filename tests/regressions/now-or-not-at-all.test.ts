import { RateLimiter } from 'sluice';
import { ManualClock } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

// Found by the simulation, with seed 400009:
// 1. `sync` holds tokens back.
// 2. Somebody waits for them.
// 3. `acquire` with a `waitTimeoutMs` of 0: as the bucket itself had enough for both, the caller got into
//    the line, to be told by a timer that its time was over.
describe('RateLimiter', () => {
  it('lets nobody into the line who does not want to wait, whatever an upstream holds back', async () => {
    const clock = new ManualClock();
    const limiter = new RateLimiter({ limit: 5, clock });
    const queued: unknown[] = [];
    limiter.sync({ remaining: 0, resetMs: 60 });
    const waits = limiter.acquire();
    limiter.on('queued', (event) => queued.push(event));
    const refused = limiter.acquire({ waitTimeoutMs: 0 });
    expect(limiter.waiting).toBe(1);
    await expect(refused).rejects.toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfterMs: 60 });
    expect(queued).toEqual([]);
    await clock.advance(60);
    await waits;
  });
});
