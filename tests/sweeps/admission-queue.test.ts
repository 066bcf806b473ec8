import { getEventListeners } from 'node:events';

import { AdmissionQueue, type EnqueueOptions, type Ticket } from 'sluice/admission-queue';
import { settle } from 'sluice/testing';
import { describe, expect, it } from 'vitest';

import { HandClock } from '../support/hand-clock.ts';
import { codeOf, microtasks } from '../support/promises.ts';
import { place, PLACINGS } from './sweep.ts';

/**
 * One place, taken by a task; in line, in this order: the head (priority 2, with a limit on its wait
 * and a signal), the second (priority 3, with the signal of the last) and the last (priority 5).
 * There is room for two more.
 */
class Scene {
  readonly clock = new HandClock();
  readonly queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 5, clock: this.clock });
  readonly headsSignal = new AbortController();
  readonly othersSignal = new AbortController();
  readonly task = Promise.withResolvers<void>();
  readonly outcomes = new Map<string, unknown[]>();
  readonly tickets = new Map<string, Ticket>();
  readonly started: string[] = [];
  readonly wrong: string[] = [];
  #inside = 1;

  constructor() {
    const { queue } = this;
    queue.on('started', ({ id, active, priority }) => {
      if (active > queue.concurrency) this.wrong.push(`${active} of ${queue.concurrency}`);
      const next = [...queue.tickets()].find(({ position }) => position === 1);
      if (next !== undefined && next.priority < priority) this.wrong.push(`${id} passed`);
    });
    queue.on('queued', ({ waiting }) => {
      if (waiting > 5) this.wrong.push(`${waiting} waiting`);
    });
    const running = queue.run(() => this.task.promise.finally(() => this.#inside--));
    running.catch(() => undefined);
    this.run('head', { priority: 2, signal: this.headsSignal.signal, waitTimeoutMs: 10 });
    this.enqueue('second', { priority: 3, signal: this.othersSignal.signal });
    this.run('last', { signal: this.othersSignal.signal });
  }

  run(id: string, options: EnqueueOptions): void {
    const full = this.queue.waiting >= 5;
    const onTicket = (ticket: Ticket): void => void this.tickets.set(id, ticket);
    this.#answered(id, this.queue.run(this.#task(id, options), { id, onTicket, ...options }), full);
  }

  enqueue(id: string, options: EnqueueOptions): void {
    const full = this.queue.waiting >= 5;
    const ticket = this.queue.enqueue(this.#task(id, options), { id, ...options });
    this.tickets.set(id, ticket);
    this.#answered(id, ticket.result, full);
  }

  /** Lets everything end: what went wrong on the way, and what is left. */
  async end(): Promise<unknown> {
    const { queue, clock, wrong, outcomes } = this;
    await settle();
    queue.resume();
    // Nobody was forgotten: where somebody waits, no place is free.
    if (queue.waiting > 0 && queue.active < queue.concurrency) wrong.push('forgotten');
    this.task.resolve();
    await settle();
    for (const [id, answers] of outcomes) {
      const { status, position } = this.tickets.get(id) ?? { status: 'refused', position: -1 };
      if (answers.length !== 1) wrong.push(`${id} answered ${answers.length} times`);
      if (status === 'waiting' || status === 'active') wrong.push(`${id} ${status}`);
      if (position !== -1) wrong.push(`${id} at ${position}`);
      if ((status === 'completed') !== (answers[0] === 'ok')) wrong.push(`${id} ${status}`);
    }
    if (new Set(this.started).size !== this.started.length) wrong.push(this.started.join());
    const listeners = [this.headsSignal, this.othersSignal].flatMap(({ signal }) =>
      getEventListeners(signal, 'abort'),
    );
    const { active, waiting } = queue;
    return {
      wrong,
      left: [active, waiting, [...queue.tickets()].length, listeners.length, clock.timers],
      inside: this.#inside,
    };
  }

  #task(id: string, { signal }: EnqueueOptions): () => Promise<void> {
    return async () => {
      if (signal?.aborted === true) this.wrong.push(`${id} called too late`);
      this.started.push(id);
      this.#inside++;
      if (this.#inside > this.queue.active) this.wrong.push(`${this.#inside} inside`);
      const position = this.queue.position(id);
      if (position !== 0) this.wrong.push(`${id} runs at ${position}`);
      await microtasks(4);
      this.#inside--;
    };
  }

  #answered(id: string, promise: Promise<void>, full: boolean): void {
    const answers: unknown[] = [];
    this.outcomes.set(id, answers);
    promise.then(
      () => answers.push('ok'),
      (error: unknown) => {
        answers.push(codeOf(error));
        if (codeOf(error) === 'ERR_QUEUE_FULL' && !full) this.wrong.push(`${id} refused`);
      },
    );
  }
}

type Happening = (scene: Scene) => void;

const pivots: Record<string, Happening> = {
  'the end of the task': ({ task }) => task.resolve(),
  'the failure of the task': ({ task }) => task.reject(new Error('failed')),
  'a resize upwards': ({ queue }) => queue.resize(2),
  'a resize by two': ({ queue }) => queue.resize(3),
  'a pause and its end': ({ queue, task }) => {
    queue.pause();
    task.resolve();
    queue.resume();
  },
  'a close that serves': ({ queue }) => queue.close(),
  'a close that rejects': ({ queue }) => queue.close({ waiting: 'reject' }),
};
const actions: Record<string, Happening> = {
  'an abort of the head': ({ headsSignal }) => headsSignal.abort('head'),
  'an abort of the two behind it': ({ othersSignal }) => othersSignal.abort('others'),
  'a cancel of the head': ({ tickets }) => void tickets.get('head')!.cancel('cancelled'),
  'the end of the wait of the head': ({ clock }) => clock.jump(10),
  'a less urgent head': ({ tickets }) => void tickets.get('head')!.setPriority(4),
  'a more urgent last': ({ tickets }) => void tickets.get('last')!.setPriority(1),
  'an urgent newcomer': (scene) => scene.run('newcomer', { priority: 1 }),
  'a newcomer that can wait': (scene) => scene.enqueue('newcomer', { priority: 5 }),
  'three newcomers at once': (scene) => {
    scene.run('newcomer 1', { priority: 5 });
    scene.enqueue('newcomer 2', { priority: 1 });
    scene.run('newcomer 3', { priority: 3 });
  },
  'a resize upwards': ({ queue }) => queue.resize(2),
  'a pause': ({ queue }) => queue.pause(),
  'a close that rejects': ({ queue }) => queue.close({ waiting: 'reject' }),
};
const cases = Object.entries(pivots).flatMap(([name, pivot]) =>
  Object.entries(actions).map(([other, action]) => ({ name, pivot, other, action })),
);

describe('AdmissionQueue', () => {
  it.each(cases)(
    'keeps its limit and its order with $other at every microtask around $name (H056, H083)',
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
          left: [0, 0, 0, 0, 0],
          inside: 0,
        });
      }
    },
  );

  it.each(PLACINGS)(
    'starts an urgent newcomer that comes after $depth microtasks before all that wait then, the place coming free after 15 (first: $first)',
    async (placing) => {
      const scene = new Scene();
      let waiting: string[] = [];
      await place(
        placing,
        () => scene.task.resolve(),
        () => {
          scene.run('newcomer', { priority: 1 });
          const ahead = scene.queue.position('newcomer');
          waiting = [...scene.queue.tickets()].slice(-scene.queue.waiting).map(({ id }) => id);
          // The place goes from hand to hand: at no time is it free for who comes by.
          expect(ahead).toBe(scene.queue.waiting === 0 ? 0 : 1);
        },
      );
      await scene.end();
      expect(scene.started.slice(-Math.max(waiting.length, 1))).toEqual(
        waiting.length === 0 ? ['newcomer'] : waiting,
      );
    },
  );
});
