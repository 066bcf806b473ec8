// node --expose-gc bench/rate-limiter.ts [--smoke]
import { RateLimiter as PeerLimiter, TokenBucket } from 'limiter';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { Keyed, RateLimiter } from 'sluice';
import { ManualClock } from 'sluice/testing';

import { figures, heading, interleave, smoke, type Subject, timed, verdict } from './harness.ts';

const gc = globalThis.gc;
if (gc === undefined) throw new Error('Run this with --expose-gc.');

const CALLS = smoke ? 1000 : 1_000_000;
/** Never reached: what is measured is a grant. */
const LIMIT = 1_000_000_000;

/** So many calls one after the other, in ns for each. */
function calls(name: string, count: number, call: () => unknown): Subject {
  return {
    name,
    round: async () => {
      const ms = await timed(() => {
        for (let i = 0; i < count; i++) call();
      });
      return (ms * 1e6) / count;
    },
  };
}

function awaitedCalls(name: string, count: number, call: (i: number) => Promise<unknown>): Subject {
  return {
    name,
    round: async () => {
      const ms = await timed(async () => {
        for (let i = 0; i < count; i++) await call(i);
      });
      return (ms * 1e6) / count;
    },
  };
}

heading('one token that is there, ns a call');
const ours = new RateLimiter({ limit: LIMIT });
const several = new RateLimiter({
  limits: { requests: { limit: LIMIT }, tokens: { limit: LIMIT } },
});
const peer = new PeerLimiter({ tokensPerInterval: LIMIT, interval: 1000 });
const bucket = new TokenBucket({ bucketSize: LIMIT, tokensPerInterval: LIMIT, interval: 1000 });
const memory = new RateLimiterMemory({ points: LIMIT, duration: 1 });
const single = await interleave([
  calls('sluice tryAcquire', CALLS, () => ours.tryAcquire()),
  calls('sluice tryAcquire, two limits', CALLS, () =>
    several.tryAcquire({ requests: 1, tokens: 10 }),
  ),
  calls('limiter RateLimiter', CALLS, () => peer.tryRemoveTokens(1)),
  calls('limiter TokenBucket', CALLS, () => bucket.tryRemoveTokens(1)),
  awaitedCalls('rate-limiter-flexible (memory)', CALLS / 10, () => memory.consume('one', 1)),
  calls('the clock alone', CALLS, () => performance.timeOrigin + performance.now()),
]);
figures(single, 'ns');
const tryAcquire = single.get('sluice tryAcquire')!;
verdict('tryAcquire, to limiter', tryAcquire / single.get('limiter RateLimiter')!, 0.9);
verdict(
  'tryAcquire, to rate-limiter-flexible',
  tryAcquire / single.get('rate-limiter-flexible (memory)')!,
  0.6,
);

const KEYS = smoke ? 1000 : 200_000;
const keys = Array.from({ length: KEYS }, (_, i) => `user:${i}`);
/** In an order that no cache knows. */
const shuffled = Array.from({ length: KEYS }, (_, i) => keys[(i * 7919) % KEYS]!);

function heapUsed(): number {
  gc!();
  return process.memoryUsage().heapUsed;
}

heading(`${KEYS} keys, bytes a key after one call each`);
let keyed!: Keyed<RateLimiter>;
let flexible!: RateLimiterMemory;
const bytes = await interleave(
  [
    {
      name: 'sluice Keyed of RateLimiter',
      round: () => {
        keyed = new Keyed(() => new RateLimiter({ limit: 100, intervalMs: 60_000 }), {
          maxKeys: KEYS,
        });
        const before = heapUsed();
        for (const key of keys) keyed.get(key).tryAcquire();
        return (heapUsed() - before) / KEYS;
      },
    },
    {
      name: 'rate-limiter-flexible (memory)',
      round: async () => {
        if (flexible !== undefined) for (const key of keys) await flexible.delete(key);
        flexible = new RateLimiterMemory({ points: 100, duration: 60 });
        const before = heapUsed();
        for (const key of keys) await flexible.consume(key, 1);
        return (heapUsed() - before) / KEYS;
      },
    },
  ],
  3,
  1,
);
figures(bytes, 'bytes');
const [ourBytes, theirBytes] = [...bytes.values()];
verdict('bytes a key', ourBytes! / theirBytes!, 0.6);

async function perKey(what: string, asked: readonly string[]): Promise<void> {
  heading(`${KEYS} keys ${what}, ns a call`);
  const medians = await interleave([
    {
      name: 'sluice Keyed of RateLimiter',
      round: async () => {
        const ms = await timed(() => {
          for (const key of asked) keyed.get(key).tryAcquire();
        });
        return (ms * 1e6) / KEYS;
      },
    },
    awaitedCalls('rate-limiter-flexible (memory)', KEYS, (i) =>
      flexible.consume(asked[i]!, 1).catch(() => undefined),
    ),
  ]);
  figures(medians, 'ns');
  const [ourCall, theirCall] = [...medians.values()];
  verdict(`a call with a key, ${what}`, ourCall! / theirCall!, 0.4);
}
await perKey('in turn', keys);
await perKey('in no order', shuffled);
for (const key of keys) await flexible.delete(key);

heading('callers that wait for one limiter, ns for each from its call to its grant');
const SIZES = smoke ? [10, 100] : [1000, 10_000, 100_000];
/** Many grants a tick of the clock, so that the clock itself is not what is measured. */
const A_MS = 100;
let mostTimers = 0;
async function oneLine(size: number): Promise<void> {
  const clock = new ManualClock();
  const limiter = new RateLimiter({ limit: A_MS, intervalMs: 1, clock });
  limiter.tryAcquire(A_MS);
  const leases = Array.from<Promise<unknown>>({ length: size });
  for (let i = 0; i < size; i++) leases[i] = limiter.acquire();
  mostTimers = Math.max(mostTimers, clock.timers);
  while (limiter.waiting > 0) await clock.advance(1);
  await Promise.all(leases);
}
const waits = await interleave(
  SIZES.map((size) => ({
    name: `${size} callers`,
    // As many callers a round for each length: else the short lines pay for the garbage of the long.
    round: async () => {
      const ms = await timed(async () => {
        for (let callers = 0; callers < SIZES.at(-1)!; callers += size) await oneLine(size);
      });
      return (ms * 1e6) / SIZES.at(-1)!;
    },
  })),
  smoke ? 1 : 7,
);
figures(waits, 'ns');
const perCaller = [...waits.values()];
verdict('the dearest to the first', Math.max(...perCaller) / perCaller[0]!, 1.5);
console.log(`  ${mostTimers} timer armed at most`);
