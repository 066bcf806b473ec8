import { createParser } from 'eventsource-parser';
import { describe, expect, it } from 'vitest';

import type { Gate } from '../../src/gate.ts';
import { encodeEvents, type EncodeOptions, type Format, toResponse } from '../../src/http/index.ts';
import { ManualClock, settle } from '../../src/testing.ts';
import { TokenStreamer } from '../../src/token-streamer.ts';

async function encode<T>(tokens: readonly T[], options: EncodeOptions<T>): Promise<string> {
  const streamer = new TokenStreamer({ clock: new ManualClock() });
  let all = '';
  for await (const chunk of encodeEvents(streamer.stream(tokens), options)) all += chunk;
  return all;
}

/** A line in which one waits as the third until it is let in. */
function line(estimatedWaitMs: number | undefined): { gate: Gate; letIn: () => void } {
  const admitted = Promise.withResolvers<void>();
  const positions = async function* (): AsyncGenerator<number> {
    yield 3;
    await admitted.promise;
  };
  const gate = {
    async run(task: (context: object) => unknown, options: { onTicket: (ticket: object) => void }) {
      options.onTicket({ position: 3, estimatedWaitMs, positions });
      await admitted.promise;
      return task({ signal: new AbortController().signal });
    },
  };
  return { gate: gate as never, letIn: admitted.resolve };
}

/** All that a reader is told of two tokens, or of one and a failure, after a wait in line. */
async function recordsOf(
  format: Format,
  end: 'done' | 'failed',
  estimate?: number,
): Promise<string> {
  const source = function* (): Generator<string> {
    yield 'Hel';
    if (end === 'failed') throw new Error('secret');
    yield 'lo';
  };
  const { gate, letIn } = line(estimate);
  const stream = new TokenStreamer({ clock: new ManualClock() }).stream(source, { gate });
  let all = '';
  void settle().then(letIn);
  for await (const chunk of encodeEvents(stream, { format, id: 'x', model: 'm' })) all += chunk;
  return all.replaceAll(/"created":\d+/gu, '"created":7');
}

/** The text of a chunk that an `openai` client reads. */
function contentOf(data: string): string {
  const { choices } = JSON.parse(data) as { choices: [{ delta: { content?: string } }] };
  return choices[0].delta.content ?? '';
}

const never = (): AsyncIterable<string> => ({
  [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }),
});

describe('the text of tokens', () => {
  it('is what `toText` makes of them, in every format', async () => {
    const tokens = [{ t: 'a' }, { t: 'b' }];
    const toText = ({ t }: { t: string }): string => t.toUpperCase();
    expect(await encode(tokens, { format: 'text', toText })).toBe('AB');
    expect(await encode(tokens, { format: 'events', toText })).toContain('{"index":1,"value":"B"}');
    expect(await encode(tokens, { format: 'ndjson', toText })).toContain('"index":1,"value":"B"}');
    expect(await encode(tokens, { format: 'openai', toText })).toContain('"content":"B"');
    expect(await encode(tokens, { format: 'ai-ui', toText })).toContain('"delta":"B"');
  });

  it('comes through whole, however long, and is told where it is empty (H327)', async () => {
    const long = `${'x'.repeat(2 ** 22)}\uD83D`;
    const tokens = ['', long, '\uDE00', ''];
    const whole = tokens.join('');
    expect(await encode(tokens, { format: 'text' })).toBe(whole);
    const lines = (await encode(tokens, { format: 'ndjson' })).trim().split('\n');
    const values = lines.map((record) => (JSON.parse(record) as { value?: string }).value);
    expect(values.filter((value) => value !== undefined)).toEqual(tokens);
    const pieces: string[] = [];
    const parser = createParser({
      onEvent({ data }) {
        if (data !== '[DONE]') pieces.push(contentOf(data));
      },
    });
    parser.feed(await encode(tokens, { format: 'openai' }));
    expect(pieces.join('')).toBe(whole);
  });

  it('ends the stream where JSON can hold no token', async () => {
    for (const token of [undefined, () => {}, Symbol('x')]) {
      const type = typeof token;
      const stream = new TokenStreamer().stream<unknown>(['a', token, 'b']);
      const chunks = await Array.fromAsync(encodeEvents(stream, { format: 'ndjson' }));
      expect(chunks.join('')).toMatch(/"value":"a"\}\n\{"type":"error",.*\}\n$/u);
      expect(await stream.finished).toMatchObject({
        outcome: 'failed',
        error: new TypeError(`Expected a token that JSON can hold, got a value of type ${type}.`),
      });
    }
  });

  it('ends the stream where there is none', async () => {
    await expect(encode([{}], { format: 'text' })).rejects.toThrow(
      new TypeError('Expected a token that is text, got a value of type object: give `toText`.'),
    );
    expect(await encode(['a', 7], { format: 'openai' })).toMatch(
      /"content":"a".*\n\ndata: \{"error":\{[^\n]*"ERR_STREAM_FAILED"[^\n]*\}\}\n\n$/u,
    );
    expect(await encode([{}], { format: 'ai-ui' })).toMatch(/"type":"error"[^\n]*\n\n$/u);
  });

  it('is marked where it never became whole', async () => {
    const half = new TextEncoder().encode('😀').slice(0, 2);
    expect(await encode(['a', '\uD83D'], { format: 'text' })).toBe('a\uFFFD');
    expect(await encode([half, 'b'], { format: 'text' })).toBe('\uFFFDb');
    expect(await encode([half], { format: 'text' })).toBe('\uFFFD');
    expect(await encode(['\uD83D'], { format: 'openai' })).toContain('"content":"\uFFFD"');
  });
});

