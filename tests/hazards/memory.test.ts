import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { AdmissionQueue, RateLimiter, Semaphore, SharedResource } from 'sluice';
import { ManualClock, settle } from 'sluice/testing';
import { beforeAll, describe, expect, it } from 'vitest';

import { GATE_NAMES, takenGate } from '../support/scenes.ts';
import { readSources } from '../support/sources.ts';

interface Kept {
  readonly kept: readonly string[];
  readonly dropped: number;
  readonly outlived: boolean;
  readonly perWaiter: number;
  readonly left: number;
  readonly waiting: number;
}

describe('memory', () => {
  let report: Record<string, Kept>;
  let bytes: Record<string, number>;
  let ofTickets: { readonly statuses: readonly string[]; readonly kept: readonly string[] };

  beforeAll(async () => {
    const script = fileURLToPath(new URL('../support/heap-of-kept.ts', import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script], {
      timeout: 100_000,
    });
    ({ report, bytes, ofTickets } = JSON.parse(stdout) as typeof this & {
      report: typeof report;
      bytes: typeof bytes;
      ofTickets: typeof ofTickets;
    });
    expect(Object.keys(report)).toEqual([...GATE_NAMES]);
  }, 110_000);

  it.each(GATE_NAMES)(
    'has nothing left of a call that is over, in a %s that goes on: signal, options, task, context, result, error (H104, H111, H124)',
    (name) => {
      expect(report[name]!.kept).toEqual([]);
    },
  );

  it('has nothing left of what a ticket that is over, and is kept, was enqueued with (H124)', () => {
    expect(ofTickets).toEqual({
      statuses: ['completed', 'failed', 'cancelled', 'refused'],
      kept: [],
    });
  });

  it.each(GATE_NAMES)(
    'has no %s left that nobody refers to, though a signal of its callers lives on (H072, H123)',
    (name) => {
      const { dropped, outlived } = report[name]!;
      expect(outlived).toBe(false);
      // While somebody waits for tokens, a timer is armed that knows of them all.
      expect(dropped).toBe(name === 'RateLimiter' ? 4 : 0);
    },
  );

  it.each(GATE_NAMES)(
    'has little of each who waits in a %s, and nothing of thirty thousand who waited (H116, H119)',
    (name) => {
      const { perWaiter, left, waiting } = report[name]!;
      expect(waiting).toBe(0);
      // The same objects take a few bytes more on Node 22: 508 in a Semaphore.
      const few = process.versions.node.startsWith('22.') ? 520 : 500;
      expect(perWaiter).toBeLessThan(name === 'Semaphore' ? few : 800);
      expect(left).toBeLessThan(0.05 * perWaiter * 30_000);
    },
  );

  it('has little to collect of a call that need not wait (H130)', () => {
    expect(bytes['semaphore.tryAcquire']).toBeLessThan(100);
    expect(bytes['limiter.tryAcquire']).toBeLessThan(200);
  });
});

describe('a permit that is never given back', () => {
  it('is told of, if asked for, and stays taken all the same (H120, H205)', async () => {
    const clock = new ManualClock();
    const semaphore = new Semaphore({ capacity: 1, maxHoldMs: 1000, clock });
    const told: unknown[] = [];
    semaphore.on('overheld', ({ id, weight }) => told.push([id, weight]));
    void semaphore.acquire();
    await clock.advance(60_000);
    expect([told, semaphore.stats()]).toMatchObject([[[1, 1]], { active: 1, overheld: 1 }]);
    expect(semaphore.tryAcquire()).toBeUndefined();
  });
});

describe.each(GATE_NAMES)('a promise of a %s that nobody keeps', (name) => {
  it('has its place in line until its turn, its end or a close (H122)', async () => {
    const { gate, clock, free } = await takenGate(name);
    const order: string[] = [];
    void gate.run(() => order.push('nobody waits for this'));
    const kept = gate.run(() => order.push('kept'));
    expect(gate.waiting).toBe(2);
    await free();
    await clock.advance(2000);
    await kept;
    expect(order).toEqual(['nobody waits for this', 'kept']);
  });
});

/**
 * In ms of the processor's time, which a busy machine does not make longer. The bounds are orders of
 * magnitude: a look at everybody in line, for each of them, shows as one.
 */
async function costMs(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** A signal of the least cost: what is measured is what is done with it. */
class CheapSignal {
  aborted = false;
  readonly reason = 'gone';
  #listener: (() => void) | undefined;

  addEventListener(_type: string, listener: () => void): void {
    this.#listener = listener;
  }

  removeEventListener(): void {
    this.#listener = undefined;
  }

  abort(): void {
    this.aborted = true;
    this.#listener?.();
  }
}

describe.each(GATE_NAMES)('forty thousand who wait in a %s', (name) => {
  it('leave from the middle at the cost of as many single ones (H117, H118, H163)', async () => {
    const count = 40_000;
    const { gate } = await takenGate(name);
    const signals = Array.from({ length: count }, () => new CheapSignal());
    for (const signal of signals) {
      gate.run(() => {}, { signal: signal as unknown as AbortSignal }).catch(() => {});
    }
    const outwards = signals.map((_, i) => {
      const step = i % 2 === 0 ? i / 2 : -(i + 1) / 2;
      return signals[count / 2 + step]!;
    });
    expect(new Set(outwards).size).toBe(count);
    const ms = await costMs(() => {
      for (const signal of outwards) signal.abort();
    });
    expect(gate.waiting).toBe(0);
    // A search of the line takes several times that.
    expect(ms).toBeLessThan(1200);
  });
});

describe('a flood', () => {
  const COUNT = 3000;
  const full: Readonly<Record<string, () => () => Promise<unknown>>> = {
    'a full AdmissionQueue': () => {
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 0 });
      void queue.run(() => new Promise(() => {}));
      return () => queue.run(() => {});
    },
    'a full Semaphore': () => {
      const semaphore = new Semaphore({ capacity: 1, maxWaiting: 0 });
      semaphore.tryAcquire();
      return () => semaphore.acquire();
    },
    'an empty RateLimiter': () => {
      const limiter = new RateLimiter({ limit: 1, intervalMs: 1e9 });
      limiter.tryAcquire();
      return () => limiter.acquire({ waitTimeoutMs: 0 });
    },
    'a closed SharedResource': () => {
      const resource = new SharedResource({ load: () => 1 });
      void resource.close();
      return () => resource.acquire();
    },
  };

  it.each(Object.entries(full))(
    'of calls that %s refuses costs a small part of a millisecond each (H127)',
    async (_, make) => {
      const refuse = make();
      let refused = 0;
      const ms = await costMs(async () => {
        for (let i = 0; i < COUNT; i++) refuse().catch(() => refused++);
        await settle();
      });
      expect(refused).toBe(COUNT);
      expect(ms / COUNT).toBeLessThan(0.2);
    },
  );
});

describe('what keeps memory by itself', () => {
  it('is nowhere: no registry of instances, nothing at the level of a module (H123)', () => {
    // A module may have constants; what grows belongs to an instance.
    const grows = readSources().flatMap(({ path, code }) =>
      [
        ...code.matchAll(
          /^(?:export )?(?:const|let) (\w+)[^=\n]*= (?:new \w*(?:Map|Set)(?:<.*>)?\(\)|\[\]);/gm,
        ),
      ].map(([, name]) => `${path} ${name}`),
    );
    expect(grows).toEqual([]);
  });
});
