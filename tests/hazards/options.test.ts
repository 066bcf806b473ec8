import { readFileSync } from 'node:fs';

import {
  AdmissionQueue,
  Keyed,
  RateLimiter,
  Semaphore,
  SessionManager,
  SharedResource,
  TokenStreamer,
} from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { describe, expect, it, vi } from 'vitest';

import { readSources } from '../support/sources.ts';
import { catchUncaught } from '../support/uncaught.ts';

const semaphore = new Semaphore(5);
const queue = new AdmissionQueue({ concurrency: 5 });
const limiter = new RateLimiter({ limit: 5 });
const resource = new SharedResource({ load: () => 1 });
const sessions = new SessionManager();
const streamer = new TokenStreamer();

const task = (): void => undefined;
const load = (): number => 1;
const makeGauges = (): { active: number; waiting: number } => ({ active: 0, waiting: 0 });

/** What a number may be. Everything in the list is refused with a RangeError. */
const RANGES = {
  count: [Number.NaN, -1, 0, 1.5, Infinity, -Infinity, 2 ** 53],
  countOrInfinity: [Number.NaN, -1, 1.5, -Infinity, 2 ** 53],
  countOrAll: [Number.NaN, -1, 0, 1.5, -Infinity, 2 ** 53],
  ms: [Number.NaN, -1, 0, Infinity, -Infinity],
  zeroOrMs: [Number.NaN, -1, Infinity, -Infinity],
  msOrInfinity: [Number.NaN, -1, -Infinity],
  positiveMsOrInfinity: [Number.NaN, -1, 0, -Infinity],
  natural: [Number.NaN, -1, 1.5, Infinity, -Infinity, 2 ** 53],
  priority: [Number.NaN, -1, 0, 1.5, 6, Infinity, -Infinity, 2 ** 53],
  instant: [Number.NaN, Infinity, -Infinity],
} as const;

