import { describe, expect, it } from 'vitest';

import { encodeEvents } from '../../src/http/index.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { TokenStreamer } from '../../src/token-streamer.ts';

const never = (): AsyncIterable<string> => ({
  [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
});

async function all(chunks: AsyncIterable<string>): Promise<string[]> {
  const received: string[] = [];
  for await (const chunk of chunks) received.push(chunk);
  return received;
}

function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error('Nothing was thrown.');
}

describe('encodeEvents()', () => {
  it.each<[object, RegExp]>([
    [{ format: 'sse' }, /^TypeError: Expected `format` to be one of "events", .*, got "sse"\.$/u],
    [{ toText: 1 }, /^TypeError: Expected `toText` to be a function, got 1\.$/u],
    [{ id: 1 }, /^TypeError: Expected `id` to be a .*string.*, got 1\.$/u],
    [{ model: 1 }, /^TypeError: Expected `model` to be a .*string.*, got 1\.$/u],
    [
      { status: 200 },
      /^TypeError: Unknown option "status" of encodeEvents; it knows `format`, `toText`, `id`, `model`\.$/u,
    ],
  ])('refuses %o, at once', (options, message) => {
    const stream = new TokenStreamer().stream(['a']);
    const refusal = thrownBy(() => encodeEvents(stream, options as never));
    expect(String(refusal)).toMatch(message);
  });

  it('refuses a stream that is read already', () => {
    const stream = new TokenStreamer().stream(['a']);
    encodeEvents(stream);
    expect(() => encodeEvents(stream)).toThrow(
      new TypeError('The stream is being read already: it has one reader.'),
    );
  });

  it.each([['a'], [['a']], [undefined], [null]])('refuses what is no stream: %o', (tokens) => {
    expect(() => encodeEvents(tokens as never)).toThrow(
      new TypeError('Expected `stream` to be a TokenStream.'),
    );
  });

  it('gives chunks of whole records', async () => {
    const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b', 'c']);
    const chunks = await all(encodeEvents(stream));
    for (const chunk of chunks) expect(chunk.endsWith('\n\n')).toBe(true);
    expect(chunks.join('').match(/^event: \w+$/gmu)).toEqual([
      'event: start',
      'event: token',
      'event: token',
      'event: token',
      'event: done',
    ]);
  });

  it('sends all that the source has at hand together, after the first token, up to 16 kB (H326)', async () => {
    async function* source(): AsyncGenerator<string> {
      for (let i = 0; i < 900; i++) yield `token ${i}`;
    }
    // The buffer holds four of them: it fills again and again within one turn.
    const stream = new TokenStreamer({ highWaterMark: 4 }).stream(source());
    const chunks = await all(encodeEvents(stream));
    const tokens = chunks.map((chunk) => chunk.match(/^event: token$/gmu)?.length ?? 0);
    expect(tokens.reduce((sum, count) => sum + count)).toBe(900);
    expect(tokens.filter((count) => count > 0).length).toBeLessThan(8);
    expect(Math.max(...chunks.map(({ length }) => length))).toBeLessThan(17 * 1024);
  });

  it('fills a chunk up to 16 kB and no further', async () => {
    const kilobytes16 = 'x'.repeat(16 * 1024);
    const stream = new TokenStreamer().stream(['a', 'b', kilobytes16, 'c', kilobytes16, 'd']);
    const chunks = await all(encodeEvents(stream, { format: 'text' }));
    expect(chunks).toEqual(['a', `b${kilobytes16}`, `c${kilobytes16}`, 'd']);
    const whole = new TokenStreamer().stream(['a', kilobytes16, 'b']);
    expect(await all(encodeEvents(whole, { format: 'text' }))).toEqual(['a', kilobytes16, 'b']);
  });

  it('ends where the last chunk is a full one', async () => {
    const source = ['a', 'x'.repeat(16 * 1024)];
    const chunks = await all(encodeEvents(new TokenStreamer().stream(source)));
    expect(
      chunks
        .join('')
        .match(/^event: \w+$/gmu)!
        .at(-1),
    ).toBe('event: done');
  });

  it('gives nothing to a client that has seen all of it', async () => {
    const replay = new TokenStreamer({ clock: new ManualClock() }).stream(['a']).replay();
    await all(encodeEvents(replay.from(undefined)));
    expect(await all(encodeEvents(replay.from('end')))).toEqual([]);
  });

  it('lets the event loop come round between chunks, however fast the source is', async () => {
    async function* source(): AsyncGenerator<string> {
      for (;;) yield 'token';
    }
    let turns = 0;
    const count = (): void => void (turns++, (immediate = setImmediate(count)));
    let immediate = setImmediate(count);
    let chunks = 0;
    for await (const _ of encodeEvents(new TokenStreamer().stream(source()))) {
      if (++chunks === 50) break;
    }
    clearImmediate(immediate);
    expect(turns).toBeGreaterThan(40);
  });

  it('tells a refusal as an error record, or throws it where the format has none', async () => {
    const gate = new Semaphore({ capacity: 1, maxWaiting: 0 });
    gate.tryAcquire();
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    const [only, ...none] = await all(encodeEvents(streamer.stream(['a'], { gate })));
    expect(only).toMatch(/^event: error\ndata: \{"code":"ERR_QUEUE_FULL"/u);
    expect(none).toEqual([]);
    const text = encodeEvents(streamer.stream(['a'], { gate }), { format: 'text' });
    await expect(text.next()).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' });
    expect(await text.next()).toEqual({ done: true, value: undefined });
  });

  it('ends the stream when its reader leaves, and answers a next() that is pending', async () => {
    const clock = new ManualClock();
    const gate = new Semaphore({ capacity: 1, clock });
    const stream = new TokenStreamer({ clock }).stream(never, { gate });
    const chunks = encodeEvents(stream);
    await chunks.next();
    const pending = [chunks.next(), chunks.next()];
    await settle();
    expect(await chunks.return!()).toEqual({ done: true, value: undefined });
    expect(await Promise.all(pending)).toEqual([
      { done: true, value: undefined },
      { done: true, value: undefined },
    ]);
    await clock.advance(1000);
    expect(gate.active).toBe(0);
    expect(await stream.finished).toMatchObject({
      outcome: 'cancelled',
      error: { name: 'AbortError', message: 'The stream is no longer read.' },
    });
    await expect(chunks.throw!(new Error('mine'))).rejects.toThrow('mine');
  });

  it('ends the stream when it is disposed of', async () => {
    const stream = new TokenStreamer({ clock: new ManualClock() }).stream(['a', 'b']);
    const chunks = encodeEvents(stream);
    await chunks.next();
    await (chunks as unknown as AsyncDisposable)[Symbol.asyncDispose]();
    expect(await chunks.next()).toEqual({ done: true, value: undefined });
    expect(await stream.finished).toMatchObject({ outcome: 'cancelled' });
  });

  it('does not keep the event loop from everything else (T-14)', async () => {
    const forever = function* (): Generator<string> {
      for (;;) yield 'x';
    };
    const stream = new TokenStreamer().stream(forever());
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    for await (const chunk of encodeEvents(stream)) if (chunk === '' || ticks === 3) break;
    clearInterval(timer);
    expect((await stream.finished).outcome).toBe('cancelled');
  });
});
