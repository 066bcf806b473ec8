// node --expose-gc bench/admission-queue.ts [--smoke]
import fastq from 'fastq';
import PQueue from 'p-queue';
import { AdmissionQueue, type Ticket } from 'sluice';

import {
  figures,
  interleave,
  median,
  note,
  section,
  smoke,
  type Subject,
  timed,
  verdict,
} from './harness.ts';

type Task = () => Promise<void>;
const LIMIT = 10;
const PRIORITIES = 5;
const task: Task = async () => {};
const options = Array.from({ length: PRIORITIES }, (_, index) => ({ priority: index + 1 }));
const newQueue = (): AdmissionQueue =>
  new AdmissionQueue({ concurrency: LIMIT, maxWaiting: Infinity, history: 0 });

function burst(
  name: string,
  tasks: number,
  run: (task: Task, index: number) => Promise<unknown>,
): Subject {
  const answers = Array.from<Promise<unknown>>({ length: tasks });
  return {
    name,
    round: () =>
      timed(() => {
        for (let i = 0; i < tasks; i++) answers[i] = run(task, i);
        return Promise.all(answers);
      }),
  };
}

/** One who waits in the queue below. */
class Asked {
  slot = 0;
  readonly priority: number;
  readonly task: Task;
  readonly since: number;
  startedAt = 0;
  resolve: ((value: never) => void) | undefined;
  reject: ((reason: unknown) => void) | undefined;

  constructor(each: Task, priority: number, since: number) {
    this.task = each;
    this.priority = priority;
    this.since = since;
  }
}

/**
 * What it takes at least to call each task in the async context of its caller, by priority, with an answer
 * that can be given before the task has settled, with waits and service times, and with a place that one
 * could leave: a promise for the turn, one for the answer, and a reading of the clock at each end. No
 * options, signals, events, tickets or positions, and nobody checks anything.
 */
class Bare {
  waitedMs = 0;
  servedMs = 0;
  #free = LIMIT;
  #occupied = 0;
  readonly #lines: (Asked | undefined)[][] = options.map(() => []);
  readonly #heads: number[] = options.map(() => 0);

  run(each: Task, priority: number): Promise<void> {
    const now = performance.now();
    const asked = new Asked(each, priority, now);
    if (this.#free > 0) {
      this.#free--;
      asked.startedAt = now;
      return this.#perform(asked);
    }
    const line = this.#lines[priority - 1]!;
    asked.slot = line.length;
    line.push(asked);
    this.#occupied |= 1 << (priority - 1);
    const { promise, resolve } = Promise.withResolvers<Asked>();
    asked.resolve = resolve;
    return promise.then(this.#perform);
  }

  readonly #perform = (asked: Asked): Promise<void> =>
    new Promise((resolve, reject) => {
      asked.resolve = resolve;
      asked.reject = reject;
      void asked.task().then(
        () => this.#over(asked, true, undefined),
        (error: unknown) => this.#over(asked, false, error),
      );
    });

  #over(asked: Asked, ok: boolean, value: unknown): void {
    const now = performance.now();
    this.servedMs += now - asked.startedAt;
    if (this.#occupied === 0) {
      this.#free++;
    } else {
      const next = this.#shift(31 - Math.clz32(this.#occupied & -this.#occupied));
      this.waitedMs += now - next.since;
      next.startedAt = now;
      next.resolve!(next as never);
    }
    if (ok) asked.resolve!(value as never);
    else asked.reject!(value);
  }

  #shift(index: number): Asked {
    const line = this.#lines[index]!;
    const head = this.#heads[index]!;
    const next = line[head]!;
    line[head] = undefined;
    this.#heads[index] = head + 1;
    if (head + 1 === line.length) {
      line.length = this.#heads[index] = 0;
      this.#occupied &= ~(1 << index);
    }
    return next;
  }
}

