/**
 * A real use of each part that needs nothing of Node, on the timers and signals of whatever runs this:
 * Node, Bun, Deno or a browser. Each scenario throws where something is not as promised.
 */
import { AdmissionQueue } from 'sluice/admission-queue';
import { Keyed } from 'sluice/keyed';
import { RateLimiter } from 'sluice/rate-limiter';
import { readEvents } from 'sluice/read-events';
import { Semaphore } from 'sluice/semaphore';
import { ManualClock } from 'sluice/testing';

export type Scenario = () => Promise<void>;

/** Compares by value, what JSON can show of it. */
export function same(actual: unknown, expected: unknown, what: string): void {
  const [is, should] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (is !== should) throw new Error(`${what}: ${is}, not ${should}`);
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

async function codeOf(refused: Promise<unknown>): Promise<unknown> {
  return refused.then(
    () => 'no refusal',
    (error: unknown) => (error as { code?: unknown }).code ?? error,
  );
}

/** Settles only when it is aborted. */
function untilAborted({ signal }: { readonly signal: AbortSignal }): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error));
  });
}

async function semaphore(): Promise<void> {
  const gpu = new Semaphore({ capacity: 3, maxWaiting: 30 });
  const order: number[] = [];
  let running = 0;
  let most = 0;
  let idle = 0;
  gpu.on('idle', () => idle++);
  const answers = Array.from({ length: 30 }, (_, i) =>
    gpu.run(async () => {
      order.push(i);
      most = Math.max(most, ++running);
      await sleep(2);
      running--;
      return i;
    }),
  );
  const client = new AbortController();
  const aborted = codeOf(gpu.acquire({ signal: client.signal, weight: 2 }));
  const late = codeOf(gpu.acquire({ waitTimeoutMs: 1 }));
  client.abort('gone');
  same(await aborted, 'gone', 'the reason of an abort');
  same(await late, 'ERR_WAIT_TIMEOUT', 'a wait that is too long');
  const numbers = Array.from({ length: 30 }, (_, i) => i);
  same(await Promise.all(answers), numbers, 'the answers');
  same(order, numbers, 'first come, first served');
  same(most, 3, 'at once');
  same(await codeOf(gpu.run(untilAborted, { runTimeoutMs: 5 })), 'ERR_RUN_TIMEOUT', 'a long run');
  await gpu.drain();
  const { acquired, released, cancelled, timedOut, active } = gpu.stats();
  same([acquired, released, cancelled, timedOut, active, idle], [31, 31, 1, 1, 0, 2], 'statistics');
  same(await codeOf(gpu.acquire()), 'ERR_CLOSED', 'a closed semaphore');
}

async function admissionQueue(): Promise<void> {
  const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 5, priorities: 3 });
  const order: number[] = [];
  const enter = (i: number, priority: number) =>
    queue.enqueue(
      async () => {
        order.push(i);
        await sleep(1);
        return i;
      },
      { priority },
    );
  queue.pause();
  const tickets = [3, 3, 1, 2, 2].map((priority, i) => enter(i, priority));
  const places = (): number[] => tickets.map((ticket) => queue.position(ticket.id));
  same(places(), [4, 5, 1, 2, 3], 'the places in line');
  same(await codeOf(enter(5, 3).result), 'ERR_QUEUE_FULL', 'one too many');
  const seen = Array.fromAsync(tickets[0]!.positions());
  tickets[3]!.cancel('changed my mind');
  same(await codeOf(tickets[3]!.result), 'changed my mind', 'a cancelled ticket');
  same(places(), [3, 4, 1, -1, 2], 'the places after one has left');
  queue.resume();
  same(await tickets[1]!.result, 1, 'the last answer');
  await queue.idle();
  same(order, [2, 4, 0, 1], 'by priority, then by arrival');
  const positions = await seen;
  same([positions.at(-1), positions], [0, positions.toSorted((a, b) => b - a)], 'the way to 0');
  same([queue.position(tickets[0]!.id), queue.position('?')], [-1, -2], 'finished and unknown');
}