/** Where a number goes in, what it is called there, and what it may be. */
const NUMBERS: readonly [
  where: string,
  name: string,
  range: keyof typeof RANGES,
  give: (value: never) => unknown,
][] = [
  ['new Semaphore', 'capacity', 'count', (capacity) => new Semaphore({ capacity })],
  [
    'new Semaphore',
    'maxWaiting',
    'countOrInfinity',
    (maxWaiting) => new Semaphore({ capacity: 1, maxWaiting }),
  ],
  ['new Semaphore', 'maxHoldMs', 'ms', (maxHoldMs) => new Semaphore({ capacity: 1, maxHoldMs })],
  ['semaphore.tryAcquire', 'weight', 'count', (weight) => semaphore.tryAcquire(weight)],
  ['semaphore.acquire', 'weight', 'count', (weight) => semaphore.acquire({ weight })],
  [
    'semaphore.acquire',
    'waitTimeoutMs',
    'msOrInfinity',
    (waitTimeoutMs) => semaphore.acquire({ waitTimeoutMs }),
  ],
  ['semaphore.run', 'weight', 'count', (weight) => semaphore.run(task, { weight })],
  [
    'semaphore.run',
    'runTimeoutMs',
    'msOrInfinity',
    (runTimeoutMs) => semaphore.run(task, { runTimeoutMs }),
  ],
  ['semaphore.run', 'graceMs', 'msOrInfinity', (graceMs) => semaphore.run(task, { graceMs })],
  ['semaphore.resize', 'capacity', 'count', (capacity) => semaphore.resize(capacity)],
  [
    'new AdmissionQueue',
    'concurrency',
    'count',
    (concurrency) => new AdmissionQueue({ concurrency }),
  ],
  [
    'new AdmissionQueue',
    'maxWaiting',
    'countOrInfinity',
    (maxWaiting) => new AdmissionQueue({ concurrency: 1, maxWaiting }),
  ],
  [
    'new AdmissionQueue',
    'priorities',
    'count',
    (priorities) => new AdmissionQueue({ concurrency: 1, priorities }),
  ],
  [
    'new AdmissionQueue',
    'defaultPriority',
    'priority',
    (defaultPriority) => new AdmissionQueue({ concurrency: 1, defaultPriority }),
  ],
  [
    'new AdmissionQueue',
    'waitTimeoutMs',
    'msOrInfinity',
    (waitTimeoutMs) => new AdmissionQueue({ concurrency: 1, waitTimeoutMs }),
  ],
  [
    'new AdmissionQueue',
    'runTimeoutMs',
    'msOrInfinity',
    (runTimeoutMs) => new AdmissionQueue({ concurrency: 1, runTimeoutMs }),
  ],
  [
    'new AdmissionQueue',
    'graceMs',
    'msOrInfinity',
    (graceMs) => new AdmissionQueue({ concurrency: 1, graceMs }),
  ],
  [
    'new AdmissionQueue',
    'history',
    'natural',
    (history) => new AdmissionQueue({ concurrency: 1, history }),
  ],
  ['queue.run', 'priority', 'priority', (priority) => queue.run(task, { priority })],
  [
    'queue.run',
    'priority',
    'priority',
    (priority) => queue.run(task, { priority, key: 'among others' }),
  ],
  ['queue.enqueue', 'priority', 'priority', (priority) => queue.enqueue(task, { priority }).result],
  [
    'queue.run',
    'waitTimeoutMs',
    'msOrInfinity',
    (waitTimeoutMs) => queue.run(task, { waitTimeoutMs }),
  ],
  [
    'queue.run',
    'runTimeoutMs',
    'msOrInfinity',
    (runTimeoutMs) => queue.run(task, { runTimeoutMs }),
  ],
  ['queue.run', 'enqueuedAt', 'instant', (enqueuedAt) => queue.run(task, { enqueuedAt })],
  ['queue.setPriority', 'priority', 'priority', (priority) => queue.setPriority('a', priority)],
  ['queue.resize', 'concurrency', 'count', (concurrency) => queue.resize(concurrency)],
  ['new RateLimiter', 'limit', 'count', (limit) => new RateLimiter({ limit })],
  [
    'new RateLimiter',
    'intervalMs',
    'count',
    (intervalMs) => new RateLimiter({ limit: 1, intervalMs }),
  ],
  ['new RateLimiter', 'burst', 'count', (burst) => new RateLimiter({ limit: 1, burst })],
  [
    'new RateLimiter',
    'limits.a.limit',
    'count',
    (limit) => new RateLimiter({ limits: { a: { limit } } }),
  ],
  [
    'new RateLimiter',
    'maxWaiting',
    'countOrInfinity',
    (maxWaiting) => new RateLimiter({ limit: 1, maxWaiting }),
  ],
  [
    'new RateLimiter',
    'priorities',
    'count',
    (priorities) => new RateLimiter({ limit: 1, priorities }),
  ],
  [
    'new RateLimiter',
    'maxPauseMs',
    'msOrInfinity',
    (maxPauseMs) => new RateLimiter({ limit: 1, maxPauseMs }),
  ],
  ['limiter.tryAcquire', 'cost', 'count', (cost) => limiter.tryAcquire(cost)],
  ['limiter.acquire', 'cost', 'count', (cost) => limiter.acquire({ cost })],
  ['limiter.run', 'priority', 'priority', (priority) => limiter.run(task, { priority })],
  [
    'limiter.run',
    'waitTimeoutMs',
    'msOrInfinity',
    (waitTimeoutMs) => limiter.run(task, { waitTimeoutMs }),
  ],
  ['limiter.retryAfterMs', 'cost', 'count', (cost) => limiter.retryAfterMs(cost)],
  ['limiter.pause', 'ms', 'zeroOrMs', (ms) => limiter.pause(ms)],
  ['limiter.sync', 'remaining', 'natural', (remaining) => limiter.sync({ remaining })],
  ['limiter.sync', 'resetMs', 'msOrInfinity', (resetMs) => limiter.sync({ remaining: 1, resetMs })],
  ['limiter.configure', 'limit', 'count', (limit) => limiter.configure({ limit })],
  [
    'lease.settle',
    'actual',
    'natural',
    (actual) => new RateLimiter({ limit: 1 }).tryAcquire()!.settle(actual),
  ],
  ['new SharedResource', 'maxUsers', 'count', (maxUsers) => new SharedResource({ load, maxUsers })],
  [
    'new SharedResource',
    'accessTimeoutMs',
    'msOrInfinity',
    (accessTimeoutMs) => new SharedResource({ load, accessTimeoutMs }),
  ],
  [
    'new SharedResource',
    'loadTimeoutMs',
    'msOrInfinity',
    (loadTimeoutMs) => new SharedResource({ load, loadTimeoutMs }),
  ],
  [
    'new SharedResource',
    'loadGraceMs',
    'msOrInfinity',
    (loadGraceMs) => new SharedResource({ load, loadGraceMs }),
  ],
  [
    'resource.acquire',
    'waitTimeoutMs',
    'msOrInfinity',
    (waitTimeoutMs) => resource.acquire({ waitTimeoutMs }),
  ],
  [
    'resource.run',
    'runTimeoutMs',
    'msOrInfinity',
    (runTimeoutMs) => resource.run(task, { runTimeoutMs }),
  ],
  ['resource.run', 'graceMs', 'msOrInfinity', (graceMs) => resource.run(task, { graceMs })],
  ['resource.configure', 'maxUsers', 'count', (maxUsers) => resource.configure({ maxUsers })],
  [
    'resource.configure',
    'accessTimeoutMs',
    'msOrInfinity',
    (accessTimeoutMs) => resource.configure({ accessTimeoutMs }),
  ],
  [
    'resource.configure',
    'loadTimeoutMs',
    'msOrInfinity',
    (loadTimeoutMs) => resource.configure({ loadTimeoutMs }),
  ],
  ['new Keyed', 'maxKeys', 'count', (maxKeys) => new Keyed(makeGauges, { maxKeys })],
  [
    'new Keyed',
    'idleMs',
    'positiveMsOrInfinity',
    (idleMs) => new Keyed(makeGauges, { maxKeys: 1, idleMs }),
  ],
  [
    'new SessionManager',
    'timeoutMs',
    'msOrInfinity',
    (timeoutMs) => new SessionManager({ timeoutMs }),
  ],
  [
    'new SessionManager',
    'maxActive',
    'countOrAll',
    (maxActive) => new SessionManager({ maxActive }),
  ],
  ['new SessionManager', 'graceMs', 'msOrInfinity', (graceMs) => new SessionManager({ graceMs })],
  [
    'new SessionManager',
    'cleanupTimeoutMs',
    'ms',
    (cleanupTimeoutMs) => new SessionManager({ cleanupTimeoutMs }),
  ],
  [
    'new SessionManager',
    'maxMetadataBytes',
    'count',
    (maxMetadataBytes) => new SessionManager({ maxMetadataBytes }),
  ],
  [
    'new SessionManager',
    'maxValueBytes',
    'count',
    (maxValueBytes) => new SessionManager({ maxValueBytes }),
  ],
  ['new SessionManager', 'history', 'natural', (history) => new SessionManager({ history })],
  ['sessions.run', 'timeoutMs', 'msOrInfinity', (timeoutMs) => sessions.run(task, { timeoutMs })],
  ['sessions.open', 'timeoutMs', 'msOrInfinity', (timeoutMs) => sessions.open({ timeoutMs })],
  ['sessions.shutdown', 'drainMs', 'msOrInfinity', (drainMs) => sessions.shutdown({ drainMs })],
  ['sessions.shutdown', 'forceMs', 'msOrInfinity', (forceMs) => sessions.shutdown({ forceMs })],
  [
    'new TokenStreamer',
    'heartbeatMs',
    'positiveMsOrInfinity',
    (heartbeatMs) => new TokenStreamer({ heartbeatMs }),
  ],
  [
    'new TokenStreamer',
    'firstTokenTimeoutMs',
    'positiveMsOrInfinity',
    (firstTokenTimeoutMs) => new TokenStreamer({ firstTokenTimeoutMs }),
  ],
  [
    'new TokenStreamer',
    'idleTimeoutMs',
    'positiveMsOrInfinity',
    (idleTimeoutMs) => new TokenStreamer({ idleTimeoutMs }),
  ],
  [
    'new TokenStreamer',
    'timeoutMs',
    'positiveMsOrInfinity',
    (timeoutMs) => new TokenStreamer({ timeoutMs }),
  ],
  [
    'new TokenStreamer',
    'stallMs',
    'positiveMsOrInfinity',
    (stallMs) => new TokenStreamer({ stallMs }),
  ],
  [
    'new TokenStreamer',
    'teardownGraceMs',
    'msOrInfinity',
    (teardownGraceMs) => new TokenStreamer({ teardownGraceMs }),
  ],
  [
    'new TokenStreamer',
    'highWaterMark',
    'count',
    (highWaterMark) => new TokenStreamer({ highWaterMark }),
  ],
  ['stream.tee', 'count', 'count', (count) => streamer.stream(['a']).tee(count)],
  [
    'stream.replay',
    'maxTokens',
    'count',
    (maxTokens) => streamer.stream(['a']).replay({ maxTokens }),
  ],
  ['stream.replay', 'graceMs', 'ms', (graceMs) => streamer.stream(['a']).replay({ graceMs })],
];

