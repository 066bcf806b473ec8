import { ManualClock, settle } from 'sluice/testing';
import { TokenStreamer } from 'sluice/token-streamer';
import { describe, expect, it } from 'vitest';

import { streamHandle } from '../src/internal/stream-handle.ts';

const TIME_LIMITS = [
  'heartbeatMs',
  'firstTokenTimeoutMs',
  'idleTimeoutMs',
  'timeoutMs',
  'stallMs',
] as const;

describe('TokenStreamer', () => {
  it.each(TIME_LIMITS)('names a bad %s', (name) => {
    for (const bad of [0, -1, Number.NaN, '5', null]) {
      expect(() => new TokenStreamer({ [name]: bad as never })).toThrow(`\`${name}\``);
    }
    expect(() => new TokenStreamer({ [name]: Infinity })).not.toThrow();
  });

  it('names every other bad option', () => {
    for (const [name, bad] of [
      ['teardownGraceMs', -1],
      ['highWaterMark', 0],
      ['exposeErrors', 1],
      ['clock', {}],
    ] as const) {
      expect(() => new TokenStreamer({ [name]: bad as never })).toThrow(`\`${name}\``);
    }
    expect(() => new TokenStreamer({ timoutMs: 1 } as never)).toThrow(
      /"timoutMs" of TokenStreamer;/,
    );
  });

  it('knows the options of a stream, and leaves those of a foreign gate to it', async () => {
    const streamer = new TokenStreamer();
    expect(() => streamer.stream([], { weight: 1 } as never)).toThrow(
      new TypeError('Unknown option "weight" of stream; it knows `gate`, `signal`.'),
    );
    const seen: unknown[] = [];
    const gate = {
      run: <T>(task: (context: { signal: AbortSignal }) => T, options: unknown): T => {
        seen.push(options);
        return task({ signal: new AbortController().signal });
      },
    };
    const tokens: string[] = [];
    const options = { gate, weight: 1 } as never;
    for await (const token of streamer.stream(['a'], options).tokens()) tokens.push(token);
    expect([tokens, seen]).toMatchObject([['a'], [{ weight: 1 }]]);
  });

  it('has one reader, be it an encoder that takes the handle', async () => {
    const stream = new TokenStreamer().stream(['a']);
    const handle = stream[streamHandle]();
    expect(() => stream.tokens()).toThrow(
      new TypeError('The stream is being read already: it has one reader.'),
    );
    expect(() => stream[streamHandle]()).toThrow(TypeError);
    expect([handle.hasIds, handle.ending]).toEqual([false, undefined]);
    expect(new TokenStreamer().stream([]).replay().from()[streamHandle]().hasIds).toBe(true);
  });

  it('hands back what a reader is returned with', async () => {
    const reader = new TokenStreamer().stream(['a'])[Symbol.asyncIterator]();
    expect(await reader.return!('enough')).toEqual({ done: true, value: 'enough' });
    expect(await reader.next()).toEqual({ done: true, value: undefined });
  });

  it('names what is wrong with a stream, a branch or a replay', () => {
    const streamer = new TokenStreamer();
    expect(() => streamer.stream([], 5 as never)).toThrow(/`options of stream`/);
    expect(() => streamer.stream([], { gate: {} as never })).toThrow(
      new TypeError('Expected `gate` to have a method `run`.'),
    );
    expect(() => streamer.stream([], { gate: null as never })).toThrow(
      new TypeError('Expected `gate` to have a method `run`.'),
    );
    expect(() => streamer.stream([]).tee(0)).toThrow(/`count`/);
    expect(() => streamer.stream([]).replay({ max: 1 } as never)).toThrow(/"max" of replay;/);
    expect(() => streamer.stream([]).replay({ maxTokens: 0 })).toThrow(/`maxTokens`/);
    expect(() => streamer.stream([]).replay({ graceMs: 0 })).toThrow(/`graceMs`/);
    expect(streamer.stats()).toMatchObject({ tokens: 0, abandoned: 0 });
  });

  it('counts its streams by how they end', async () => {
    const clock = new ManualClock();
    const streamer = new TokenStreamer({ clock, timeoutMs: 50, teardownGraceMs: 5 });
    const later = async function* (): AsyncGenerator<string> {
      await new Promise<void>((resolve) => clock.setTimeout(resolve, 10));
      yield 'a';
      yield 'b';
    };
    const failing = async function* (): AsyncGenerator<string> {
      yield 'a';
      throw new Error('broken');
    };
    const stuck = (): AsyncIterable<string> => ({
      [Symbol.asyncIterator]: () => ({
        next: () => new Promise(() => {}),
        return: () => new Promise(() => {}),
      }),
    });
    const drain = async (stream: AsyncIterable<unknown>): Promise<void> => {
      for await (const event of stream) void event;
    };
    const cancelled = streamer.stream(later);
    const all = [
      drain(streamer.stream(later)),
      drain(streamer.stream(failing)),
      drain(streamer.stream(stuck)),
    ];
    cancelled.cancel();
    expect(streamer.stats().active).toBe(4);
    await clock.advance(60);
    await Promise.all(all);
    await settle();
    expect(streamer.stats()).toEqual({
      active: 0,
      completed: 1,
      failed: 1,
      cancelled: 1,
      disconnected: 0,
      timeout: 1,
      abandoned: 1,
      tokens: 3,
      waitMs: { count: 3, mean: 0, max: 0 },
      timeToFirstTokenMs: { count: 2, mean: 5, max: 10 },
    });
  });
});
