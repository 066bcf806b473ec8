/**
 * What docs/comparison.md says of other packages, shown on the packages themselves. Where a package
 * offers no such thing, all that it offers is listed: one that has learnt something fails here, and the
 * table is to be looked at again.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { readFileSync } from 'node:fs';
import { setImmediate, setTimeout } from 'node:timers/promises';

import { Sema } from 'async-sema';
import { createSession } from 'better-sse';
import Bottleneck from 'bottleneck';
import fastq from 'fastq';
import { RateLimiter, TokenBucket } from 'limiter';
import pLimit from 'p-limit';
import PQueue from 'p-queue';
import { RateLimiterMemory, RateLimiterQueue, RateLimiterUnion } from 'rate-limiter-flexible';
import { describe, expect, it } from 'vitest';

import manifest from '../package.json' with { type: 'json' };
import { serve, until } from './support/serve.ts';

/** Tasks that end when they are told to, and know how many of them run. */
class Tasks {
  active = 0;
  most = 0;
  readonly #ends: (() => void)[] = [];

  readonly run = async (): Promise<void> => {
    this.most = Math.max(this.most, ++this.active);
    await new Promise<void>((resolve) => {
      this.#ends.push(resolve);
    });
    this.active--;
  };

  end(): void {
    for (const end of this.#ends.splice(0)) end();
  }
}

/** All that an object offers, without what is marked as private by its name. */
function offers(object: object): string {
  const names: string[] = [];
  for (
    let at: object | null = object;
    at !== null;
    at = Object.getPrototypeOf(at) as object | null
  ) {
    if (at === Object.prototype || at === Function.prototype || at === EventTarget.prototype) break;
    names.push(...Object.getOwnPropertyNames(at));
  }
  return [...new Set(names)]
    .filter((name) => !/^_|^(?:constructor|length|name|prototype)$/.test(name))
    .toSorted()
    .join(' ');
}

const settled = async (promise: Promise<unknown>): Promise<boolean> =>
  Promise.race([
    promise.then(
      () => true,
      () => true,
    ),
    setImmediate(false),
  ]);

describe('the versions of the table', () => {
  it('are those that are installed', () => {
    const table = readFileSync(new URL('../docs/comparison.md', import.meta.url), 'utf8');
    const named = [...table.matchAll(/`([\w-]+)` (\d+\.\d+\.\d+)/g)];
    const installed: Readonly<Record<string, string>> = manifest.devDependencies;
    expect(named.length).toBeGreaterThan(7);
    for (const [, name, version] of named)
      expect([name, version]).toEqual([name, installed[name!]]);
  });
});

describe('p-queue', () => {
  it('runs two at a concurrency of 1 after a timeout', async () => {
    const tasks = new Tasks();
    const queue = new PQueue({ concurrency: 1, timeout: 5 });
    const first = queue.add(tasks.run);
    await expect(first).rejects.toThrow('timed out');
    const second = queue.add(tasks.run);
    await until(() => tasks.active === 2);
    tasks.end();
    await second;
  });

  it('runs two at a concurrency of 1 after an abort', async () => {
    const tasks = new Tasks();
    const queue = new PQueue({ concurrency: 1 });
    const leaving = new AbortController();
    const first = queue.add(tasks.run, { signal: leaving.signal });
    const second = queue.add(tasks.run);
    leaving.abort();
    await expect(first).rejects.toThrow('aborted');
    await until(() => tasks.active === 2);
    tasks.end();
    await second;
  });

  it('answers one who leaves the line at once, and calls by priority, then by arrival', async () => {
    const tasks = new Tasks();
    const queue = new PQueue({ concurrency: 1 });
    const first = queue.add(tasks.run);
    const order: string[] = [];
    const leaving = new AbortController();
    const left = queue.add(() => order.push('left'), { signal: leaving.signal });
    const waiting = [
      queue.add(() => order.push('a')),
      queue.add(() => order.push('b')),
      queue.add(() => order.push('urgent'), { priority: 1 }),
    ];
    leaving.abort();
    await expect(left).rejects.toThrow('aborted');
    tasks.end();
    await Promise.all([first, ...waiting]);
    expect(order).toEqual(['urgent', 'a', 'b']);
  });

  it('keeps the context of the caller', async () => {
    const context = new AsyncLocalStorage<string>();
    const tasks = new Tasks();
    const queue = new PQueue({ concurrency: 1 });
    const first = context.run('first', () => queue.add(tasks.run));
    const second = context.run('second', () => queue.add(() => context.getStore()));
    tasks.end();
    await first;
    expect(await second).toBe('second');
  });

  it('knows no place in line, no estimate, no weight and no bound of the line', () => {
    expect(offers(new PQueue())).toBe(
      'add addAll clear concurrency isPaused isRateLimited isSaturated onEmpty onError ' +
        'onIdle onPendingZero onRateLimit onRateLimitCleared onSizeLessThan pause pending ' +
        'runningTasks setPriority size sizeBy start timeout',
    );
  });
});

describe('the packages that the others need', () => {
  it.each([
    ['p-queue', 0],
    ['p-limit', 1],
    ['fastq', 1],
    ['async-sema', 0],
    ['bottleneck', 0],
  ])('%s: %d', (name, count) => {
    const path = new URL(`../node_modules/${name}/package.json`, import.meta.url);
    const { dependencies } = JSON.parse(readFileSync(path, 'utf8')) as { dependencies?: object };
    expect(Object.keys(dependencies ?? {})).toHaveLength(count);
  });

  it('and ours', () => {
    expect(Object.keys(manifest.dependencies)).toHaveLength(2);
  });
});

describe('p-limit', () => {
  it('knows no priority, no place, no estimate, no bound, and nobody leaves alone', () => {
    expect(offers(pLimit(1))).toBe('activeCount clearQueue concurrency map pendingCount');
    expect(pLimit(1)).toHaveLength(1);
  });

  it('serves in order of arrival, in the context of the caller', async () => {
    const context = new AsyncLocalStorage<string>();
    const tasks = new Tasks();
    const limit = pLimit(1);
    const first = limit(tasks.run);
    const order: unknown[] = [];
    const rest = ['a', 'b'].map((name) =>
      context.run(name, () => limit(() => order.push(context.getStore()))),
    );
    await until(() => tasks.active === 1);
    tasks.end();
    await Promise.all([first, ...rest]);
    expect(order).toEqual(['a', 'b']);
  });
});

describe('fastq', () => {
  it('knows no priority, no place, no estimate, no bound, and nobody leaves alone', () => {
    expect(offers(fastq.promise(async () => {}, 1))).toBe(
      'abort concurrency drain drained empty error getQueue idle kill killAndDrain ' +
        'pause paused push resume running saturated unshift',
    );
  });

  it('serves in order of arrival', async () => {
    const order: string[] = [];
    const tasks = new Tasks();
    const queue = fastq.promise(async (name: string) => {
      order.push(name);
      if (name === 'first') await tasks.run();
    }, 1);
    const all = ['first', 'a', 'b'].map((name) => queue.push(name));
    tasks.end();
    await Promise.all(all);
    expect(order).toEqual(['first', 'a', 'b']);
  });

  it('loses the context of the caller of a task that waited', async () => {
    const context = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    const tasks = new Tasks();
    const queue = fastq.promise(async (wait: boolean) => {
      seen.push(context.getStore());
      if (wait) await tasks.run();
    }, 1);
    const first = context.run('first', () => queue.push(true));
    const second = context.run('second', () => queue.push(false));
    tasks.end();
    await Promise.all([first, second]);
    expect(seen).toEqual(['first', 'first']);
  });
});

describe('async-sema', () => {
  it('lets two in at a capacity of 1 after one release too many', async () => {
    const semaphore = new Sema(1);
    await semaphore.acquire();
    semaphore.release();
    semaphore.release();
    await semaphore.acquire();
    expect(await settled(semaphore.acquire())).toBe(true);
  });

  it('serves in order of arrival, in the context of the caller', async () => {
    const context = new AsyncLocalStorage<string>();
    const semaphore = new Sema(1);
    await semaphore.acquire();
    const order: unknown[] = [];
    const waiting = ['a', 'b'].map((name) =>
      context.run(name, async () => {
        await semaphore.acquire();
        order.push(context.getStore());
        semaphore.release();
      }),
    );
    semaphore.release();
    await Promise.all(waiting);
    expect(order).toEqual(['a', 'b']);
  });

  it('knows no priority, no place, no estimate, no bound, no weight, and nobody leaves', () => {
    expect(offers(new Sema(1))).toBe(
      'acquire drain free noTokens nrTokens nrWaiting pauseFn paused release ' +
        'releaseEmitter resumeFn tryAcquire waiting',
    );
    expect(Sema.prototype.acquire).toHaveLength(0);
  });
});

describe('bottleneck', () => {
  it('runs two at a concurrency of 1 after an expiration', async () => {
    const tasks = new Tasks();
    const limiter = new Bottleneck({ maxConcurrent: 1 });
    const first = limiter.schedule({ expiration: 5 }, tasks.run);
    const second = limiter.schedule(tasks.run);
    await expect(first).rejects.toThrow('timed out');
    await until(() => tasks.active === 2);
    tasks.end();
    await second;
  });

  it('serves by priority, then by arrival, and lets nothing light overtake', async () => {
    const tasks = new Tasks();
    const limiter = new Bottleneck({ maxConcurrent: 2 });
    const first = limiter.schedule(tasks.run);
    await until(() => tasks.active === 1);
    const order: string[] = [];
    const waiting = (
      [
        ['heavy', 5, 2],
        ['light', 5, 1],
        ['urgent', 1, 2],
      ] as const
    ).map(([name, priority, weight]) =>
      limiter.schedule({ priority, weight }, async () => order.push(name)),
    );
    await until(() => limiter.queued() === 3);
    expect(order).toEqual([]);
    tasks.end();
    await Promise.all([first, ...waiting]);
    expect(order).toEqual(['urgent', 'heavy', 'light']);
  });

  it('refuses what is above its high water mark, and does not say when to come back', async () => {
    const tasks = new Tasks();
    const limiter = new Bottleneck({
      maxConcurrent: 1,
      highWater: 0,
      strategy: Bottleneck.strategy.OVERFLOW,
    });
    const first = limiter.schedule(tasks.run);
    await until(() => tasks.active === 1);
    const error = await limiter.schedule(tasks.run).catch((each: object) => each);
    expect(Object.keys(error as object)).toEqual([]);
    expect((error as Error).message).toBe('This job has been dropped by Bottleneck');
    tasks.end();
    await first;
  });

  it('loses the context of the caller of a task that waited', async () => {
    const context = new AsyncLocalStorage<string>();
    const tasks = new Tasks();
    const limiter = new Bottleneck({ maxConcurrent: 1 });
    const first = context.run('first', () => limiter.schedule(tasks.run));
    const second = context.run('second', () => limiter.schedule(async () => context.getStore()));
    await until(() => tasks.active === 1);
    tasks.end();
    await first;
    expect(await second).toBe('first');
  });

  it('knows no place in line, no estimate, and nobody leaves alone', () => {
    expect(offers(new Bottleneck())).toBe(
      'Batcher BottleneckError Events Group IORedisConnection Promise RedisConnection ' +
        'chain channel channel_client check clients clusterQueued connection counts ' +
        'currentReservoir datastore disconnect done empty id incrementReservoir ' +
        'instanceDefaults jobDefaults jobStatus jobs localStoreDefaults on once publish ' +
        'queued ready redisStoreDefaults rejectOnDrop removeAllListeners running schedule ' +
        'stop stopDefaults storeDefaults strategy submit trackDoneStatus updateSettings ' +
        'version wrap',
    );
  });
});

describe('limiter', () => {
  it('lets a light newcomer overtake one who waits', async () => {
    const limiter = new RateLimiter({ tokensPerInterval: 10, interval: 'day' });
    limiter.tryRemoveTokens(5);
    const heavy = limiter.removeTokens(10);
    expect(limiter.tryRemoveTokens(5)).toBe(true);
    expect(await settled(heavy)).toBe(false);
  });

  it('takes nothing from who is refused, and tells when to come back', () => {
    const limiter = new RateLimiter({ tokensPerInterval: 5, interval: 'day' });
    limiter.tryRemoveTokens(1);
    expect(limiter.tryRemoveTokens(5)).toBe(false);
    expect(limiter.getWaitTime(5)).toBeGreaterThan(0);
    expect(limiter.tryRemoveTokens(4)).toBe(true);
  });

  it('knows one cost for all buckets, no way back, and nobody leaves', () => {
    expect(offers(new RateLimiter({ tokensPerInterval: 1, interval: 1 }))).toBe(
      'curIntervalStart fireImmediately getTokensRemaining getWaitTime removeTokens ' +
        'requests tokenBucket tokensThisInterval tryRemoveTokens',
    );
    expect(offers(new TokenBucket({ bucketSize: 1, tokensPerInterval: 1, interval: 1 }))).toBe(
      'bucketSize content drip getWaitTime interval lastDrip parentBucket ' +
        'remainingTokens removeTokens requests tokensPerInterval tryRemoveTokens',
    );
  });
});

describe('rate-limiter-flexible', () => {
  it('takes something from who is refused', async () => {
    const limiter = new RateLimiterMemory({ points: 5, duration: 60 });
    await expect(limiter.consume('ann', 6)).rejects.toMatchObject({ remainingPoints: 0 });
    await expect(limiter.consume('ann', 1)).rejects.toMatchObject({ remainingPoints: 0 });
  });

  it('takes from one limit when the other one refuses', async () => {
    const requests = new RateLimiterMemory({ keyPrefix: 'requests', points: 100, duration: 60 });
    const tokens = new RateLimiterMemory({ keyPrefix: 'tokens', points: 1, duration: 60 });
    const both = new RateLimiterUnion(requests, tokens);
    await both.consume('ann', 1);
    await expect(both.consume('ann', 1)).rejects.toBeDefined();
    expect((await requests.get('ann'))!.consumedPoints).toBe(2);
  });

  it('tells when to come back, and gives back by hand', async () => {
    const limiter = new RateLimiterMemory({ points: 1, duration: 60 });
    await limiter.consume('ann');
    const { msBeforeNext } = (await limiter
      .consume('ann')
      .catch((refusal: unknown) => refusal)) as {
      msBeforeNext: number;
    };
    expect(msBeforeNext).toBeGreaterThan(50_000);
    await limiter.reward('ann', 2);
    await limiter.consume('ann');
  });

  it('offers no way out of its line', () => {
    const line = new RateLimiterQueue(new RateLimiterMemory({ points: 1, duration: 60 }));
    expect(offers(line)).toBe('getTokensRemaining removeTokens');
  });
});

describe('better-sse', () => {
  it('leaves a source that hangs alone when the client has gone', async () => {
    let returned = false;
    let connected = false;
    const hung: AsyncIterable<string> = {
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: async () => {
          returned = true;
          return { done: true, value: undefined };
        },
      }),
    };
    await using served = await serve((request, response) => {
      void createSession(request, response).then((session) => {
        session.once('disconnected', () => {
          connected = false;
        });
        connected = true;
        return session.iterate(hung);
      });
    });
    const leaving = new AbortController();
    await fetch(served.url, { signal: leaving.signal });
    await until(() => connected);
    leaving.abort();
    await until(() => !connected);
    await setTimeout(20);
    expect(returned).toBe(false);
  });

  it('reads on however slowly the client reads', async () => {
    let read = 0;
    async function* quick(): AsyncGenerator<string> {
      for (; read < 2000; read++) yield 'x'.repeat(10_000);
    }
    let done: Promise<void> | undefined;
    await using served = await serve((request, response) => {
      done = createSession(request, response).then((session) => session.iterate(quick()));
    });
    // Twenty megabytes, of which nobody has read any.
    await fetch(served.url);
    await until(() => done !== undefined);
    await done;
    expect(read).toBe(2000);
  });
});
