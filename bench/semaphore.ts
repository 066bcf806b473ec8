// node --expose-gc bench/semaphore.ts [--smoke]
import { Sema } from 'async-sema';
import { Semaphore as EsSemaphore } from 'es-toolkit';
import fastq from 'fastq';
import pLimit from 'p-limit';
import PQueue from 'p-queue';
import { Semaphore } from 'sluice';

import {
  figures,
  heading,
  interleave,
  note,
  smoke,
  type Subject,
  timed,
  verdict,
} from './harness.ts';

const TASKS = smoke ? 100 : 100_000;
const LIMIT = 10;
const task = async (): Promise<void> => {};

/** All tasks at once through the limit, until the last has settled. */
function burst(name: string, run: (task: () => Promise<void>) => Promise<unknown>): Subject {
  const answers = Array.from<Promise<unknown>>({ length: TASKS });
  return {
    name,
    round: () =>
      timed(() => {
        for (let i = 0; i < TASKS; i++) answers[i] = run(task);
        return Promise.all(answers);
      }),
  };
}

/**
 * What it takes at least to call each task in the async context of its caller: a promise for the turn
 * and one for the answer. No clock, no permit, no way to leave the line.
 */
class Bare {
  #free = LIMIT;
  readonly #waiting: ((value: undefined) => void)[] = [];
  #next = 0;

  run(each: () => Promise<void>): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return this.#perform(each);
    }
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#waiting.push(resolve);
    return promise.then(() => this.#perform(each));
  }

  #perform(each: () => Promise<void>): Promise<void> {
    return each().then(() => this.#over());
  }

  #over(): void {
    if (this.#next < this.#waiting.length) {
      this.#waiting[this.#next++]!(undefined);
      return;
    }
    this.#free++;
    this.#waiting.length = this.#next = 0;
  }
}

heading(`${TASKS} microtask tasks through a limit of ${LIMIT}, ms`);
const semaphore = new Semaphore(LIMIT);
const queue = fastq.promise((each: () => Promise<void>) => each(), LIMIT);
const sema = new Sema(LIMIT);
const es = new EsSemaphore(LIMIT);
const limit = pLimit(LIMIT);
const pQueue = new PQueue({ concurrency: LIMIT });
const bare = new Bare();
const bursts = await interleave([
  burst('sluice Semaphore.run', (each) => semaphore.run(each)),
  burst('fastq.promise', (each) => queue.push(each)),
  burst('async-sema', async (each) => {
    await sema.acquire();
    try {
      return await each();
    } finally {
      sema.release();
    }
  }),
  burst('es-toolkit', async (each) => {
    await es.acquire();
    try {
      return await each();
    } finally {
      es.release();
    }
  }),
  burst('p-limit', (each) => limit(each)),
  burst('p-queue', (each) => pQueue.add(each)),
  burst('two promises for each, alone', (each) => bare.run(each)),
]);
figures(bursts, 'ms');
const [ours, ...others] = [...bursts.values()];
const least = others.pop()!;
const fastest = Math.min(...others);
verdict('Semaphore.run, to the fastest peer', ours! / fastest, 0.6);
note(
  'To call a task in the async context of its caller (fastq does not) takes a promise for the turn and one for ' +
    `the answer; these alone take ${(least / fastest).toFixed(2)} x the fastest peer. ` +
    'The rest is two readings of the clock for each that waits, a permit for each task, ' +
    'and a place in line that one can leave.',
);

/** What a permit is at least: something of its own for each, so that none can be given back twice. */
class Nothing {
  readonly weight = 1;
}

const TURNS = smoke ? 100 : 200_000;
heading('acquire and release with nobody else there, ns');
const alone = new Semaphore(1);
const semaAlone = new Sema(1);
const uncontended = await interleave([
  {
    name: 'sluice Semaphore',
    round: async () => {
      const ms = await timed(async () => {
        for (let i = 0; i < TURNS; i++) (await alone.acquire()).release();
      });
      return (ms * 1e6) / TURNS;
    },
  },
  {
    name: 'a promise of a new object, alone',
    round: async () => {
      const ms = await timed(async () => {
        for (let i = 0; i < TURNS; i++) await Promise.resolve(new Nothing());
      });
      return (ms * 1e6) / TURNS;
    },
  },
  {
    name: 'async-sema',
    round: async () => {
      const ms = await timed(async () => {
        for (let i = 0; i < TURNS; i++) {
          await semaAlone.acquire();
          semaAlone.release();
        }
      });
      return (ms * 1e6) / TURNS;
    },
  },
]);
figures(uncontended, 'ns');
verdict(
  'acquire + release, to async-sema',
  uncontended.get('sluice Semaphore')! / uncontended.get('async-sema')!,
  1.2,
);
note(
  'async-sema hands out no permit: whoever has one too many `release` in the code frees a place of another.',
);
