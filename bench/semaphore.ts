// node --expose-gc bench/semaphore.ts [--smoke]
import { Sema } from 'async-sema';
import { Semaphore as EsSemaphore } from 'es-toolkit';
import fastq from 'fastq';
import pLimit from 'p-limit';
import PQueue from 'p-queue';
import { Semaphore } from 'sluice';

import {
  figures,
  interleave,
  note,
  section,
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

await section(`${TASKS} microtask tasks through a limit of ${LIMIT}, ms`, async () => {
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
});

/** What a permit is at least: something of its own for each, so that none can be given back twice. */
class Slip {
  readonly weight = 1;
  #giveBack: (() => void) | undefined;

  constructor(giveBack: () => void) {
    this.#giveBack = giveBack;
  }

  release(): void {
    const giveBack = this.#giveBack;
    this.#giveBack = undefined;
    giveBack?.();
  }
}

/** A semaphore that does nothing but hand out such permits. */
class Ten {
  #free = 1;
  readonly #waiting: ((slip: Slip) => void)[] = [];
  readonly #giveBack = (): void => {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next(new Slip(this.#giveBack));
  };

  acquire(): Promise<Slip> {
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve(new Slip(this.#giveBack));
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

const nothing = (): void => {};
const TURNS = smoke ? 100 : 200_000;

/** Nanoseconds for one turn, each after the one before. */
function turns(name: string, turn: () => Promise<void>): Subject {
  return {
    name,
    round: async () => {
      const ms = await timed(turn);
      return (ms * 1e6) / TURNS;
    },
  };
}

await section('acquire and release with nobody else there, ns', async () => {
  const semaphore = new Semaphore(1);
  const ten = new Ten();
  const sema = new Sema(1);
  const medians = await interleave([
    turns('sluice Semaphore', async () => {
      for (let i = 0; i < TURNS; i++) (await semaphore.acquire()).release();
    }),
    turns('ten lines that hand out a permit', async () => {
      for (let i = 0; i < TURNS; i++) (await ten.acquire()).release();
    }),
    turns('a promise of a new object, alone', async () => {
      for (let i = 0; i < TURNS; i++) await Promise.resolve(new Slip(nothing));
    }),
    turns('async-sema', async () => {
      for (let i = 0; i < TURNS; i++) {
        await sema.acquire();
        sema.release();
      }
    }),
  ]);
  figures(medians, 'ns');
  const peer = medians.get('async-sema')!;
  const least = medians.get('ten lines that hand out a permit')!;
  verdict('acquire + release, to async-sema', medians.get('sluice Semaphore')! / peer, 1.2);
  note(
    'async-sema hands out no permit: whoever has one too many `release` in the code frees a place of another. ' +
      `A semaphore of ten lines that hands out permits and does nothing else takes ${(least / peer).toFixed(2)} x ` +
      'async-sema.',
  );
});