async function rateLimiter(): Promise<void> {
  const limiter = new RateLimiter({ limit: 100, intervalMs: 1000, burst: 5 });
  const start = performance.now();
  for (let i = 0; i < 10; i++) await limiter.acquire();
  const elapsed = performance.now() - start;
  // A millisecond for clocks that are coarse on purpose, as those of browsers.
  same(elapsed >= 49, true, `5 at once and 5 more, one each 10 ms, took ${elapsed} ms`);
  const wait = limiter.retryAfterMs(5);
  same(wait > 0 && wait <= 50, true, `${wait} ms to wait for 5 more`);
  same(limiter.tryAcquire(5), undefined, 'more than there is');
  const refused = limiter.acquire({ cost: 5, waitTimeoutMs: 1 });
  same(await codeOf(refused), 'ERR_RATE_LIMITED', 'a wait that is known to be too long');

  const clock = new ManualClock();
  const limits = { requests: { limit: 2 }, tokens: { limit: 100, intervalMs: 60_000 } };
  const quota = new RateLimiter({ limits, clock });
  const lease = quota.tryAcquire({ requests: 1, tokens: 90 })!;
  same(quota.tryAcquire({ requests: 1, tokens: 11 }), undefined, 'all or nothing');
  lease.settle({ requests: 1, tokens: 20 });
  same(quota.tryAcquire({ requests: 1, tokens: 80 }) !== undefined, true, 'what was not used');
  same(quota.tryAcquire({ requests: 1 }), undefined, 'the other limit');
  await clock.advance(500);
  same(quota.tryAcquire({ requests: 1 }) !== undefined, true, 'at the promised instant');
}

async function keyed(): Promise<void> {
  const perUser = new Keyed(() => new Semaphore(1), { maxKeys: 2, idleMs: 1 });
  const permit = perUser.get('a').tryAcquire();
  same(perUser.get('a').tryAcquire(), undefined, 'one each');
  same(perUser.get('b').tryAcquire()?.release(), true, 'another one');
  await sleep(5);
  perUser.get('c');
  same([perUser.has('a'), perUser.has('b'), perUser.size], [true, false, 2], 'who is forgotten');
  permit?.release();
}

/** Of a server that answers with three tokens behind a queue, and with a refusal at `/full`. */
async function readingEvents(url: string): Promise<void> {
  const types: string[] = [];
  let text = '';
  for await (const event of readEvents(await fetch(`${url}/answer`))) {
    if (event.type === 'token') text += event.value;
    else types.push(event.type);
  }
  same([types, text], [['start', 'done'], 'Hello, wörld'], 'an answer');
  const refused = Array.fromAsync(readEvents(await fetch(`${url}/full`)));
  same(await codeOf(refused), 'ERR_QUEUE_FULL', 'a refusal');
  const client = new AbortController();
  const endless = readEvents(await fetch(`${url}/endless`, { signal: client.signal }));
  same((await endless.next()).value?.type, 'start', 'the start');
  client.abort('gone');
  const reason: unknown = await endless.next().catch((error: unknown) => error);
  // Chromium has a reason of its own.
  const isAbort = reason === 'gone' || (reason as Error).name === 'AbortError';
  same(isAbort, true, `an abort while reading: ${String(reason)}`);
}

/** `url` is where the server of `readingEvents` is. */
export function browserSafe(url: string): Record<string, Scenario> {
  return {
    Semaphore: semaphore,
    AdmissionQueue: admissionQueue,
    RateLimiter: rateLimiter,
    Keyed: keyed,
    readEvents: () => readingEvents(url),
  };
}

/** Plays them one after the other; resolves with their names. */
export async function play(scenarios: Record<string, Scenario>): Promise<string[]> {
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario();
    } catch (cause) {
      throw new Error(`${name}: ${String(cause)}`, { cause });
    }
  }
  return Object.keys(scenarios);
}
