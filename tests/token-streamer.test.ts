import { AsyncLocalStorage } from 'node:async_hooks';
import { Readable } from 'node:stream';

import { describe, expect, it, vi } from 'vitest';

import { AdmissionQueue } from '../src/admission-queue.ts';
import { StreamTimeoutError } from '../src/errors.ts';
import { compose, type Gate, type TaskContext } from '../src/gate.ts';
import type { PlaceInLine } from '../src/internal/feed.ts';
import { RateLimiter } from '../src/rate-limiter.ts';
import { Semaphore } from '../src/semaphore.ts';
import { SessionManager } from '../src/session-manager.ts';
import { SharedResource } from '../src/shared-resource.ts';
import { ManualClock, settle } from '../src/testing.ts';
import {
  type Replay,
  type StreamEvent,
  type TokenStream,
  TokenStreamer,
} from '../src/token-streamer.ts';
import { catchUncaught } from './support/uncaught.ts';

/** A source that a test plays: it records what is done to it and answers when told. */
class Played<T> implements AsyncIterable<T>, AsyncIterator<T> {
  readonly calls: string[] = [];
  signal: AbortSignal | undefined;
  #answers: { resolve: (result: IteratorResult<T>) => void; reject: (error: unknown) => void }[] =
    [];

  /** As a source function. */
  readonly open = ({ signal }: TaskContext): this => {
    this.calls.push('open');
    this.signal = signal;
    signal.addEventListener('abort', () => this.calls.push('abort'));
    return this;
  };

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T>> {
    this.calls.push('next');
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<T>> {
    this.calls.push('return');
    return Promise.resolve({ done: true, value: undefined });
  }

  get asked(): number {
    return this.#answers.length;
  }

  async give(value: T): Promise<void> {
    this.#answers.shift()!.resolve({ done: false, value });
    await settle();
  }

  async end(): Promise<void> {
    this.#answers.shift()!.resolve({ done: true, value: undefined });
    await settle();
  }

  async fail(error: unknown): Promise<void> {
    this.#answers.shift()!.reject(error);
    await settle();
  }
}

/** A source whose `next()` never settles, and with it, as in a generator, its `return()`. */
class Stuck extends Played<string> {
  override return(): Promise<IteratorResult<string>> {
    this.calls.push('return');
    return new Promise(() => {});
  }
}

async function collect<V>(values: AsyncIterable<V>): Promise<V[]> {
  const all: V[] = [];
  for await (const value of values) all.push(value);
  return all;
}

function types(events: readonly StreamEvent<unknown>[]): string[] {
  return events.map((event) => event.type);
}

describe('TokenStreamer', () => {
  describe('letting go of a source that is stuck', () => {
    const ends: Record<string, (stream: TokenStream<string>, context: Ends) => unknown> = {
      'cancel()': (stream) => stream.cancel(new Error('stop')),
      'the caller’s signal': (_, { controller }) => controller.abort(new Error('stop')),
      'the gate’s own signal': (_, { clock }) => clock.advance(60_000),
      'leaving the loop': (_, { iterator }) => void iterator.return!(),
      'throw() of the iterator': (_, { iterator }) =>
        void iterator.throw!(new Error('stop')).catch(() => {}),
    };
    interface Ends {
      controller: AbortController;
      clock: ManualClock;
      iterator: AsyncIterator<StreamEvent<string>>;
    }

    it.each(Object.keys(ends))(
      'aborts, returns once and frees the place: %s (H297, H298, H333)',
      async (way) => {
        const clock = new ManualClock();
        const gate = new Semaphore({ capacity: 1, clock });
        const controller = new AbortController();
        const source = new Stuck();
        const stream = new TokenStreamer({ clock, teardownGraceMs: 1000 }).stream(source.open, {
          gate,
          signal: controller.signal,
          runTimeoutMs: 60_000,
        });
        const iterator = stream[Symbol.asyncIterator]();
        await iterator.next();
        const pending = iterator.next();
        await settle();
        expect(source.calls).toEqual(['open', 'next']);

        await ends[way]!(stream, { controller, clock, iterator });
        await settle();
        // The source is told at once and the reader answered, though the source is not.
        expect(source.calls).toEqual(['open', 'next', 'abort', 'return']);
        const told = way === 'leaving the loop' || way.startsWith('throw') ? undefined : 'error';
        expect((await pending).value?.type).toBe(told);
        expect(gate.active).toBe(1);

        await clock.advance(999);
        expect(gate.active).toBe(1);
        await clock.advance(1);
        expect(gate.active).toBe(0);
        const report = await stream.finished;
        expect(report.abandoned).toBe(true);
        expect(source.calls).toEqual(['open', 'next', 'abort', 'return']);
        expect(clock.timers).toBe(0);
        expect((await iterator.next()).done).toBe(true);
      },
    );

    it('frees the place as soon as a source that minds its signal has let go', async () => {
      const clock = new ManualClock();
      const gate = new Semaphore({ capacity: 1, clock });
      const cleanup: string[] = [];
      const stream = new TokenStreamer({ clock }).stream(
        async function* ({ signal }) {
          try {
            yield 'a';
            await new Promise((_, reject) => {
              signal.addEventListener('abort', () => reject(signal.reason as Error));
            });
          } finally {
            await settle();
            cleanup.push(`active ${gate.active}`);
          }
        },
        { gate },
      );
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      await iterator.next();
      const returned = iterator.return!();
      expect(gate.active).toBe(1);
      await returned;
      expect(cleanup).toEqual(['active 1']);
      expect(gate.active).toBe(0);
      expect(clock.timers).toBe(0);
      expect(await stream.finished).toMatchObject({ outcome: 'cancelled', abandoned: false });
    });

    it('does not open the source for one that left while the gate let it through (T-26)', async () => {
      const source = new Played<string>();
      const late: (() => unknown)[] = [];
      const gate: Gate = {
        run: (task) =>
          new Promise((resolve) => {
            late.push(() => resolve(task({ signal: new AbortController().signal })));
          }),
      };
      const clock = new ManualClock();
      const stream = new TokenStreamer({ clock }).stream(source.open, { gate });
      const next = stream[Symbol.asyncIterator]().next();
      stream.cancel();
      late[0]!();
      await settle();
      expect(source.calls).toEqual([]);
      expect(await next).toMatchObject({ value: { type: 'error', code: 'ERR_STREAM_CANCELLED' } });
      expect(await stream.finished).toMatchObject({ outcome: 'cancelled', abandoned: false });
    });

    it('does not wait for ever for a gate that keeps it waiting all the same', async () => {
      const clock = new ManualClock();
      const gate: Gate = { run: () => new Promise(() => {}) };
      const stream = new TokenStreamer({ clock }).stream(['a'], { gate });
      void stream[Symbol.asyncIterator]().next();
      stream.cancel();
      await clock.advance(1000);
      expect(await stream.finished).toMatchObject({ outcome: 'cancelled', abandoned: false });
      expect(clock.timers).toBe(0);
    });

    it('closes a source that arrives when the stream is over, without reading it', async () => {
      const source = new Played<string>();
      let arrive!: (source: Played<string>) => void;
      const clock = new ManualClock();
      const stream = new TokenStreamer({ clock }).stream(
        () => new Promise<Played<string>>((resolve) => (arrive = resolve)),
      );
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      stream.cancel();
      await clock.advance(5000);
      expect((await stream.finished).abandoned).toBe(true);
      arrive(source);
      await settle();
      expect(source.calls).toEqual(['return']);
    });

    it('calls return() of what was given directly, though it was never read', async () => {
      const source = new Played<string>();
      const cancelled: unknown[] = [];
      const readable = new ReadableStream<string>({ cancel: (why) => void cancelled.push(why) });
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      streamer.stream(source).cancel();
      streamer.stream(readable).cancel('enough');
      streamer.stream(source.open).cancel();
      streamer.stream(Promise.reject(new Error('too late'))).cancel();
      await settle();
      expect(source.calls).toEqual(['return']);
      expect(cancelled).toEqual(['enough']);
      expect(streamer.stats()).toMatchObject({ active: 0, cancelled: 4 });
    });

    it('cancels a ReadableStream that does not answer', async () => {
      const cancelled: unknown[] = [];
      const readable = new ReadableStream<string>({
        pull: () => new Promise(() => {}),
        cancel: (reason) => void cancelled.push(reason),
      });
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(() => readable);
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      void iterator.next();
      await settle();
      stream.cancel('enough');
      expect(await stream.finished).toMatchObject({ abandoned: false });
      expect(cancelled).toEqual(['enough']);
    });

    it('destroys a Node stream that does not answer', async () => {
      const readable = new Readable({ objectMode: true, read() {} });
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream<string>(() => readable);
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      void iterator.next();
      await settle();
      stream.cancel();
      expect(await stream.finished).toMatchObject({ abandoned: false });
      expect(readable.destroyed).toBe(true);
    });

    it('never returns a source that ended or failed by itself (H334)', async () => {
      for (const how of ['end', 'fail'] as const) {
        const source = new Played<string>();
        const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open);
        const reading = collect(stream);
        await settle();
        await source[how](new Error('broken'));
        await reading;
        stream.cancel();
        await stream.finished;
        expect(source.calls).toEqual(how === 'end' ? ['open', 'next'] : ['open', 'next', 'abort']);
      }
    });

    it('bears with a return() that throws, rejects or is not done, and reports it (T-21, H334)', async () => {
      const broken = new Error('broken');
      const returns: (() => unknown)[] = [
        () => {
          throw broken;
        },
        () => Promise.reject(broken),
        () => Promise.resolve({ done: false, value: 'x' }),
        () => undefined,
      ];
      const seen: unknown[] = [];
      using uncaught = catchUncaught();
      for (const how of returns) {
        const source = new Played<string>();
        source.return = how as () => Promise<IteratorResult<string>>;
        const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open);
        const iterator = stream[Symbol.asyncIterator]();
        await iterator.next();
        void iterator.next();
        await settle();
        await iterator.return!();
        const { teardownError, abandoned, outcome } = await stream.finished;
        seen.push([teardownError, abandoned, outcome]);
        // Its answer comes when nobody asks any more.
        await source.fail(broken);
      }
      expect(seen).toEqual([
        [broken, false, 'cancelled'],
        [broken, false, 'cancelled'],
        [undefined, false, 'cancelled'],
        [undefined, false, 'cancelled'],
      ]);
      expect(uncaught.rejections).toEqual([]);
    });
  });