const never = (): never => {
  throw new Error('called');
};

/** What has a number in it and is none. */
const NO_NUMBERS: readonly unknown[] = [
  '1',
  '',
  1n,
  true,
  null,
  [1],
  new Date(1),
  Symbol('1'),
  { valueOf: never, toString: never, [Symbol.toPrimitive]: never },
];

/** What comes of it: the error that is thrown or that the promise rejects with. */
async function errorOf(act: () => unknown): Promise<unknown> {
  try {
    await act();
  } catch (error) {
    return error;
  }
  return undefined;
}

const gauges = (): unknown[] => [
  semaphore.stats(),
  queue.stats(),
  { ...limiter.stats(), limits: undefined, granted: undefined },
  resource.stats(),
  sessions.stats(),
];

describe('a number', () => {
  it.each(NUMBERS)(
    'that is out of range is a RangeError that names it: %s, %s (H001, H002, H003, H005, H006, H008, H016, H022, H154)',
    async (where, name, range, give) => {
      const before = gauges();
      for (const value of RANGES[range]) {
        const error = await errorOf(() => give(value as never));
        expect(error, `${where}: ${value}`).toBeInstanceOf(RangeError);
        expect((error as Error).message).toContain(`\`${name}\``);
        expect((error as Error).message).toContain(String(value));
      }
      expect(gauges()).toEqual(before);
    },
  );

  it.each(NUMBERS)(
    'is made of nothing else: %s, %s (H004, H015)',
    async (where, name, _range, give) => {
      const before = gauges();
      for (const value of NO_NUMBERS) {
        const error = await errorOf(() => give(value as never));
        expect(error, `${where}: ${typeof value}`).toBeInstanceOf(TypeError);
        expect((error as Error).message).toContain(`\`${name}\``);
      }
      expect(gauges()).toEqual(before);
    },
  );

  it('that is infinite is taken where a bound may be absent, and starts no timer (H005, H018)', async () => {
    using timers = vi.spyOn(globalThis, 'setTimeout');
    const unbounded = Infinity;
    const wait = { waitTimeoutMs: unbounded, signal: new AbortController().signal };
    const run = { ...wait, runTimeoutMs: unbounded, graceMs: unbounded };
    const one = new Semaphore({ capacity: 1, maxWaiting: unbounded });
    const held = one.tryAcquire()!;
    const line = new AdmissionQueue({ concurrency: 1, maxWaiting: unbounded, graceMs: unbounded });
    const shared = new SharedResource({
      load,
      maxUsers: 1,
      accessTimeoutMs: unbounded,
      loadTimeoutMs: unbounded,
      loadGraceMs: unbounded,
    });
    const open = new SessionManager({ maxActive: unbounded, timeoutMs: unbounded });
    const tasks = [
      one.run(task, run),
      one.acquire(wait).then((permit) => permit.release()),
      line.run(settle, { ...wait, runTimeoutMs: unbounded }),
      line.run(task, wait),
      shared.run(settle, run),
      shared.run(task, wait),
      open.run(settle, { timeoutMs: unbounded }),
    ];
    await settle();
    held.release();
    await Promise.all(tasks);
    expect(timers).not.toHaveBeenCalled();
  });

  it('of -0 is 0, in errors and figures as well (H007)', async () => {
    const zero = (value: unknown): boolean => Object.is(value, 0);
    const full = new Semaphore({ capacity: 1, maxWaiting: -0 });
    full.tryAcquire();
    const refusal = (await errorOf(() => full.acquire())) as { maxWaiting: number };
    expect(zero(refusal.maxWaiting)).toBe(true);
    const line = new AdmissionQueue({ concurrency: 1, maxWaiting: -0 });
    expect(zero(line.stats().maxWaiting)).toBe(true);
    const late = await errorOf(() =>
      new SessionManager().run(() => new Promise(() => {}), { timeoutMs: -0 }),
    );
    expect(zero((late as { timeoutMs: number }).timeoutMs)).toBe(true);
  });

  it('cannot add up to more than can be counted (H006)', async () => {
    const most = Number.MAX_SAFE_INTEGER;
    const wide = new Semaphore(most);
    const permits = [wide.tryAcquire(most - 1)!, wide.tryAcquire(1)!];
    expect([wide.active, wide.available, wide.tryAcquire()]).toEqual([most, 0, undefined]);
    wide.resize(most - 1);
    expect(wide.active).toBe(most);
    for (const permit of permits) permit.release();
    expect([wide.active, wide.available]).toEqual([0, most - 1]);
    // Waiting demands add up to more than a number can tell exactly, and nothing of them is lost.
    const heavy = new RateLimiter({ limit: most, intervalMs: 1, clock: new ManualClock() });
    expect(heavy.tryAcquire(most)).toBeDefined();
    const control = new AbortController();
    const waits = [1, 2, 3].map(() =>
      errorOf(() => heavy.acquire({ cost: most, signal: control.signal })),
    );
    expect(heavy.retryAfterMs(most)).toBeGreaterThan(2);
    control.abort('enough');
    expect(await Promise.all(waits)).toEqual(['enough', 'enough', 'enough']);
    expect(heavy.waiting).toBe(0);
  });
});

