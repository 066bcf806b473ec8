import { EventEmitter } from 'node:events';

import { describe, expect, it } from 'vitest';

import { compose } from '../src/gate.ts';
import { tick } from '../src/internal/tick.ts';
import { Semaphore } from '../src/semaphore.ts';
import { ManualClock, settle } from '../src/testing.ts';
import {
  fromCallback,
  fromEmitter,
  type TokenSink,
  type TokenStream,
  TokenStreamer,
} from '../src/token-streamer.ts';

function streamOf<T>(source: Parameters<TokenStreamer['stream']>[0]): TokenStream<T> {
  return new TokenStreamer({ clock: new ManualClock() }).stream(source) as TokenStream<T>;
}

const ignore = (): void => {};

async function collect<V>(values: AsyncIterable<V>): Promise<V[]> {
  const all: V[] = [];
  for await (const value of values) all.push(value);
  return all;
}

describe('fromCallback()', () => {
  it('calls when the stream starts, and not before', async () => {
    let called = 0;
    const stream = streamOf(fromCallback(({ end }) => (called++, end())));
    await settle();
    expect(called).toBe(0);
    expect(await collect(stream.tokens())).toEqual([]);
    expect(called).toBe(1);
  });

  it('gives what is pushed, in order, before the end', async () => {
    let sink!: TokenSink<string>;
    const stream = streamOf<string>(
      fromCallback((given: TokenSink<string>) => void (sink = given)),
    );
    const reading = collect(stream.tokens());
    await settle();
    const { push, end } = sink;
    expect([push('a'), push('b')]).toEqual([true, true]);
    await settle();
    expect(push('c')).toBe(true);
    end();
    expect(push('d')).toBe(false);
    expect(await reading).toEqual(['a', 'b', 'c']);
  });

  it('tells a failure after what was pushed, and the first end only (H308)', async () => {
    const failure = new Error('broken');
    const stream = streamOf<string>(
      fromCallback(({ push, end, fail }: TokenSink<string>) => {
        push('a');
        fail(failure);
        fail(new Error('later'));
        end();
      }),
    );
    const seen: unknown[] = [];
    await expect(
      (async () => {
        for await (const token of stream.tokens()) seen.push(token);
      })(),
    ).rejects.toBe(failure);
    expect(seen).toEqual(['a']);
  });

  it('fails with what the function throws or rejects with, undefined included', async () => {
    for (const failure of [new Error('broken'), undefined]) {
      const thrown = streamOf(
        fromCallback(() => {
          throw failure;
        }),
      );
      await expect(collect(thrown.tokens())).rejects.toBe(failure);
      const rejected = streamOf(
        fromCallback(async () => {
          throw failure;
        }),
      );
      await expect(collect(rejected.tokens())).rejects.toBe(failure);
    }
  });

  it('waits for the clean-up where the stream is ended early, and reports of its failing', async () => {
    const { promise, reject } = Promise.withResolvers<void>();
    const stream = streamOf<string>(fromCallback(() => () => promise));
    stream.tokens().next().catch(ignore);
    await settle();
    stream.cancel();
    let finished = false;
    void stream.finished.then(() => (finished = true));
    await settle();
    expect(finished).toBe(false);
    reject(new Error('not closed'));
    await expect(stream.finished).resolves.toMatchObject({
      teardownError: new Error('not closed'),
    });
  });

  it('waits for the clean-up at its own end too, and holds the place, when all has been told', async () => {
    const clock = new ManualClock();
    const gate = new Semaphore(1);
    const { promise, reject } = Promise.withResolvers<void>();
    const source = fromCallback(({ push, end }: TokenSink<string>) => {
      push('a');
      end();
      return () => promise;
    });
    const stream = new TokenStreamer({ clock }).stream(source, { gate });
    expect(await collect(stream.tokens())).toEqual(['a']);
    expect(gate.active).toBe(1);
    reject(new Error('not closed'));
    await expect(stream.finished).resolves.toMatchObject({
      outcome: 'completed',
      abandoned: false,
      teardownError: new Error('not closed'),
    });
    expect(gate.active).toBe(0);
  });

  it('waits for the clean-up no longer than `teardownGraceMs`, whoever ended it', async () => {
    for (const ends of [true, false]) {
      const clock = new ManualClock();
      const places = new Semaphore(1);
      const gate = compose(places, new Semaphore(1), new Semaphore(1));
      const source = fromCallback(({ end }: TokenSink<string>) => {
        if (ends) end();
        return () => new Promise(() => {});
      });
      const stream = new TokenStreamer({ clock, teardownGraceMs: 10 }).stream(source, { gate });
      const reading = collect(stream);
      await settle();
      stream.cancel();
      await reading;
      const active = stream.finished.then(({ abandoned }) => [abandoned, places.active]);
      await clock.advance(9);
      expect(places.active).toBe(1);
      await clock.advance(1);
      expect(await active).toEqual([true, 0]);
    }
  });

  it('waits for a start that still runs, and for the clean-up that it brings', async () => {
    for (const ends of [true, false]) {
      const seen: string[] = [];
      const { promise, resolve } = Promise.withResolvers<void>();
      const stream = streamOf<string>(
        fromCallback(async ({ end }: TokenSink<string>) => {
          if (ends) end();
          await promise;
          return async () => {
            await settle();
            seen.push('cleaned');
            throw new Error('not closed');
          };
        }),
      );
      const reading = collect(stream);
      await settle();
      stream.cancel();
      await reading;
      void stream.finished.then(({ teardownError }) => seen.push(String(teardownError)));
      await settle();
      expect(seen).toEqual([]);
      resolve();
      await stream.finished;
      expect(seen).toEqual(['cleaned', 'Error: not closed']);
    }
  });

  it('is not told of what fails once it is stopped: it was asked to stop', async () => {
    const stream = streamOf<string>(
      fromCallback(({ signal }: TokenSink<string>) => {
        const { promise, reject } = Promise.withResolvers<void>();
        signal.addEventListener('abort', () => reject(signal.reason));
        return promise;
      }),
    );
    stream.tokens().next().catch(ignore);
    await settle();
    stream.cancel();
    await expect(stream.finished).resolves.toMatchObject({
      outcome: 'cancelled',
      teardownError: undefined,
    });
  });

  it('throws nothing of a clean-up at whoever pushes or ends', async () => {
    const failure = new Error('not closed');
    const ends: ((sink: TokenSink<string>) => unknown)[] = [
      ({ end }) => end(),
      ({ fail }) => fail(new Error('broken')),
      ({ push }) => push('one too many'),
    ];
    for (const end of ends) {
      for (const later of [false, true]) {
        let sink!: TokenSink<string>;
        const stream = streamOf<string>(
          fromCallback(
            (given: TokenSink<string>) => {
              sink = given;
              given.push('a');
              if (!later) end(given);
              return () => {
                throw failure;
              };
            },
            { maxBuffered: 1 },
          ),
        );
        const iterator = stream[Symbol.asyncIterator]();
        const told = [await iterator.next()];
        if (later) {
          sink.push('b');
          end(sink);
        }
        for await (const value of iterator) told.push({ value });
        expect(told.map(({ value }) => value?.type)).toContain('token');
        expect((await stream.finished).teardownError).toBe(failure);
      }
    }
  });

  it('cleans up once, however the stream ends', async () => {
    const ends: Record<string, (sink: TokenSink<string>, stream: TokenStream<string>) => unknown> =
      {
        end: ({ end }) => end(),
        fail: ({ fail }) => fail(new Error('broken')),
        cancel: (_, stream) => stream.cancel(),
      };
    for (const end of Object.values(ends)) {
      for (const later of [false, true]) {
        let cleaned = 0;
        let sink!: TokenSink<string>;
        const stream = streamOf<string>(
          fromCallback((given: TokenSink<string>) => {
            sink = given;
            const cleanUp = (): void => void cleaned++;
            return later ? settle().then(() => cleanUp) : cleanUp;
          }),
        );
        const reading = collect(stream);
        await Promise.resolve();
        end(sink, stream);
        await reading;
        await stream.finished;
        await settle();
        expect(cleaned).toBe(1);
        sink.end();
        expect(cleaned).toBe(1);
      }
    }
  });

  it('refuses what is pushed when the stream is over, and aborts its signal (H306, H332)', async () => {
    let sink!: TokenSink<string>;
    const stream = streamOf<string>(
      fromCallback((given: TokenSink<string>) => void (sink = given)),
    );
    const iterator = stream.tokens();
    const first = iterator.next();
    await settle();
    sink.push('a');
    await first;
    await iterator.return!();
    expect(sink.signal.aborted).toBe(true);
    expect(sink.push('b')).toBe(false);
  });

  it('lets who pushes wait until all is read, or the stream is over (H304, H305)', async () => {
    const seen: string[] = [];
    const stream = streamOf<number>(
      fromCallback(async (sink: TokenSink<number>) => {
        for (let i = 0; sink.push(i); i++) {
          await sink.ready;
          seen.push(`ready after ${i}`);
        }
      }),
    );
    const iterator = stream.tokens();
    await iterator.next();
    await settle();
    // 16 are read ahead, and one waits in the source.
    expect(seen).toHaveLength(17);
    await iterator.next();
    await settle();
    expect(seen).toHaveLength(18);
    await iterator.return!();
    await settle();
    expect(seen).toHaveLength(19);
  });

  it('fails rather than to hold more than `maxBuffered` (H303)', async () => {
    const pushed: boolean[] = [];
    const source = fromCallback(
      ({ push }: TokenSink<number>) => {
        for (let i = 0; i < 5; i++) pushed.push(push(i));
      },
      { maxBuffered: 3 },
    );
    const stream = streamOf<number>(source);
    const events = await collect(stream);
    expect(pushed).toEqual([true, true, true, false, false]);
    expect(events.map(({ type }) => type)).toEqual(['start', 'token', 'token', 'token', 'error']);
    expect((await stream.finished).error).toBeInstanceOf(RangeError);
  });

  it('refuses bad options', () => {
    expect(() => fromCallback(1 as never)).toThrow(TypeError);
    expect(() => fromCallback(() => {}, { maxBuffered: 0 })).toThrow(RangeError);
    expect(() => fromCallback(() => {}, { max: 1 } as never)).toThrow(TypeError);
  });
});