  describe('.stream()', () => {
    it('refuses what cannot be a source, and unknown or bad options, at once', () => {
      const streamer = new TokenStreamer();
      for (const bad of ['text', 1, null, undefined, {}, true]) {
        expect(() => streamer.stream(bad as never)).toThrow(/`source`/u);
      }
      expect(() => streamer.stream([], { gate: {} as never })).toThrow(/`gate`/u);
      expect(() => streamer.stream([], { signal: {} as never })).toThrow(/`signal`/u);
      expect(() => streamer.stream([], { priority: 1 } as never)).toThrow(/"priority"/u);
      const gate = new Semaphore(1);
      expect(() => streamer.stream([], { gate, priority: 1 } as never)).toThrow(/"priority"/u);
      expect(streamer.stats().active).toBe(0);
    });

    it('does nothing before the first read', async () => {
      const source = new Played<string>();
      const gate = new Semaphore(1);
      new TokenStreamer({ clock: new ManualClock() }).stream(source.open, { gate });
      await settle();
      expect(source.calls).toEqual([]);
      expect(gate.active).toBe(0);
    });

    it('reads every kind of source', async () => {
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const list = ['a', 'b'];
      const generate = function* (): Generator<string> {
        yield* list;
      };
      const generateLater = async function* (): AsyncGenerator<string> {
        yield* list;
      };
      const sources = [
        list,
        new Set(list),
        generate(),
        list.map((value) => Promise.resolve(value)),
        generateLater(),
        new ReadableStream<string>({
          start(controller) {
            for (const value of list) controller.enqueue(value);
            controller.close();
          },
        }),
        Readable.from(list),
        Promise.resolve(list),
        Promise.resolve(generateLater()),
        () => list,
        async () => generateLater(),
        generateLater,
      ];
      for (const source of sources) {
        expect(await collect(streamer.stream<string>(source).tokens())).toEqual(list);
      }
      expect(streamer.stats()).toMatchObject({ active: 0, completed: sources.length, tokens: 24 });
    });

    it('hears nothing of a promise that rejects before the stream is read, until it is', async () => {
      using uncaught = catchUncaught();
      const broken = new Error('broken');
      const stream = new TokenStreamer().stream(Promise.reject(broken));
      await settle();
      expect(uncaught.rejections).toEqual([]);
      await expect(collect(stream.tokens())).rejects.toBe(broken);
    });

    it('closes a sync iterator once, though its promised token rejects after that', async () => {
      const closed: string[] = [];
      let reject!: (error: unknown) => void;
      const iterator: Iterable<Promise<string>> = {
        [Symbol.iterator]: () => ({
          next: () => ({ done: false, value: new Promise((_, fail) => (reject = fail)) }),
          return: () => {
            closed.push('return');
            return { done: true, value: undefined };
          },
        }),
      };
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(iterator);
      void stream[Symbol.asyncIterator]().next();
      await settle();
      stream.cancel();
      reject(new Error('late'));
      await stream.finished;
      expect(closed).toEqual(['return']);
    });

    it('closes a sync iterator whose promised token rejects, once (T-22)', async () => {
      const closed: string[] = [];
      const iterator: Iterable<Promise<string>> = {
        [Symbol.iterator]: () => ({
          next: () => ({ done: false, value: Promise.reject(new Error('broken')) }),
          return: () => {
            closed.push('return');
            return { done: true, value: undefined };
          },
        }),
      };
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(iterator);
      await expect(collect(stream.tokens())).rejects.toThrow('broken');
      await stream.finished;
      expect(closed).toEqual(['return']);
    });

    it('fails when the function returns what is no source', async () => {
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(() => 'text' as never);
      await expect(collect(stream.tokens())).rejects.toThrow(/`source`/u);
      expect((await stream.finished).outcome).toBe('failed');
    });

    it('gives the gate’s whole context to the source, with a signal of its own', async () => {
      const gate = new Semaphore(1);
      let weight = 0;
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(
        ({ signal, permit }) => {
          weight = permit.weight;
          return [signal.aborted];
        },
        { gate, weight: 1 },
      );
      expect(await collect(stream.tokens())).toEqual([false]);
      expect(weight).toBe(1);
      await stream.finished;
      expect(gate.active).toBe(0);
    });

    it('does not abort a source that has completed when what it gave is not read any more', async () => {
      const signals: AbortSignal[] = [];
      const leaving = new AbortController();
      const stream = new TokenStreamer().stream(
        (context) => {
          signals.push(context.signal);
          return ['a', 'b'];
        },
        { signal: leaving.signal },
      );
      const tokens = stream.tokens();
      await tokens.next();
      await settle();
      leaving.abort();
      await expect(tokens.next()).rejects.toThrow('aborted');
      expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
    });

    it('holds a place in each of several gates', async () => {
      const outer = new Semaphore(1);
      const inner = new Semaphore(1);
      const source = new Played<string>();
      const gate = compose(outer, inner);
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, { gate });
      const reading = collect(stream);
      await settle();
      expect([outer.active, inner.active]).toEqual([1, 1]);
      await source.end();
      await reading;
      await stream.finished;
      expect([outer.active, inner.active]).toEqual([0, 0]);
    });

    it('minds the signal of a gate that does not answer before the task has settled', async () => {
      const clock = new ManualClock();
      const controller = new AbortController();
      const { signal } = controller;
      const added = vi.spyOn(signal, 'addEventListener');
      const removed = vi.spyOn(signal, 'removeEventListener');
      const gate: Gate = { run: async (task) => task({ signal }) };
      const source = new Played<string>();
      const streamer = new TokenStreamer({ clock });
      const stream = streamer.stream(source.open, { gate });
      const reading = collect(stream);
      await settle();
      controller.abort(new Error('shutdown'));
      expect(types(await reading)).toEqual(['start', 'error']);
      expect((await stream.finished).error).toBe(signal.reason);
      expect(source.calls).toEqual(['open', 'next', 'abort', 'return']);

      // Aborted already: nothing is opened.
      const late = streamer.stream(source.open, { gate });
      expect(types(await collect(late))).toEqual(['error']);
      expect(source.calls).toHaveLength(4);
      expect(added).toHaveBeenCalledTimes(1);
      expect(removed).toHaveBeenCalledTimes(1);
    });

    it('leaves no listener on the signal of a gate that outlives it', async () => {
      const { signal } = new AbortController();
      const removed = vi.spyOn(signal, 'removeEventListener');
      const gate: Gate = { run: async (task) => task({ signal }) };
      await collect(new TokenStreamer().stream(['a'], { gate }));
      expect(removed).toHaveBeenCalledTimes(1);
    });

    it('is finished when the gate’s own promise has settled', async () => {
      let settleGate!: () => void;
      const gate: Gate = {
        run: async (task) => {
          const result = await task(new AbortController());
          await new Promise<void>((resolve) => (settleGate = resolve));
          return result;
        },
      };
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a'], { gate });
      let finished = false;
      void stream.finished.then(() => (finished = true));
      await collect(stream);
      await settle();
      expect(finished).toBe(false);
      settleGate();
      await settle();
      expect(finished).toBe(true);
    });

    it('fails where the gate does not call its task, or fails beside it', async () => {
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const idle: Gate = { run: async () => undefined as never };
      const stream = streamer.stream(['a'], { gate: idle });
      await expect(collect(stream.tokens())).rejects.toThrow(
        new Error('The gate did not call its task.'),
      );
      expect((await stream.finished).outcome).toBe('failed');

      const broken = new Error('broken');
      const failing: Gate = {
        run: (task) => {
          void task(new AbortController());
          return Promise.reject(broken);
        },
      };
      const source = new Played<string>();
      await expect(collect(streamer.stream(source.open, { gate: failing }).tokens())).rejects.toBe(
        broken,
      );
      expect(source.calls).toContain('return');
      const throwing: Gate = {
        run: () => {
          throw broken;
        },
      };
      await expect(collect(streamer.stream(['a'], { gate: throwing }).tokens())).rejects.toBe(
        broken,
      );
    });

    it('settles the gate’s task as the stream ends', async () => {
      const queue = new AdmissionQueue({ concurrency: 1, waitTimeoutMs: 5 });
      const streamer = new TokenStreamer();
      await collect(streamer.stream(() => ['a'], { gate: queue }));
      const failing = (): never => {
        throw new Error('broken');
      };
      await collect(streamer.stream(failing, { gate: queue }));
      const cancelled = streamer.stream(new Played<string>(), { gate: queue });
      void cancelled[Symbol.asyncIterator]().next();
      const late = streamer.stream(() => ['a'], { gate: queue });
      expect(types(await collect(late)).at(-1)).toBe('error');
      expect(await late.finished).toMatchObject({ outcome: 'timeout', waitedMs: undefined });
      cancelled.cancel();
      await cancelled.finished;
      const stats = { completed: 1, failed: 1, cancelled: 1, timedOut: 1, active: 0, waiting: 0 };
      expect(queue.stats()).toMatchObject(stats);
    });

    it('tells a refusal as the only event', async () => {
      const gate = new Semaphore({ capacity: 1, maxWaiting: 0 });
      gate.tryAcquire();
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, { gate });
      expect(await collect(stream)).toMatchObject([{ type: 'error', code: 'ERR_QUEUE_FULL' }]);
      expect(source.calls).toEqual([]);
      expect(await stream.finished).toMatchObject({ outcome: 'failed', waitedMs: undefined });
    });

