import { RateLimiter, SharedResource } from 'sluice';
import { describe, expect, it } from 'vitest';

// Found by the simulation, with its first seeds:
// 1. `run` a task that returns a promise with a `then` of its own, which calls back twice.
// 2. The task counted as over twice, so that -1 were active, and what `run` returned was no promise.

function promiseThatSettlesTwice(): Promise<string> {
  const promise = Promise.resolve('value');
  return Object.assign(promise, {
    then: ((fulfilled: (value: string) => unknown) => {
      fulfilled('first');
      fulfilled('second');
    }) as unknown as Promise<string>['then'],
  });
}

describe('RateLimiter', () => {
  it('has one task less when a promise settles twice', async () => {
    const limiter = new RateLimiter({ limit: 10 });
    expect(await limiter.run(promiseThatSettlesTwice)).toBe('value');
    expect(limiter.active).toBe(0);
  });
});

describe('SharedResource', () => {
  it('has one user less when a promise settles twice', async () => {
    const resource = new SharedResource({ load: () => 'resource' });
    await resource.preload();
    expect(await resource.run(promiseThatSettlesTwice)).toBe('value');
    expect(resource.active).toBe(0);
    await resource.close();
  });
});
