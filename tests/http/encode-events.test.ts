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

describe('encodeEvents()', () => {
  it('refuses bad options and a stream that is read already, at once', () => {
    const stream = new TokenStreamer().stream(['a']);
    for (const bad of [
      { format: 'sse' },
      { toText: 1 },
      { id: 1 },
      { model: 1 },
      { status: 200 },
    ]) {
      expect(() => encodeEvents(stream, bad as never)).toThrow(TypeError);
    }
    encodeEvents(stream);
    expect(() => encodeEvents(stream)).toThrow(TypeError);
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

  it('gives heartbeats while nothing comes, in the formats that have them', async () => {
    const clock = new ManualClock();
    const streamer = new TokenStreamer({ clock, heartbeatMs: 100 });
    const beats: Record<string, string | undefined> = {};
    for (const format of ['events', 'openai', 'ai-ui', 'ndjson', 'text'] as const) {
      const stream = streamer.stream(never);
      const chunks = encodeEvents(stream, { format });
      if (format !== 'text') await chunks.next();
      let beat: string | undefined;
      chunks.next().then(
        ({ value }) => (beat = value as string | undefined),
        () => {},
      );
      await clock.advance(100);
      beats[format] = beat;
      stream.cancel();
    }
    expect(beats).toEqual({
      events: ':\n\n',
      openai: ':\n\n',
      'ai-ui': ':\n\n',
      ndjson: '{"type":"heartbeat"}\n',
      text: undefined,
    });
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