describe('fromEmitter()', () => {
  it('gives the first argument of each event until the end, and leaves no listener', async () => {
    const emitter = new EventEmitter();
    const stream = streamOf<string>(fromEmitter(emitter));
    const reading = collect(stream.tokens());
    await settle();
    emitter.emit('data', 'a', 'extra');
    emitter.emit('data', 'b');
    emitter.emit('end');
    expect(await reading).toEqual(['a', 'b']);
    expect(emitter.eventNames()).toEqual([]);
  });

  it('fails with the first argument of the error event', async () => {
    const emitter = new EventEmitter();
    const stream = streamOf<string>(
      fromEmitter(emitter, { token: 'token', end: 'close', error: 'failed' }),
    );
    const reading = collect(stream.tokens());
    await settle();
    emitter.emit('token', 'a');
    const failure = new Error('broken');
    emitter.emit('failed', failure);
    await expect(reading).rejects.toBe(failure);
    expect(emitter.eventNames()).toEqual([]);
  });

  it('leaves no listener when the stream is left', async () => {
    const emitter = new EventEmitter();
    const stream = streamOf<string>(fromEmitter(emitter));
    const iterator = stream.tokens();
    void iterator.next();
    await settle();
    expect(emitter.eventNames()).toHaveLength(3);
    await iterator.return!();
    expect(emitter.eventNames()).toEqual([]);
  });

  it('hears the error of what was aborted, which would end the process otherwise', async () => {
    const emitter = new EventEmitter();
    // As a WebSocket does that is terminated before it is open.
    const emitted = new Promise<boolean>((resolve) => {
      const source = fromEmitter<string>(({ signal }) => {
        signal.addEventListener('abort', () => {
          process.nextTick(() => resolve(emitter.emit('error', new Error('never opened'))));
        });
        return emitter;
      });
      const stream = streamOf<string>(source);
      stream.tokens().next().catch(ignore);
      void settle().then(() => stream.cancel());
    });
    expect(await emitted).toBe(true);
    await tick();
    await tick();
    expect(emitter.eventNames()).toEqual([]);
  });

  it('hears the error of what goes on after it was too fast, until that is aborted', async () => {
    const emitter = new EventEmitter();
    let signal!: AbortSignal;
    const source = fromEmitter<string>(
      (context) => {
        ({ signal } = context);
        signal.addEventListener('abort', () => emitter.emit('error', new Error('aborted')));
        return emitter;
      },
      { maxBuffered: 1 },
    );
    const stream = streamOf<string>(source);
    const iterator = stream.tokens();
    const first = iterator.next();
    await settle();
    for (const token of ['a', 'b', 'c']) emitter.emit('data', token);
    expect(await first).toEqual({ done: false, value: 'a' });
    await settle();
    expect(emitter.emit('error', new Error('reset'))).toBe(true);
    expect(await iterator.next()).toEqual({ done: false, value: 'b' });
    await expect(iterator.next()).rejects.toThrow(RangeError);
    await stream.finished;
    expect(signal.aborted).toBe(true);
    expect(emitter.eventNames()).toEqual([]);
  });

  it('refuses what is no emitter, at once or when it is asked for', async () => {
    expect(() => fromEmitter(new EventTarget() as never)).toThrow(
      new TypeError('Expected `emitter` to have a method `on`.'),
    );
    const stream = streamOf(fromEmitter((() => ({ on() {} })) as never));
    await expect(collect(stream.tokens())).rejects.toThrow(
      new TypeError('Expected `emitter()` to have a method `off`.'),
    );
  });

  it('asks a function for the emitter when the stream starts', async () => {
    let signal: AbortSignal | undefined;
    const stream = streamOf<string>(
      fromEmitter((context) => {
        ({ signal } = context);
        const emitter = new EventEmitter();
        queueMicrotask(() => {
          emitter.emit('data', 'a');
          emitter.emit('end');
        });
        return emitter;
      }),
    );
    expect(signal).toBe(undefined);
    expect(await collect(stream.tokens())).toEqual(['a']);
    expect(signal!.aborted).toBe(false);
  });
});
