import { describe, expect, it } from 'vitest';

import { AdmissionQueue } from '../../src/admission-queue.ts';
import { toResponse } from '../../src/http/index.ts';
import { Semaphore } from '../../src/semaphore.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { TokenStreamer } from '../../src/token-streamer.ts';
import { catchUncaught } from '../support/uncaught.ts';

const never = (): AsyncIterable<string> => ({
  [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
});

describe('toResponse()', () => {
  it('is a Web response with the headers of the format and the records in its body', async () => {
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    const response = await toResponse(streamer.stream(['a']), {
      status: 203,
      headers: { 'x-request-id': '7' },
    });
    expect(response.status).toBe(203);
    expect(Object.fromEntries(response.headers)).toEqual({
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      'x-accel-buffering': 'no',
      'x-request-id': '7',
    });
    expect(await response.text()).toBe(
      'event: start\ndata: {}\n\n' +
        'event: token\ndata: {"index":0,"value":"a"}\n\n' +
        'event: done\ndata: {"tokens":1,"elapsedMs":0}\n\n',
    );
  });

  it('waits for the verdict: a place in line is a response, a refusal one of its own', async () => {
    const queue = new AdmissionQueue({ concurrency: 1, maxWaiting: 1 });
    void queue.run(() => new Promise(() => {}));
    const streamer = new TokenStreamer();
    const waiting = await toResponse(streamer.stream(['a'], { gate: queue }));
    expect(waiting.status).toBe(200);
    const refused = await toResponse(streamer.stream(['a'], { gate: queue }));
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toMatch(/^\d+$/u);
    expect(await refused.json()).toMatchObject({ error: { code: 'ERR_QUEUE_FULL' } });
    await waiting.body!.cancel();
    expect(queue.waiting).toBe(0);
  });

  it('has the headers of the options whatever the answer, and those that a refusal needs', async () => {
    const replay = new TokenStreamer({ clock: new ManualClock() }).stream(['a']).replay();
    const closed = new AdmissionQueue({ concurrency: 1 });
    closed.close();
    const headers: [string, string][] = [
      ['Access-Control-Allow-Origin', 'https://chat.test'],
      ['Content-Type', 'text/event-stream'],
      ['Cache-Control', 'public'],
      ['Set-Cookie', 'a=1'],
      ['Set-Cookie', 'b=2'],
    ];
    const answers = [];
    const streams = [
      () => replay.from(),
      () => replay.from('end'),
      () => new TokenStreamer().stream(['a'], { gate: closed }),
    ];
    for (const stream of streams) {
      const answer = await toResponse(stream(), { headers });
      await answer.text();
      answers.push([answer.status, answer.headers.get('cache-control')]);
      expect(answer.headers.get('access-control-allow-origin')).toBe('https://chat.test');
      expect(answer.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
      expect(answer.headers.get('content-type')).toBe(
        answer.status === 503 ? 'application/json; charset=utf-8' : 'text/event-stream',
      );
    }
    expect(answers).toEqual([
      [200, 'public'],
      [204, 'public'],
      [503, 'no-store'],
    ]);
  });

  it('waits on where there is a ticket and no place to tell', async () => {
    const positions = async function* (): AsyncGenerator<number> {
      yield 0;
      yield 0;
    };
    const letIn = Promise.withResolvers<void>();
    const gate = {
      async run(
        task: (context: object) => unknown,
        options: { onTicket: (ticket: object) => void },
      ) {
        options.onTicket({ position: 0, positions });
        await letIn.promise;
        return task({ signal: new AbortController().signal });
      },
    };
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    const asked = toResponse(streamer.stream(['a'], { gate: gate as never }));
    await settle();
    letIn.resolve();
    const response = await asked;
    expect(response.status).toBe(200);
    expect(await response.text()).toMatch(/^event: start/u);
  });

  it('is 204 for a client that has seen all of it', async () => {
    const replay = new TokenStreamer({ clock: new ManualClock() }).stream(['a']).replay();
    await (await toResponse(replay.from(undefined))).text();
    const response = await toResponse(replay.from('end'));
    expect([response.status, response.body]).toEqual([204, null]);
  });

  it('is 503 for one that was cancelled before the verdict', async () => {
    const stream = new TokenStreamer().stream(['a'], { signal: AbortSignal.abort() });
    const response = await toResponse(stream);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ error: { code: 'ERR_STREAM_CANCELLED' } });
  });

  it('reads no further than the high-water mark while nobody reads the body (H320)', async () => {
    let pulled = 0;
    const source = function* (): Generator<number> {
      for (;;) yield pulled++;
    };
    const streamer = new TokenStreamer({ highWaterMark: 4 });
    const response = await toResponse(streamer.stream(source()));
    for (let i = 0; i < 10; i++) await settle();
    expect(pulled).toBeLessThanOrEqual(4);
    const reader = response.body!.getReader();
    await reader.read();
    await reader.read();
    for (let i = 0; i < 10; i++) await settle();
    expect(pulled).toBeLessThanOrEqual(8);
    await reader.cancel();
  });

  it('ends the stream when the body is cancelled, even while a read is pending (T-19, H320)', async () => {
    using uncaught = catchUncaught();
    const clock = new ManualClock();
    for (const then of ['yields', 'ends', 'throws'] as const) {
      const gate = new Semaphore({ capacity: 1, clock });
      let answer!: (how: typeof then) => void;
      const source = async function* (): AsyncGenerator<string> {
        const how = await new Promise<typeof then>((resolve) => (answer = resolve));
        if (how === 'throws') throw new Error('late');
        if (how === 'yields') yield 'late';
      };
      const stream = new TokenStreamer({ clock }).stream(source, { gate });
      const response = await toResponse(stream);
      const reader = response.body!.getReader();
      await reader.read();
      const pending = reader.read();
      await settle();
      await reader.cancel();
      expect(await pending).toEqual({ done: true, value: undefined });
      answer(then);
      expect(await stream.finished).toMatchObject({ outcome: 'disconnected' });
      await settle();
      expect(gate.active).toBe(0);
    }
    expect(uncaught).toMatchObject({ exceptions: [], rejections: [] });
  });

  it('breaks the body off where the format cannot tell an error', async () => {
    const failure = new Error('broken');
    const failing = function* (): Generator<string> {
      yield 'a';
      throw failure;
    };
    const response = await toResponse(new TokenStreamer().stream(failing()), { format: 'text' });
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    expect((await reader.read()).value).toBe('a');
    await expect(reader.read()).rejects.toBe(failure);
  });

  it('lets go of one whose body nobody reads for `stallMs`', async () => {
    const clock = new ManualClock();
    const gate = new Semaphore({ capacity: 1, clock });
    const streamer = new TokenStreamer({ clock, stallMs: 1000, highWaterMark: 1 });
    const stream = streamer.stream(() => ['a', 'b'], { gate });
    await toResponse(stream);
    await clock.advance(1000);
    expect(await stream.finished).toMatchObject({ outcome: 'timeout' });
    expect(gate.active).toBe(0);
    expect(clock.timers).toBe(0);
  });

  it('lets go of one that is stuck, after the grace', async () => {
    const clock = new ManualClock();
    const gate = new Semaphore({ capacity: 1, clock });
    const stream = new TokenStreamer({ clock }).stream(never, { gate });
    const response = await toResponse(stream);
    await response.body!.cancel();
    await clock.advance(1000);
    expect(gate.active).toBe(0);
  });

  it('rejects for bad options, what is no stream and a stream that is read already', async () => {
    const stream = new TokenStreamer().stream(['a']);
    await expect(toResponse(stream, { status: 700 })).rejects.toThrow(RangeError);
    for (const status of [204, 205, 304]) {
      await expect(toResponse(stream, { status })).rejects.toThrow(/`status`.*a body/u);
    }
    await expect(toResponse(stream, { format: 'x' as never })).rejects.toThrow(TypeError);
    await expect(toResponse(stream, { mode: 'x' } as never)).rejects.toThrow(
      /^Unknown option "mode" of toResponse; it knows .*, `status`, `headers`\.$/u,
    );
    await expect(toResponse(['a'] as never)).rejects.toThrow(
      new TypeError('Expected `stream` to be a TokenStream.'),
    );
    stream.tokens();
    await expect(toResponse(stream)).rejects.toThrow(TypeError);
  });
});
