/**
 * Run with --expose-gc: what every gate keeps alive of calls that are over, of a long line that is
 * gone, and of itself once nobody refers to it; and what waiting, and not waiting, costs. Prints a line
 * of JSON, for tests/hazards/memory.test.ts.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

import {
  AdmissionQueue,
  RateLimiter,
  Semaphore,
  SharedResource,
  type Ticket,
} from '../../src/index.ts';

interface Options {
  readonly signal?: AbortSignal;
}

interface Gate {
  readonly waiting: number;
  run(task: () => unknown, options?: Options): Promise<unknown>;
}

/** A gate that is taken, and what lets all who wait in. */
interface Scene {
  readonly gate: Gate;
  free(): void;
}

const WAITING = 30_000;
const CYCLES = 20_000;

const noop = (): void => {};

/** The place is held by a promise that only `free` refers to. */
function taken(gate: Gate): Scene {
  const { promise, resolve } = Promise.withResolvers<void>();
  void gate.run(() => promise);
  return { gate, free: resolve };
}

const scenes: Readonly<Record<string, () => Scene | Promise<Scene>>> = {
  Semaphore: () => taken(new Semaphore(1)),
  AdmissionQueue: () => taken(new AdmissionQueue({ concurrency: 1, maxWaiting: Infinity })),
  RateLimiter: () => {
    // No timer is armed, since no token comes in by itself for longer than this lasts.
    const gate = new RateLimiter({ limit: 1, intervalMs: 1e12, burst: WAITING + 10 });
    const lease = gate.tryAcquire(WAITING + 10)!;
    return { gate, free: () => void lease.cancel() };
  },
  SharedResource: async () => {
    const gate = new SharedResource({ load: noop, maxUsers: 1, accessTimeoutMs: Infinity });
    await gate.preload();
    return taken(gate);
  },
};

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

async function collect(): Promise<void> {
  for (let i = 0; i < 3; i++) {
    await turn();
    globalThis.gc!({ type: 'major', flavor: 'last-resort', execution: 'sync' });
  }
}

async function heapUsed(): Promise<number> {
  await collect();
  return process.memoryUsage().heapUsed;
}

const storage = new AsyncLocalStorage<object>();

/** Three callers who wait: one is served, one fails, one leaves. Only weak references are left. */
async function visit({ gate, free }: Scene): Promise<Map<string, WeakRef<object>>> {
  const weak = new Map<string, WeakRef<object>>();
  const watched = <T extends object>(name: string, thing: T): T => {
    weak.set(name, new WeakRef(thing));
    return thing;
  };
  const call = (name: string, settle: () => unknown): [Promise<unknown>, AbortController] => {
    const control = watched(`${name}: controller`, new AbortController());
    const { signal } = control;
    watched(`${name}: signal`, signal);
    const options = watched(`${name}: options`, { signal });
    const task = watched(`${name}: task`, () => settle());
    const answer = storage.run(watched(`${name}: context`, {}), () => gate.run(task, options));
    return [answer.catch(noop), control];
  };
  const calls = [
    call('served', () => watched('served: result', { large: [] })),
    call('failed', () => Promise.reject(watched('failed: error', new Error('failed')))),
    call('gone', noop),
  ];
  calls[2]![1].abort(watched('gone: reason', { why: 'gone' }));
  free();
  await Promise.all(calls.map(([answer]) => answer));
  return weak;
}

/** Tickets that are over, in every way, and what went in along with them. */
async function keptTickets(): Promise<{ tickets: Ticket[]; weak: Map<string, WeakRef<object>> }> {
  const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 3 });
  const { promise, resolve } = Promise.withResolvers<void>();
  void queue.run(() => promise);
  const weak = new Map<string, WeakRef<object>>();
  // An error knows the functions that it was made in.
  const failure = new Error('failed');
  const tickets = ['served', 'failed', 'gone', 'refused'].map((name): Ticket => {
    const { signal } = new AbortController();
    const task = (): void => {
      if (name === 'failed') throw failure;
    };
    const onTicket = (): void => {};
    for (const [what, thing] of Object.entries({ signal, task, onTicket })) {
      weak.set(`${name}: ${what}`, new WeakRef(thing));
    }
    return queue.enqueue(task, { signal, onTicket });
  });
  tickets[2]!.cancel();
  resolve();
  await Promise.allSettled(tickets.map(({ result }) => result));
  return { tickets, weak };
}

/** Names of what is still there. */
function alive(weak: Map<string, WeakRef<object>>): string[] {
  return [...weak].filter(([, ref]) => ref.deref() !== undefined).map(([name]) => name);
}

/** A gate with callers who wait without end, to which nobody refers. A limiter's timer refers to it. */
async function drop(make: () => Scene | Promise<Scene>): Promise<WeakRef<object>[]> {
  const { gate } = await make();
  const answers = [1, 2, 3].map(() => gate.run(noop));
  return [gate, ...answers].map((thing) => new WeakRef(thing));
}

/** A gate that was waited for by a signal that outlives it. */
async function outlive(
  make: () => Scene | Promise<Scene>,
  signal: AbortSignal,
): Promise<WeakRef<object>> {
  const { gate, free } = await make();
  const answer = gate.run(noop, { signal });
  free();
  await answer;
  return new WeakRef(gate);
}

/** In bytes: what each of a long line takes while it waits, and what is left of all in the end. */
async function crowd(make: () => Scene | Promise<Scene>): Promise<object> {
  const { gate, free } = await make();
  const before = await heapUsed();
  let last: Promise<unknown> | undefined;
  for (let i = 0; i < WAITING; i++) last = gate.run(noop);
  const perWaiter = ((await heapUsed()) - before) / WAITING;
  free();
  await last;
  last = undefined;
  return { perWaiter, left: (await heapUsed()) - before, waiting: gate.waiting };
}

/** In bytes: what one use of a free gate makes. Too little in all for the collector to begin. */
async function garbage(use: () => unknown): Promise<number> {
  for (let i = 0; i < CYCLES; i++) await use();
  globalThis.gc!();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < CYCLES; i++) use();
  return (process.memoryUsage().heapUsed - before) / CYCLES;
}

const { signal } = new AbortController();
const report: Record<string, object> = {};
for (const [name, make] of Object.entries(scenes)) {
  const scene = await make();
  const weak = await visit(scene);
  const dropped = await drop(make);
  const gone = await outlive(make, signal);
  await collect();
  report[name] = {
    kept: alive(weak),
    dropped: dropped.filter((ref) => ref.deref() !== undefined).length,
    outlived: gone.deref() !== undefined,
    ...(await crowd(make)),
    // What was looked at is there until here.
    stillWaiting: scene.gate.waiting,
  };
}

const semaphore = new Semaphore(1);
const limiter = new RateLimiter({ limit: 1e9 });
const bytes = {
  'semaphore.tryAcquire': await garbage(() => semaphore.tryAcquire()!.release()),
  'limiter.tryAcquire': await garbage(() => limiter.tryAcquire()),
};
const { tickets, weak } = await keptTickets();
await collect();
const ofTickets = { statuses: tickets.map(({ status }) => status), kept: alive(weak) };
process.stdout.write(JSON.stringify({ report, bytes, ofTickets }), () => process.exit());