/** Every place that takes an options object: what it makes of one that also has `more`. */
const OBJECTS: readonly [where: string, give: (more: object) => unknown][] = [
  ['new Semaphore', (more) => new Semaphore({ capacity: 1, ...more })],
  ['semaphore.acquire', (more) => new Semaphore(1).acquire(more)],
  ['semaphore.run', (more) => new Semaphore(1).run(task, more)],
  ['semaphore.close', (more) => new Semaphore(1).close(more)],
  ['new AdmissionQueue', (more) => new AdmissionQueue({ concurrency: 1, ...more })],
  ['queue.run', (more) => new AdmissionQueue({ concurrency: 1 }).run(task, more)],
  ['queue.enqueue', (more) => new AdmissionQueue({ concurrency: 1 }).enqueue(task, more).result],
  ['queue.close', (more) => new AdmissionQueue({ concurrency: 1 }).close(more)],
  ['new RateLimiter', (more) => new RateLimiter({ limit: 1, ...more })],
  ['new RateLimiter, limits', (more) => new RateLimiter({ limits: { a: { limit: 1, ...more } } })],
  ['limiter.acquire', (more) => new RateLimiter({ limit: 1 }).acquire(more)],
  ['limiter.run', (more) => new RateLimiter({ limit: 1 }).run(task, more)],
  ['limiter.sync', (more) => new RateLimiter({ limit: 1 }).sync({ remaining: 1, ...more })],
  ['limiter.configure', (more) => new RateLimiter({ limit: 1 }).configure(more)],
  ['limiter.close', (more) => new RateLimiter({ limit: 1 }).close(more)],
  ['new SharedResource', (more) => new SharedResource({ load, ...more })],
  ['resource.acquire', (more) => new SharedResource({ load }).acquire(more)],
  ['resource.run', (more) => new SharedResource({ load }).run(task, more)],
  ['resource.configure', (more) => new SharedResource({ load }).configure(more)],
  ['new Keyed', (more) => new Keyed(makeGauges, { maxKeys: 1, ...more })],
  ['new SessionManager', (more) => new SessionManager({ ...more })],
  ['sessions.run', (more) => new SessionManager().run(task, more)],
  ['sessions.open', (more) => new SessionManager().open(more)],
  ['sessions.shutdown', (more) => new SessionManager().shutdown(more)],
  ['new TokenStreamer', (more) => new TokenStreamer({ ...more })],
  ['streamer.stream', (more) => new TokenStreamer().stream(['a'], more)],
  ['stream.replay', (more) => new TokenStreamer().stream(['a']).replay(more)],
];

