// node --expose-gc bench/admission-queue.ts [--smoke]
import fastq from 'fastq';
import PQueue from 'p-queue';
import { AdmissionQueue, type Ticket } from 'sluice';

import {
  figures,
  heading,
  interleave,
  median,
  note,
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
interface Asked {
  readonly task: Task;
  startedAt: number;
  begin: (self: Asked) => unknown;
}

/**
 * What it takes at least to call each task in the async context of its caller, by priority, with an answer
 * that can be given before the task has settled, and with service times for the estimates: a promise for
 * the turn, one for the answer, and a reading of the clock at each end. Nobody can leave, move or ask.
 */
class Bare {
  servedMs = 0;
  #free = LIMIT;
  readonly #lists: Asked[][] = options.map(() => []);
  readonly #heads: number[] = options.map(() => 0);

  run(each: Task, priority: number): Promise<void> {
    const asked: Asked = { task: each, startedAt: performance.now(), begin: this.#perform };
    if (this.#free > 0) {
      this.#free--;
      return this.#perform(asked);
    }
    const { promise, resolve } = Promise.withResolvers<Asked>();
    asked.begin = resolve;
    this.#lists[priority - 1]!.push(asked);
    return promise.then(this.#perform);
  }

  readonly #perform = (asked: Asked): Promise<void> =>
    new Promise((resolve, reject) => {
      asked.task().then(() => {
        this.#over(asked);
        resolve();
      }, reject);
    });

  #over(asked: Asked): void {
    const now = performance.now();
    this.servedMs += now - asked.startedAt;
    const list = this.#lists.findIndex((each, index) => this.#heads[index]! < each.length);
    if (list === -1) {
      this.#free++;
      for (const [index, each] of this.#lists.entries()) each.length = this.#heads[index] = 0;
      return;
    }
    const next = this.#lists[list]![this.#heads[list]!++]!;
    next.startedAt = now;
    next.begin(next);
  }
}

{
  const tasks = smoke ? 100 : 100_000;
  heading(`${tasks} microtask tasks through a limit of ${LIMIT}, ms`);
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
      'answers that need not wait for the task, and service times for the estimates take at least ' +
      `${(least / plainPeer).toFixed(2)} x fastq: two promises and two readings of the clock for each.`,
  );
}

{
  const counts = smoke ? [100, 200] : [10_000, 100_000, 1_000_000];
  heading('growth: ns per task, enqueued and drained');
  const queue = newQueue();
  const fast = fastq.promise((each: Task) => each(), LIMIT);
  const perTask = (
    who: string,
    tasks: number,
    run: (task: Task, index: number) => Promise<unknown>,
  ): Subject => {
    const { name, round } = burst(`${who}, ${tasks} waiting`, tasks, run);
    return { name, round: async () => ((await round()) * 1e6) / tasks };
  };
  const medians = await interleave(
    [
      ...counts.map((count) =>
        perTask('sluice', count, (each, i) => queue.run(each, options[i % PRIORITIES])),
      ),
      ...counts.map((count) => perTask('fastq', count, (each) => fast.push(each))),
    ],
    3,
    1,
  );
  figures(medians, 'ns');
  const [short, long] = [counts[0]!, counts.at(-1)!];
  const growthOf = (who: string): number =>
    medians.get(`${who}, ${long} waiting`)! / medians.get(`${who}, ${short} waiting`)!;
  verdict('growth', growthOf('sluice'), 1.5);
  note(
    `That of fastq, which keeps no more than a linked list, is ${growthOf('fastq').toFixed(2)}.`,
  );
}

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

{
  const [short, long] = smoke ? [100, 200] : [1000, 1_000_000];
  heading('ticket.position of random tickets, ns');
  const questions = smoke ? 100 : 100_000;
  const asking = (
    name: string,
    tickets: readonly Ticket[],
    question: (ticket: Ticket) => number,
  ): Subject => {
    let sum = 0;
    return {
      name,
      round: async () => {
        const ms = await timed(() => {
          for (let i = 0; i < questions; i++) sum += question(tickets[i % tickets.length]!);
        });
        if (sum === 0) throw new Error('Nobody answered.');
        return (ms * 1e6) / questions;
      },
    };
  };
  const [few, many] = [short, long].map((count) => shuffled([...stuck(count).tickets()]));
  const alone = `${long} waiting, the priority alone`;
  const medians = await interleave([
    asking(`${short} waiting`, few!, ({ position }) => position),
    asking(`${long} waiting`, many!, ({ position }) => position),
    asking(alone, many!, ({ priority }) => priority),
  ]);
  figures(medians, 'ns');
  const slow = medians.get(`${long} waiting`)!;
  verdict('position at the long line, ns', slow, 300);
  verdict('position, long to short', slow / medians.get(`${short} waiting`)!, 3);
  note(
    'A random one of a million tickets is in nobody’s cache. Reading a field of it that needs no ' +
      `arithmetic is ${Math.round((100 * medians.get(alone)!) / slow)} % of the time that its position takes.`,
  );
}

{
  const waiting = smoke ? 100 : 50_000;
  const leaving = waiting / 2;
  heading(`abort ${leaving} of ${waiting} waiting in random order, ms`);
  const aborting = (
    name: string,
    fill: (signal: AbortSignal) => Promise<unknown>,
    drain: () => Promise<unknown>,
  ): Subject => ({
    name,
    round: async () => {
      const controllers = Array.from({ length: waiting }, () => new AbortController());
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
}

{
  const waiting = smoke ? 100 : 100_000;
  heading('bytes held for each that waits');
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
}