const tasks = smoke ? 100 : 100_000;
await section(`${tasks} microtask tasks through a limit of ${LIMIT}, ms`, async () => {
  const queue = newQueue();
  const plain = newQueue();
  const bare = new Bare();
  const fast = fastq.promise((each: Task) => each(), LIMIT);
  const pQueue = new PQueue({ concurrency: LIMIT });
  const medians = await interleave([
    burst('sluice, 5 priorities', tasks, (each, i) => queue.run(each, options[i % PRIORITIES])),
    burst('sluice, one priority', tasks, (each) => plain.run(each)),
    burst('fastq.promise, no priorities', tasks, (each) => fast.push(each)),
    burst('p-queue, 5 priorities', tasks, (each, i) =>
      pQueue.add(each, { priority: PRIORITIES - (i % PRIORITIES) }),
    ),
    burst('the least that it takes', tasks, (each, i) => bare.run(each, (i % PRIORITIES) + 1)),
  ]);
  figures(medians, 'ms');
  const ours = medians.get('sluice, 5 priorities')!;
  verdict(
    '5 priorities, to fastq.promise',
    ours / medians.get('fastq.promise, no priorities')!,
    1.3,
  );
  const slowest = medians.get('p-queue, 5 priorities')!;
  verdict('5 priorities, to p-queue', ours / slowest, 0.05);
  const plainPeer = medians.get('fastq.promise, no priorities')!;
  const least = medians.get('the least that it takes')!;
  note(
    `fastq itself takes ${(plainPeer / slowest).toFixed(3)} x p-queue. Priorities, the async context of the caller, ` +
      'answers that need not wait for the task, waits and service times, and a place that one could leave take ' +
      `at least ${(least / plainPeer).toFixed(2)} x fastq: two promises and two readings of the clock for each.`,
  );
});

/** Nanoseconds for each of `many` tasks. */
function perTask(
  who: string,
  many: number,
  run: (task: Task, index: number) => Promise<unknown>,
): Subject {
  const { name, round } = burst(`${who}, ${many} waiting`, many, run);
  return { name, round: async () => ((await round()) * 1e6) / many };
}

await section('growth: ns per task, enqueued and drained', async () => {
  const counts = smoke ? [100, 200] : [10_000, 100_000, 1_000_000];
  const queue = newQueue();
  const fast = fastq.promise((each: Task) => each(), LIMIT);
  const bare = new Bare();
  const medians = await interleave(
    [
      ...counts.map((count) =>
        perTask('sluice', count, (each, i) => queue.run(each, options[i % PRIORITIES])),
      ),
      ...counts.map((count) => perTask('fastq', count, (each) => fast.push(each))),
      ...counts.map((count) =>
        perTask('the least', count, (each, i) => bare.run(each, (i % PRIORITIES) + 1)),
      ),
    ],
    5,
    1,
  );
  figures(medians, 'ns');
  const [short, long] = [counts[0]!, counts.at(-1)!];
  const [from, to] = ['sluice', 'the least'].map((who) =>
    [short, long].map((count) => medians.get(`${who}, ${count} waiting`)!),
  ) as [number[], number[]];
  const growthOf = (who: string): number =>
    medians.get(`${who}, ${long} waiting`)! / medians.get(`${who}, ${short} waiting`)!;
  verdict('growth', growthOf('sluice'), 1.5);
  note(
    `That of fastq, which keeps no more than a linked list, is ${growthOf('fastq').toFixed(2)}. What the garbage ` +
      `collector has to copy for the least that it takes, two promises for each, adds ${Math.round(to[1]! - to[0]!)} ns ` +
      `a task between the two lengths: half of ${Math.round(from[0]!)} ns would be allowed.`,
  );
});

/** A queue in which `waiting` tickets wait and nothing moves. */
function stuck(waiting: number): AdmissionQueue {
  const queue = newQueue();
  queue.pause();
  for (let i = 0; i < waiting; i++) queue.enqueue(task, options[i % PRIORITIES]);
  return queue;
}

function shuffled<T>(items: T[]): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}

await section('ticket.position of random tickets, ns', async () => {
  const [short, long] = smoke ? [100, 200] : [1000, 1_000_000];
  const questions = smoke ? 100 : 100_000;
  const asking = (name: string, ask: () => number): Subject => ({
    name,
    round: async () => {
      let sum = 0;
      const ms = await timed(() => {
        sum = ask();
      });
      if (sum === 0) throw new Error('Nobody answered.');
      return (ms * 1e6) / questions;
    },
  });
  /** The tickets to ask, as many for each length. */
  const [few, many] = [short, long].map((count) => {
    const tickets = shuffled([...stuck(count).tickets()]);
    return Array.from({ length: questions }, (_, i) => tickets[i % count]!);
  }) as [Ticket[], Ticket[]];
  // Loops that are as plain as they can be: with a function to call in each turn, a sum that two functions share
  // or one that outgrows an integer, it is that which is measured, since the processor then looks up fewer
  // tickets at a time.
  const medians = await interleave([
    asking(`${short} waiting`, () => {
      let sum = 0;
      for (let i = 0; i < questions; i++) sum = (sum + few[i]!.position) | 0;
      return sum;
    }),
    asking(`${long} waiting`, () => {
      let sum = 0;
      for (let i = 0; i < questions; i++) sum = (sum + many[i]!.position) | 0;
      return sum;
    }),
    asking(`${long} waiting, the priority alone`, () => {
      let sum = 0;
      for (let i = 0; i < questions; i++) sum = (sum + many[i]!.priority) | 0;
      return sum;
    }),
  ]);
  figures(medians, 'ns');
  const slow = medians.get(`${long} waiting`)!;
  verdict('position at the long line, ns', slow, 300);
  verdict('position, long to short', slow / medians.get(`${short} waiting`)!, 3);
  const alone = medians.get(`${long} waiting, the priority alone`)!;
  note(
    'A random one of a million tickets is in nobody’s cache: to read a field of it that needs no arithmetic takes ' +
      `${(alone / medians.get(`${short} waiting`)!).toFixed(1)} x a whole position in the short line.`,
  );
});