describe('the records of each format', () => {
  it('events: by name, each with one line of JSON', async () => {
    expect(await recordsOf('events', 'done', 1200.5)).toBe(
      'event: position\ndata: {"position":3,"estimatedWaitMs":1201}\n\n' +
        'event: start\ndata: {}\n\n' +
        'event: token\ndata: {"index":0,"value":"Hel"}\n\n' +
        'event: token\ndata: {"index":1,"value":"lo"}\n\n' +
        'event: done\ndata: {"tokens":2,"elapsedMs":0}\n\n',
    );
    expect(await recordsOf('events', 'failed')).toBe(
      'event: position\ndata: {"position":3}\n\n' +
        'event: start\ndata: {}\n\n' +
        'event: token\ndata: {"index":0,"value":"Hel"}\n\n' +
        'event: error\ndata: {"code":"ERR_STREAM_FAILED","message":"The stream failed."}\n\n',
    );
  });

  it('events: tokens and the end have ids where the client may come again', async () => {
    const streamer = new TokenStreamer({ clock: new ManualClock() });
    const recordsAfter = async (source: () => Iterable<string>, id?: string): Promise<string> => {
      let all = '';
      const replay = streamer.stream(source).replay();
      for await (const chunk of encodeEvents(replay.from(id))) all += chunk;
      return all;
    };
    const tokens =
      'event: start\ndata: {}\n\n' +
      'id: 0\nevent: token\ndata: {"index":0,"value":"a"}\n\n' +
      'id: 1\nevent: token\ndata: {"index":1,"value":"b"}\n\n';
    expect(await recordsAfter(() => ['a', 'b'])).toBe(
      `${tokens}id: end\nevent: done\ndata: {"tokens":2,"elapsedMs":0}\n\n`,
    );
    const failing = function* (): Generator<string> {
      yield* ['a', 'b'];
      throw new Error('secret');
    };
    expect(await recordsAfter(failing)).toBe(
      `${tokens}id: end\nevent: error\n` +
        'data: {"code":"ERR_STREAM_FAILED","message":"The stream failed."}\n\n',
    );
  });

  it('ndjson: each on a line of its own', async () => {
    expect(await recordsOf('ndjson', 'done', 1200.5)).toBe(
      '{"type":"position","position":3,"estimatedWaitMs":1201}\n' +
        '{"type":"start"}\n' +
        '{"type":"token","index":0,"value":"Hel"}\n' +
        '{"type":"token","index":1,"value":"lo"}\n' +
        '{"type":"done","tokens":2,"elapsedMs":0}\n',
    );
    expect(await recordsOf('ndjson', 'failed')).toBe(
      '{"type":"position","position":3}\n' +
        '{"type":"start"}\n' +
        '{"type":"token","index":0,"value":"Hel"}\n' +
        '{"type":"error","code":"ERR_STREAM_FAILED","message":"The stream failed."}\n',
    );
  });

  it('text: the tokens alone', async () => {
    expect(await recordsOf('text', 'done', 1200.5)).toBe('Hello');
    await expect(recordsOf('text', 'failed')).rejects.toThrow(new Error('secret'));
  });

  it('text: a failure leaves what it has cut in two untold', async () => {
    const source = function* (): Generator<string> {
      yield* ['a', 'b\uD83D'];
      throw new Error('secret');
    };
    const chunks = encodeEvents(new TokenStreamer().stream(source()), { format: 'text' });
    expect(await chunks.next()).toEqual({ done: false, value: 'a' });
    expect(await chunks.next()).toEqual({ done: false, value: 'b' });
    await expect(chunks.next()).rejects.toThrow(new Error('secret'));
  });

  it('openai: role first, finish_reason last, then [DONE]; the place is a comment', async () => {
    const chunk = (delta: string, reason = 'null'): string =>
      'data: {"id":"x","object":"chat.completion.chunk","created":7,"model":"m",' +
      `"choices":[{"index":0,"delta":${delta},"finish_reason":${reason}}]}\n\n`;
    expect(await recordsOf('openai', 'done', 1200.5)).toBe(
      ': queue position=3 estimatedWaitMs=1201\n\n' +
        chunk('{"role":"assistant","content":""}') +
        chunk('{"content":"Hel"}') +
        chunk('{"content":"lo"}') +
        chunk('{}', '"stop"') +
        'data: [DONE]\n\n',
    );
    expect(await recordsOf('openai', 'failed')).toBe(
      ': queue position=3\n\n' +
        chunk('{"role":"assistant","content":""}') +
        chunk('{"content":"Hel"}') +
        'data: {"error":{"message":"The stream failed.","type":"server_error","param":null,' +
        '"code":"ERR_STREAM_FAILED"}}\n\n',
    );
  });

  it('ai-ui: start, the text, finish, then [DONE]; the place is transient', async () => {
    expect(await recordsOf('ai-ui', 'done', 1200.5)).toBe(
      'data: {"type":"data-queue","id":"queue","data":{"position":3,"estimatedWaitMs":1201},' +
        '"transient":true}\n\n' +
        'data: {"type":"start","messageId":"x"}\n\n' +
        'data: {"type":"text-start","id":"text"}\n\n' +
        'data: {"type":"text-delta","id":"text","delta":"Hel"}\n\n' +
        'data: {"type":"text-delta","id":"text","delta":"lo"}\n\n' +
        'data: {"type":"text-end","id":"text"}\n\n' +
        'data: {"type":"finish","finishReason":"stop"}\n\n' +
        'data: [DONE]\n\n',
    );
    expect(await recordsOf('ai-ui', 'failed')).toBe(
      'data: {"type":"data-queue","id":"queue","data":{"position":3},"transient":true}\n\n' +
        'data: {"type":"start","messageId":"x"}\n\n' +
        'data: {"type":"text-start","id":"text"}\n\n' +
        'data: {"type":"text-delta","id":"text","delta":"Hel"}\n\n' +
        'data: {"type":"error","errorText":"The stream failed."}\n\n',
    );
  });

  it('say that the stream lives while nothing comes, in the formats that can', async () => {
    const clock = new ManualClock();
    const streamer = new TokenStreamer({ clock, heartbeatMs: 100 });
    const beats: Record<string, string> = {};
    for (const format of ['events', 'openai', 'ai-ui', 'ndjson', 'text'] as const) {
      const stream = streamer.stream(never);
      const chunks = encodeEvents(stream, { format });
      if (format !== 'text') await chunks.next();
      beats[format] = 'nothing yet';
      chunks.next().then(
        ({ value }) => (beats[format] = String(value)),
        () => {},
      );
      await clock.advance(100);
    }
    expect(beats).toEqual({
      events: ':\n\n',
      openai: ':\n\n',
      'ai-ui': ':\n\n',
      ndjson: '{"type":"heartbeat"}\n',
      text: 'nothing yet',
    });
  });

  it('leave an empty token out where an empty text says nothing', async () => {
    expect(await encode(['', ''], { format: 'ai-ui' })).not.toContain('text-delta');
    expect((await encode(['', ''], { format: 'openai' })).match(/"content"/gu)).toHaveLength(1);
  });

  it('openai: made in this second, in s since the epoch', async () => {
    const before = Math.floor(Date.now() / 1000);
    const [, created] = /"created":(\d+),/u.exec(await encode([], { format: 'openai' }))!;
    expect(Number(created)).toBeGreaterThanOrEqual(before - 1);
    expect(Number(created)).toBeLessThanOrEqual(Date.now() / 1000 + 1);
  });

  it('have an id of their own where none is given, and the model `default`', async () => {
    const idOf = async (format: Format, form: RegExp): Promise<string> =>
      form.exec(await encode(['a'], { format }))![1]!;
    for (const [format, form] of [
      ['openai', /^data: \{"id":"(chatcmpl-[\da-f-]{36})",.*"model":"default",/u],
      ['ai-ui', /^data: \{"type":"start","messageId":"([\da-f-]{36})"\}/u],
    ] as const) {
      expect(await idOf(format, form)).not.toBe(await idOf(format, form));
    }
  });
});

describe('the headers of each format', () => {
  const COMMON = { 'cache-control': 'no-cache, no-transform', 'x-accel-buffering': 'no' };

  it.each<[Format, Record<string, string>]>([
    ['events', { 'content-type': 'text/event-stream; charset=utf-8' }],
    ['ndjson', { 'content-type': 'application/x-ndjson' }],
    ['text', { 'content-type': 'text/plain; charset=utf-8', 'x-content-type-options': 'nosniff' }],
    ['openai', { 'content-type': 'text/event-stream; charset=utf-8' }],
    [
      'ai-ui',
      {
        'content-type': 'text/event-stream; charset=utf-8',
        'x-vercel-ai-ui-message-stream': 'v1',
      },
    ],
  ])('%s: %o', async (format, headers) => {
    const response = await toResponse(new TokenStreamer().stream(['a']), { format });
    expect(Object.fromEntries(response.headers)).toEqual({ ...COMMON, ...headers });
    await response.body!.cancel();
  });
});