    it('is cancelled by a signal that was aborted before, or before it is read', async () => {
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const reason = new Error('gone');
      const controller = new AbortController();
      const source = new Played<string>();
      const before = streamer.stream(source.open, { signal: controller.signal });
      controller.abort(reason);
      const after = streamer.stream(source.open, { signal: controller.signal });
      for (const stream of [before, after]) {
        expect(await stream.finished).toMatchObject({ outcome: 'cancelled', error: reason });
        expect(await collect(stream)).toEqual([
          { type: 'error', code: 'ERR_STREAM_CANCELLED', message: 'The stream was cancelled.' },
        ]);
      }
      expect(source.calls).toEqual([]);
    });

    it('takes the abort of an AbortSignal.timeout() for a timeout', async () => {
      const controller = new AbortController();
      const stream = new TokenStreamer().stream(() => new Played<string>(), {
        signal: controller.signal,
      });
      controller.abort(new DOMException('late', 'TimeoutError'));
      expect((await stream.finished).outcome).toBe('timeout');
      expect(await collect(stream)).toEqual([
        {
          type: 'error',
          code: 'ERR_STREAM_TIMEOUT',
          message: 'The stream was ended: it took too long.',
        },
      ]);
    });

    it('leaves no listener on the signal', async () => {
      const { signal } = new AbortController();
      const added = vi.spyOn(signal, 'addEventListener');
      const removed = vi.spyOn(signal, 'removeEventListener');
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const streams = Array.from({ length: 10 }, () => streamer.stream(['a'], { signal }));
      await Promise.all(streams.map((stream) => collect(stream)));
      expect(added).toHaveBeenCalledTimes(1);
      expect(removed).toHaveBeenCalledTimes(1);
    });
  });

  describe('reading', () => {
    it('has one reader', () => {
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a']);
      stream.tokens();
      const refusal = new TypeError('The stream is being read already: it has one reader.');
      expect(() => stream[Symbol.asyncIterator]()).toThrow(refusal);
      expect(() => stream.tokens()).toThrow(refusal);
    });

    it('answers several next() at once in their order, and done ever after (H299, H300, H307)', async () => {
      const source = new Played<string>();
      const iterator = new TokenStreamer({ clock: new ManualClock() }).stream(source.open).tokens();
      const answers = [iterator.next(), iterator.next(), iterator.next(), iterator.next()];
      await settle();
      await source.give('a');
      await source.give('b');
      await source.end();
      expect(await Promise.all(answers)).toEqual([
        { done: false, value: 'a' },
        { done: false, value: 'b' },
        { done: true, value: undefined },
        { done: true, value: undefined },
      ]);
      expect(await iterator.next()).toEqual({ done: true, value: undefined });
    });

    it('tells what the source fails with after its tokens, once (H301)', async () => {
      const failure = new Error('secret');
      const failing = async function* (): AsyncGenerator<string> {
        yield 'a';
        yield 'b';
        throw failure;
      };
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const stream = streamer.stream(failing);
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      await settle();
      expect(await collect(iterator)).toEqual([
        { type: 'token', value: 'a', index: 0 },
        { type: 'token', value: 'b', index: 1 },
        { type: 'error', code: 'ERR_STREAM_FAILED', message: 'The stream failed.' },
      ]);
      const report = await stream.finished;
      expect(report.outcome).toBe('failed');
      expect(report.error).toBe(failure);
    });

    it('ends by throw() as by return(), and rejects with what was thrown (H302)', async () => {
      const gate = new Semaphore(1);
      for (const error of [new Error('thrown'), undefined]) {
        const source = new Played<string>();
        const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, {
          gate,
        });
        const iterator = stream[Symbol.asyncIterator]();
        await iterator.next();
        await settle();
        await expect(iterator.throw!(error)).rejects.toBe(error);
        expect(source.calls).toEqual(['open', 'next', 'abort', 'return']);
        expect(gate.active).toBe(0);
        expect(await iterator.next()).toEqual({ done: true, value: undefined });
      }
    });

    it('ends when the body of the loop throws, and the error stays what it is (H330)', async () => {
      const gate = new Semaphore(1);
      const source = new Played<string>();
      source.return = () => Promise.reject(new Error('return'));
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, { gate });
      const failure = new Error('body');
      const reading = (async () => {
        for await (const token of stream.tokens()) throw token === 'a' ? failure : token;
      })();
      const outcome = reading.catch((error: unknown) => error);
      await settle();
      await source.give('a');
      expect(await outcome).toBe(failure);
      expect(source.signal?.aborted).toBe(true);
      const report = await stream.finished;
      expect([gate.active, report.outcome]).toEqual([0, 'cancelled']);
      expect(report.error).toMatchObject({
        name: 'AbortError',
        message: 'The stream is no longer read.',
      });
    });

    it('ends at the end of an `await using` block (H331)', async () => {
      const gate = new Semaphore(1);
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, { gate });
      {
        await using iterator = stream[Symbol.asyncIterator]() as AsyncIterableIterator<unknown> &
          AsyncDisposable;
        await iterator.next();
        expect(gate.active).toBe(1);
      }
      expect(source.calls).toEqual(['open', 'next', 'abort', 'return']);
      expect([gate.active, (await stream.finished).outcome]).toEqual([0, 'cancelled']);
    });

    it.each<[string, (source: Played<string>) => Promise<void> | undefined, string]>([
      ['before the first token', () => undefined, 'start error'],
      ['between tokens', (source) => source.give('a'), 'start token error'],
      [
        'with tokens unread',
        (source) => source.give('a').then(() => source.give('b')),
        'start token error',
      ],
      ['in the turn of a token', (source) => void source.give('a'), 'start error'],
      ['in the turn of the end', (source) => void source.end(), 'start error'],
      [
        'after the end, which is unread',
        (source) => source.give('a').then(() => source.end()),
        'start token error',
      ],
    ])('is told of an abort at once, what is unread is lost: %s (H309)', async (_, play, told) => {
      const controller = new AbortController();
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, {
        signal: controller.signal,
      });
      const iterator = stream[Symbol.asyncIterator]();
      const events = [(await iterator.next()).value as StreamEvent<string>];
      await settle();
      const played = play(source);
      if (played !== undefined) {
        await played;
        events.push((await iterator.next()).value);
      }
      controller.abort('gone');
      expect(stream.stats().buffered).toBe(0);
      events.push(...(await collect(iterator)));
      expect(types(events).join(' ')).toBe(told);
      expect(await stream.finished).toMatchObject({ outcome: 'cancelled', error: 'gone' });
    });

    it('knows of no abort after the end was read (H309)', async () => {
      const controller = new AbortController();
      const { signal } = controller;
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a'], { signal });
      const events = await collect(stream);
      controller.abort('gone');
      expect(types(events)).toEqual(['start', 'token', 'done']);
      expect(await stream.finished).toMatchObject({ outcome: 'completed', error: undefined });
    });

    it('counts what the source gave as read or unread, whatever is read when (H324)', async () => {
      for (let seed = 1; seed <= 20; seed++) {
        const source = new Played<number>();
        const streamer = new TokenStreamer({ clock: new ManualClock(), highWaterMark: 4 });
        const stream = streamer.stream(source.open);
        const iterator = stream.tokens();
        let [given, asked, read] = [0, 1, 0];
        const next = (): void => {
          const answer = ({ done = false }: IteratorResult<number>): void => {
            if (!done) read++;
          };
          iterator.next().then(answer, () => undefined);
        };
        next();
        await settle();
        for (let step = 0, random = seed; step < 60; step++) {
          random = (random * 16_807) % 2_147_483_647;
          if (random % 2 === 0 && source.asked > 0) {
            await source.give(given++);
          } else if (asked - read < 3) {
            asked++;
            next();
          }
          await settle();
          const { tokens, buffered } = stream.stats();
          expect([tokens + buffered, buffered <= 4]).toEqual([given, true]);
          expect(tokens).toBe(read);
        }
        stream.cancel();
        expect(stream.stats()).toMatchObject({ tokens: read, buffered: 0 });
        expect((await stream.finished).tokens).toBe(read);
        expect(streamer.stats().tokens).toBe(read);
      }
    });

    it('tells messages of errors that are not ours only with `exposeErrors`', async () => {
      const failing = (): never => {
        throw Object.assign(new Error('no such model'), { code: 'model_not_found' });
      };
      const clock = new ManualClock();
      const masked = await collect(new TokenStreamer({ clock }).stream(failing));
      expect(masked.at(-1)).toEqual({
        type: 'error',
        code: 'ERR_STREAM_FAILED',
        message: 'The stream failed.',
      });
      const streamer = new TokenStreamer({ clock, exposeErrors: true });
      expect((await collect(streamer.stream(failing))).at(-1)).toEqual({
        type: 'error',
        code: 'model_not_found',
        message: 'no such model',
      });
    });

    it('loses what was not read when it is cancelled, and says so at once (H321)', async () => {
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b', 'c']);
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      await settle();
      expect(stream.stats().buffered).toBe(3);
      expect(stream.cancel()).toBe(true);
      expect(stream.cancel()).toBe(false);
      expect(types(await collect(iterator))).toEqual(['error']);
      expect(stream.stats().buffered).toBe(0);
      expect((await stream.finished).error).toMatchObject({
        name: 'AbortError',
        message: 'The stream was cancelled.',
      });
    });

    it('throws from tokens() the reason itself', async () => {
      const reason = { any: 'thing' };
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(new Played<string>());
      const reading = collect(stream.tokens());
      stream.cancel(reason);
      await expect(reading).rejects.toBe(reason);
    });

    it('gives the place back at the end of the source, be it read or not', async () => {
      const gate = new Semaphore(1);
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(() => ['a', 'b'], {
        gate,
      });
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      await settle();
      expect(stream.stats()).toMatchObject({ tokens: 0, buffered: 2 });
      expect(gate.active).toBe(0);
      expect(types(await collect(iterator))).toEqual(['token', 'token', 'done']);
    });
  });

  describe('.tee()', () => {
    it('tells every branch everything', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      let leave!: () => void;
      void queue.run(() => new Promise<void>((resolve) => (leave = resolve)));
      const streamer = new TokenStreamer({ clock: new ManualClock() });
      const stream = streamer.stream(() => ['a', 'b'], { gate: queue });
      const branches = stream.tee(3);
      const reading = Promise.all([
        collect(branches[0]!),
        collect(branches[1]!),
        collect(branches[2]!.tokens()),
      ]);
      await settle();
      leave();
      const [first, second, third] = await reading;
      expect(types(first)).toEqual(['position', 'start', 'token', 'token', 'done']);
      expect(second).toEqual(first);
      expect(third).toEqual(['a', 'b']);
      expect(await stream.finished).toMatchObject({ outcome: 'completed', tokens: 2 });
      expect(streamer.stats()).toMatchObject({ active: 0, completed: 1, tokens: 2 });
      expect(() => stream.tokens()).toThrow(TypeError);
    });

    it('gives all tokens to a branch that is read for its tokens when another has begun', async () => {
      const clock = new ManualClock();
      const source = new Played<string>();
      const streamer = new TokenStreamer({ clock, stallMs: 100 });
      const [first, second] = streamer.stream(source).tee(2);
      const events = collect(first!);
      await settle();
      const tokens = second!.tokens();
      // Of the start, which it is not told, it has left nothing unread.
      await clock.advance(99);
      await source.give('a');
      await clock.advance(99);
      const reading = collect(tokens);
      await source.end();
      expect(types(await events)).toEqual(['start', 'token', 'done']);
      expect(await reading).toEqual(['a']);
    });

    it('lets the slowest branch hold the others up, and holds no more for it (T-36, H311)', async () => {
      let pulled = 0;
      const source = function* (): Generator<number> {
        for (;;) yield pulled++;
      };
      const clock = new ManualClock();
      const streamer = new TokenStreamer({ clock, stallMs: 100, highWaterMark: 4 });
      const [quick, slow] = streamer.stream(source()).tee(2);
      const tokens = quick!.tokens();
      for (let i = 0; i < 4; i++) expect((await tokens.next()).value).toBe(i);
      let fifth: unknown;
      void tokens.next().then(({ value }) => (fifth = value));
      await settle();
      expect(fifth).toBe(undefined);
      expect([pulled, slow!.stats().buffered]).toEqual([4, 4]);
      // It is let go of in the end, and the others go on.
      await clock.advance(100);
      expect(await slow!.finished).toMatchObject({ outcome: 'timeout', error: { phase: 'stall' } });
      expect(fifth).toBe(4);
      await tokens.return!();
    });

    it('lets go of the source with the last branch', async () => {
      const source = new Played<string>();
      const gate = new Semaphore(1);
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open, { gate });
      const [one, two] = stream.tee(2);
      const reading = collect(two!);
      await settle();
      one!.cancel('mine');
      expect(await one!.finished).toMatchObject({ outcome: 'cancelled', error: 'mine' });
      await source.give('a');
      expect(gate.active).toBe(1);
      two!.cancel('mine too');
      expect(types(await reading)).toEqual(['start', 'token', 'error']);
      expect(await stream.finished).toMatchObject({ outcome: 'cancelled', tokens: 1 });
      expect(source.calls).toEqual(['open', 'next', 'next', 'abort', 'return']);
      expect(gate.active).toBe(0);
    });

    it('ends every branch when the stream is cancelled or its signal aborted', async () => {
      for (const how of ['cancel', 'abort'] as const) {
        const controller = new AbortController();
        const clock = new ManualClock();
        const { signal } = controller;
        const stream = new TokenStreamer({ clock }).stream(new Played<string>(), { signal });
        const readings = stream.tee(2).map((branch) => collect(branch));
        await settle();
        if (how === 'abort') controller.abort();
        expect(stream.cancel()).toBe(how === 'cancel');
        expect(stream.cancel()).toBe(false);
        for (const events of await Promise.all(readings)) {
          expect(types(events)).toEqual(['start', 'error']);
        }
        await stream.finished;
        expect(clock.timers).toBe(0);
      }
    });

    it('branches a branch that nobody has read, wherever the others are', async () => {
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b']);
      const [one, two] = stream.tee(2);
      expect(await collect(one!.tokens())).toEqual(['a', 'b']);
      const branches = two!.tee(2);
      for (const branch of branches) {
        expect(types(await collect(branch))).toEqual(['start', 'token', 'token', 'done']);
      }
      stream.cancel();
      const cancelled = new TokenStreamer({ clock: new ManualClock() }).stream(['a']);
      cancelled.cancel();
      for (const branch of cancelled.tee(2))
        expect(types(await collect(branch))).toEqual(['error']);
    });

    it('ends no other branch when one is cancelled that has branches itself', async () => {
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source);
      const [one, two] = stream.tee(2);
      const under = one!.tee(2).map((branch) => collect(branch));
      const other = collect(two!);
      await settle();
      await source.give('a');
      expect(one!.cancel()).toBe(true);
      expect(one!.cancel()).toBe(false);
      for (const events of under) expect(types(await events)).toEqual(['start', 'token', 'error']);
      await source.give('b');
      await source.end();
      expect(types(await other)).toEqual(['start', 'token', 'token', 'done']);
      expect(stream.cancel()).toBe(false);
    });

    it('ends no other reader of a replay with the branches of one', async () => {
      const source = new Played<string>();
      const replay = new TokenStreamer({ clock: new ManualClock() }).stream(source).replay();
      const reader = replay.from();
      const branches = reader.tee(2).map((branch) => collect(branch));
      const other = collect(replay.from());
      await settle();
      await source.give('a');
      reader.cancel();
      for (const events of branches) expect(types(await events).at(-1)).toBe('error');
      await source.end();
      expect(types(await other)).toEqual(['start', 'token', 'done']);
    });

    it('refuses a bad count and a stream that is read already', () => {
      const stream = new TokenStreamer().stream(['a']);
      for (const bad of [0, 1.5, -1, NaN, '2']) {
        expect(() => stream.tee(bad as never)).toThrow(/`count`/u);
      }
      stream.tokens();
      expect(() => stream.tee(2)).toThrow(TypeError);
    });
  });

  describe('.replay()', () => {
    const streamOf = <T>(source: AsyncIterable<T>, clock: ManualClock): TokenStream<T> =>
      new TokenStreamer({ clock }).stream(source);

    it('lets go of the source when it is cancelled while nobody reads, once', async () => {
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source.open);
      const reader = stream.replay().from()[Symbol.asyncIterator]();
      await reader.next();
      await reader.return!();
      await settle();
      expect(source.calls).not.toContain('abort');
      expect([stream.cancel('enough'), stream.cancel()]).toEqual([true, false]);
      await settle();
      expect(source.calls).toContain('abort');
      expect(source.signal!.reason).toBe('enough');
    });

    it('tells how the stream had ended before, whether alone or as a branch', async () => {
      const stream = streamOf(new Played<string>(), new ManualClock());
      stream.cancel('enough');
      await expect(stream.replay().from().tokens().next()).rejects.toBe('enough');
      const source = new Played<string>();
      const [branch, other] = streamOf(source, new ManualClock()).tee(2);
      branch!.cancel('too much');
      const late = branch!.replay().from();
      const reading = collect(other!.tokens());
      await settle();
      await source.give('a');
      await source.end();
      await expect(late.tokens().next()).rejects.toBe('too much');
      expect(await reading).toEqual(['a']);
    });

    it('gives everything to a reader without an id, and the rest to one that comes again (H293, H312)', async () => {
      const clock = new ManualClock();
      const source = new Played<string>();
      const stream = streamOf(source, clock);
      const replay = stream.replay();
      const first = replay.from()[Symbol.asyncIterator]();
      expect((await first.next()).value).toEqual({ type: 'start' });
      for (const value of ['a', 'b', 'c']) await source.give(value);
      expect((await first.next()).value).toMatchObject({ value: 'a', index: 0 });
      await first.return!();
      // Nobody reads: it goes on all the same.
      await source.give('d');
      const again = collect(replay.from('0'));
      await source.give('e');
      await source.end();
      const told = await again;
      expect(told.map((event) => ('value' in event ? event.value : event.type))).toEqual([
        'b',
        'c',
        'd',
        'e',
        'done',
      ]);
      expect(told.at(-1)).toMatchObject({ tokens: 5 });
      expect(types(await collect(replay.from()))).toEqual([
        'start',
        ...Array.from({ length: 5 }, () => 'token'),
        'done',
      ]);
      expect(await stream.finished).toMatchObject({ outcome: 'completed', tokens: 5 });
      expect(source.calls).not.toContain('return');
    });

    it('has nothing for a reader that has seen the end, be it a good one or not', async () => {
      for (const how of ['end', 'fail'] as const) {
        const source = new Played<string>();
        const replay = streamOf(source, new ManualClock()).replay();
        const reading = collect(replay.from(null));
        await settle();
        await source[how](new Error('broken'));
        expect(types(await reading).at(-1)).toBe(how === 'end' ? 'done' : 'error');
        expect(await collect(replay.from('end'))).toEqual([]);
        expect(types(await collect(replay.from('')))).toEqual(types(await reading));
      }
    });

    it('fails for a reader who asks for what is not kept, or never was (H312)', async () => {
      const source = new Played<string>();
      const replay = streamOf(source, new ManualClock()).replay({ maxTokens: 2 });
      const reader = replay.from().tokens();
      const reading = collect(reader);
      await settle();
      for (const value of ['a', 'b', 'c', 'd']) await source.give(value);
      const codes: unknown[] = [];
      for (const id of ['0', '4', '-1', 'x', '1e3', '9'.repeat(400), '__proto__', 'end']) {
        const [event, ...none] = await collect(replay.from(id));
        codes.push((event as { code?: string }).code, none.length);
      }
      expect(new Set(codes)).toEqual(new Set(['ERR_REPLAY_EXPIRED', 0]));
      const rest = collect(replay.from('1').tokens());
      await source.end();
      expect(await rest).toEqual(['c', 'd']);
      expect(await reading).toEqual(['a', 'b', 'c', 'd']);
      // The beginning is gone too.
      expect(await collect(replay.from())).toMatchObject([{ code: 'ERR_REPLAY_EXPIRED' }]);
    });

    it('tells all that is kept, be it more than a call takes arguments', async () => {
      const count = 150_000;
      const tokens = (): number[] => Array.from({ length: count }, (_, index) => index);
      const replay = new TokenStreamer().stream(tokens).replay({ maxTokens: count });
      const reader = replay.from().tokens();
      for (let i = 0; i < count; i++) await reader.next();
      const again = replay.from('0').tokens();
      expect(await again.next()).toEqual({ done: false, value: 1 });
      await again.return!();
    });

    it('ends when nobody reads for `graceMs`, and keeps nothing then (H293)', async () => {
      const clock = new ManualClock();
      const source = new Played<string>();
      const gate = new Semaphore({ capacity: 1, clock });
      const stream = new TokenStreamer({ clock }).stream(source.open, { gate });
      const replay = stream.replay({ graceMs: 100 });
      let expired = false;
      void replay.expired.then(() => (expired = true));
      const reader = replay.from()[Symbol.asyncIterator]();
      await reader.next();
      await clock.advance(1000);
      await reader.return!();
      await clock.advance(99);
      const again = replay.from()[Symbol.asyncIterator]();
      await again.next();
      await clock.advance(1000);
      await again.return!();
      await clock.advance(99);
      expect([expired, gate.active]).toEqual([false, 1]);
      await clock.advance(1);
      expect([expired, gate.active]).toEqual([true, 0]);
      expect(await stream.finished).toMatchObject({
        outcome: 'disconnected',
        error: { name: 'AbortError', message: 'Nobody has come back to read the stream.' },
      });
      expect(source.calls).toEqual(['open', 'next', 'abort', 'return']);
      expect(await collect(replay.from())).toMatchObject([{ code: 'ERR_REPLAY_EXPIRED' }]);
      expect(clock.timers).toBe(0);
    });

    it('has expired at once where the gate refused, so that the next to come asks it again', async () => {
      const clock = new ManualClock();
      const streamer = new TokenStreamer({ clock });
      const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 1, clock });
      const expired: string[] = [];
      const replayOf = (name: string, options: object = {}): Replay<string> => {
        const stream = streamer.stream(() => ['a'], { gate: queue, ...options });
        const replay = stream.replay({ graceMs: 100 });
        void replay.expired.then(() => expired.push(name));
        return replay;
      };
      const busy = new Played<string>();
      const running = collect(streamer.stream(busy.open, { gate: queue }));
      await settle();

      const armed = clock.timers;
      const impatient = replayOf('impatient', { waitTimeoutMs: 0 });
      expect(await collect(impatient.from())).toMatchObject([{ code: 'ERR_WAIT_TIMEOUT' }]);
      const [read, kept] = streamer.stream(() => ['a'], { gate: queue, waitTimeoutMs: 0 }).tee(2);
      expect(await collect(read!)).toMatchObject([{ code: 'ERR_WAIT_TIMEOUT' }]);
      void kept!.replay({ graceMs: 100 }).expired.then(() => expired.push('branch'));
      await settle();
      expect(expired).toEqual(['impatient', 'branch']);
      const [other, unread] = streamer
        .stream(() => ['a'], { gate: queue, waitTimeoutMs: 0 })
        .tee(2);
      void unread!.replay({ graceMs: 100 }).expired.then(() => expired.push('unread'));
      expect(await collect(other!)).toMatchObject([{ code: 'ERR_WAIT_TIMEOUT' }]);
      await settle();
      expect(expired.splice(2)).toEqual(['unread']);
      expect(clock.timers).toBe(armed);

      const late = replayOf('late', { waitTimeoutMs: 10 });
      const told = collect(late.from());
      await settle();
      const refused = replayOf('refused');
      const left = refused.from()[Symbol.asyncIterator]();
      const answer = left.next();
      await settle();
      expect(await answer).toMatchObject({ value: { code: 'ERR_QUEUE_FULL' } });
      expect(expired).toEqual(['impatient', 'branch', 'refused']);
      expect(await collect(refused.from())).toMatchObject([{ code: 'ERR_QUEUE_FULL' }]);

      await clock.advance(10); // who had a place in line is told how that ended when they come again
      expect(await told).toMatchObject([{ position: 1 }, { code: 'ERR_WAIT_TIMEOUT' }]);
      expect(await collect(late.from())).toMatchObject([{ code: 'ERR_WAIT_TIMEOUT' }]);
      replayOf('cancelled', { signal: AbortSignal.abort() });
      await busy.end();
      await running;
      await clock.advance(99);
      expect(expired).toEqual(['impatient', 'branch', 'refused']);
      await clock.advance(1);
      expect(expired.toSorted()).toEqual(['branch', 'cancelled', 'impatient', 'late', 'refused']);
      expect(clock.timers).toBe(0);
    });

    it('ends where nobody comes at all', async () => {
      const clock = new ManualClock();
      const replay = streamOf(new Played<string>(), clock).replay({ graceMs: 100 });
      let expired = false;
      void replay.expired.then(() => (expired = true));
      await clock.advance(99);
      expect(expired).toBe(false);
      await clock.advance(1);
      expect(expired).toBe(true);
    });

    it('goes on while one of two readers reads', async () => {
      const clock = new ManualClock();
      const source = new Played<string>();
      const replay = streamOf(source, clock).replay({ graceMs: 100 });
      const reading = collect(replay.from().tokens());
      const other = replay.from()[Symbol.asyncIterator]();
      await other.next();
      await other.return!();
      await clock.advance(1000);
      await source.give('a');
      const late = collect(replay.from().tokens());
      await source.end();
      expect(await Promise.all([reading, late])).toEqual([['a'], ['a']]);
    });

    it('takes an id for what it is, digit by digit', async () => {
      const source = new Played<number>();
      const replay = streamOf(source, new ManualClock()).replay();
      const reading = collect(replay.from().tokens());
      await settle();
      for (let i = 0; i < 12; i++) await source.give(i);
      for (const id of ['-1', '+1', ' 1', '1 ', '1e0', '1.0', '0x1', '1_0']) {
        const expired = replay.from(id);
        expect(await collect(expired)).toMatchObject([{ code: 'ERR_REPLAY_EXPIRED' }]);
        expect(await expired.finished).toMatchObject({ outcome: 'failed' });
      }
      const rest = collect(replay.from('10').tokens());
      await source.end();
      expect(await rest).toEqual([11]);
      expect(await reading).toHaveLength(12);
    });

    it('gives all tokens to a reader of tokens who comes while others are told of places', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 1, clock });
      let leave!: () => void;
      void queue.run(() => new Promise<void>((resolve) => (leave = resolve)));
      const stream = new TokenStreamer({ clock }).stream(() => ['a', 'b'], { gate: queue });
      const replay = stream.replay();
      const first = collect(replay.from());
      await settle();
      const inLine = collect(replay.from().tokens());
      await settle();
      leave();
      expect(types(await first)).toEqual(['position', 'start', 'token', 'token', 'done']);
      expect(await inLine).toEqual(['a', 'b']);
      expect(await collect(replay.from().tokens())).toEqual(['a', 'b']);
    });

    it('ends its readers when the stream is cancelled', async () => {
      const clock = new ManualClock();
      const stream = streamOf(new Played<string>(), clock);
      const replay = stream.replay({ graceMs: 100 });
      const reading = collect(replay.from());
      await settle();
      expect(stream.cancel()).toBe(true);
      expect(types(await reading)).toEqual(['start', 'error']);
      expect(types(await collect(replay.from()))).toEqual(['error']);
      const cancelled = streamOf(new Played<string>(), clock);
      cancelled.cancel();
      expect(types(await collect(cancelled.replay().from()))).toEqual(['error']);
    });

    it('ends its readers, and their branches, but no other branch when one is cancelled that has it', async () => {
      const source = new Played<string>();
      const [one, two] = streamOf(source, new ManualClock()).tee(2);
      const replay = one!.replay();
      const readings = [replay.from(), ...replay.from().tee(2)].map((reader) => collect(reader));
      const other = collect(two!);
      await settle();
      await source.give('a');
      expect(one!.cancel()).toBe(true);
      expect(one!.cancel()).toBe(false);
      for (const events of readings) {
        expect(types(await events)).toEqual(['start', 'token', 'error']);
      }
      expect(types(await collect(replay.from()))).toEqual(['error']);
      await source.give('b');
      await source.end();
      expect(types(await other)).toEqual(['start', 'token', 'token', 'done']);
    });

    it('tells everything of a branch or a reader that nobody has read, wherever the others are', async () => {
      const [one, two] = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b']).tee(2);
      expect(await collect(one!.tokens())).toEqual(['a', 'b']);
      const replay = two!.replay();
      const all = await collect(replay.from());
      expect(types(all)).toEqual(['start', 'token', 'token', 'done']);
      expect(await collect(replay.from('0'))).toMatchObject([
        { value: 'b', index: 1 },
        { type: 'done', tokens: 2 },
      ]);
      const rest = replay.from('0').replay();
      expect(await collect(rest.from().tokens())).toEqual(['b']);
      expect(types(await collect(rest.from('1')))).toEqual(['done']);
    });

    it('keeps the place in line of a reader that comes again', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      let leave!: () => void;
      void queue.run(() => new Promise<void>((resolve) => (leave = resolve)));
      const stream = new TokenStreamer().stream(() => ['a'], { gate: queue });
      const replay = stream.replay();
      const reader = replay.from()[Symbol.asyncIterator]();
      expect((await reader.next()).value).toMatchObject({ type: 'position', position: 1 });
      await reader.return!();
      expect(queue.waiting).toBe(1);
      const again = collect(replay.from());
      await settle();
      leave();
      expect(types(await again)).toEqual(['position', 'start', 'token', 'done']);
    });

    it('refuses bad options and a stream that is read already', () => {
      const clock = new ManualClock();
      const stream = streamOf(new Played<string>(), clock);
      expect(() => stream.replay({ maxTokens: 0 })).toThrow(/`maxTokens`/u);
      expect(() => stream.replay({ graceMs: Infinity })).toThrow(/`graceMs`/u);
      expect(() => stream.replay({ max: 1 } as never)).toThrow(TypeError);
      stream.tokens();
      expect(() => stream.replay()).toThrow(TypeError);
      expect(clock.timers).toBe(0);
    });
  });

  describe('positions', () => {
    it('tells each place in line that the consumer has time for, then the start', async () => {
      const clock = new ManualClock();
      const queue = new AdmissionQueue({ concurrency: 1, clock });
      const leave: (() => void)[] = [];
      for (let i = 0; i < 4; i++) {
        void queue.run(() => new Promise<void>((resolve) => leave.push(resolve)));
      }
      const stream = new TokenStreamer({ clock }).stream(() => ['a'], { gate: queue });
      const iterator = stream[Symbol.asyncIterator]();
      const position = async (): Promise<unknown> => (await iterator.next()).value;
      expect(await position()).toMatchObject({ type: 'position', position: 4 });
      leave[0]!();
      await settle();
      expect(await position()).toMatchObject({ type: 'position', position: 3 });
      // A consumer that is busy meanwhile gets the latest only.
      leave[1]!();
      await settle();
      leave[2]!();
      await settle();
      expect(await position()).toMatchObject({ type: 'position', position: 1 });
      leave[3]!();
      expect(types(await collect(iterator))).toEqual(['start', 'token', 'done']);
    });

    it('tells the wait in whole ms, and not as shorter than it is', async () => {
      const told = [1234.01, 0, undefined].map(async (estimatedWaitMs) => {
        const place: PlaceInLine = {
          position: 3,
          estimatedWaitMs,
          async *positions() {
            yield 3;
          },
        };
        const gate: Gate<TaskContext, { onTicket?: (ticket: PlaceInLine) => void }> = {
          run: (_, options) => {
            options!.onTicket!(place);
            return new Promise(() => {});
          },
        };
        const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a'], { gate });
        const { value } = await stream[Symbol.asyncIterator]().next();
        stream.cancel();
        return value as unknown;
      });
      expect(await Promise.all(told)).toEqual([
        { type: 'position', position: 3, estimatedWaitMs: 1235 },
        { type: 'position', position: 3, estimatedWaitMs: 0 },
        { type: 'position', position: 3, estimatedWaitMs: undefined },
      ]);
    });

    it('is silent about the line where the place is free, and in tokens()', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const streamer = new TokenStreamer();
      const first = streamer.stream(() => ['a'], { gate: queue });
      const second = streamer.stream(() => ['b'], { gate: queue });
      const [events, tokens] = await Promise.all([collect(first), collect(second.tokens())]);
      expect(types(events)).toEqual(['start', 'token', 'done']);
      expect(tokens).toEqual(['b']);
    });

    it('leaves the line at once when it is cancelled (T-25)', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      void queue.run(() => new Promise(() => {}));
      const source = new Played<string>();
      const stream = new TokenStreamer().stream(source.open, { gate: queue });
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      expect(queue.waiting).toBe(1);
      void iterator.return!();
      expect(queue.waiting).toBe(0);
      await stream.finished;
      expect(source.calls).toEqual([]);
    });

    it('no longer asks for its place when it has left the line or its turn has come', async () => {
      for (const how of ['cancelled', 'admitted'] as const) {
        const calls: string[] = [];
        let admit!: () => void;
        const gate: Gate<TaskContext, { onTicket?: (ticket: PlaceInLine) => void }> = {
          run: (task, options) =>
            new Promise((resolve) => {
              admit = () => resolve(task(new AbortController()));
              options!.onTicket!({
                position: 7,
                positions: () => ({
                  [Symbol.asyncIterator]: () => ({
                    next: () => new Promise(() => calls.push('next')),
                    return: async () => {
                      calls.push('return');
                      return { done: true, value: undefined };
                    },
                  }),
                }),
              });
            }),
        };
        const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a'], { gate });
        const next = stream[Symbol.asyncIterator]().next();
        expect(calls).toEqual(['next']);
        if (how === 'cancelled') stream.cancel();
        else admit();
        await next;
        expect(calls).toEqual(['next', 'return']);
      }
    });

    it('hands the ticket to the caller’s own onTicket too', async () => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      const ids: string[] = [];
      const stream = new TokenStreamer().stream(() => ['a'], {
        gate: queue,
        id: 'mine',
        onTicket: (ticket) => ids.push(ticket.id),
      });
      await collect(stream);
      expect(ids).toEqual(['mine']);
    });

    it('tells of the place in line all the same', async () => {
      const gate = new AdmissionQueue({ concurrency: 1 });
      const before = Promise.withResolvers<void>();
      void gate.run(() => before.promise);
      const stream = new TokenStreamer().stream(() => ['a'], { gate, onTicket: () => {} });
      const events = stream[Symbol.asyncIterator]();
      await expect(events.next()).resolves.toMatchObject({
        value: { type: 'position', position: 1 },
      });
      before.resolve();
      await expect(events.next()).resolves.toMatchObject({ value: { type: 'start' } });
    });

    it('leaves it to the gate to refuse an onTicket that is no function', async () => {
      const gate = new AdmissionQueue({ concurrency: 1 });
      const stream = new TokenStreamer().stream(() => ['a'], { gate, onTicket: 5 as never });
      expect(types(await collect(stream))).toEqual(['error']);
      const { outcome, error } = await stream.finished;
      expect(outcome).toBe('failed');
      expect(String(error)).toMatch(/^TypeError: Expected `onTicket` to be a function/u);
    });
  });

  describe('limits on time', () => {
    async function endOf(
      options: ConstructorParameters<typeof TokenStreamer>[0],
      play: (source: Played<string>, clock: ManualClock) => Promise<void>,
    ): Promise<unknown> {
      const clock = new ManualClock();
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock, ...options }).stream(source.open);
      const reading = collect(stream);
      await settle();
      await play(source, clock);
      stream.cancel('none');
      await reading;
      const { error } = await stream.finished;
      expect(clock.timers).toBe(0);
      return error instanceof StreamTimeoutError ? error.phase : error;
    }

    it('ends a stream whose first token is late, and not before', async () => {
      const options = { firstTokenTimeoutMs: 100 };
      expect(await endOf(options, (_, clock) => clock.advance(99))).toBe('none');
      expect(await endOf(options, (_, clock) => clock.advance(100))).toBe('firstToken');
      const inTime = endOf(options, async (source, clock) => {
        await clock.advance(99);
        await source.give('a');
        await clock.advance(1000);
      });
      expect(await inTime).toBe('none');
    });

    it('ends a stream that pauses too long between tokens, and not one that is just long (H323)', async () => {
      const options = { idleTimeoutMs: 100 };
      const steady = endOf(options, async (source, clock) => {
        await clock.advance(1000);
        for (let i = 0; i < 50; i++) {
          await source.give('a');
          await clock.advance(99);
        }
      });
      expect(await steady).toBe('none');
      const pausing = endOf(options, async (source, clock) => {
        await source.give('a');
        await clock.advance(99);
        await source.give('b');
        await clock.advance(100);
      });
      expect(await pausing).toBe('idle');
    });

    it('takes an empty string for no token (H327)', async () => {
      const empty = endOf({ firstTokenTimeoutMs: 100 }, async (source, clock) => {
        await clock.advance(60);
        await source.give('');
        await clock.advance(60);
      });
      expect(await empty).toBe('firstToken');
    });

    it('ends a stream that takes too long altogether (H323)', async () => {
      const options = { timeoutMs: 100, idleTimeoutMs: 60 };
      const long = endOf(options, async (source, clock) => {
        await clock.advance(50);
        await source.give('a');
        await clock.advance(50);
      });
      expect(await long).toBe('total');
    });

    it('does not count the wait at the gate', async () => {
      const clock = new ManualClock();
      const gate = new Semaphore({ capacity: 1, clock });
      const permit = gate.tryAcquire()!;
      const streamer = new TokenStreamer({ clock, firstTokenTimeoutMs: 100, timeoutMs: 100 });
      const stream = streamer.stream(() => ['a'], { gate });
      const reading = collect(stream);
      await clock.advance(500);
      permit.release();
      expect(types(await reading)).toEqual(['start', 'token', 'done']);
      expect(await stream.finished).toMatchObject({ waitedMs: 500, elapsedMs: 500 });
    });

    it('does not count the time in which the source was not asked, since the buffer was full', async () => {
      const clock = new ManualClock();
      const source = new Played<string>();
      const streamer = new TokenStreamer({ clock, idleTimeoutMs: 100, highWaterMark: 1 });
      const stream = streamer.stream(source.open);
      const iterator = stream.tokens();
      const first = iterator.next();
      await settle();
      await source.give('a');
      await first;
      await source.give('b');
      expect(source.asked).toBe(0);
      await clock.advance(1000);
      expect(await iterator.next()).toEqual({ done: false, value: 'b' });
      await clock.advance(99);
      void iterator.next();
      await source.give('c');
      await clock.advance(99);
      // Asked again, it has to answer in time again.
      await clock.advance(99);
      expect(stream.stats().tokens).toBe(3);
      await clock.advance(1);
      expect(await stream.finished).toMatchObject({ error: { phase: 'idle' } });
    });

    it('lets go of a consumer that reads nothing for `stallMs` (H310)', async () => {
      const clock = new ManualClock();
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock, stallMs: 100 }).stream(source.open);
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      // There is nothing to read: a silent source is not the consumer's fault.
      await clock.advance(1000);
      await source.give('a');
      await clock.advance(99);
      expect((await iterator.next()).value).toMatchObject({ value: 'a' });
      await clock.advance(1000);
      await source.give('b');
      await clock.advance(100);
      const report = await stream.finished;
      expect(report).toMatchObject({ outcome: 'timeout', tokens: 1, error: { phase: 'stall' } });
      expect(source.calls).toEqual(['open', 'next', 'next', 'next', 'abort', 'return']);
      expect(types(await collect(iterator))).toEqual(['error']);
    });

    it('counts from the last read, while there is more to read', async () => {
      for (const source of [['a', 'b', 'c'], new Played<string>()]) {
        const clock = new ManualClock();
        const stream = new TokenStreamer({ clock, stallMs: 100 }).stream(source);
        const iterator = stream.tokens();
        const first = iterator.next();
        await settle();
        if (source instanceof Played) for (const value of ['a', 'b', 'c']) await source.give(value);
        await first;
        await clock.advance(50);
        await iterator.next();
        await clock.advance(99);
        expect(stream.stats().buffered).toBe(1);
        await clock.advance(1);
        expect(await stream.finished).toMatchObject({ outcome: 'timeout', tokens: 2 });
      }
    });

    it('lets go of a consumer that leaves the end unread', async () => {
      const clock = new ManualClock();
      const streamer = new TokenStreamer({ clock, stallMs: 100 });
      const stream = streamer.stream(['a']);
      await stream[Symbol.asyncIterator]().next();
      await clock.advance(100);
      expect(await stream.finished).toMatchObject({ outcome: 'timeout', tokens: 0 });
      expect(streamer.stats()).toMatchObject({ active: 0, timeout: 1 });
      expect(clock.timers).toBe(0);
    });
  });

  describe('.finished', () => {
    it('reports how it went', async () => {
      const clock = new ManualClock();
      const gate = new Semaphore({ capacity: 1, clock });
      const permit = gate.tryAcquire()!;
      const source = new Played<string>();
      const streamer = new TokenStreamer({ clock });
      const stream = streamer.stream(source.open, { gate });
      const reading = collect(stream);
      await clock.advance(40);
      permit.release();
      await settle();
      await clock.advance(100);
      await source.give('a');
      await clock.advance(10);
      await source.give('b');
      await clock.advance(30);
      await source.give('c');
      await clock.advance(5);
      await source.end();
      expect((await reading).at(-1)).toEqual({ type: 'done', tokens: 3, elapsedMs: 185 });
      expect(await stream.finished).toEqual({
        outcome: 'completed',
        error: undefined,
        tokens: 3,
        elapsedMs: 185,
        waitedMs: 40,
        timeToFirstTokenMs: 100,
        gapMs: { count: 2, mean: 20, max: 30 },
        abandoned: false,
        teardownError: undefined,
      });
      expect(streamer.stats()).toEqual({
        active: 0,
        completed: 1,
        failed: 0,
        cancelled: 0,
        disconnected: 0,
        timeout: 0,
        abandoned: 0,
        tokens: 3,
        waitMs: { count: 1, mean: 40, max: 40 },
        timeToFirstTokenMs: { count: 1, mean: 100, max: 100 },
      });
    });
  });

  it('measures no time below 0 where the clock goes back (H328)', async () => {
    let reading = 1e6;
    const clock = new ManualClock();
    clock.now = () => (reading -= 1000);
    const gate = new Semaphore({ capacity: 1, clock });
    const permit = gate.tryAcquire()!;
    const source = new Played<string>();
    const streamer = new TokenStreamer({ clock });
    const stream = streamer.stream(source.open, { gate });
    const reader = collect(stream);
    await settle();
    permit.release();
    await settle();
    for (const token of ['a', 'b', 'c']) await source.give(token);
    await source.end();
    expect((await reader).at(-1)).toMatchObject({ type: 'done', elapsedMs: 0 });
    const none = { mean: 0, max: 0 };
    expect(await stream.finished).toMatchObject({
      waitedMs: 0,
      timeToFirstTokenMs: 0,
      elapsedMs: 0,
      gapMs: none,
    });
    expect(streamer.stats()).toMatchObject({ waitMs: none, timeToFirstTokenMs: none });
  });

  it('gives back what its source has given back itself no second time (H329)', async () => {
    const gate = new Semaphore(1);
    let permit: { release(): boolean } | undefined;
    const source = new Played<string>();
    const stream = new TokenStreamer({ clock: new ManualClock() }).stream(
      (context) => {
        ({ permit } = context);
        return source.open(context);
      },
      { gate },
    );
    const reading = collect(stream);
    await settle();
    expect(permit!.release()).toBe(true);
    const other = gate.tryAcquire()!;
    await source.end();
    await reading;
    await stream.finished;
    expect([gate.active, gate.available]).toEqual([1, 0]);
    other.release();
    expect(gate.stats()).toMatchObject({ active: 0, acquired: 2, released: 2 });
  });

  describe('.finished, behind gates in gates', () => {
    it.each(['completed', 'failed', 'cancelled', 'timeout'] as const)(
      'tells of one that ended (%s) when all of them have their places back',
      async (how) => {
        const clock = new ManualClock();
        const sessions = new SessionManager({ clock });
        const queue = new AdmissionQueue({ concurrency: 1, clock });
        const resource = new SharedResource({ load: () => 'model', clock });
        const semaphore = new Semaphore({ capacity: 1, clock });
        const gates = [sessions, queue, resource, semaphore] as const;
        const streamer = new TokenStreamer({ clock, timeoutMs: 10 });
        for (const gate of [sessions, compose(...gates), compose(compose(sessions), queue)]) {
          const source = new Played<string>();
          const stream = streamer.stream(source.open, { gate });
          const reading = collect(stream);
          const left = stream.finished.then(({ outcome }) => ({
            outcome,
            active: gates.map((each) => each.active),
          }));
          await settle();
          await source.give('a');
          if (how === 'completed') await source.end();
          else if (how === 'failed') await source.fail(new Error('x'));
          else if (how === 'cancelled') stream.cancel();
          else await clock.advance(10);
          expect(await left).toEqual({ outcome: how, active: [0, 0, 0, 0] });
          await reading;
        }
      },
    );

    it('is finished when all gates have their places back, where one of them has stopped it', async () => {
      const clock = new ManualClock();
      const options = { concurrency: 1, clock };
      const places = new Semaphore(1);
      const gates: readonly Gate[] = [
        compose(new SessionManager({ clock, timeoutMs: 10 }), places),
        compose(places, new AdmissionQueue({ ...options, runTimeoutMs: 10 })),
        compose(
          new AdmissionQueue({ ...options, runTimeoutMs: 10 }),
          compose(new AdmissionQueue(options), places),
        ),
      ];
      for (const gate of gates) {
        const stream = new TokenStreamer({ clock }).stream(new Played<string>().open, { gate });
        const reading = collect(stream);
        const active = stream.finished.then(() => places.active);
        await settle();
        expect(places.active).toBe(1);
        await clock.advance(10);
        expect(await active).toBe(0);
        await reading;
      }
    });

    it('leaves it to the gates outside how a task ends that a gate inside has stopped', async () => {
      const clock = new ManualClock();
      const sessions = new SessionManager({ clock });
      const queue = new AdmissionQueue({ concurrency: 1, runTimeoutMs: 10, clock });
      const source = new Played<string>();
      const stream = new TokenStreamer({ clock }).stream(source.open, {
        gate: compose(sessions, queue),
      });
      const reading = collect(stream);
      await clock.advance(10);
      expect(await stream.finished).toMatchObject({
        outcome: 'timeout',
        error: { code: 'ERR_RUN_TIMEOUT' },
      });
      expect([...sessions.records()]).toMatchObject([
        { status: 'failed', error: { code: 'ERR_RUN_TIMEOUT' } },
      ]);
      expect(queue.stats()).toMatchObject({ active: 0, timedOut: 1, cancelled: 0 });
      await reading;
    });

    it('tells of one that was cancelled in line when all of them are left', async () => {
      const sessions = new SessionManager();
      const queue = new AdmissionQueue({ concurrency: 1 });
      const ahead = Promise.withResolvers<void>();
      void queue.run(() => ahead.promise);
      const stream = new TokenStreamer().stream(() => ['a'], { gate: compose(sessions, queue) });
      const iterator = stream[Symbol.asyncIterator]();
      await iterator.next();
      expect([sessions.active, queue.waiting]).toEqual([1, 1]);
      stream.cancel();
      await stream.finished;
      expect([sessions.active, queue.waiting]).toEqual([0, 0]);
      ahead.resolve();
    });
  });

  it.each([
    [undefined, 'cancelled'],
    [new DOMException('Too slow.', 'TimeoutError'), 'timeout'],
    [new Error('The operator said so.'), 'failed'],
  ] as const)(
    'ends as its ticket does that is cancelled in line with %s: %s',
    async (why, outcome) => {
      const queue = new AdmissionQueue({ concurrency: 1 });
      queue.pause();
      const onTicket = ({ id }: { id: string }): void =>
        queueMicrotask(() => queue.cancel(id, why));
      const stream = new TokenStreamer().stream(() => ['a'], { gate: queue, onTicket });
      expect((await collect(stream)).map(({ type }) => type).at(-1)).toBe('error');
      expect(await stream.finished).toMatchObject({ outcome, tokens: 0 });
    },
  );

  it('is ended by a reason like any other that cannot be looked at', async () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const caller = new AbortController();
    const source = new Played<string>();
    const stream = new TokenStreamer().stream(source.open, { signal: caller.signal });
    const reading = collect(stream);
    caller.abort(proxy);
    await reading;
    expect(await stream.finished).toMatchObject({ outcome: 'cancelled' });
    const gate = { run: () => Promise.reject(proxy) };
    const refused = new TokenStreamer().stream(() => ['a'], { gate });
    await collect(refused);
    expect(await refused.finished).toMatchObject({ outcome: 'failed' });
  });

  describe('the async context (T6)', () => {
    it('has what a gate of the library adds to it: the session, whoever reads', async () => {
      const outside = AsyncLocalStorage.snapshot();
      const storage = new AsyncLocalStorage<string>();
      const sessions = new SessionManager();
      const others = new SessionManager();
      const queue = new AdmissionQueue({ concurrency: 1 });
      const limiter = new RateLimiter({ limit: 1, intervalMs: 1 });
      const semaphore = new Semaphore(1);
      const resource = new SharedResource({ load: () => 'model' });
      for (const gate of [sessions, compose(sessions, queue, limiter, semaphore, resource)]) {
        const seen = new Set<unknown>();
        const note = (): void => {
          seen.add(`${storage.getStore()} ${sessions.current()?.requestId}`);
        };
        const source = async function* (): AsyncGenerator<string> {
          note();
          try {
            for (const token of ['a', 'b', 'c', 'd']) {
              yield token;
              note();
            }
          } finally {
            note();
            expect(others.current()).toBeUndefined();
          }
        };
        const stream = storage.run('caller', () =>
          new TokenStreamer({ highWaterMark: 1 }).stream(source, { gate, requestId: 'mine' }),
        );
        await outside(async () => {
          for await (const event of stream) if (event.type === 'token' && event.index === 2) break;
        });
        expect([...seen]).toEqual(['caller mine']);
      }
    });

    it('is that of the caller of stream(), in the source, its pulls and its end', async () => {
      const storage = new AsyncLocalStorage<string>();
      const seen: { where: string; context: string | undefined }[] = [];
      const note = (where: string): void => {
        seen.push({ where, context: storage.getStore() });
      };
      const source = async function* ({ signal }: TaskContext): AsyncGenerator<string> {
        note('called');
        try {
          for (let i = 0; !signal.aborted; i++) {
            yield String(i);
            note('pulled');
          }
        } finally {
          note('closed');
        }
      };
      const queue = new AdmissionQueue({ concurrency: 1 });
      let leave!: () => void;
      const ahead = storage.run('the one ahead', () =>
        queue.run(() => new Promise<void>((resolve) => (leave = resolve))),
      );
      const streamer = new TokenStreamer({ highWaterMark: 1 });
      const stream = storage.run('caller', () => streamer.stream(source, { gate: queue }));
      await storage.run('reader', async () => {
        const iterator = stream.tokens();
        const first = iterator.next();
        storage.run('releaser', () => leave());
        await first;
        await iterator.next();
        await settle();
        await storage.run('canceller', () => iterator.return!());
      });
      await ahead;
      const foreign: Gate = {
        run: (task) => storage.run('gate', async () => task(new AbortController())),
      };
      const other = storage.run('caller', () => streamer.stream(source, { gate: foreign }));
      for await (const token of other.tokens()) if (token === '1') break;
      expect(seen.map(({ where }) => where)).toEqual(
        expect.arrayContaining(['called', 'pulled', 'closed']),
      );
      expect(new Set(seen.map(({ context }) => context))).toEqual(new Set(['caller']));
    });
  });
});
