/**
 * Run with --expose-gc: what a million uses of each gate leave behind, a hundred thousand of which wait
 * under one signal that outlives them all. Prints a line of JSON, for tests/gates.heap.test.ts.
 */
import { getEventListeners } from 'node:events';

import {
  AdmissionQueue,
  compose,
  Keyed,
  RateLimiter,
  Semaphore,
  SharedResource,
} from '../../src/index.ts';

const CYCLES = 1_000_000;
/** How many wait at once, and how often: a hundred thousand waits in all. */
const BATCH = 1000;
const BATCHES = 100;

const { signal } = new AbortController();
const nothing = (): void => {};
const refused = (): undefined => undefined;

interface Subject {
  /** How many of the cycles it goes through: all of them, or fewer where they take long. */
  readonly part?: number;
  /** One use by a caller who need not wait, each in one of the ways that there are. */
  readonly cycle: (i: number) => unknown;
  /** `BATCH` callers who wait, some of them in vain. */
  readonly wait: () => Promise<unknown>;
}

function semaphore(): Subject {
  const gate = new Semaphore({ capacity: 2, maxHoldMs: 600_000 });
  gate.on('acquired', nothing);
  // Never comes back: there is one deadline all the time, beside which the others come and go.
  gate.tryAcquire();
  const limits = { signal, waitTimeoutMs: 60_000, runTimeoutMs: 60_000 };
  return {
    cycle: (i) => {
      if (i % 3 === 0) return gate.tryAcquire()!.release();
      return gate.run(nothing, i % 3 === 1 ? limits : undefined);
    },
    wait: async () => {
      const held = gate.tryAcquire()!;
      const waits = Array.from({ length: BATCH }, (_, i) =>
        gate.run(nothing, i % 2 === 0 ? limits : { signal }),
      );
      const late = gate.acquire({ signal, waitTimeoutMs: 1 }).catch(refused);
      await late;
      held.release();
      await Promise.all(waits);
    },
  };
}

function admissionQueue(): Subject {
  const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: BATCH, history: 100 });
  queue.on('completed', nothing);
  const limits = { signal, waitTimeoutMs: 60_000, runTimeoutMs: 60_000, metadata: { a: 1 } };
  return {
    cycle: (i) => {
      if (i % 3 !== 0) return queue.run(nothing, i % 3 === 1 ? limits : undefined);
      const ticket = queue.enqueue(nothing);
      return ticket.result;
    },
    wait: async () => {
      queue.pause();
      const tickets = Array.from({ length: BATCH }, (_, i) =>
        queue.enqueue(nothing, { ...limits, priority: 1 + (i % 5) }),
      );
      tickets[1]!.setPriority(1);
      queue.enqueue(nothing, { signal });
      for (let i = 0; i < BATCH; i += 10) tickets[i]!.cancel();
      queue.resume();
      await queue.idle();
    },
  };
}

function rateLimiter(): Subject {
  const limiter = new RateLimiter({ limit: 1e9, intervalMs: 1000 });
  limiter.on('granted', nothing);
  return {
    cycle: (i) => {
      if (i % 3 === 0) return limiter.tryAcquire()!.cancel();
      if (i % 3 === 1) return limiter.acquire({ signal, waitTimeoutMs: 60_000 });
      return limiter.run(nothing, { signal });
    },
    wait: async () => {
      limiter.pause(2);
      const waits = Array.from({ length: BATCH }, (_, i) =>
        limiter.acquire({ signal, priority: 1 + (i % 3), waitTimeoutMs: 60_000 }),
      );
      await Promise.all(waits);
    },
  };
}

function keyed(): Subject {
  const perUser = new Keyed(() => new Semaphore({ capacity: 1 }), { maxKeys: 100, idleMs: 60_000 });
  return {
    // Never seen before, each of them.
    cycle: (i) => perUser.get(`user ${i}`).run(nothing),
    wait: async () => {
      const gate = perUser.get('one of many');
      const held = gate.tryAcquire()!;
      const waits = Array.from({ length: BATCH }, () => gate.run(nothing, { signal }));
      held.release();
      await Promise.all(waits);
    },
  };
}

function sharedResource(): Subject {
  const resource = new SharedResource({ load: () => ({}), maxUsers: 1, dispose: nothing });
  return {
    cycle: async (i) => {
      if (i % 2 === 0) return resource.run(nothing, { signal });
      return (await resource.acquire()).release();
    },
    wait: async () => {
      const held = await resource.acquire();
      const waits = Array.from({ length: BATCH }, () => resource.run(nothing, { signal }));
      await resource.acquire({ signal, waitTimeoutMs: 1 }).catch(refused);
      // Every other batch meets a resource that is being loaded.
      const reloaded = resource.reload();
      held.release();
      await Promise.all([reloaded, ...waits]);
    },
  };
}

function composed(): Subject {
  const limiter = new RateLimiter({ limit: 1e9, intervalMs: 1000 });
  const queue = new AdmissionQueue({ concurrency: 2, maxWaiting: BATCH, history: 0 });
  const gate = compose(queue, limiter, new Semaphore(1));
  return {
    part: 0.1,
    cycle: () => gate.run(nothing, { signal }),
    wait: () => {
      const waits = Array.from({ length: BATCH }, () =>
        gate.run(nothing, { signal, waitTimeoutMs: 60_000 }),
      );
      return Promise.all(waits);
    },
  };
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** What is used when everything is gone that can go, compiled code included. */
async function heapUsed(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    await turn();
    globalThis.gc!({ type: 'major', flavor: 'last-resort', execution: 'sync' });
  }
  return process.memoryUsage().heapUsed;
}

async function play({ cycle, wait, part = 1 }: Subject, share: number): Promise<void> {
  const every = CYCLES / BATCHES;
  for (let i = 0; i < CYCLES * part * share; i++) {
    await cycle(i);
    if (i % every === 0) await wait();
  }
}

const subjects = { semaphore, admissionQueue, rateLimiter, keyed, sharedResource, composed };
const before = process.getActiveResourcesInfo().toSorted();
const figures: Record<string, object> = {};
for (const [name, make] of Object.entries(subjects)) {
  const subject = make();
  await play(subject, 0.05);
  const heapBefore = await heapUsed();
  await play(subject, 1);
  figures[name] = {
    growthBytes: (await heapUsed()) - heapBefore,
    listeners: getEventListeners(signal, 'abort').length,
    resources: process.getActiveResourcesInfo().toSorted().join() === before.join(),
  };
}
process.stdout.write(JSON.stringify(figures));
