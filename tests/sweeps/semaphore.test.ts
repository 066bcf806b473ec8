import { getEventListeners } from 'node:events';

import { type Permit, Semaphore, type SemaphoreRunOptions } from 'sluice/semaphore';
import { settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { HandClock } from '../support/hand-clock.ts';
import { codeOf, microtasks } from '../support/promises.ts';
import { place, PLACINGS } from './sweep.ts';

/**
 * Two permits, one of them taken by a task that runs. In line, in this order: the head (a `run` that
 * wants both, with a limit on its wait and a signal), the second (an `acquire` of one, with the
 * signal of the last) and the last (a `run` with one), which the head keeps waiting. There is room
 * for two more.
 */
class Scene {
  readonly clock = new HandClock();
  readonly semaphore = new Semaphore({ capacity: 2, maxWaiting: 5, clock: this.clock });
  readonly headsSignal = new AbortController();
  readonly othersSignal = new AbortController();
  /** Of the task that runs. */
  held!: Permit;
  readonly task = Promise.withResolvers<void>();
  readonly outcomes = new Map<string, unknown[]>();
  readonly granted: string[] = [];
  readonly wrong: string[] = [];
  #inside = 0;
  #arrived: string[] = [];

  constructor() {
    const { semaphore } = this;
    const running = semaphore.run(({ permit }) => {
      this.held = permit;
      return this.task.promise;
    });
    running.catch(() => undefined);
    const names = new Map<number, string>();
    const nameOf = (id: number): string => {
      // Whoever is heard of for the first time has just come.
      if (!names.has(id)) names.set(id, this.#arrived.at(-1)!);
      return names.get(id)!;
    };
    semaphore.on('queued', ({ id, waiting }) => {
      nameOf(id);
      if (waiting > 5) this.wrong.push(`${waiting} waiting`);
    });
    semaphore.on('acquired', ({ id, active }) => {
      if (active > semaphore.capacity) this.wrong.push(`${active} of ${semaphore.capacity}`);
      this.granted.push(nameOf(id));
    });
    this.run('head', { weight: 2, signal: this.headsSignal.signal, waitTimeoutMs: 10 });
    this.acquire('second', this.othersSignal.signal);
    this.run('last', { signal: this.othersSignal.signal });
  }

  run(name: string, options: SemaphoreRunOptions = {}): void {
    const full = this.semaphore.waiting >= 5;
    this.#arrived.push(name);
    const task = (): Promise<void> => {
      if (options.signal?.aborted === true) this.wrong.push(`${name} called too late`);
      return this.#work(options.weight);
    };
    this.#answered(name, this.semaphore.run(task, options), full);
  }

  acquire(name: string, signal?: AbortSignal): void {
    const full = this.semaphore.waiting >= 5;
    this.#arrived.push(name);
    const acquired = this.semaphore.acquire({ signal }).then(async (permit) => {
      await this.#work();
      permit.release();
    });
    this.#answered(name, acquired, full);
  }

  tryAcquire(name: string): void {
    const { waiting, available } = this.semaphore;
    const free = waiting === 0 && available > 0 && !this.semaphore.stats().closed;
    this.#arrived.push(name);
    const permit = this.semaphore.tryAcquire();
    if ((permit !== undefined) !== free) this.wrong.push('barged');
    if (permit === undefined) return;
    this.outcomes.set(name, [undefined]);
    void this.#work().then(() => permit.release());
  }

  /** Lets everything end: what went wrong on the way, and what is left. */
  async end(): Promise<unknown> {
    const { semaphore, clock, wrong, outcomes } = this;
    await settle();
    // Nobody was forgotten: whoever is first in line now wants more than there is.
    const next = this.#arrived.find((name) => outcomes.get(name)?.length === 0);
    const wants = next === 'head' ? 2 : 1;
    if (semaphore.waiting > 0 && wants <= semaphore.available) wrong.push(`${next} forgotten`);
    this.task.resolve();
    await settle();
    for (const [name, answers] of outcomes) {
      if (answers.length !== 1) wrong.push(`${name} answered ${answers.length} times`);
    }
    // Those who were let in were let in in the order in which they came.
    const order = this.#arrived.filter((name) => this.granted.includes(name));
    if (order.join() !== this.granted.join()) wrong.push(this.granted.join());
    const listeners = [this.headsSignal, this.othersSignal].flatMap(({ signal }) =>
      getEventListeners(signal, 'abort'),
    );
    const { active, waiting, available, capacity } = semaphore;
    return {
      wrong,
      left: [active, waiting, available - capacity, listeners.length, clock.timers, this.#inside],
    };
  }

  async #work(weight = 1): Promise<void> {
    this.#inside += weight;
    if (this.#inside > this.semaphore.active) this.wrong.push(`${this.#inside} inside`);
    await microtasks(4);
    this.#inside -= weight;
  }

  #answered(name: string, promise: Promise<void>, full: boolean): void {
    const answers: unknown[] = [];
    this.outcomes.set(name, answers);
    promise.then(
      () => answers.push('ok'),
      (error: unknown) => {
        answers.push(codeOf(error));
        if (codeOf(error) === 'ERR_QUEUE_FULL' && !full) this.wrong.push(`${name} refused`);
      },
    );
  }
}

type Happening = (scene: Scene) => void;

const pivots: Record<string, Happening> = {
  'the end of the task': ({ task }) => task.resolve(),
  'the failure of the task': ({ task }) => task.reject(new Error('failed')),
  'a release': ({ held }) => void held.release(),
  'a resize upwards': ({ semaphore }) => semaphore.resize(3),
  'a resize by two': ({ semaphore }) => semaphore.resize(4),
  'an abort of the head': ({ headsSignal }) => headsSignal.abort('head'),
  'a close that serves': ({ semaphore }) => semaphore.close(),
  'a close that rejects': ({ semaphore }) => semaphore.close({ waiting: 'reject' }),
};
const actions: Record<string, Happening> = {
  'an abort of the head': ({ headsSignal }) => headsSignal.abort('head'),
  'an abort of the two behind it': ({ othersSignal }) => othersSignal.abort('others'),
  'the end of the wait of the head': ({ clock }) => clock.jump(10),
  'a newcomer that runs': (scene) => scene.run('newcomer'),
  'a newcomer that acquires': (scene) => scene.acquire('newcomer'),
  'a newcomer that tries': (scene) => scene.tryAcquire('newcomer'),
  'three newcomers at once': (scene) => {
    scene.run('newcomer 1');
    scene.acquire('newcomer 2');
    scene.run('newcomer 3');
  },
  'a release': ({ held }) => void held.release(),
  'a resize upwards': ({ semaphore }) => semaphore.resize(3),
  'a close that rejects': ({ semaphore }) => semaphore.close({ waiting: 'reject' }),
};
const cases = Object.entries(pivots).flatMap(([name, pivot]) =>
  Object.entries(actions).map(([other, action]) => ({ name, pivot, other, action })),
);

describe('Semaphore', () => {
  it.each(cases)(
    'keeps its ledger and its order with $other at every microtask around $name (H056, H083)',
    async ({ pivot, action }) => {
      for (const placing of PLACINGS) {
        const scene = new Scene();
        await place(
          placing,
          () => pivot(scene),
          () => action(scene),
        );
        expect({ ...placing, ...((await scene.end()) as object) }).toEqual({
          ...placing,
          wrong: [],
          left: [0, 0, 0, 0, 0, 0],
        });
      }
    },
  );

  it.each(PLACINGS)(
    'serves all but the head, or all, when the head aborts $depth microtasks in, its turn coming after 15 (first: $first)',
    async (placing) => {
      const scene = new Scene();
      await place(
        placing,
        () => scene.held.release(),
        () => scene.headsSignal.abort('gone'),
      );
      await scene.end();
      // A turn that has come is not taken back from a task that has started.
      const granted = scene.granted.includes('head');
      expect(scene.granted).toEqual([...(granted ? ['head'] : []), 'second', 'last']);
      expect(granted).toBe(!placing.first);
      const heads = scene.outcomes.get('head')!;
      expect(granted ? ['ok', 'gone'] : ['gone']).toContain(heads[0]);
    },
  );
});