describe('an options object', () => {
  it.each(OBJECTS)('with a name that is unknown is a TypeError: %s (H010)', async (_, give) => {
    const error = await errorOf(() => give({ concurency: undefined }));
    expect(error).toBeInstanceOf(TypeError);
    expect((error as Error).message).toContain('"concurency"');
  });

  it.each(OBJECTS)('may be frozen, or have no prototype: %s (H014)', async (_, give) => {
    const bare = Object.create(null) as object;
    expect(await errorOf(() => give(Object.freeze(bare)))).toBeUndefined();
  });

  it.each(OBJECTS)('inherits nothing: %s (H013)', async (_, give) => {
    const polluted = Object.create({ concurency: 1, signal: 5, waiting: 5, clock: 5 }) as object;
    expect(await errorOf(() => give(polluted))).toBeUndefined();
  });

  const CALLS: readonly [where: string, given: object, give: (options: never) => unknown][] = [
    [
      'semaphore.run',
      { weight: 1, waitTimeoutMs: 5, runTimeoutMs: 5, graceMs: 5 },
      (options) => new Semaphore(1).run(task, options),
    ],
    [
      'queue.run',
      { id: 'a', key: 'b', priority: 1, waitTimeoutMs: 5, runTimeoutMs: 5, enqueuedAt: 1 },
      (options) => new AdmissionQueue({ concurrency: 1 }).run(task, options),
    ],
    [
      'limiter.run',
      { cost: 1, waitTimeoutMs: 5, priority: 1 },
      (options) => new RateLimiter({ limit: 1 }).run(task, options),
    ],
    [
      'resource.run',
      { waitTimeoutMs: 5, runTimeoutMs: 5, graceMs: 5 },
      (options) => new SharedResource({ load }).run(task, options),
    ],
    [
      'sessions.run',
      { requestId: 'a', provider: 'b', model: 'c', timeoutMs: 5 },
      (options) => new SessionManager().run(task, options),
    ],
    [
      'new Semaphore',
      { capacity: 1, maxWaiting: 1, maxHoldMs: 1 },
      (options) => new Semaphore(options),
    ],
    [
      'new AdmissionQueue',
      { concurrency: 1, priorities: 2, history: 1, overflow: 'shed' },
      (options) => new AdmissionQueue(options),
    ],
    [
      'new RateLimiter',
      { limit: 1, intervalMs: 1, burst: 1, maxWaiting: 1 },
      (options) => new RateLimiter(options),
    ],
    [
      'new SharedResource',
      { load, maxUsers: 1, loadTimeoutMs: 1 },
      (options) => new SharedResource(options),
    ],
    [
      'new SessionManager',
      { maxActive: 1, timeoutMs: 1 },
      (options) => new SessionManager(options),
    ],
    [
      'new TokenStreamer',
      { highWaterMark: 1, timeoutMs: 1 },
      (options) => new TokenStreamer(options),
    ],
  ];

  it.each(CALLS)('is read once, each of it, in its order: %s (H011)', async (_, given, give) => {
    const reads: string[] = [];
    const watched = Object.defineProperties(
      {},
      Object.fromEntries(
        Object.entries(given).map(([name, value]: [string, unknown]) => [
          name,
          {
            enumerable: true,
            get: (): unknown => {
              reads.push(name);
              return value;
            },
          },
        ]),
      ),
    );
    expect(await errorOf(() => give(watched as never))).toBeUndefined();
    expect(reads).toEqual(Object.keys(given));
  });

  it('that changes after the call changes nothing (H012)', async () => {
    const settings = { capacity: 1, maxWaiting: 1 };
    const small = new Semaphore(settings);
    Object.assign(settings, { capacity: 9, maxWaiting: 9 });
    const held = small.tryAcquire()!;
    const call = { weight: 1, waitTimeoutMs: Infinity };
    const first = small.acquire(call);
    Object.assign(call, { weight: 0, waitTimeoutMs: 0 });
    expect([small.capacity, small.waiting]).toEqual([1, 1]);
    expect(await errorOf(() => small.acquire())).toMatchObject({ code: 'ERR_QUEUE_FULL' });
    held.release();
    expect((await first).weight).toBe(1);

    const limits = { a: { limit: 1 } };
    const named = new RateLimiter({ limits });
    limits.a.limit = 9;
    const cost = { a: 1 };
    const lease = named.tryAcquire(cost)!;
    cost.a = 9;
    expect([lease.cost, named.tryAcquire()]).toEqual([{ a: 1 }, undefined]);
    expect(Reflect.set(lease.cost as object, 'a', 9)).toBe(false);
    lease.cancel();
    expect(named.available()).toBe(1);
  });

  it('has an undefined option for an absent one (H009)', async () => {
    for (const [where, give] of OBJECTS) {
      const absent = { clock: undefined, maxWaiting: undefined, priority: undefined };
      const known = Object.entries({ ...absent, signal: undefined, waiting: undefined });
      for (const [name, value] of known) {
        const error = await errorOf(() => give({ [name]: value }));
        const isUnknown = error instanceof TypeError && error.message.startsWith('Unknown option');
        expect(error === undefined || isUnknown, `${where}, ${name}`).toBe(true);
      }
    }
  });
});

