import { getEventListeners } from 'node:events';

import { Semaphore } from 'sluice';
import { settle } from 'sluice/testing';
import {
  fromCallback,
  type StreamEvent,
  type TokenSink,
  TokenStreamer,
} from 'sluice/token-streamer';
import { describe, expect, it } from 'vitest';

import { HandClock } from '../support/hand-clock.ts';
import { place, PLACINGS } from './sweep.ts';

/** A stream behind a gate of one place, of which the first token has been read. */
class Scene {
  readonly clock = new HandClock();
  readonly gate = new Semaphore({ capacity: 1, clock: this.clock });
  readonly controller = new AbortController();
  readonly streamer = new TokenStreamer({ clock: this.clock, stallMs: 1000 });
  readonly events: StreamEvent<number>[] = [];
  readonly wrong: string[] = [];
  sink!: TokenSink<number>;
  pushed = 0;
  cleaned = 0;
  readonly stream = this.streamer.stream<number, never, { signal?: AbortSignal }>(
    fromCallback((sink: TokenSink<number>) => {
      this.sink = sink;
      return () => this.cleaned++;
    }),
    { gate: this.gate as never, signal: this.controller.signal },
  );
  readonly iterator = this.stream[Symbol.asyncIterator]();
  #reading: Promise<void> | undefined;
  left = false;

  async begin(): Promise<void> {
    const first = this.iterator.next();
    await settle();
    this.push();
    this.events.push((await first).value as StreamEvent<number>);
    this.#reading = this.#read();
    await settle();
  }

  push(): void {
    const isOver = this.stream.stats().buffered === 0 && this.sink.signal.aborted;
    if (this.sink.push(this.pushed)) this.pushed++;
    else if (!isOver) this.wrong.push('refused while it flows');
  }

  async #read(): Promise<void> {
    for (let result = await this.iterator.next(); result.done !== true;) {
      this.events.push(result.value);
      result = await this.iterator.next();
    }
  }

  /** Lets everything come to its end, and says what was wrong with it. */
  async end(): Promise<unknown> {
    const { events, wrong, gate, clock, sink } = this;
    await settle();
    sink.end();
    await this.#reading;
    const report = await this.stream.finished;
    await settle();
    if (sink.push(99)) wrong.push('takes more after the end');
    const tokens = events.filter((event) => event.type === 'token');
    if (tokens.some(({ value, index }, i) => value !== i || index !== i)) wrong.push('disorder');
    if (report.tokens !== tokens.length) wrong.push(`${report.tokens} of ${tokens.length}`);
    const ends = events.filter(({ type }) => type === 'done' || type === 'error');
    if (ends.length !== (this.left && report.outcome === 'cancelled' ? 0 : 1)) {
      wrong.push(`${ends.length} ends`);
    }
    if (ends.length > 0 && events.at(-1) !== ends[0]) wrong.push('goes on after its end');
    if (report.outcome === 'completed' && tokens.length !== this.pushed) wrong.push('lost some');
    if (this.cleaned !== 1) wrong.push(`cleaned up ${this.cleaned} times`);
    if ((report.outcome === 'completed') === sink.signal.aborted) wrong.push('wrong signal');
    if (!(await this.iterator.next()).done) wrong.push('is not done');
    const listeners = getEventListeners(this.controller.signal, 'abort').length;
    return { wrong, left: [gate.active, gate.waiting, listeners, clock.timers] };
  }
}

type Happening = (scene: Scene) => unknown;

const pivots: Record<string, Happening> = {
  'a push': (scene) => scene.push(),
  'many pushes': (scene) => {
    for (let i = 0; i < 40; i++) scene.push();
  },
  'the last push and the end': (scene) => {
    scene.push();
    scene.sink.end();
  },
  'the end': (scene) => scene.sink.end(),
  'a failure': (scene) => scene.sink.fail(new Error('failed')),
};
const actions: Record<string, Happening> = {
  'an abort': ({ controller }) => controller.abort('gone'),
  'a cancel': ({ stream }) => stream.cancel('gone'),
  'a return()': (scene) => {
    scene.left = true;
    return scene.iterator.return!();
  },
  'a throw()': (scene) => {
    scene.left = true;
    scene.iterator.throw!(new Error('thrown')).catch(() => undefined);
  },
  'a second next()': (scene) => {
    void scene.iterator.next().then(({ done, value }) => {
      if (done !== true) scene.events.push(value);
    });
  },
};
const cases = Object.entries(pivots).flatMap(([name, pivot]) =>
  Object.entries(actions).map(([other, action]) => ({ name, pivot, other, action })),
);

describe('TokenStreamer', () => {
  it.each(cases)(
    'loses, doubles and keeps nothing with $other at every microtask around $name (H335)',
    async ({ pivot, action }) => {
      for (const placing of PLACINGS) {
        const scene = new Scene();
        await scene.begin();
        await place(
          placing,
          () => void pivot(scene),
          () => void action(scene),
        );
        expect({ ...placing, ...((await scene.end()) as object) }).toEqual({
          ...placing,
          wrong: [],
          left: [0, 0, 0, 0],
        });
      }
    },
  );
});