const crowd = smoke ? 100 : 50_000;
await section(`abort ${crowd / 2} of ${crowd} waiting in random order, ms`, async () => {
  const leaving = crowd / 2;
  const aborting = (
    name: string,
    fill: (signal: AbortSignal) => Promise<unknown>,
    drain: () => Promise<unknown>,
  ): Subject => ({
    name,
    round: async () => {
      const controllers = Array.from({ length: crowd }, () => new AbortController());
      const answers = controllers.map(({ signal }) => fill(signal).catch(() => undefined));
      const order = shuffled([...controllers]).slice(0, leaving);
      const ms = await timed(() => {
        for (const controller of order) controller.abort();
      });
      await drain();
      await Promise.all(answers);
      return ms;
    },
  });
  const queue = newQueue();
  queue.pause();
  const pQueue = new PQueue({ concurrency: LIMIT, autoStart: false });
  const medians = await interleave(
    [
      aborting(
        'sluice',
        (signal) => queue.run(task, { signal }),
        async () => {
          queue.resume();
          await queue.idle();
          queue.pause();
        },
      ),
      aborting(
        'p-queue',
        (signal) => pQueue.add(task, { signal }),
        async () => {
          pQueue.start();
          await pQueue.onIdle();
          pQueue.pause();
        },
      ),
      aborting(
        'a listener that does nothing',
        (signal) => {
          signal.addEventListener('abort', () => {});
          return Promise.resolve();
        },
        () => Promise.resolve(),
      ),
    ],
    2,
    1,
  );
  figures(medians, 'ms');
  const ours = medians.get('sluice')!;
  verdict('abort, to p-queue', ours / medians.get('p-queue')!, 0.02);
  const platform = medians.get('a listener that does nothing')!;
  note(
    `The platform takes ${Math.round((100 * platform) / ours)} % of ours for the abort itself: an error with a ` +
      'stack for each signal, and the call of a listener.',
  );
});

await section('bytes held for each that waits', async () => {
  const waiting = smoke ? 100 : 100_000;
  /** What `waiting` more callers add to the heap, measured after full collections. */
  const bytes = async (run: (task: Task, index: number) => Promise<unknown>): Promise<number> => {
    const gate = Promise.withResolvers<void>();
    const answers: Promise<unknown>[] = [];
    for (let i = 0; i < LIMIT; i++) answers.push(run(() => gate.promise, 0));
    const more = Array.from<Promise<unknown>>({ length: waiting });
    globalThis.gc?.();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < waiting; i++) more[i] = run(task, i);
    globalThis.gc?.();
    const held = process.memoryUsage().heapUsed - before;
    gate.resolve();
    await Promise.all([...answers, ...more]);
    return held / waiting;
  };
  const sizes = { sluice: [] as number[], fastq: [] as number[] };
  for (let round = 0; round < (smoke ? 1 : 5); round++) {
    const queue = newQueue();
    const fast = fastq.promise((each: Task) => each(), LIMIT);
    sizes.sluice.push(await bytes((each, i) => queue.run(each, options[i % PRIORITIES])));
    sizes.fastq.push(await bytes((each) => fast.push(each)));
  }
  const medians = new Map([
    ['sluice, 5 priorities', median(sizes.sluice)],
    ['fastq.promise', median(sizes.fastq)],
  ]);
  figures(medians, 'bytes');
  verdict('bytes, to fastq.promise', median(sizes.sluice) / median(sizes.fastq), 1.3);
});