describe('a setter that throws', () => {
  it('has changed nothing (H020)', async () => {
    const setters: readonly [object: { stats(): object }, act: () => void][] = [
      [semaphore, () => semaphore.resize(0)],
      [queue, () => queue.resize(1.5)],
      [queue, () => void queue.setPriority('a', 9)],
      [resource, () => resource.configure({ maxUsers: 3, accessTimeoutMs: -1 })],
      [resource, () => resource.configure({ maxUsers: 3, load: 5 as never })],
      [limiter, () => limiter.configure({ limit: 9, burst: 0 })],
      [limiter, () => limiter.sync({ remaining: 0, resetMs: -1 })],
    ];
    for (const [subject, act] of setters) {
      const before = subject.stats();
      expect(act).toThrow(/^Expected `/);
      expect(subject.stats()).toEqual(before);
    }
  });
});

describe('an option, figure or constant', () => {
  it('that is a time says its unit in its name (H023)', () => {
    const named = readSources().flatMap(({ path }) => {
      const text = readFileSync(new URL(`../../src/${path}`, import.meta.url), 'utf8');
      const members = text.matchAll(
        /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s+(?:readonly )?(\w+)\??: number\b/g,
      );
      return [...members]
        .filter(([, comment]) => /\b(?:in ms|milliseconds|seconds)\b/.test(comment!))
        .map(([, , name]) => name!);
    });
    expect(named.length).toBeGreaterThan(40);
    // The name that the API of OpenAI has for it.
    expect(named.filter((name) => !/(?:Ms|At)$/.test(name))).toEqual(['created']);
  });
});

/** What comes of a method of something else; a generator does nothing before it is asked. */
async function callOn(thing: object, method: (...args: unknown[]) => unknown): Promise<void> {
  const result = await method.call(thing, task);
  (result as Partial<Iterator<unknown>> | undefined)?.next?.();
}

describe('a class', () => {
  const CLASSES: Readonly<Record<string, unknown>> = {
    AdmissionQueue,
    Keyed,
    RateLimiter,
    Semaphore,
    SessionManager,
    SharedResource,
    TokenStreamer,
  };

  it.each(Object.entries(CLASSES))(
    '%s cannot be called without `new`, nor its methods on anything else (H024)',
    async (_, Class) => {
      using uncaught = catchUncaught();
      const made = Class as { prototype: object };
      expect(() => (made as unknown as () => void)()).toThrow(TypeError);
      const methods = Object.entries(Object.getOwnPropertyDescriptors(made.prototype)).filter(
        ([name]) => name !== 'constructor',
      );
      for (const [name, { value, get }] of methods) {
        const method = (value ?? get) as (...args: unknown[]) => unknown;
        const error = await errorOf(() => callOn({}, method));
        expect(error, name).toBeInstanceOf(TypeError);
      }
      // A promise that was made before the receiver was looked at again is nobody's.
      await settle();
      expect(uncaught.exceptions).toEqual([]);
      for (const each of uncaught.rejections) expect(each).toBeInstanceOf(TypeError);
    },
  );
});
